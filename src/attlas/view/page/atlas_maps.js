// @ts-check

/**
 * The maps of an atlas: what its codes stand for, what colour a number has, what a cell is called.
 *
 * @typedef {{heads: number, rows: number, cols: number, bins: number[], largest: number[], at: number}} Block
 * @typedef {Block & {layer: number, name: string, headNumbers: number[], queries: number, keys: number, even: number,
 *   namedQueries: boolean, namedKeys: boolean, topKey: number[],
 *   values: Record<string, number[]>, evenValues: Record<string, number[]>}} Layer
 * @typedef {{layer: Layer, index: number, number: number, label: string}} Head
 * @typedef {{mean: Float32Array, max: Float32Array, received: Float32Array, entropy: Float32Array, distance: Float32Array}} Numbers
 */

const REACH = { mean: 7, max: 12 }; // lift is coloured from 2^-REACH to 2^REACH

const state = { scale: "lift", cell: "mean", size: "fit", order: "layer", head: "", row: -1, col: -1 };
const CHOICES = { scale: ["lift", "log", "raw"], cell: ["mean", "max"], size: ["fit", "large"] };

// ---- numbers -------------------------------------------------------------------------------------------------------------

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

/** Runs of spaces are long in code, and say no more than short ones. @param {string} text */
const squeezed = (text) => text.replace(/·{3,}/g, "··");

/** From and up to which token a cell reaches. @param {number} cell @param {number} cells @param {number} length */
const span = (cell, cells, length) => [Math.floor((cell * length) / cells), Math.floor(((cell + 1) * length) / cells)];

/** The text of some tokens of an axis. @param {Layer} layer @param {"query"|"key"} axis @param {number} from @param {number} to */
function textOf(layer, axis, from, to) {
  if (!(axis === "key" ? layer.namedKeys : layer.namedQueries)) return "";
  const offset = axis === "key" ? 0 : layer.keys - layer.queries;
  return content.tokens.slice(from + offset, to + offset).join("");
}
