// @ts-check

/** How far the methods hold: their table, the curves of one of them, and how alike they are. */

const MARKS = { "more faithful than chance": "more", "less faithful than chance": "less", "cannot tell": "open" };
const inWords = (name) => name.replaceAll("_", " ");
/** The measure that a verdict is about. */
const mainOf = (view) => view.trust?.measures[0];
const viewsNow = () => content.views.filter((view) => view.target === state.target);
const viewNow = () => content.views[state.view];
/** The token at which the model answers, if it is one of the text. @returns {number | null} */
const answersAt = () => content.targets[state.target].at;

/** The view of a target that is most faithful; the first one, if none was measured. @param {number} target */
function bestOf(target) {
  const of = content.views.filter((view) => view.target === target);
  const measured = of.filter((view) => typeof mainOf(view)?.advantage === "number");
  return content.views.indexOf(measured.sort(stronger)[0] ?? of[0]);
}

/** Orders views: those that surely beat chance first, then by how much they seem to. @param {any} a @param {any} b */
function stronger(a, b) {
  const sure = (view) => Number(view.trust?.verdict === "more faithful than chance");
  return sure(b) - sure(a) || (mainOf(b)?.advantage ?? -Infinity) - (mainOf(a)?.advantage ?? -Infinity) || 0;
}

/** @param {any} view */
const verdictOf = (view) => element("span", view.trust?.verdict ?? "not measured", `verdict ${MARKS[view.trust?.verdict] ?? "none"}`);

/** An advantage and its interval on a scale that has room for all. @param {any} measured @param {string} mark @param {[number, number]} ends */
function intervalOf(measured, mark, [low, high]) {
  const x = (value) => (4 + (182 * (value - low)) / (high - low || 1)).toFixed(1);
  const figure = drawn("svg", { class: `interval ${mark}`, viewBox: "0 0 190 16", "aria-hidden": "true" });
  figure.append(drawn("line", { class: "zero", x1: x(0), x2: x(0), y1: 1, y2: 15 }));
  if (measured.low !== null && measured.high !== null) figure.append(drawn("line", { class: "span", x1: x(measured.low), x2: x(measured.high), y1: 8, y2: 8 }));
  figure.append(drawn("circle", { class: "dot", cx: x(measured.advantage), cy: 8, r: 4 }));
  return figure;
}

/** @param {any} measured */
function advantageWords(measured) {
  const sign = (value) => `${value > 0 ? "+" : ""}${figures(value, 2)}`;
  const interval = measured.low === null || measured.high === null ? "" : ` (${sign(measured.low)} to ${sign(measured.high)})`;
  return `${sign(measured.advantage)}${interval}`;
}

/** How often chance is as good. @param {any} measured */
const chanceWords = (measured) => (typeof measured.p === "number" ? `${figures(100 * measured.p, 2)} %` : "–");

/** The names of all orders that some measures were compared with. @param {any[]} measures @returns {string[]} */
const baselinesOf = (measures) => [...new Set(measures.flatMap((measured) => measured.baselines.map(([name]) => name)))];

/** A table's head. @param {[string, string][]} names a name and a class each */
function headOf(names) {
  const head = element("thead");
  const row = element("tr");
  for (const [name, kind] of names) {
    const cell = element("th", name, kind);
    cell.scope = "col";
    row.append(cell);
  }
  head.append(row);
  return head;
}

function drawMethods() {
  const views = viewsNow();
  const measures = views.map(mainOf).filter((measured) => measured && measured.advantage !== null);
  const names = baselinesOf(measures);
  const all = measures.flatMap((measured) => [measured.low ?? measured.advantage, measured.high ?? measured.advantage, 0]);
  const ends = /** @type {[number, number]} */ ([Math.min(0, ...all), Math.max(0, ...all)]);
  const main = measures[0];
  const head = [["method", ""], ["verdict", ""]];
  if (main) head.push(["better than random by", ""], [`${main.unit}, with 95 % interval`, ""], ["chance does as well", "number"], [inWords(main.name), "number"], ...names.map((name) => [inWords(name), "number dim"]));
  const body = element("tbody");
  for (const view of [...views].sort(stronger)) {
    const index = content.views.indexOf(view);
    const row = element("tr", undefined, index === state.view ? "chosen" : "");
    const input = element("input");
    Object.assign(input, { type: "radio", name: "view", value: String(index), checked: index === state.view });
    const label = element("label");
    label.append(input, view.name);
    const cells = [rowHeading(), element("td")];
    cells[0].append(label);
    cells[1].append(verdictOf(view));
    const measured = mainOf(view);
    if (measured && measured.advantage !== null) {
      const figure = element("td");
      figure.append(intervalOf(measured, MARKS[view.trust.verdict], ends));
      cells.push(figure, element("td", advantageWords(measured)), element("td", chanceWords(measured), "number"), element("td", figures(measured.value), "number"));
      const baselines = new Map(measured.baselines);
      for (const name of names) cells.push(element("td", typeof baselines.get(name) === "number" ? figures(baselines.get(name)) : "–", "number dim"));
    } else if (main) {
      cells.push(...Array.from({ length: 4 + names.length }, () => element("td")));
    }
    row.append(...cells);
    row.addEventListener("click", (event) => {
      if (event.target !== input && !label.contains(event.target)) change({ view: index });
    });
    body.append(row);
  }
  const table = element("table");
  table.append(headOf(head), body);
  byId("methods").replaceChildren(table);
  byId("methods-facts").textContent = main
    ? "Choose one to see its text. What a method marks as relevant was taken away, and the model asked again."
    : "Faithfulness was not measured: nothing here says which of the methods is right.";
  drawWarnings();
  byId("summary").textContent = viewNow().trust?.summary ?? "";
}

/** Say it when no method can be relied on, or positions alone do as well. */
function drawWarnings() {
  const said = content.warnings[state.target];
  byId("warning").hidden = !said.length;
  byId("warning").replaceChildren(...said.map((line) => element("p", line)));
}

function drawMeasures() {
  const measures = viewNow().trust?.measures ?? [];
  byId("measured").hidden = measures.length < 2;
  const names = baselinesOf(measures);
  const body = element("tbody");
  for (const measured of measures) {
    const row = element("tr");
    const baselines = new Map(measured.baselines);
    const name = rowHeading(inWords(measured.name));
    const words = (value) => (typeof value === "number" ? figures(value) : "–");
    row.append(name, element("td", words(measured.value), "number"), ...names.map((other) => element("td", words(baselines.get(other)), "number dim")));
    row.append(element("td", measured.advantage === null ? "–" : advantageWords(measured)), element("td", chanceWords(measured), "number"), element("td", measured.unit, "dim"));
    body.append(row);
  }
  const table = element("table");
  table.append(headOf([["measure", ""], ["this method", "number"], ...names.map((name) => [inWords(name), "number dim"]), ["better than random by", ""], ["chance does as well", "number"], ["unit", ""]]), body);
  byId("measures").replaceChildren(table);
}

// ---- curves --------------------------------------------------------------------------------------------------------------

const KINDS = {
  deletion: ["Taken away", "The most relevant parts go first. A faithful order makes it fall early.", "share of the text taken away"],
  insertion: ["Put back", "The most relevant parts come first. A faithful order makes it rise early.", "share of the text put back"],
};

function drawCurves() {
  const curves = viewNow().trust?.curves ?? [];
  byId("curves").hidden = !curves.length;
  const plots = [];
  for (const [kind, [title, meaning, axis]] of Object.entries(KINDS)) {
    const of = curves.filter((curve) => curve.kind === kind);
    if (!of.length) continue;
    const place = element("div");
    const words = element("p");
    words.append(element("b", `${title}. `), meaning);
    place.append(words, plotOf(of, curves, axis));
    plots.push(place);
  }
  if (plots.length && !curves.some((curve) => !curve.own)) plots.push(element("p", "The budget of forward passes did not reach for other orders: with more of them (--budget), they would stand beside it."));
  byId("plots").replaceChildren(...plots);
}

/** @param {any[]} curves what is drawn @param {any[]} all what shares its scale @param {string} axis */
function plotOf(curves, all, axis) {
  const [width, height, left, right, top, bottom] = [470, 260, 46, 112, 12, 38];
  const values = all.flatMap((curve) => [...curve.values, ...curve.low, ...curve.high]).filter((value) => value !== null);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = (high - low || 1) * 0.05;
  const x = (share) => left + share * (width - left - right);
  const y = (value) => height - bottom - ((value - low + room) / (high - low + 2 * room || 1)) * (height - top - bottom);
  const lineOf = (shares, heights) => {
    const known = shares.map((share, i) => [share, heights[i]]).filter(([, value]) => typeof value === "number");
    return known.map(([share, value], i) => `${i ? "L" : "M"}${x(share).toFixed(1)},${y(value).toFixed(1)}`).join("");
  };
  const target = content.targets[state.target];
  const figure = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${target.unit || "value"} against ${axis}: ${curves.map((curve) => `${inWords(curve.order)} ends at ${figures(curve.values.at(-1) ?? 0)}`).join(", ")}` });
  const word = (words, place) => {
    const made = drawn("text", place);
    made.textContent = words;
    return made;
  };
  for (const value of roundSteps(low, high)) figure.append(drawn("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }), word(figures(value), { x: left - 6, y: y(value) + 4, "text-anchor": "end" }));
  for (const share of [0, 0.25, 0.5, 0.75, 1]) figure.append(word(`${100 * share} %`, { x: x(share), y: height - bottom + 16, "text-anchor": "middle" }));
  figure.append(word(axis, { x: x(0.5), y: height - 4, "text-anchor": "middle" }));
  // Random always has the same plain line, on every page.
  const others = [...new Set(["random", ...curves.filter((curve) => !curve.own).map((curve) => curve.order)])];
  const groups = [...curves].sort((a, b) => Number(a.own) - Number(b.own)).map((curve) => {
    const group = drawn("g", { class: curve.own ? "own" : `k${1 + (others.indexOf(curve.order) % 4)}` });
    if (curve.low.length) figure.append(drawn("path", { class: "band", d: `${lineOf(curve.fractions, curve.high)}L${lineOf([...curve.fractions].reverse(), [...curve.low].reverse()).slice(1)}Z` }));
    group.append(drawn("path", { class: "curve", d: lineOf(curve.fractions, curve.values) }));
    figure.append(group);
    return { curve, group };
  });
  label(groups, { x: width - right + 8, top, bottom: height - bottom, word });
  return figure;
}

/** Name each curve at the right, in the order of their means so that names stand as the lines do. */
function label(groups, { x, top, bottom, word }) {
  const seen = new Set();
  const mean = ({ curve }) => curve.values.reduce((sum, value) => sum + (value ?? 0), 0) / curve.values.length;
  const named = groups.filter(({ curve }) => !seen.has(curve.order) && seen.add(curve.order)).sort((a, b) => mean(b) - mean(a));
  const pitch = Math.min(22, (bottom - top) / Math.max(named.length, 1));
  const begin = (top + bottom - pitch * (named.length - 1)) / 2;
  named.forEach(({ curve, group }, i) => {
    const y = begin + i * pitch;
    group.append(drawn("path", { class: "curve", d: `M${x},${y}h18` }), word(shortened(curve.own ? "this method" : inWords(curve.order), 14), { x: x + 23, y: y + 4 }));
  });
}

/** Round numbers between two, up to six. @param {number} low @param {number} high */
function roundSteps(low, high) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / 5));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => span / n <= 5.5) ?? span;
  const steps = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) steps.push(Math.abs(at) < step * 1e-6 ? 0 : at);
  return steps;
}

// ---- agreement -----------------------------------------------------------------------------------------------------------

function drawAgreement() {
  const views = viewsNow();
  byId("agreement").hidden = views.length < 2;
  const table = element("table");
  table.append(headOf([["", ""], ...views.map((view) => [view.name, ""])]));
  const body = element("tbody");
  content.agreement[state.target].forEach((row, i) => {
    const line = element("tr");
    line.append(rowHeading(views[i].name));
    row.forEach((value, j) => {
      const cell = element("td", i === j ? "·" : value === null ? "–" : value.toFixed(2).replace("-", "−"));
      if (i !== j && value !== null) cell.style.background = `color-mix(in srgb, var(${value > 0 ? "--for" : "--against"}) ${Math.round(75 * Math.abs(value))}%, transparent)`;
      line.append(cell);
    });
    body.append(line);
  });
  table.append(body);
  byId("alike").replaceChildren(table);
}
