/**
 * The transport of a page that holds its own answers. What was left out is answered as missing, so that the map goes on
 * showing a coarser level; what follows from exact entries that are there is worked out from them.
 */

import { cellExtent, cellSide, tileCount } from "../matrix/pyramid";
import { visibleCells } from "../matrix/shown";
import type { AtlasInfo, CellAnswer, LayerInfo, PeakAnswer, Tile } from "../protocol";
import { ProtocolError, TILE, parseTerm, parseTile, parseVectors, paths, tileBytes, vectorBytes } from "../protocol";
import type { Transport } from "./transport";
import { RequestError } from "./transport";

/** What lies in the page: its first view, and by path the bytes of a number and a packed answer. */
export interface Content {
  readonly view: string;
  readonly answers: Readonly<Record<string, readonly [width: number, packed: string]>>;
}

export const LEFT_OUT = "This file holds only a part: what it lacks is shown more coarsely, or not at all.";

/** The content of a page that holds its own answers, or null on one that has a server. */
export function embeddedContent(root: Document = document): Content | null {
  const element = root.getElementById("content");
  return element ? (JSON.parse(element.textContent) as Content) : null;
}

const KEPT = 24;

export class EmbeddedTransport implements Transport {
  readonly #tiles = new Map<string, Promise<Tile>>();
  #layers: Promise<(matrix: string) => LayerInfo> | null = null;

  constructor(readonly content: Content) {}

  async json(path: string): Promise<unknown> {
    if (this.#holds(path)) return JSON.parse(new TextDecoder().decode(await this.#unpacked(path)));
    const { word, words, query } = split(path);
    if (word === "cells") return this.#cell(words);
    if (word === "peaks") return this.#peak(words[0] ?? "", query);
    throw leftOut();
  }

  async bytes(path: string): Promise<ArrayBuffer> {
    if (this.#holds(path)) return this.#unpacked(path);
    const { word, words, query } = split(path);
    if (word === "tiles") return this.#tile(words, query.get("reduce") ?? "max");
    if (word === "rows" || word === "columns") return this.#line(word === "rows", words);
    throw leftOut();
  }

  onEvent(): () => void {
    return () => undefined; // nothing happens in a file
  }

  #holds(path: string): boolean {
    return Object.hasOwn(this.content.answers, path);
  }

  async #unpacked(path: string): Promise<ArrayBuffer> {
    const [width, packed] = this.content.answers[path] ?? [1, ""];
    const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return together(await new Response(stream).arrayBuffer(), width);
  }

  /** The layer of a matrix, by its name. */
  async #layer(matrix: string): Promise<LayerInfo> {
    this.#layers ??= this.json(paths.atlas()).then((atlas) => (name: string) => layerOf(name, atlas as AtlasInfo));
    return (await this.#layers)(matrix);
  }

  // -------------------------------------------------------------------------------------------------------- numbers

  async #tile([matrix = "", ...place]: readonly string[], reduce: string): Promise<ArrayBuffer> {
    const [level = 0, row = 0, col = 0] = place.map(Number);
    const layer = await this.#layer(matrix);
    const path = tilePath(matrix, level, row, col, level === layer.levels ? "max" : reduce);
    if (!this.#holds(path)) {
      const { rows, cols } = sizeOf(layer, level, row, col);
      // where nothing can be seen there is nothing to hold
      if (isHidden(layer, level, row, col)) return tileBytes({ rows, cols, values: new Float32Array(rows * cols) });
      throw leftOut();
    }
    if (level < layer.levels || reduce !== "lift") return this.#unpacked(path);
    const { rows, cols, values } = await this.#entries(matrix, row, col);
    const factors = await this.#factors(matrix, row, col);
    return tileBytes({ rows, cols, values: values.map((value, i) => value * (factors[Math.floor(i / cols)] ?? 0)) });
  }

  /** A tile of exact entries, or a refusal. */
  async #entries(matrix: string, row: number, col: number): Promise<Tile> {
    const layer = await this.#layer(matrix);
    const path = tilePath(matrix, layer.levels, row, col, "max");
    if (!this.#holds(path)) {
      if (!isHidden(layer, layer.levels, row, col)) throw leftOut();
      const size = sizeOf(layer, layer.levels, row, col);
      return { ...size, values: new Float32Array(size.rows * size.cols) };
    }
    let known = this.#tiles.get(path);
    if (!known) {
      const [oldest] = this.#tiles.keys();
      if (this.#tiles.size >= KEPT && oldest !== undefined) this.#tiles.delete(oldest);
      this.#tiles.set(path, (known = this.#unpacked(path).then(parseTile)));
    }
    return known;
  }

  /** What the rows of a tile are multiplied by for their lift; none for a difference. */
  async #factors(matrix: string, row: number, col: number): Promise<Float32Array> {
    const layer = await this.#layer(matrix);
    const path = tilePath(matrix, layer.levels, row, col, "lift");
    if (!this.#holds(path)) throw leftOut();
    return parseVectors(await this.#unpacked(path))[0] ?? new Float32Array();
  }

  /** A whole row or column, if all of its entries are here. */
  async #line(isRow: boolean, [matrix = "", text = ""]: readonly string[]): Promise<ArrayBuffer> {
    const layer = await this.#layer(matrix);
    const index = Number(text);
    const [tile, at] = [Math.floor(index / TILE), index % TILE];
    const length = isRow ? layer.keys : layer.queries;
    const values = new Float32Array(length);
    for (let other = 0; other * TILE < length; other++) {
      const { cols, values: entries } = await this.#entries(matrix, isRow ? tile : other, isRow ? other : tile);
      for (let i = other * TILE; i < Math.min(length, (other + 1) * TILE); i++) {
        values[i] = entries[isRow ? at * cols + (i % TILE) : (i % TILE) * cols + at] ?? 0;
      }
    }
    return vectorBytes(values);
  }

  async #cell([matrix = "", ...place]: readonly string[]): Promise<CellAnswer> {
    const [row = 0, col = 0] = place.map(Number);
    const layer = await this.#layer(matrix);
    const [tileRow, tileCol] = [Math.floor(row / TILE), Math.floor(col / TILE)];
    const { cols, values } = await this.#entries(matrix, tileRow, tileCol);
    const value = values[(row % TILE) * cols + (col % TILE)] ?? 0;
    const [first, end] = visibleCells(layer, layer.levels, row);
    const visible = value !== 0 || (col >= first && col < end);
    const factors = await this.#factors(matrix, tileRow, tileCol).catch(() => null);
    const whole = visible ? await this.bytes(paths.row(matrix, row)).then((bytes) => parseVectors(bytes)[0] ?? null, () => null) : null;
    return {
      value,
      exact: pythonic(value),
      score: null,
      // of a row that is not here as a whole, neither is known
      rank: whole && 1 + whole.reduce((count, other) => count + Number(other > value), 0),
      row_sum: whole ? whole.reduce((sum, other) => sum + other, 0) : NaN,
      visible,
      lift: factors && value * (factors[row % TILE] ?? 0),
    };
  }

  /** The largest entry of a part, if all of its entries are here. */
  async #peak(matrix: string, query: URLSearchParams): Promise<PeakAnswer> {
    const layer = await this.#layer(matrix);
    const [rows, cols] = [span(query.get("rows"), layer.queries), span(query.get("cols"), layer.keys)];
    let best: PeakAnswer = { row: rows[0], col: cols[0], value: 0 };
    for (let r = Math.floor(rows[0] / TILE); r * TILE < rows[1]; r++) {
      for (let c = Math.floor(cols[0] / TILE); c * TILE < cols[1]; c++) {
        const tile = await this.#entries(matrix, r, c);
        for (let row = Math.max(rows[0], r * TILE); row < Math.min(rows[1], (r + 1) * TILE); row++) {
          for (let col = Math.max(cols[0], c * TILE); col < Math.min(cols[1], (c + 1) * TILE); col++) {
            const value = tile.values[(row - r * TILE) * tile.cols + col - c * TILE] ?? 0;
            if (Math.abs(value) > Math.abs(best.value)) best = { row, col, value };
          }
        }
      }
    }
    return best;
  }
}

const leftOut = (): RequestError => new RequestError(404, LEFT_OUT);

const tilePath = (matrix: string, level: number, row: number, col: number, reduce: string): string =>
  `/api/tiles/${encodeURIComponent(matrix)}/${level}/${row}/${col}?reduce=${reduce}`;

function split(path: string): { readonly word: string; readonly words: readonly string[]; readonly query: URLSearchParams } {
  const [place = "", query = ""] = path.split("?");
  const [word = "", ...words] = place.replace(/^\/api\//, "").split("/").map(decodeURIComponent);
  return { word, words, query: new URLSearchParams(query) };
}

function span(text: string | null, length: number): readonly [number, number] {
  const found = /^(\d+)-(\d+)$/.exec(text ?? "");
  return found ? [Number(found[1]), Math.min(length, Number(found[2]))] : [0, length];
}

function layerOf(matrix: string, atlas: AtlasInfo): LayerInfo {
  const term = parseTerm(matrix.split("~")[0] ?? "");
  const layer = atlas.captures.find(({ id }) => id === term?.capture)?.layers.find((one) => one.layer === term?.layer);
  if (!layer) throw leftOut();
  return layer;
}

/** Rows and columns of cells of a tile. */
function sizeOf(layer: LayerInfo, level: number, row: number, col: number): { readonly rows: number; readonly cols: number } {
  const count = tileCount(layer, level);
  if (!(row < count.rows && col < count.cols && level <= layer.levels)) throw leftOut();
  const side = cellSide(layer, level);
  const { rowEnd, colEnd } = cellExtent(layer, level, (row + 1) * TILE - 1, (col + 1) * TILE - 1);
  return { rows: Math.ceil(rowEnd / side) - row * TILE, cols: Math.ceil(colEnd / side) - col * TILE };
}

/** Whether no query of a tile may see any key of it. */
function isHidden(layer: LayerInfo, level: number, row: number, col: number): boolean {
  const { rows, cols } = sizeOf(layer, level, row, col);
  for (let i = row * TILE; i < row * TILE + rows; i++) {
    const [first, end] = visibleCells(layer, level, i);
    if (first < col * TILE + cols && end > col * TILE) return false;
  }
  return true;
}

const HEADER = 16;

/** The bytes of numbers, each together again: they are packed all first bytes first. */
export function together(bytes: ArrayBuffer, width: number): ArrayBuffer {
  if (width === 1) return bytes;
  const from = new Uint8Array(bytes);
  const whole = new Uint8Array(bytes.byteLength);
  whole.set(from.subarray(0, HEADER));
  const count = (bytes.byteLength - HEADER) / width;
  if (!Number.isInteger(count)) throw new ProtocolError(`wanted numbers of ${width} bytes, got ${bytes.byteLength - HEADER} bytes`);
  for (let plane = 0; plane < width; plane++) {
    for (let i = 0, at = HEADER + plane * count; i < count; i++, at++) whole[HEADER + i * width + plane] = from[at] ?? 0;
  }
  return whole.buffer;
}

/** A number in full, as Python writes it. */
export function pythonic(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e16)) {
    return value.toExponential().replace(/e([-+])(\d)$/, "e$10$2");
  }
  const text = Object.is(value, -0) ? "-0" : String(value);
  return Number.isInteger(value) ? `${text}.0` : text;
}
