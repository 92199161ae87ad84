// @ts-check

/** The text: a span for each piece, its colour, the card that tells its numbers, and the list of what matters most. */

const LEVELS = 12;
const LISTED = 12;

/** The codes of all tables, one after the other. @type {Uint16Array} */
let codes = new Uint16Array();

/** Where each table begins in `codes`. @param {any[]} views */
function placeTables(views) {
  let at = 0;
  for (const view of views) {
    for (const table of Object.values(view.tables)) {
      table.at = at;
      table.count = table.shape.reduce((product, size) => product * size, 1);
      at += table.count;
    }
  }
}

/** The numbers of a table. @param {any} table @returns {Float32Array} */
function numbersOf(table) {
  table.numbers ??= Float32Array.from(codes.subarray(table.at, table.at + table.count), (code) =>
    code & content.against ? -VALUES[code ^ content.against] * table.most : VALUES[code] * table.most,
  );
  return table.numbers;
}

/** @typedef {{index: number, start: number, stop: number, span: number, shown: HTMLElement}} Piece */
/** The pieces that have tokens. @type {Piece[]} */
const parts = [];
/** Each token's piece. @type {Piece[]} */
const pieceOf = [];
/** Each span, from and up to which token. @type {[number, number][]} */
const spans = content.spans ? content.spans.starts.map((start, i) => [start, content.spans.stops[i]]) : Array.from({ length: content.tokens }, (_, i) => [i, i + 1]);

/** What a piece is called in a line of its own. @param {string} text */
const inLine = (text) => text.replaceAll("\n", "⏎").replaceAll("\t", "⇥");

/** What tokens say together. @param {number} start @param {number} stop */
function wordsOf(start, stop) {
  const [first, last] = [pieceOf[start], pieceOf[Math.min(stop, content.tokens) - 1]];
  return inLine(content.pieces.slice(first.index, last.index + 1).join("").trim()) || inLine(content.pieces[first.index]).replaceAll(" ", "·");
}

function makeText() {
  const text = byId("text");
  text.classList.toggle("code", content.code);
  const added = new Set(content.added);
  const made = [];
  let token = 0;
  content.pieces.forEach((words, index) => {
    const count = content.counts[index];
    if (!count) return made.push(words);
    const shown = element("span", words);
    if (added.has(index)) shown.classList.add("added");
    if (/^[^\S\n]*\n\s*$/.test(words)) shown.classList.add("end");
    shown.tabIndex = -1;
    const piece = { index, start: token, stop: token + count, span: -1, shown };
    shown.piece = piece;
    parts.push(piece);
    for (let i = 0; i < count; i++) pieceOf[token++] = piece;
    made.push(shown);
  });
  spans.forEach(([start, stop], span) => {
    for (let i = start; i < stop; i++) if (pieceOf[i].span < 0) pieceOf[i].span = span;
  });
  text.replaceChildren(...made);
  byId("by").hidden = !content.spans;
  listenToText(text);
}

/** What the text is coloured by: a number each piece, and the size that is shown in full colour. */
function scoresShown() {
  const view = viewNow();
  const bySpan = state.by === "span" && content.spans;
  const scores = numbersOf(bySpan ? view.tables.spans : view.tables.scores);
  const values = parts.map((piece) => {
    if (bySpan) return piece.span < 0 ? 0 : scores[piece.span];
    let sum = 0;
    for (let i = piece.start; i < piece.stop; i++) sum += scores[i];
    return sum;
  });
  return { values, end: bySpan ? view.fullSpan : view.full };
}

/** The rank of each number's size, from 1; equal sizes share the first. @param {ArrayLike<number>} values */
function ranksOf(values) {
  const order = Array.from(values, (_, i) => i).sort((a, b) => Math.abs(values[b]) - Math.abs(values[a]));
  const ranks = new Uint32Array(values.length);
  order.forEach((i, at) => (ranks[i] = at && Math.abs(values[order[at - 1]]) === Math.abs(values[i]) ? ranks[order[at - 1]] : at + 1));
  return { ranks, order };
}

function colourText() {
  const { values, end } = scoresShown();
  const byRank = state.shade === "rank";
  const ranks = byRank ? ranksOf(values).ranks : null;
  const quarter = Math.max(1, values.length / 4);
  parts.forEach((piece, i) => {
    const value = values[i];
    const strength = ranks ? (value ? Math.max(0, 1 - (ranks[i] - 1) / quarter) : 0) : end ? Math.min(1, Math.abs(value) / end) : 0;
    const level = Math.round(strength * LEVELS);
    const name = level ? `${value > 0 ? "f" : "a"}${level}` : "";
    if (piece.level === name) return;
    if (piece.level) piece.shown.classList.remove(piece.level);
    if (name) piece.shown.classList.add(name);
    piece.level = name;
  });
  const position = answersAt();
  byId("text").querySelector(".target")?.classList.remove("target");
  if (position !== null && pieceOf[position]) pieceOf[position].shown.classList.add("target");
  drawKey(end, byRank);
}

function drawKey(end, byRank) {
  const view = viewNow();
  const swatch = (name) => element("span", undefined, `swatch ${name}`);
  const scale = byRank ? "by rank, fading out over the first quarter" : `full colour from ${figures(end)}`;
  const key = view.signed ? [swatch("for"), "speaks for", swatch("against"), "speaks against"] : [swatch("for"), "relevant"];
  const position = answersAt();
  byId("key").replaceChildren(...key, ` · ${view.name} · ${scale}${position === null ? "" : " · the underlined token is where the model answers"}`);
}

// ---- what matters most ---------------------------------------------------------------------------------------------------

/** Whether the model answers in a span. @param {[number, number]} span */
function holds([start, stop]) {
  const position = answersAt();
  return position !== null && start <= position && position < stop;
}

function drawTop() {
  const scores = numbersOf(viewNow().tables.spans);
  const { order } = ranksOf(scores);
  // Where attention rests and where the model answers would leave the other bars no length.
  const counted = order.find((i) => scores[i] && spans[i][0] > 0 && !holds(spans[i])) ?? order[0];
  const most = Math.abs(scores[counted] ?? 0);
  byId("top").replaceChildren(
    ...order
      .slice(0, LISTED)
      .filter((i) => scores[i])
      .map((i) => {
        const item = element("li");
        const button = element("button", undefined, scores[i] < 0 ? "against" : "");
        button.type = "button";
        const bar = element("span", undefined, "bar");
        bar.style.width = `${Math.max(1, Math.min(100, (100 * Math.abs(scores[i])) / most))}%`;
        button.append(element("span", wordsOf(...spans[i]) + (holds(spans[i]) ? "  (answers here)" : ""), "words"), element("span", figures(scores[i]), "value"), bar);
        button.addEventListener("click", () => visit(pieceOf[spans[i][0]]));
        item.append(button);
        return item;
      }),
  );
}

// ---- one piece -----------------------------------------------------------------------------------------------------------

/** Go to a piece, and let Tab come back to it. @param {Piece} piece */
function visit(piece) {
  byId("text").querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
  piece.shown.setAttribute("tabindex", "0");
  piece.shown.focus({ preventScroll: true });
  const [box, frame] = [piece.shown.getBoundingClientRect(), byId("text")];
  const around = frame.getBoundingClientRect();
  if (box.top < around.top + 30 || box.bottom > around.bottom - 30) frame.scrollTop += box.top - around.top - frame.clientHeight / 3;
  const place = frame.getBoundingClientRect();
  if (place.bottom < 80 || place.top > innerHeight - 80) frame.scrollIntoView({ block: "nearest" });
  if (piece.shown.matches(":focus")) showPiece(piece);
}

/** @param {Piece} piece */
function showPiece(piece) {
  const view = viewNow();
  const scores = numbersOf(view.tables.scores);
  view.ranked ??= ranksOf(scores).ranks;
  let [score, rank] = [0, Infinity];
  for (let i = piece.start; i < piece.stop; i++) {
    score += scores[i];
    rank = Math.min(rank, view.ranked[i]);
  }
  view.total ??= scores.reduce((sum, value) => sum + Math.abs(value), 0);
  const rows = [["score", figures(score)]];
  if (view.total) rows.push(["share of all", percent(Math.abs(score) / view.total)]);
  rows.push(["rank", `${rank.toLocaleString("en")} of ${content.tokens.toLocaleString("en")}`]);
  if (view.tables.low) {
    const [low, high] = [numbersOf(view.tables.low), numbersOf(view.tables.high)];
    let [least, most] = [0, 0];
    for (let i = piece.start; i < piece.stop; i++) [least, most] = [least + low[i], most + high[i]];
    rows.push(["bounds", `${figures(least)} to ${figures(most)}`]);
  }
  rows.push(piece.stop - piece.start > 1 ? ["tokens", `${piece.start} to ${piece.stop - 1}`] : ["token", String(piece.start)]);
  if (content.spans && piece.span >= 0) {
    const values = numbersOf(view.tables.spans);
    view.rankedSpans ??= ranksOf(values).ranks;
    rows.push(["span", shortened(wordsOf(...spans[piece.span]), 60)]);
    rows.push(["its score", figures(values[piece.span])], ["its rank", `${view.rankedSpans[piece.span].toLocaleString("en")} of ${spans.length.toLocaleString("en")}`]);
  }
  const card = byId("card");
  card.hidden = false;
  card.querySelector("h2").textContent = inLine(content.pieces[piece.index]).replaceAll(" ", "·");
  card.querySelector("dl").replaceChildren(...definitions(rows));
  beside(card, piece.shown.getBoundingClientRect());
}

function hidePiece() {
  byId("card").hidden = true;
}

/** The piece one line up or down that is nearest. @param {Piece} piece @param {number} by */
function lineFrom(piece, by) {
  const rects = piece.shown.getClientRects();
  const from = rects[by > 0 ? rects.length - 1 : 0];
  let line, best, least = Infinity;
  for (let i = parts.indexOf(piece) + by; i >= 0 && i < parts.length; i += by) {
    const boxes = parts[i].shown.getClientRects();
    const box = boxes[by > 0 ? boxes.length - 1 : 0];
    const gone = by * (box.top - from.top);
    if (gone < from.height / 2) continue;
    line ??= box.top;
    if (by * (box.top - line) > from.height / 2) break;
    const distance = Math.abs(box.left + box.width / 2 - from.left - from.width / 2);
    if (distance < least) [best, least] = [parts[i], distance];
  }
  return best;
}

/** The piece that a key leads to. @param {Piece} piece @param {string} key */
function next(piece, key) {
  const at = parts.indexOf(piece);
  const back = getComputedStyle(piece.shown).direction === "rtl" ? 1 : -1;
  if (key === "ArrowLeft") return parts[at + back];
  if (key === "ArrowRight") return parts[at - back];
  if (key === "ArrowUp" || key === "ArrowDown") return lineFrom(piece, key === "ArrowUp" ? -1 : 1);
  if (key === "Home" || key === "End") return parts[key === "Home" ? 0 : parts.length - 1];
  if (key !== "n" && key !== "p") return undefined;
  const { order } = ranksOf(scoresShown().values);
  return parts[order[order.indexOf(at) + (key === "n" ? 1 : -1)]];
}

/** @param {HTMLElement} text */
function listenToText(text) {
  parts[0]?.shown.setAttribute("tabindex", "0");
  const of = (event) => event.target.piece;
  text.addEventListener("pointerover", (event) => (of(event) ? showPiece(of(event)) : hidePiece()));
  text.addEventListener("pointerleave", hidePiece);
  text.addEventListener("scroll", hidePiece, { passive: true });
  text.addEventListener("focusin", (event) => of(event) && showPiece(of(event)));
  text.addEventListener("focusout", hidePiece);
  text.addEventListener("keydown", (event) => {
    if (!of(event) || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = next(of(event), event.key);
    if (!to) return;
    event.preventDefault();
    visit(to);
  });
}
