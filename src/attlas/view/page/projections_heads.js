// @ts-check

/** The spectra of all heads, their effective ranks, and the table of their numbers. */

// ---- spectra -------------------------------------------------------------------------------------------------------------

/** Cells whose figure is drawn when they come into view: a large model has thousands. */
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const cell = /** @type {any} */ (entry.target);
      if (!entry.isIntersecting || cell.firstChild) continue;
      cell.append(feather(known, cell.card, 60, 60));
      watcher.unobserve(cell);
    }
  },
  { rootMargin: "400px" },
);
/** @type {any[]} */
let cells = [];

function makeSpectra() {
  cells = known.cards.map((card) => {
    const cell = element("button", undefined, "cell");
    cell.type = "button";
    cell.dataset.head = card.label;
    cell.setAttribute("aria-label", titleOf(card));
    cell.card = card;
    watcher.observe(cell);
    return cell;
  });
  const grid = byId("spectra");
  grid.append(...cells);
  walk(grid, cells, { open: (cell) => change({ head: cell.card.label }), show: (cell) => showCard(cell.card, cell), hide: hideCard });
}

function layOutSpectra() {
  layOut(byId("spectra"), cells, (cell) => cell.card, { gap: 5, fits: 18, widths: [3, 84], height: (width) => Math.max(16, Math.min(64, width * 1.15)) });
}

// ---- effective ranks -----------------------------------------------------------------------------------------------------

function drawRanks() {
  const place = byId("ranks");
  place.replaceChildren();
  for (const [name, title] of [["qk", "query·key"], ["ov", "value·output"]]) {
    const values = known.values[`${name}_effective_rank`];
    if (values) place.append(rankFigure(name, title, values, known.chance[`${name}_effective_rank`] ?? []));
  }
  byId("ranks").parentElement.hidden = !place.children.length;
}

function rankFigure(name, title, values, chance) {
  const room = byId("ranks").clientWidth;
  const width = room >= 920 ? Math.floor((room - 28) / 2) : room;
  const [height, left, right, top, bottom] = [250, 34, 8, 26, 26];
  const layers = [...new Set(known.cards.map((card) => card.layer))].sort((a, b) => a - b);
  const most = 1.06 * Math.max(...values.filter((value) => value !== null), ...chance.filter((value) => value !== null), 1);
  const pitch = (width - left - right) / layers.length;
  const x = (layer) => left + (layers.indexOf(layer) + 0.5) * pitch;
  const y = (value) => height - bottom - (value / most) * (height - top - bottom);
  const figure = drawn("svg", { class: name, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `Effective ranks of ${title}` });
  const heading = drawn("text", { class: "name", x: left, y: 14 });
  heading.textContent = title;
  figure.append(heading);
  const round = 10 ** Math.floor(Math.log10(most / 2));
  const unit = [1, 2, 5, 10].map((n) => n * round).find((n) => most / n <= 5) ?? most;
  for (let at = 0; at <= most; at += unit) {
    const tick = drawn("text", { x: left - 6, y: y(at) + 4, "text-anchor": "end" });
    tick.textContent = figures(at);
    figure.append(drawn("line", { class: "grid", x1: left, x2: width - right, y1: y(at), y2: y(at) }), tick);
  }
  layers.forEach((layer, i) => {
    if (i % Math.ceil(22 / pitch)) return;
    const tick = drawn("text", { x: x(layer), y: height - 8, "text-anchor": "middle" });
    tick.textContent = String(layer);
    figure.append(tick);
  });
  const together = new Map(layers.map((layer) => [layer, known.cards.filter((card) => card.layer === layer)]));
  const widest = Math.max(...[...together.values()].map((cards) => cards.length));
  let line = "";
  for (const layer of layers) {
    const levels = together.get(layer).map((card) => chance[card.index]).filter((level) => typeof level === "number");
    if (!levels.length) continue;
    const level = y(levels.reduce((sum, value) => sum + value, 0) / levels.length);
    line += `M${(x(layer) - pitch / 2).toFixed(1)},${level.toFixed(1)}h${pitch.toFixed(1)}`;
  }
  if (line) {
    const note = drawn("text", { x: width - right, y: 14, "text-anchor": "end" });
    note.textContent = `– – chance${new Set(chance).size === 1 ? ` ${figures(chance[0])}` : ""}`;
    figure.append(drawn("path", { class: "chance", d: line }), note);
  }
  const dots = known.cards
    .filter((card) => values[card.index] !== null)
    .map((card) => {
      // Heads of a layer stand a little apart, so that equal ones can be told.
      const apart = widest > 1 ? (together.get(card.layer).indexOf(card) / (widest - 1) - 0.5) * pitch * 0.6 : 0;
      const place = [x(card.layer) + apart, y(values[card.index])];
      const dot = drawn("circle", { class: "dot", cx: place[0].toFixed(1), cy: place[1].toFixed(1), r: Math.min(3.4, Math.max(1.8, pitch / 5)), role: "button", "aria-label": `${titleOf(card)}: ${figures(values[card.index])}` });
      dot.place = place;
      dot.card = card;
      return dot;
    });
  figure.append(...dots);
  walk(figure, dots, { open: (dot) => change({ head: dot.card.label }), show: (dot) => showCard(dot.card, dot), hide: hideCard });
  return figure;
}

// ---- how far weights can be trusted --------------------------------------------------------------------------------------

function drawPredictions() {
  byId("trust").hidden = !known.predictions.length;
  for (const role of new Set(known.predictions.map((one) => one.role))) {
    const section = element("section");
    const table = element("table");
    const found = known.predictions.filter((one) => one.role === role).sort((a, b) => b.auc - a.auc);
    for (const { predictor, auc, low, high } of found) {
      const row = element("tr");
      const name = rowHeading(predictor);
      const figure = element("td");
      figure.append(scoreFigure(auc, low, high, 0.5, low > 0.5));
      row.append(name, figure, element("td", auc.toFixed(2)), element("td", `${low.toFixed(2)} to ${high.toFixed(2)}`));
      table.append(row);
    }
    section.append(element("h3", `${role}: ${found[0].heads} ${found[0].heads === 1 ? "head" : "heads"}`), table);
    byId("predictions").append(section);
  }
}

// ---- the table -----------------------------------------------------------------------------------------------------------

const CHUNK = 150; // rows that are added at a time, as the reader scrolls
/** @type {IntersectionObserver | undefined} */
let more;

/** @returns {Card[]} */
function sorted() {
  const [name, rising] = state.sort.startsWith("-") ? [state.sort.slice(1), true] : [state.sort, false];
  const values = name === "role" ? known.role : known.values[name];
  if (!values) return rising ? [...known.cards].reverse() : known.cards;
  const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  return [...known.cards].sort((a, b) => {
    const [one, other] = [values[a.index], values[b.index]];
    const missing = Number(one === null) - Number(other === null); // what is not known comes last, whichever way
    return missing || (one === null ? 0 : rising ? order(one, other) : order(other, one)) || a.index - b.index;
  });
}

function drawTable() {
  const table = element("table");
  const heading = element("tr");
  const sort = state.sort.replace("-", "");
  const add = (name, label, meaning, note, words) => {
    const cell = element("th");
    cell.scope = "col";
    const current = sort === name;
    const rising = state.sort.startsWith("-") !== (name === "layer"); // heads count up by default, numbers down
    cell.setAttribute("aria-sort", current ? (rising ? "ascending" : "descending") : "none");
    const button = element("button", label);
    button.type = "button";
    button.title = meaning;
    button.dataset.sort = name;
    cell.append(button, element("small", note));
    if (words) cell.className = "words";
    heading.append(cell);
  };
  add("layer", "head", "Layer and head", "");
  if (known.roles.length) add("role", "role", "What it was seen to do, if anything passes its baseline", "", true);
  for (const column of known.columns) {
    const levels = new Set((known.chance[column.name] ?? []).filter((value) => value !== null));
    add(column.name, column.label, `${column.meaning} ${column.source}`, levels.size === 1 ? `chance ${told(column, [...levels][0])}` : levels.size ? "chance on each card" : "", known.values[column.name].some((value) => typeof value === "string"));
  }
  const head = element("thead");
  head.append(heading);
  const body = element("tbody");
  table.append(head, body);
  const list = sorted();
  const numbers = (known.values[sort] ?? []).filter((value) => typeof value === "number");
  const [least, most] = [Math.min(0, ...numbers), Math.max(0, ...numbers)];
  let shown = 0;
  const grow = () => {
    body.append(...list.slice(shown, shown + CHUNK).map((card) => tableRow(card, sort, least, most)));
    shown += CHUNK;
    more?.disconnect();
    if (shown < list.length && body.lastElementChild) more?.observe(body.lastElementChild);
  };
  more?.disconnect();
  more = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && grow(), { root: byId("heads"), rootMargin: "600px" });
  byId("heads").replaceChildren(table);
  grow();
}

/** @param {Card} card @param {string} sort @param {number} least @param {number} most */
function tableRow(card, sort, least, most) {
  const row = element("tr");
  const name = rowHeading();
  const button = element("button", card.label, "chip");
  button.type = "button";
  button.dataset.open = card.label;
  button.setAttribute("aria-label", `Card of ${titleOf(card)}`);
  name.append(button);
  row.append(name);
  if (known.roles.length) row.append(element("td", known.role[card.index] ?? "–", "words"));
  for (const column of known.columns) {
    const value = known.values[column.name][card.index];
    const cell = element("td", told(column, value), typeof value === "string" ? "words" : "");
    if (column.name === sort && typeof value === "number" && most > least) {
      cell.classList.add("sorted");
      cell.style.setProperty("--share", `${(100 * (value - least)) / (most - least)}%`);
    }
    row.append(cell);
  }
  return row;
}

function makeTable() {
  byId("heads").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.open) change({ head: button.dataset.open });
    if (button?.dataset.sort) {
      const name = button.dataset.sort;
      change({ sort: state.sort === name ? `-${name}` : name });
      byId("heads").querySelector(`[data-sort="${CSS.escape(name)}"]`).focus();
    }
  });
}
