/** Small maps out of level-0 tiles: fewer cells that still mean what the reducer says. Arithmetic only. */

import type { LayerInfo, Reduce, Tile } from "../protocol";
import { TILE } from "../protocol";

/** What an even spread would give each cell of level 0: 0 where nothing can be seen. */
export function evenSpread(layer: Pick<LayerInfo, "queries" | "keys" | "levels" | "causal" | "window">): Tile {
  const { queries, keys, levels, causal } = layer;
  const side = 2 ** levels;
  const rows = Math.min(TILE, Math.ceil(queries / side));
  const cols = Math.min(TILE, Math.ceil(keys / side));
  const reach = layer.window ?? Infinity;
  const values = new Float32Array(rows * cols);
  for (let i = 0; i < queries; i++) {
    // with fewer queries than keys, the queries are the last rows
    const at = i + keys - queries;
    const from = Math.max(0, at - reach + 1);
    const upTo = causal ? at + 1 : Math.min(keys, at + reach);
    if (upTo <= from) continue;
    const share = 1 / (upTo - from);
    const row = Math.floor(i / side) * cols;
    for (let c = Math.floor(from / side); c <= Math.floor((upTo - 1) / side); c++) {
      const seen = Math.min(upTo, (c + 1) * side) - Math.max(from, c * side);
      values[row + c] = (values[row + c] ?? 0) + seen * share;
    }
  }
  return { rows, cols, values };
}

/**
 * Cells joined, `factor` by `factor`. The largest stays the largest and masses add up; a mean is over all entries, and a
 * ratio is over what an even spread would give, as for the cells that are joined. Cells where nothing can be seen are NaN.
 */
export function pooled(tile: Tile, even: Tile, factor: number, reduce: Reduce): Tile {
  const rows = Math.ceil(tile.rows / factor);
  const cols = Math.ceil(tile.cols / factor);
  const values = new Float32Array(rows * cols);
  const amount = new Float32Array(rows * cols);
  const count = new Float32Array(rows * cols);
  for (let r = 0; r < tile.rows; r++) {
    const into = Math.floor(r / factor) * cols;
    for (let c = 0; c < tile.cols; c++) {
      const at = into + Math.floor(c / factor);
      const value = tile.values[r * tile.cols + c] ?? 0;
      const chance = even.values[r * tile.cols + c] ?? 0;
      amount[at] = (amount[at] ?? 0) + chance;
      count[at] = (count[at] ?? 0) + 1;
      const before = values[at] ?? 0;
      if (reduce === "max") values[at] = Math.max(before, value);
      else values[at] = before + (reduce === "lift" ? value * chance : value);
    }
  }
  for (let at = 0; at < values.length; at++) {
    const chance = amount[at] ?? 0;
    if (chance <= 0) values[at] = NaN;
    else if (reduce === "lift") values[at] = (values[at] ?? 0) / chance;
    else if (reduce === "mean") values[at] = (values[at] ?? 0) / (count[at] ?? 1);
  }
  return { rows, cols, values };
}

/** How many cells to join so that a map is not finer than the pixels it is drawn with. */
export const factorFor = (cells: number, pixels: number): number => Math.max(1, Math.floor(cells / Math.max(1, pixels)));
