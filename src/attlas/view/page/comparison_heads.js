// @ts-check

/** What is known of the heads, how numbers are told, and the grid of all heads by layer. */

/** @typedef {{name: string, label: string, unit: string, meaning: string, source: string, baseline: string, group: string, signed: boolean}} Column */
/** @typedef {{index: number, layer: number, head: number, label: string}} Head */

/** @type {Head[]} */
const heads = content.heads.map(([layer, head], index) => ({ index, layer, head, label: `${layer}.${head}` }));
/** @type {Map<string, Column>} */
const columns = new Map(content.columns.map((column) => [column.name, column]));
/** @type {Map<string, Head>} */
const byLabel = new Map(heads.map((head) => [head.label, head]));
/** Which map each head has. @type {Map<number, number>} */
const mapOf = new Map((content.text?.chosen ?? []).map((index, i) => [index, i]));
/** @param {Head} head */
const titleOf = (head) => `Layer ${head.layer} · head ${head.head}`;

/** A number with its sign. @param {number} value @param {(size: number) => string} [word] */
const signed = (value, word = figures) => (value > 0 ? `+${word(value)}` : value < 0 ? `−${word(-value)}` : word(0));

/** A share that came or went, to a hundredth of a percent. @param {number} value */
const moved = (value) => signed(Math.round(1e4 * value) / 100, (size) => `${size.toFixed(2)} %`);

/** How a value of a column is told. @param {Column} column @param {any} value */
function told(column, value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return inLine(String(value)).replaceAll(" ", "·");
  if (!column.signed) return column.unit === "times" ? `${figures(value)}×` : worded(column, value);
  return column.unit === "share" ? moved(value) : signed(value, (size) => worded(column, size));
}

/** What a column says, and who says so. @param {Column} column */
const meaningOf = (column) => [column.meaning, column.source === "attlas" ? "" : column.source && `${column.source}.`].filter(Boolean).join(" ");

/** What a text is called in a line of its own. @param {string} text */
const inLine = (text) => text.replaceAll("\n", "⏎").replaceAll("\t", "⇥");

/** A token as it stands in a line: a blank is seen. @param {number} at */
const tokenOf = (at) => inLine(content.text.tokens[at] ?? "").replaceAll(" ", "·");

// ---- colours -------------------------------------------------------------------------------------------------------------

/** The size that is shown in full colour: the largest, for the column that heads are coloured by. */
function fullOf(column) {
  return Math.max(0, ...content.values[column.name].filter((value) => typeof value === "number").map(Math.abs));
}

/** The colour of a share of the full one. @param {number} share from −1 to 1 @param {boolean} both whether it has a sign */
function colourOf(share, both) {
  const strength = Math.round(1000 * Math.min(1, Math.abs(share))) / 10;
  return `color-mix(in oklab, var(--${both ? (share < 0 ? "loss" : "gain") : "heat"}) ${strength}%, var(--raised))`;
}

/** The key of a scale. @param {string} low @param {string} high @param {boolean} both @param {...any} more */
function keyOf(low, high, both, ...more) {
  const scale = element("span");
  scale.append(low, element("span", undefined, `scale ${both ? "signed" : "rising"}`), high);
  return [scale, ...more];
}

// ---- the grid ------------------------------------------------------------------------------------------------------------

/** @type {any[]} */
let cells = [];

function makeGrid() {
  const choice = byId("colour");
  for (const [group, names] of Object.entries(content.colours)) {
    const part = element("optgroup");
    part.label = group;
    for (const name of names) part.append(Object.assign(element("option", columns.get(name).label), { value: name }));
    choice.append(part);
  }
  choice.addEventListener("change", () => change({ colour: choice.value }));
  cells = heads.map((head) => {
    const cell = element("button", undefined, mapOf.has(head.index) ? "cell mapped" : "cell");
    cell.type = "button";
    cell.dataset.head = head.label;
    cell.head = head;
    return cell;
  });
  byId("grid").append(...cells);
  walk(byId("grid"), cells, { open: (cell) => change({ head: cell.head.label }), show: (cell) => showCard(cell.head, cell), hide: hideCard });
}

function layOutGrid() {
  layOut(byId("grid"), cells, (cell) => cell.head, { gap: 3, fits: 12, widths: [6, 64], height: (width) => Math.max(14, Math.min(34, width)) });
}

function colourGrid() {
  const column = columns.get(state.colour);
  const [values, full] = [content.values[column.name], fullOf(column)];
  byId("colour").value = column.name;
  byId("grid-facts").textContent = meaningOf(column);
  for (const cell of cells) {
    const value = values[cell.head.index];
    const there = typeof value === "number";
    cell.classList.toggle("none", !there);
    cell.style.background = there ? colourOf(full ? value / full : 0, column.signed) : "";
    cell.setAttribute("aria-label", `${titleOf(cell.head)}, ${column.label}: ${there ? told(column, value) : "not known"}`);
  }
  const more = [];
  if (values.some((value) => value === null)) more.push(element("span", "hatched: not measured, or nothing changed"));
  if (mapOf.size) {
    const dotted = element("span");
    dotted.append(element("span", undefined, "dot"), "its card has a map of what moved");
    more.push(dotted);
  }
  const [low, high] = [column.signed ? told(column, -full) : told(column, 0), told(column, full)];
  byId("grid-key").replaceChildren(...keyOf(low, high, column.signed, ...more));
}
