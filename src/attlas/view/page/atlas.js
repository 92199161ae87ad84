// @ts-check
"use strict";

/**
 * The page of an atlas. Data flows one way: `content` (what was measured) and `state` (what is shown, mirrored in the address) go
 * into drawing functions; events change `state` and call `render`. All text enters through `textContent` or a canvas.
 *
 * @typedef {{heads: number, rows: number, cols: number, bins: number[], largest: number[], at: number}} Block
 * @typedef {Block & {layer: number, name: string, headNumbers: number[], queries: number, keys: number, even: number,
 *   namedQueries: boolean, namedKeys: boolean, topKey: number[],
 *   values: Record<string, number[]>, evenValues: Record<string, number[]>}} Layer
 * @typedef {{layer: Layer, index: number, number: number, label: string}} Head
 * @typedef {{mean: Float32Array, max: Float32Array, received: Float32Array, entropy: Float32Array, distance: Float32Array}} Numbers
 */

const content = JSON.parse(document.getElementById("content").textContent);
const REACH = { mean: 7, max: 12 }; // lift is coloured from 2^-REACH to 2^REACH
const dark = matchMedia("(prefers-color-scheme: dark)");

const state = { scale: "lift", cell: "mean", size: "fit", order: "layer", head: "", row: -1, col: -1 };
const CHOICES = { scale: ["lift", "log", "raw"], cell: ["mean", "max"], size: ["fit", "large"] };

/** @param {string} id @returns {any} */
const byId = (id) => document.getElementById(id);

/** @param {string} tag @param {string} [text] @param {string} [name] @returns {any} */
function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

// ---- numbers -------------------------------------------------------------------------------------------------------------

/** Bytes of a base64 text. @param {string} text */
const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** All codes of the page, as `packed` of encoding.py wrote them: low bytes, then high bytes. */
async function unpack() {
  const stream = new Blob([bytesOf(content.codes)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const half = planes.length / 2;
  const codes = new Uint16Array(half);
  for (let i = 0; i < half; i++) codes[i] = planes[i] | (planes[half + i] << 8);
  return codes;
}

/** What a code stands for. */
const VALUES = Float32Array.from({ length: 65536 }, (_, code) =>
  code === 0 ? 0 : 2 ** ((code - 1) / content.coding.steps + content.coding.floor),
);

/** @type {Uint16Array} */
let codes;
/** @type {Block[]} */
const spreads = content.spreads;
/** @type {Layer[]} */
const layers = content.layers.map((layer) => ({ ...layer, headNumbers: layer.heads, heads: layer.heads.length }));
/** @type {Head[]} */
const heads = layers.flatMap((layer) =>
  layer.headNumbers.map((number, index) => ({ layer, index, number, label: `${layer.layer}.${number}` })),
);

/** Note where each block's codes begin. */
function place() {
  let at = 0;
  for (const block of [...spreads, ...layers]) {
    block.at = at;
    at += block.heads * (2 * block.rows * block.cols + block.bins[1] + 2 * block.bins[0]);
  }
}

/** The numbers of one head of a block. @param {Block} block @param {number} head @returns {Numbers} */
function numbersOf(block, head) {
  const cells = block.rows * block.cols;
  const [rowBins, colBins] = block.bins;
  const means = block.at + head * cells;
  const rises = block.at + block.heads * cells + head * cells;
  const mean = new Float32Array(cells);
  const max = new Float32Array(cells);
  for (let i = 0; i < cells; i++) {
    mean[i] = VALUES[codes[means + i]];
    max[i] = VALUES[codes[means + i] + codes[rises + i]];
  }
  let at = block.at + 2 * block.heads * cells;
  const received = Float32Array.from(codes.subarray(at + head * colBins, at + (head + 1) * colBins), (c) => VALUES[c]);
  at += block.heads * colBins;
  const share = (largest) => {
    const track = Float32Array.from(codes.subarray(at + head * rowBins, at + (head + 1) * rowBins), (c) => (c / 255) * largest);
    at += block.heads * rowBins;
    return track;
  };
  return { mean, max, received, entropy: share(block.largest[0]), distance: share(block.largest[1]) };
}

/** The even spread that a head is compared with. @param {Head} head */
const evenOf = (head) => {
  const spread = spreads[head.layer.even];
  return numbersOf(spread, Math.min(head.index, spread.heads - 1));
};

/**
 * A head's map shrunk by a whole factor: what is shown, and how much an even spread would give (0 where nothing is visible).
 * @param {Head} head @param {number} factor
 */
function shrunk(head, factor) {
  const { rows, cols } = head.layer;
  const height = Math.ceil(rows / factor);
  const width = Math.ceil(cols / factor);
  const most = state.cell === "max";
  const shown = numbersOf(head.layer, head.index)[most ? "max" : "mean"];
  const even = evenOf(head)[most ? "max" : "mean"];
  if (factor === 1) return { height, width, shown, even };
  const outShown = new Float32Array(height * width);
  const outEven = new Float32Array(height * width);
  const count = new Uint16Array(height * width);
  for (let y = 0, i = 0; y < rows; y++) {
    const row = Math.floor(y / factor) * width;
    for (let x = 0; x < cols; x++, i++) {
      const into = row + Math.floor(x / factor);
      if (most) {
        outShown[into] = Math.max(outShown[into], shown[i]);
        outEven[into] = Math.max(outEven[into], even[i]);
      } else {
        outShown[into] += shown[i];
        outEven[into] += even[i];
      }
      count[into]++;
    }
  }
  if (!most) {
    for (let i = 0; i < count.length; i++) {
      outShown[i] /= count[i];
      outEven[i] /= count[i];
    }
  }
  return { height, width, shown: outShown, even: outEven };
}

// ---- colours -------------------------------------------------------------------------------------------------------------

const TABLES = Object.fromEntries(Object.entries(content.colours).map(([name, text]) => [name, bytesOf(/** @type {string} */ (text))]));

/** The ends of the weight scales, the same for all heads; computed once for mean and for max. */
const rangeOf = {};

function range() {
  if (rangeOf[state.cell]) return rangeOf[state.cell];
  const seen = [];
  const step = Math.max(1, Math.floor(heads.length / 60));
  for (let i = 0; i < heads.length; i += step) {
    for (const value of numbersOf(heads[i].layer, heads[i].index)[/** @type {"mean"|"max"} */ (state.cell)]) if (value > 0) seen.push(value);
  }
  seen.sort((a, b) => a - b);
  const at = (share) => seen[Math.min(seen.length - 1, Math.floor(share * seen.length))] || 1e-6;
  rangeOf[state.cell] = { low: Math.log10(at(0.02)), high: Math.log10(at(1)), top: at(0.995) };
  return rangeOf[state.cell];
}

/** Where a number stands on the current scale, 0 to 1. @param {number} shown @param {number} even */
function position(shown, even) {
  if (state.scale === "lift") return (Math.log2(Math.max(shown, 1e-30) / even) / REACH[state.cell] + 1) / 2;
  const { low, high, top } = range();
  if (state.scale === "raw") return shown / top;
  return (Math.log10(Math.max(shown, 1e-30)) - low) / (high - low);
}

const table = () => TABLES[`${state.scale === "lift" ? "lift" : "weight"}-${dark.matches ? "dark" : "light"}`];

/** Paint a head into a canvas, one pixel a cell. @param {HTMLCanvasElement} canvas @param {Head} head @param {number} factor */
function paint(canvas, head, factor) {
  const { height, width, shown, even } = shrunk(head, factor);
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const colours = table();
  for (let i = 0; i < shown.length; i++) {
    if (even[i] === 0) continue; // hidden: transparent
    const at = 3 * Math.round(255 * Math.min(1, Math.max(0, position(shown[i], even[i]))));
    image.data[4 * i] = colours[at];
    image.data[4 * i + 1] = colours[at + 1];
    image.data[4 * i + 2] = colours[at + 2];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

function drawKey() {
  const canvas = document.querySelector("#key canvas");
  const context = /** @type {HTMLCanvasElement} */ (canvas).getContext("2d");
  const image = context.createImageData(256, 1);
  const colours = table();
  for (let i = 0; i < 256; i++) image.data.set([colours[3 * i], colours[3 * i + 1], colours[3 * i + 2], 255], 4 * i);
  context.putImageData(image, 0, 0);
  const { low, high, top } = range();
  const ticks =
    state.scale === "lift"
      ? { mean: [-7, -3, 0, 3, 7], max: [-12, -6, 0, 6, 12] }[state.cell].map((power) => [
          power < 0 ? `1/${2 ** -power}` : `${2 ** power}×`,
          0.5 + power / REACH[state.cell] / 2,
        ])
      : state.scale === "raw"
        ? [["0", 0], [percent(top / 2), 0.5], [`≥ ${percent(top)}`, 1]]
        : [[`≤ ${weight(10 ** low)}`, 0], [weight(10 ** ((low + high) / 2)), 0.5], [weight(10 ** high), 1]];
  byId("ticks").replaceChildren(
    ...ticks.map(([text, at]) => {
      const tick = element("span", String(text));
      tick.style.left = `${100 * Number(at)}%`;
      return tick;
    }),
  );
}

// ---- words ---------------------------------------------------------------------------------------------------------------

/** @param {number} value @param {number} [digits] */
function figures(value, digits = 3) {
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) {
    const [digit, power] = value.toExponential(digits - 1).split("e");
    return `${digit}·10${[...String(Number(power))].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)])).join("")}`;
  }
  return Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });
}
const percent = (value) => (value > 0 && value < 5e-5 ? "< 0.01 %" : `${figures(100 * value)} %`);
const weight = (value) => (value >= 1e-3 || value === 0 ? percent(value) : figures(value, 2));
const times = (value) => (value > 0 && value < 0.1 ? `1/${figures(1 / value, 2)}` : `${figures(value)}×`);

/** Runs of spaces are long in code, and say no more than short ones. @param {string} text */
const squeezed = (text) => text.replace(/·{3,}/g, "··");

/** @param {{unit: string}} statistic @param {number} value */
function worded(statistic, value) {
  if (statistic.unit === "share") return percent(value);
  if (statistic.unit === "times") return times(value);
  return statistic.unit ? `${figures(value)} ${statistic.unit}` : figures(value);
}

/** From and up to which token a cell reaches. @param {number} cell @param {number} cells @param {number} length */
const span = (cell, cells, length) => [Math.floor((cell * length) / cells), Math.floor(((cell + 1) * length) / cells)];

/** The text of some tokens of an axis. @param {Layer} layer @param {"query"|"key"} axis @param {number} from @param {number} to */
function textOf(layer, axis, from, to) {
  if (!(axis === "key" ? layer.namedKeys : layer.namedQueries)) return "";
  const offset = axis === "key" ? 0 : layer.keys - layer.queries;
  return content.tokens.slice(from + offset, to + offset).join("");
}

/** @param {string} text @param {number} length */
function shortened(text, length) {
  const characters = [...text];
  return characters.length > length ? `${characters.slice(0, length - 1).join("")}…` : text;
}

// ---- the grid ------------------------------------------------------------------------------------------------------------

/** @returns {Head[]} */
function ordered() {
  if (state.order === "layer") return heads;
  const [name, rising] = state.order.startsWith("-") ? [state.order.slice(1), true] : [state.order, false];
  const value = (head) => head.layer.values[name][head.index];
  return [...heads].sort((a, b) => (rising ? value(a) - value(b) : value(b) - value(a)));
}

/** @type {Map<string, HTMLButtonElement>} */
const buttons = new Map();
let columns = 1; // heads in a row of the grid, for the arrow keys
/** @type {Head[][]} */
let table2d = [];

function layOut() {
  const grid = byId("grid");
  const room = grid.clientWidth;
  const numbers = [...new Set(heads.map((head) => head.number))].sort((a, b) => a - b);
  const aligned = state.order === "layer";
  const gap = 4;
  const labels = [];
  let cell, across;
  if (aligned) {
    const [left, top] = [44, 34];
    const most = state.size === "large" ? 168 : Math.max(40, (innerHeight - grid.getBoundingClientRect().top - scrollY - 120) / numbers.length);
    const wide = Math.floor((room - left) / layers.length) - gap;
    across = state.size === "fit" && wide >= 24 && layers.length >= numbers.length;
    const counts = across ? [layers.length, numbers.length] : [numbers.length, layers.length];
    cell = Math.max(12, Math.min(Math.floor((room - left) / counts[0]) - gap, Math.floor(most)));
    const pitch = cell + gap;
    table2d = Array.from({ length: counts[1] }, () => new Array(counts[0]));
    layers.forEach((layer, l) =>
      layer.headNumbers.forEach((number) => {
        const [x, y] = across ? [l, numbers.indexOf(number)] : [numbers.indexOf(number), l];
        const head = heads.find((h) => h.layer === layer && h.number === number);
        table2d[y][x] = head;
        put(buttons.get(head.label), left + x * pitch, top + y * pitch, cell, cell);
      }),
    );
    const names = across ? ["layer →", "head ↓"] : ["head →", "layer ↓"];
    labels.push(label(names[0], left, 0), label(names[1], 0, top - 15));
    const step = Math.ceil(20 / pitch);
    (across ? layers.map((l) => l.layer) : numbers).forEach((n, i) => i % step === 0 && labels.push(label(String(n), left + i * pitch + cell / 2, 19, "middle")));
    (across ? numbers : layers.map((l) => l.layer)).forEach((n, i) => labels.push(label(String(n), left - 8, top + i * pitch + cell / 2 - 6, "end")));
    grid.style.height = `${top + counts[1] * pitch}px`;
  } else {
    const wanted = state.size === "large" ? 132 : 52;
    const list = ordered();
    columns = Math.max(1, Math.floor((room + gap) / (wanted + gap)));
    cell = Math.floor((room + gap) / columns) - gap;
    const height = cell + 18;
    const statistic = content.statistics.find((s) => s.name === state.order.replace("-", ""));
    table2d = [];
    list.forEach((head, i) => {
      const [x, y] = [(i % columns) * (cell + gap), Math.floor(i / columns) * height];
      (table2d[Math.floor(i / columns)] ||= []).push(head);
      put(buttons.get(head.label), x, y, cell, cell);
      const value = worded(statistic, head.layer.values[statistic.name][head.index]);
      const name = `L${head.layer.layer}·H${head.number}`;
      labels.push(label(cell > 90 ? `${name}  ${value}` : name, x + 1, y + cell + 3, "caption"));
    });
    grid.style.height = `${Math.ceil(list.length / columns) * height}px`;
  }
  for (const old of grid.querySelectorAll(".label")) old.remove();
  grid.append(...labels);
  return cell;
}

/** @param {string} text @param {number} x @param {number} y @param {string} [kind] */
function label(text, x, y, kind = "start") {
  const made = element("span", text, `label ${kind}`);
  made.style.left = `${x}px`;
  made.style.top = `${y}px`;
  if (kind === "middle") made.style.transform = "translateX(-50%)";
  if (kind === "end") made.style.transform = "translateX(-100%)";
  return made;
}

/** @param {HTMLElement} item @param {number} x @param {number} y @param {number} width @param {number} height */
function put(item, x, y, width, height) {
  Object.assign(item.style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` });
}

/** Heads whose small map is not what the state says; painted when they come into view. */
const stale = new Set();
let cellSize = 40;
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const head = headOf(entry.target.getAttribute("data-head"));
      /** @type {any} */ (entry.target).inView = entry.isIntersecting;
      if (entry.isIntersecting && head && stale.delete(head)) paintSmall(head);
    }
  },
  { rootMargin: "300px" },
);

/** @param {Head} head */
function paintSmall(head) {
  const canvas = buttons.get(head.label).firstElementChild;
  const factor = Math.max(1, Math.floor(Math.max(head.layer.rows, head.layer.cols) / (cellSize * devicePixelRatio)));
  paint(/** @type {HTMLCanvasElement} */ (canvas), head, factor);
  /** @type {HTMLElement} */ (canvas).style.imageRendering = factor === 1 && head.layer.cols < cellSize * devicePixelRatio ? "pixelated" : "auto";
}

function drawGrid() {
  cellSize = layOut();
  for (const head of heads) {
    if (/** @type {any} */ (buttons.get(head.label)).inView) paintSmall(head);
    else stale.add(head);
  }
}

/** @param {string | null} text @returns {Head | undefined} */
const headOf = (text) => heads.find((head) => head.label === text);

function makeGrid() {
  const grid = byId("grid");
  for (const head of heads) {
    const button = element("button", undefined, "cell");
    button.type = "button";
    button.dataset.head = head.label;
    button.tabIndex = -1;
    button.setAttribute("aria-label", `Layer ${head.layer.layer}, head ${head.number}`);
    button.append(element("canvas"));
    buttons.set(head.label, button);
    grid.append(button);
    watcher.observe(button);
  }
  buttons.get(heads[0].label).tabIndex = 0;
  const target = (event) => headOf(event.target.closest?.(".cell")?.dataset.head);
  grid.addEventListener("click", (event) => target(event) && change({ head: target(event).label }));
  grid.addEventListener("pointerover", (event) => event.pointerType !== "touch" && showCard(target(event)));
  grid.addEventListener("pointerleave", () => showCard(undefined));
  grid.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && showCard(target(event)));
  grid.addEventListener("focusout", () => showCard(undefined));
  grid.addEventListener("keydown", (event) => {
    const head = target(event);
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!head || !move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const y = table2d.findIndex((row) => row.includes(head));
    const next = table2d[y + move[1]]?.[table2d[y].indexOf(head) + move[0]];
    if (next) rove(next);
  });
}

/** Give a head the focus. @param {Head} head */
function rove(head) {
  for (const button of buttons.values()) button.tabIndex = -1;
  const button = buttons.get(head.label);
  button.tabIndex = 0;
  button.focus();
}

/** Show what is known of a head beside its cell. @param {Head | undefined} head */
function showCard(head) {
  const card = byId("card");
  card.hidden = !head || byId("head").open;
  if (card.hidden) return;
  const canvas = card.querySelector("canvas");
  paint(canvas, head, 1);
  canvas.style.imageRendering = "pixelated";
  card.querySelector("h2").textContent = `Layer ${head.layer.layer} · head ${head.number}`;
  card.querySelector("dl").replaceChildren(
    ...content.statistics.flatMap((s) => [element("dt", s.label), element("dd", worded(s, head.layer.values[s.name][head.index]))]),
  );
  const box = buttons.get(head.label).getBoundingClientRect();
  const [width, height] = [card.offsetWidth, card.offsetHeight];
  const right = box.right + 12 + width < innerWidth;
  card.style.left = `${Math.max(8, right ? box.right + 12 : box.left - 12 - width)}px`;
  card.style.top = `${Math.max(8, Math.min(innerHeight - height - 8, box.top - 30))}px`;
}

// ---- one head ------------------------------------------------------------------------------------------------------------

/** Where things are in the large figure; set by `drawHead`. */
let frame = { x: 0, y: 0, width: 1, height: 1 };

function drawHead() {
  const dialog = byId("head");
  const head = headOf(state.head);
  if (!head) {
    if (dialog.open) dialog.close();
    return;
  }
  const { layer } = head;
  byId("head-title").textContent = `Layer ${layer.layer} · head ${head.number}`;
  byId("head-title").title = layer.name;
  const size = `${layer.queries.toLocaleString("en")} queries × ${layer.keys.toLocaleString("en")} keys`;
  const cell = `${figures(layer.queries / layer.rows)} × ${figures(layer.keys / layer.cols)} tokens`;
byId("head-facts").textContent = `${size} · a cell is ${cell}`;
  if (!dialog.open) {
    showCard(undefined);
    byId("head-controls").append(byId("shared"));
    dialog.showModal();
    dialog.scrollTop = 0;
    byId("map").focus({ preventScroll: true });
  }
  drawNumbers(head);
  drawFigure(head);
  drawReading(head);
}

/** @param {Head} head */
function drawNumbers(head) {
  const { values, evenValues, topKey } = head.layer;
  byId("numbers").replaceChildren(
    ...content.statistics.map((s) => {
      const row = element("tr");
      const name = element("th", s.label);
      name.scope = "row";
      name.title = s.meaning;
      const even = evenValues[s.name][Math.min(head.index, evenValues[s.name].length - 1)];
      row.append(name, element("td", worded(s, values[s.name][head.index])), element("td", worded(s, even)));
      return row;
    }),
  );
  const key = topKey[head.index];
  const text = textOf(head.layer, "key", key, key + 1);
  const share = percent(values.top_key_share[head.index]);
  byId("top-key").replaceChildren(`Most attention, ${share}, goes to token ${key.toLocaleString("en")}`, ...(text ? [" ", element("code", shortened(text, 40))] : []));
  byId("module").textContent = `Module ${head.layer.name}`;
}

/** @param {Head} head */
function drawFigure(head) {
  const canvas = byId("map");
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const room = byId("figure").clientWidth;
  const narrow = room < 560;
  const tall = Math.max(300, byId("head").clientHeight - byId("figure").offsetTop - 22);
  const track = narrow ? 34 : 46;
  const left = narrow ? 62 : 150;
  const top = 8;
  const right = 2 * (track + 10) + 14;
  const below = track + 12 + (narrow ? 40 : 104);
  const { rows, cols } = head.layer;
  // Whole device pixels a cell, so that all cells are alike.
  const ratio = devicePixelRatio;
  const whole = (room, cells) => Math.max(1, Math.floor((room * ratio) / cells)) * (cells / ratio);
  const side = Math.min(room - left - right, tall - top - below);
  // Where that would waste much room, or does not fit, cells may differ by a pixel.
  const fitted = (cells) => (whole(side, cells) > side || whole(side, cells) < 0.85 * side ? side : whole(side, cells));
  const [width, height] = [fitted(cols), fitted(rows)];
  frame = { x: left, y: top, width, height };
  const [full, deep] = [left + width + right, top + height + below];
  canvas.width = Math.round(full * ratio);
  canvas.height = Math.round(deep * ratio);
  canvas.style.width = `${full}px`;
  canvas.style.height = `${deep}px`;
  context.scale(ratio, ratio);

  const small = document.createElement("canvas");
  paint(small, head, 1);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, left, top, width, height);
  const focused = canvas.matches(":focus-visible");
  context.strokeStyle = colour(focused ? "accent" : "line");
  context.lineWidth = focused ? 2 : 1;
  context.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1);

  const own = numbersOf(head.layer, head.index);
  const even = evenOf(head);
  drawRowTrack(context, left + width + 10, track, own.entropy, even.entropy, "entropy", "nats", colour);
  drawRowTrack(context, left + width + 20 + track, track, own.distance, even.distance, "distance", "tokens", colour);
  drawReceived(context, top + height + 10, track, own.received, even.received, colour, narrow);
  drawAxes(context, head, track, narrow, colour);
  if (state.row >= 0) drawCross(context, head, colour);
}

/** A track beside the rows: filled from the left, with the even spread as a line. */
function drawRowTrack(context, x, width, own, even, name, unit, colour) {
  const { y, height } = frame;
  let most = 1e-9;
  for (const value of own) most = Math.max(most, value);
  for (const value of even) most = Math.max(most, value);
  const step = height / own.length;
  context.fillStyle = colour("bar");
  own.forEach((value, i) => context.fillRect(x, y + i * step, (value / most) * width, Math.max(step, 0.5)));
  context.strokeStyle = colour("ink");
  context.lineWidth = 1;
  context.beginPath();
  even.forEach((value, i) => context.lineTo(x + (value / most) * width, y + (i + 0.5) * (height / even.length)));
  context.stroke();
  context.fillStyle = colour("faint");
  const narrow = width < 40;
  context.font = `${narrow ? 9 : 11}px ${getComputedStyle(document.body).fontFamily}`;
  context.textAlign = "left";
  context.textBaseline = "top";
  context.fillText(name, x, y + height + 5);
  context.fillText(narrow ? `≤ ${figures(most, 2)}` : `0 to ${figures(most, 2)}`, x, y + height + 18);
  if (!narrow) context.fillText(unit, x, y + height + 31);
}

/** The track under the columns: what each key receives, as a logarithm of its lift over the even spread. */
function drawReceived(context, y, height, own, even, colour, narrow) {
  const { x, width } = frame;
  const reach = 8; // powers of two, up and down
  const step = width / own.length;
  const middle = y + height / 2;
  const colours = TABLES[`lift-${dark.matches ? "dark" : "light"}`];
  own.forEach((value, i) => {
    if (even[i] === 0) return;
    const lift = Math.max(-1, Math.min(1, Math.log2(Math.max(value, 1e-30) / even[i]) / reach));
    const at = 3 * (lift > 0 ? 215 : 48);
    context.fillStyle = `rgb(${colours[at]},${colours[at + 1]},${colours[at + 2]})`;
    context.fillRect(x + i * step, lift > 0 ? middle - (lift * height) / 2 : middle, Math.max(step, 0.5), (Math.abs(lift) * height) / 2);
  });
  context.strokeStyle = colour("ink");
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(x, middle);
  context.lineTo(x + width, middle);
  context.stroke();
  context.fillStyle = colour("faint");
  context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  context.textAlign = "right";
  context.textBaseline = "middle";
  if (!narrow) {
    context.fillText("received (lift)", x - 42, middle);
  }
  context.font = `10px ${getComputedStyle(document.body).fontFamily}`;
  context.fillText("256×", x - 4, y + 4);
  context.fillText("1×", x - 4, middle);
  context.fillText("1/256", x - 4, y + height - 3);
}

function drawAxes(context, head, track, narrow, colour) {
  const { x, y, width, height } = frame;
  const { layer } = head;
  const family = getComputedStyle(document.body).fontFamily;
  const most = narrow ? 0 : 13;
  const draw = (axis, cells, length, at, turn) => {
    const step = Math.max(1, Math.ceil(15 / ((axis === "key" ? width : height) / cells)));
    for (let cell = 0; cell < cells; cell += step) {
      const [from, to] = span(cell, cells, length);
      context.save();
      context.translate(...at(cell));
      if (turn) context.rotate(-Math.PI / 2);
      context.textAlign = "right";
      context.textBaseline = "middle";
      context.font = `10.5px ${family}`;
      context.fillStyle = colour("faint");
      const position = from.toLocaleString("en");
      context.fillText(position, 0, 0);
      const letters = turn ? most - 5 : most;
      const text = most ? shortened(squeezed(textOf(layer, axis, from, Math.min(to, from + 40))).replace(/^[·⏎]+(?=[^·⏎])/, ""), letters) : "";
      context.fillStyle = colour("ink");
      context.font = `10.5px ${style.mono}`;
      context.fillText(text, -(context.measureText(layer.keys.toLocaleString("en")).width + 12), 0);
      context.restore();
    }
  };
  const style = { mono: getComputedStyle(document.documentElement).getPropertyValue("--mono") };
  draw("query", layer.rows, layer.queries, (cell) => [x - 6, y + ((cell + 0.5) * height) / layer.rows], false);
  draw("key", layer.cols, layer.keys, (cell) => [x + ((cell + 0.5) * width) / layer.cols, y + height + track + 18], true);
}

function drawCross(context, head, colour) {
  const { x, y, width, height } = frame;
  const { rows, cols } = head.layer;
  const [w, h] = [width / cols, height / rows];
  const [cx, cy] = [x + state.col * w, y + state.row * h];
  context.strokeStyle = colour("ink");
  context.globalAlpha = 0.35;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(x, cy + h / 2);
  context.lineTo(x + width, cy + h / 2);
  context.moveTo(cx + w / 2, y);
  context.lineTo(cx + w / 2, y + height);
  context.stroke();
  context.globalAlpha = 1;
  context.strokeStyle = colour("accent");
  context.lineWidth = 2;
  context.strokeRect(cx - 1.5, cy - 1.5, w + 3, h + 3);
}

/** @param {Head} head */
function drawReading(head) {
  const { layer } = head;
  const into = byId("reading");
  if (state.row < 0) {
    into.replaceChildren(element("dd", "Point at the map, or move the cursor with the arrow keys."));
    into.firstElementChild.style.gridColumn = "1 / -1";
    return;
  }
  const at = state.row * layer.cols + state.col;
  const own = numbersOf(layer, head.index);
  const even = evenOf(head);
  const [q0, q1] = span(state.row, layer.rows, layer.queries);
  const [k0, k1] = span(state.col, layer.cols, layer.keys);
  const reach = (from, to) => (to - from === 1 ? from.toLocaleString("en") : `${from.toLocaleString("en")} to ${(to - 1).toLocaleString("en")}`);
  const items = [];
  const add = (name, value, kind) => items.push(element("dt", name), element("dd", value, kind));
  const described = (name, axis, from, to) => {
    add(name, reach(from, to));
    const text = textOf(layer, axis, from, to);
    if (text) add("", shortened(squeezed(text), 150), "text");
  };
  if (even.mean[at] === 0) {
    add("hidden", "these queries may not see these keys");
  } else {
    const most = state.cell === "max";
    add("lift", times(most ? own.max[at] / even.max[at] : own.mean[at] / even.mean[at]), "big");
    add("mean", `${weight(own.mean[at])}, lift ${times(own.mean[at] / even.mean[at])}`);
    add("largest", `${weight(own.max[at])}, lift ${times(own.max[at] / even.max[at])}`);
  }
  described(q1 - q0 === 1 ? "query" : "queries", "query", q0, q1);
  described(k1 - k0 === 1 ? "key" : "keys", "key", k0, k1);
  into.replaceChildren(...items);
}

/** Set the cursor from a point on the large figure. @param {PointerEvent} event */
function pointAt(event) {
  const head = headOf(state.head);
  const box = byId("map").getBoundingClientRect();
  const col = Math.floor(((event.clientX - box.left - frame.x) / frame.width) * head.layer.cols);
  const row = Math.floor(((event.clientY - box.top - frame.y) / frame.height) * head.layer.rows);
  const inside = col >= 0 && row >= 0 && col < head.layer.cols && row < head.layer.rows;
  if (inside && (col !== state.col || row !== state.row)) change({ row, col });
}

function makeHead() {
  const [dialog, map] = [byId("head"), byId("map")];
  const beside = (step) => {
    const list = ordered();
    const at = list.findIndex((head) => head.label === state.head);
    change({ head: list[(at + step + list.length) % list.length].label });
  };
  byId("previous").addEventListener("click", () => beside(-1));
  byId("next").addEventListener("click", () => beside(1));
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    byId("controls").prepend(byId("shared"));
    const head = headOf(state.head);
    change({ head: "", row: -1, col: -1 });
    if (head) rove(head);
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  map.addEventListener("pointermove", pointAt);
  map.addEventListener("pointerdown", pointAt);
  for (const event of ["focus", "blur"]) map.addEventListener(event, () => render({ ...state, row: NaN }));
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const head = headOf(state.head);
    // In a group of choices the arrows belong to the group.
    const move = event.target.matches("input") ? undefined : { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const choice = { l: { scale: "lift" }, g: { scale: "log" }, r: { scale: "raw" }, m: { cell: "mean" }, x: { cell: "max" } }[event.key];
    if (event.key === "[") beside(-1);
    else if (event.key === "]") beside(1);
    else if (choice) change(choice);
    else if (move) {
      event.preventDefault();
      const step = event.shiftKey ? 8 : 1;
      const clip = (value, length) => Math.max(0, Math.min(length - 1, value));
      const [row, col] = state.row < 0 ? [0, 0] : [state.row + step * move[0], state.col + step * move[1]];
      change({ row: clip(row, head.layer.rows), col: clip(col, head.layer.cols) });
    }
  });
}

// ---- state ---------------------------------------------------------------------------------------------------------------

/** Read the address; what is not a choice there is ignored. */
function fromAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const read = { scale: "lift", cell: "mean", size: "fit", order: "layer", head: "", row: -1, col: -1 };
  for (const [name, choices] of Object.entries(CHOICES)) if (choices.includes(wanted.get(name))) read[name] = wanted.get(name);
  const order = wanted.get("order") ?? "";
  if (content.statistics.some((s) => s.name === order.replace(/^-/, ""))) read.order = order;
  const head = headOf(wanted.get("head"));
  if (head) {
    read.head = head.label;
    const [row, col] = (wanted.get("at") ?? "").split(",").map(Number);
    if (Number.isInteger(row) && Number.isInteger(col) && row >= 0 && col >= 0 && row < head.layer.rows && col < head.layer.cols) Object.assign(read, { row, col });
  }
  return read;
}

function toAddress() {
  const parts = new URLSearchParams();
  if (state.scale !== "lift") parts.set("scale", state.scale);
  if (state.cell !== "mean") parts.set("cell", state.cell);
  if (state.size !== "fit") parts.set("size", state.size);
  if (state.order !== "layer") parts.set("order", state.order);
  if (state.head) parts.set("head", state.head);
  if (state.head && state.row >= 0) parts.set("at", `${state.row},${state.col}`);
  const hash = parts.toString().replace("%2C", ",");
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

/** Change what is shown. @param {Partial<typeof state>} changes */
function change(changes) {
  const before = { ...state };
  Object.assign(state, changes);
  const head = headOf(state.head);
  if (head && (state.row >= head.layer.rows || state.col >= head.layer.cols)) Object.assign(state, { row: -1, col: -1 });
  toAddress();
  render(before);
}

/** Draw what differs from before. @param {typeof state} [before] */
function render(before) {
  const differs = (...names) => !before || names.some((name) => before[name] !== state[name]);
  for (const name of Object.keys(CHOICES)) for (const input of document.getElementsByName(name)) /** @type {HTMLInputElement} */ (input).checked = /** @type {HTMLInputElement} */ (input).value === state[name];
  byId("order").value = state.order;
  if (differs("scale", "cell", "size", "order")) {
    drawKey();
    drawGrid();
  }
  if (differs("scale", "cell", "head", "row", "col")) drawHead();
}

function makeHeader() {
  byId("title").textContent = content.title;
  const first = layers[0];
  const most = Math.max(...layers.map((layer) => layer.heads));
  const facts = [content.model, `${layers.length} layers × ${most} heads`];
  if (content.tokens) facts.push(`${content.tokens.length.toLocaleString("en")} tokens`);
  const entries = first.queries * first.keys;
  const size = entries >= 1e6 ? `${figures(entries / 1e6, 2)} million` : entries.toLocaleString("en");
  facts.push(`${heads.length.toLocaleString("en")} matrices of ${size} entries`);
  if (content.error !== null) facts.push(`checked against the model's own output: worst relative error ${figures(content.error, 2)}`);
  byId("facts").textContent = facts.join(" · ");
  const order = byId("order");
  order.append(new Option("layer and head", "layer"));
  for (const s of content.statistics) {
    const group = element("optgroup");
    group.label = s.label;
    group.append(new Option(`${s.label}, highest first`, s.name), new Option(`${s.label}, lowest first`, `-${s.name}`));
    order.append(group);
  }
  for (const id of ["shared", "controls"]) {
    byId(id).addEventListener("change", (event) => {
      event.stopPropagation();
      change({ [event.target.name]: event.target.value });
    });
  }
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
}

async function start() {
  codes = await unpack();
  place();
  makeHeader();
  makeGrid();
  makeHead();
  Object.assign(state, fromAddress());
  render();
  addEventListener("hashchange", () => {
    const before = { ...state };
    Object.assign(state, fromAddress());
    render(before);
  });
  const again = () => render();
  dark.addEventListener("change", again);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width && !byId("head").open) return; // a phone's address bar that comes and goes
    width = innerWidth;
    again();
  });
  document.documentElement.dataset.ready = "true";
}

start();
