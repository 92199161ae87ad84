// @ts-check

/**
 * What is known of a head beside its map: the spectra of its projections, the offset it prefers, which heads it composes
 * with, and what it was seen to do. Pages that have no such knowledge have no cards.
 *
 * @typedef {{name: string, label: string, unit: string, meaning: string, source: string}} Column
 * @typedef {{from: Card, to: Card, kind: "q"|"k"|"v", score: number, z: number | null}} Edge
 * @typedef {{name: string, label: string, meaning: string, score: (number | null)[], low: (number | null)[], high: (number | null)[],
 *   baseline: (number | null)[], passes: boolean[], telling: boolean, notes: (string | null)[]}} Role
 * @typedef {{index: number, layer: number, head: number, label: string}} Card
 * @typedef {{cards: Card[], columns: Column[], values: Record<string, any[]>, chance: Record<string, (number | null)[]>,
 *   edges: Edge[], level: number | null, roles: Role[], role: (string | null)[],
 *   track: (name: string, card: Card) => Float32Array | undefined, of: (label: string | null) => Card | undefined}} Known
 */

/** @type {Known | undefined} */
let known;

/** @returns {Promise<Known | undefined>} */
async function readCards() {
  const given = content.cards;
  if (!given) return undefined;
  const codes = await unpack(given.codes);
  const tracks = new Map();
  let at = 0;
  for (const { name, rows, width } of given.tracks) {
    tracks.set(name, { at, rows, width });
    at += rows * width;
  }
  const cards = given.heads.map(([layer, head], index) => ({ index, layer, head, label: `${layer}.${head}` }));
  const byLabel = new Map(cards.map((card) => [card.label, card]));
  return {
    ...given,
    cards,
    edges: given.edges.map(([from, to, kind, score, z]) => ({ from: cards[from], to: cards[to], kind, score, z })),
    of: (label) => byLabel.get(label ?? ""),
    track(name, card) {
      const found = tracks.get(name);
      if (!found) return undefined;
      const from = found.at + (found.rows === 1 ? 0 : card.index) * found.width;
      return Float32Array.from(codes.subarray(from, from + found.width), (code) => VALUES[code]);
    },
  };
}

/** @param {{layer: number, head: number}} card */
const titleOf = (card) => `Layer ${card.layer} · head ${card.head}`;

/** A value of a column as people read it. @param {Column} column @param {any} value */
function told(column, value) {
  if (value === null || value === undefined) return "–";
  return typeof value === "number" ? worded(column, value) : String(value);
}

const KINDS = { q: "Q", k: "K", v: "V" };
const KIND_MEANING = { q: "writes into its queries", k: "writes into its keys", v: "writes into its values" };

/** What a head was seen to do, in a word. @param {Card | undefined} card */
const roleOf = (card) => (card && known.role[card.index]) || "";

/** Whether that says more than that a head looks somewhere broad, or rests. @param {Card} card */
const tellingRole = (card) => known.roles.some((role) => role.telling && role.label === roleOf(card));

/** A head's title with its role. @param {{layer: number, head: number}} head @param {string} role */
const titled = (head, role) => [titleOf(head), ...(role ? [" ", element("span", role, "badge")] : [])];

// ---- spectra -------------------------------------------------------------------------------------------------------------

/** The outline of a spectrum, from the middle line up (sign -1) or down (1). */
function outline(values, width, middle, reach, sign) {
  const step = width / values.length;
  let path = `M0,${middle}`;
  values.forEach((value, i) => (path += `L${(i * step).toFixed(2)},${(middle + sign * value * reach).toFixed(2)}H${((i + 1) * step).toFixed(2)}`));
  return `${path}L${width},${middle}`;
}

/**
 * Both spectra of a head as one figure: query-key above the middle, value-output below, each beside chance.
 * @param {Known} known @param {Card} card @param {number} width @param {number} height
 */
function feather(known, card, width, height) {
  const middle = height / 2;
  const reach = middle - 1;
  const figure = drawn("svg", { class: "feather", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const [name, sign] of /** @type {[string, number][]} */ ([["qk", -1], ["ov", 1]])) {
    const own = known.track(name, card);
    const chance = known.track(`${name}_chance`, card);
    if (own) figure.append(drawn("path", { class: `area ${name}`, d: `${outline(own, width, middle, reach, sign)}Z` }));
    if (chance) figure.append(drawn("path", { class: "chance", d: outline(chance, width, middle, reach, sign) }));
  }
  figure.append(drawn("line", { class: "axis", x1: 0, y1: middle, x2: width, y2: middle }));
  return figure;
}

/** The same large, with axes and effective ranks. @param {Known} known @param {Card} card @param {number} width */
function largeFeather(known, card, width) {
  const [left, right, top, bottom] = [34, 8, 22, 26];
  const height = Math.min(330, 120 + width / 3);
  const inner = width - left - right;
  const middle = top + (height - top - bottom) / 2;
  const reach = middle - top;
  const figure = drawn("svg", { class: "feather large", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Singular values of ${titleOf(card)}` });
  const count = Math.max(known.track("qk", card)?.length ?? 0, known.track("ov", card)?.length ?? 0, 1);
  const x = (rank) => left + (rank / count) * inner;
  const moved = drawn("g", { transform: `translate(${left} 0)` });
  figure.append(moved);
  for (const [name, sign, title] of /** @type {[string, number, string][]} */ ([["qk", -1, "query·key"], ["ov", 1, "value·output"]])) {
    const own = known.track(name, card);
    if (!own) continue;
    const span = (own.length / count) * inner;
    moved.append(drawn("path", { class: `area ${name}`, d: `${outline(own, span, middle, reach, sign)}Z` }));
    const chance = known.track(`${name}_chance`, card);
    if (chance) moved.append(drawn("path", { class: "chance", d: outline(chance, span, middle, reach, sign) }));
    const rank = known.values[`${name}_effective_rank`]?.[card.index];
    if (typeof rank === "number") {
      const [near, far] = [middle, middle + sign * reach];
      figure.append(drawn("line", { class: `mark ${name}`, x1: x(rank), y1: near, x2: x(rank), y2: far }));
      const note = drawn("text", { class: "note", x: x(rank) - 5, y: far - sign * 8 + 4, "text-anchor": "end" });
      note.textContent = `effective rank ${figures(rank)}`;
      figure.append(note);
    }
    const name_ = drawn("text", { class: `name ${name}`, x: left + inner, y: sign < 0 ? top - 8 : height - bottom + 16, "text-anchor": "end" });
    name_.textContent = title;
    figure.append(name_);
    const one = drawn("text", { class: "tick", x: left - 5, y: middle + sign * reach + 4, "text-anchor": "end" });
    one.textContent = "σ₁";
    figure.append(one);
  }
  figure.append(drawn("line", { class: "axis", x1: left, y1: middle, x2: left + inner, y2: middle }));
  const zero = drawn("text", { class: "tick", x: left - 5, y: middle + 4, "text-anchor": "end" });
  zero.textContent = "0";
  const ranks = [1, ...[0.25, 0.5, 0.75].map((share) => Math.round(share * count))];
  figure.append(
    zero,
    ...ranks.map((rank) => {
      const tick = drawn("text", { class: "tick", x: x(rank - 0.5), y: height - bottom + 16, "text-anchor": "middle" });
      tick.textContent = String(rank);
      return tick;
    }),
  );
  return figure;
}

// ---- offsets -------------------------------------------------------------------------------------------------------------

/** Which offset the weights prefer, as bars; what was measured there, as a line. @param {Known} known @param {Card} card @param {number} width */
function kernelFigure(known, card, width) {
  const kernel = known.track("kernel", card);
  if (!kernel || kernel.every((value) => value === 0)) return undefined;
  const measured = known.track("measured", card);
  const [left, right, top, height, bottom] = [44, 8, 8, 140, 20];
  let most = 0.05;
  for (const value of [...kernel, ...(measured ?? [])]) most = Math.max(most, value);
  const step = (width - left - right) / kernel.length;
  const y = (value) => height - bottom - (value / most) * (height - top - bottom);
  const figure = drawn("svg", { class: "kernel", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Preferred offsets of ${titleOf(card)}` });
  for (const share of [0, most / 2, most]) {
    const tick = drawn("text", { class: "tick", x: left - 5, y: y(share) + 4, "text-anchor": "end" });
    tick.textContent = share ? percent(Number(share.toPrecision(2))) : "0";
    figure.append(drawn("line", { class: "grid", x1: left, x2: width - right, y1: y(share), y2: y(share) }), tick);
  }
  kernel.forEach((value, i) => figure.append(drawn("rect", { class: "fill", x: left + i * step + 0.5, y: y(value), width: Math.max(step - 1, 0.5), height: Math.max(0, height - bottom - y(value)) })));
  if (measured) {
    let path = "";
    measured.forEach((value, i) => (path += `${i ? "L" : "M"}${(left + (i + 0.5) * step).toFixed(1)},${y(value).toFixed(1)}`));
    figure.append(drawn("path", { class: "measured", d: path }));
  }
  for (let i = 0; i < kernel.length; i += kernel.length > 20 ? 8 : 1) {
    const tick = drawn("text", { class: "tick", x: left + (i + 0.5) * step, y: height - 5, "text-anchor": "middle" });
    tick.textContent = String(i);
    figure.append(tick);
  }
  return figure;
}

// ---- roles ---------------------------------------------------------------------------------------------------------------

/** A score between 0 and 1 with its interval, and the baseline as a tick. */
function scoreFigure(score, low, high, baseline, passes) {
  const [width, height] = [120, 14];
  const x = (value) => Math.max(0, Math.min(1, value)) * width;
  const figure = drawn("svg", { class: passes ? "score passes" : "score", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  figure.append(drawn("rect", { class: "ground", x: 0, y: 4, width, height: 6 }));
  if (score !== null) figure.append(drawn("rect", { class: "fill", x: 0, y: 4, width: x(score), height: 6 }));
  if (low !== null && high !== null) figure.append(drawn("line", { class: "interval", x1: x(low), x2: x(high), y1: 7, y2: 7 }));
  if (baseline !== null) figure.append(drawn("line", { class: "baseline", x1: x(baseline), x2: x(baseline), y1: 1, y2: 13 }));
  return figure;
}

/** What a head was seen to do: those roles that pass first, then the strongest others. @param {Known} known @param {Card} card @param {number} [most] */
function rolesOf(known, card, most = 6) {
  const i = card.index;
  return known.roles
    .filter((role) => role.score[i] !== null)
    .sort((a, b) => Number(b.passes[i]) - Number(a.passes[i]) || b.score[i] - (b.baseline[i] ?? 0) - (a.score[i] - (a.baseline[i] ?? 0)))
    .slice(0, most);
}

/** @param {Known} known @param {Card} card @param {number} [most] */
function rolesTable(known, card, most) {
  const table = element("table", undefined, "roles");
  for (const role of rolesOf(known, card, most)) {
    const i = card.index;
    const [score, low, high, baseline] = [role.score[i], role.low[i], role.high[i], role.baseline[i]];
    const row = element("tr", undefined, role.passes[i] ? "passes" : "");
    const note = role.notes[i] ?? "";
    const name = rowHeading(note.length && note.length < 4 ? `${role.label} ${note}` : role.label);
    name.title = note ? `${note}: ${role.meaning}` : role.meaning;
    const figure = element("td");
    figure.append(scoreFigure(score, low, high, baseline, role.passes[i]));
    const value = element("td", score.toFixed(2));
    const between = low === null || high === null ? "" : `, ${low.toFixed(2)} to ${high.toFixed(2)}`;
    value.title = `score ${score.toFixed(3)}${between}${baseline === null ? "" : `; baseline ${baseline.toFixed(3)}`}`;
    row.append(name, figure, value, element("td", role.passes[i] ? "✓" : "", "mark"));
    row.setAttribute("aria-label", `${role.label}: ${value.title}; ${role.passes[i] ? "above" : "not above"} its baseline`);
    table.append(row);
  }
  return table;
}

// ---- composition ---------------------------------------------------------------------------------------------------------

/** The strongest edges of a head in one direction. @param {Known} known @param {Card} card @param {"from"|"to"} own @param {number} [most] */
const edgesOf = (known, card, own, most = 6) => known.edges.filter((edge) => edge[own] === card).slice(0, most);

/** How far a score lies above chance. @param {Known} known @param {number} score */
const aboveChance = (known, score) => (known.level ? times(score / known.level) : figures(score));

/** Links to the heads that a head reads from, or that read from it. @param {Known} known @param {Card} card @param {"from"|"to"} own @param {(card: Card) => void} open */
function edgesList(known, card, own, open) {
  const list = element("ul", undefined, "edges");
  for (const edge of edgesOf(known, card, own)) {
    const other = own === "to" ? edge.from : edge.to;
    const item = element("li");
    const button = element("button", other.label, `chip ${edge.kind}`);
    button.type = "button";
    button.setAttribute("aria-label", `${titleOf(other)}, ${KINDS[edge.kind]}-composition ${figures(edge.score)}`);
    button.addEventListener("click", () => open(other));
    const kind = element("span", KINDS[edge.kind], `kind ${edge.kind}`);
    const score = element("span", `${edge.score.toFixed(3)} · ${aboveChance(known, edge.score)} chance`, "faint");
    item.append(button, kind, score);
    list.append(item);
  }
  if (!list.children.length) list.append(element("li", "none among the strongest", "faint"));
  return list;
}

/**
 * A table of numbers, each beside its chance level.
 * @param {Known} known @param {Card} card @param {Column[]} columns
 */
function numbersTable(known, card, columns) {
  const body = element("tbody");
  for (const column of columns) {
    const value = known.values[column.name][card.index];
    if (value === null || value === undefined) continue;
    const row = element("tr");
    const name = rowHeading(column.label);
    name.title = column.source ? `${column.meaning} ${column.source}` : column.meaning;
    const chance = known.chance[column.name]?.[card.index];
    row.append(name, element("td", told(column, value)), element("td", chance === null || chance === undefined ? "" : told(column, chance)));
    body.append(row);
  }
  return body;
}
