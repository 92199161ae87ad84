// @ts-check

/** The card of one head: a small one beside the cursor, and a large one with its figures and numbers. */

const PLACES = ["to_first", "to_itself", "to_previous", "to_near", "to_far", "to_same_token", "to_after_same_token"];
const CAUSES = ["own", "upstream", "own_after", "upstream_after"];
const CAUSES_TOLD = { own: "own new weights, old input", upstream: "new input, old weights", own_after: "own new weights, new input", upstream_after: "new input, new weights" };

/** @param {Head} head @param {Element} item */
function showCard(head, item) {
  if (byId("head").open) return;
  const box = byId("card");
  box.hidden = false;
  box.querySelector("h2").textContent = titleOf(head);
  const names = [...new Set([state.colour, ...Object.values(content.colours).flat()])];
  box.querySelector("dl").replaceChildren(...definitions(names.map((name) => [columns.get(name).label, told(columns.get(name), content.values[name][head.index])])));
  beside(box, item.getBoundingClientRect());
}

function drawCard() {
  const dialog = byId("head");
  const head = byLabel.get(state.head);
  if (!cardOpen(head)) return;
  byId("head-title").textContent = titleOf(head);
  byId("head-facts").textContent = content.modulesOf[head.index];
  drawMap(head);
  byId("spectra").replaceChildren(spectrum(head, "qk", "query·key"), spectrum(head, "ov", "value·output"));
  const value = (name) => content.values[name]?.[head.index] ?? null;
  const went = PLACES.filter((name) => value(name) !== null);
  byId("went").hidden = !went.length;
  byId("places").replaceChildren(bars(went.map((name) => [columns.get(name).label.replace("to ", ""), value(name)]), true));
  const causes = CAUSES.filter((name) => value(name) !== null);
  byId("parts").hidden = !causes.length;
  byId("causes").replaceChildren(bars(causes.map((name) => [CAUSES_TOLD[name], value(name)]), false));
  byId("numbers").replaceChildren(...numbersOfHead(head));
  if (!dialog.contains(document.activeElement)) dialog.focus({ preventScroll: true });
}

/** The largest singular values of a change, as bars. @param {Head} head @param {"qk" | "ov"} name @param {string} title */
function spectrum(head, name, title) {
  const values = content.spectra[name][head.index].filter((value) => value !== null);
  const [width, height, top] = [300, 104, 20];
  const figure = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Singular values of the change of ${title}` });
  const most = Math.max(...values, 0);
  const heading = drawn("text", { class: "name", x: 0, y: 12 });
  heading.textContent = `Δ ${title}`;
  const note = drawn("text", { x: width, y: 12, "text-anchor": "end" });
  note.textContent = most ? `largest ${figures(most)}` : "nothing changed";
  figure.append(heading, note, drawn("line", { class: "zero", x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }));
  const pitch = width / Math.max(values.length, 8);
  values.forEach((value, i) => {
    const size = most ? (value / most) * (height - top) : 0;
    figure.append(drawn("rect", { class: `bar-${name}`, x: i * pitch, y: height - size, width: Math.max(1, pitch - 2), height: size }));
  });
  return figure;
}

/** Bars to both sides of nothing, or to the right of it. @param {[string, number][]} rows @param {boolean} both */
function bars(rows, both) {
  const [width, line, names, numbers] = [380, 19, 172, 66];
  const figure = drawn("svg", { viewBox: `0 0 ${width} ${rows.length * line + 2}`, role: "img" });
  const most = Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-12);
  const room = width - names - numbers;
  const zero = names + (both ? room / 2 : 0);
  rows.forEach(([name, value], i) => {
    const [y, size] = [i * line, (Math.abs(value) / most) * (both ? room / 2 : room)];
    const [word, number] = [drawn("text", { class: "name", x: 0, y: y + 14 }), drawn("text", { x: width, y: y + 14, "text-anchor": "end" })];
    word.textContent = name;
    number.textContent = both ? moved(value) : percent(value);
    figure.append(word, number, drawn("rect", { class: both ? (value < 0 ? "bar-loss" : "bar-gain") : "bar-heat", x: value < 0 ? zero - size : zero, y: y + 4, width: size, height: 11 }));
  });
  figure.append(drawn("line", { class: "zero", x1: zero, x2: zero, y1: 0, y2: rows.length * line }));
  figure.setAttribute("aria-label", rows.map(([name, value]) => `${name} ${both ? moved(value) : percent(value)}`).join(", "));
  return figure;
}

/** Every number of a head, by group. @param {Head} head */
function numbersOfHead(head) {
  const rows = [];
  for (const group of groups) {
    const part = element("tr", undefined, "part");
    part.append(Object.assign(rowHeading(group), { colSpan: 2 }));
    rows.push(part);
    for (const column of content.columns) {
      const value = content.values[column.name][head.index];
      if (column.group !== group || value === null || !column.label || PLACES.includes(column.name)) continue;
      const row = element("tr");
      const name = rowHeading(column.label);
      name.title = meaningOf(column);
      const cell = element("td", told(column, value));
      const chance = content.values[`${column.name}_chance`]?.[head.index];
      if (typeof chance === "number") cell.append(element("small", ` chance ${told(column, chance)}`));
      const token = { gained_key: "gained", lost_key: "lost" }[column.name];
      if (token) cell.append(" ", element("code", inLine(content.values[`${token}_token`][head.index]).replaceAll(" ", "·")), element("small", ` ${signed(content.values[`${token}_by`][head.index], weight)}`));
      row.append(name, cell);
      rows.push(row);
    }
  }
  return rows;
}
