/** Small maps: what an even spread would give their cells, and fewer cells that still mean what the reducer says. Arithmetic only. */

import type { LayerInfo, Reduce, Tile } from "../protocol";

type Shape = Pick<LayerInfo, "queries" | "keys" | "causal" | "window">;

/** A whole matrix in cells: what an even spread gives each, 0 where nothing can be seen, and how many entries lie in it. */
export interface Even extends Tile {
  /** Entries that a row of cells is high, and a column of them wide; fewer at the matrix' edge. */
  readonly heights: Float32Array;
  readonly widths: Float32Array;
}

/** Entries along the side of the cells of a map of a whole matrix: a power of two. */
export function sideOf(layer: Pick<LayerInfo, "queries" | "keys">, map: Pick<Tile, "rows" | "cols">): number {
  let side = 1;
  while (Math.max(layer.queries, layer.keys) > side * Math.max(map.rows, map.cols)) side *= 2;
  return side;
}

/** What an even spread would give cells of so many entries a side. */
export function evenSpread({ queries, keys, causal, window }: Shape, side: number): Even {
  const [heights, widths] = [lengths(queries, side), lengths(keys, side)];
  const [rows, cols] = [heights.length, widths.length];
  const values = new Float32Array(rows * cols);
  const reach = window ?? Infinity;
  const steps = new Float64Array(cols + 1);
  for (let r = 0; r < rows; r++) {
    steps.fill(0);
    let [first, last] = [cols, -1];
    const add = (cell: number, value: number): void => void (values[r * cols + cell] = (values[r * cols + cell] ?? 0) + value);
    for (let i = r * side; i < Math.min(queries, (r + 1) * side); i++) {
      // with fewer queries than keys, the queries are the last rows
      const at = i + keys - queries;
      const from = Math.max(0, at - reach + 1);
      const upTo = causal ? at + 1 : Math.min(keys, at + reach);
      if (upTo <= from) continue;
      const share = 1 / (upTo - from);
      const [left, right] = [Math.floor(from / side), Math.floor((upTo - 1) / side)];
      add(left, (Math.min(upTo, (left + 1) * side) - from) * share);
      if (right > left) add(right, (upTo - right * side) * share);
      // those between get as much each: only where that begins and ends is noted down
      if (right > left + 1) {
        steps[left + 1] = (steps[left + 1] ?? 0) + side * share;
        steps[right] = (steps[right] ?? 0) - side * share;
      }
      [first, last] = [Math.min(first, left), Math.max(last, right)];
    }
    let between = 0;
    for (let c = first + 1; c < last; c++) add(c, (between += steps[c] ?? 0));
  }
  return { rows, cols, values, heights, widths };
}

const lengths = (count: number, side: number): Float32Array =>
  Float32Array.from({ length: Math.ceil(count / side) }, (_, i) => Math.min(side, count - i * side));

/**
 * Cells joined, `factor` by `factor`. The largest stays the largest and masses add up; a mean is over all entries, and a
 * ratio is over what an even spread would give, as for the cells that are joined. Cells where nothing can be seen are NaN.
 */
export function pooled(map: Tile, even: Even, factor: number, reduce: Reduce): Tile {
  const rows = Math.ceil(map.rows / factor);
  const cols = Math.ceil(map.cols / factor);
  const values = new Float32Array(rows * cols);
  const amount = new Float32Array(rows * cols);
  const count = new Float32Array(rows * cols);
  for (let r = 0; r < map.rows; r++) {
    const into = Math.floor(r / factor) * cols;
    const height = even.heights[r] ?? 0;
    for (let c = 0; c < map.cols; c++) {
      const at = into + Math.floor(c / factor);
      const value = map.values[r * map.cols + c] ?? 0;
      const chance = even.values[r * map.cols + c] ?? 0;
      const entries = height * (even.widths[c] ?? 0);
      amount[at] = (amount[at] ?? 0) + chance;
      count[at] = (count[at] ?? 0) + entries;
      const before = values[at] ?? 0;
      if (reduce === "max") values[at] = Math.max(before, value);
      else if (reduce !== "lift") values[at] = before + (reduce === "mean" ? value * entries : value);
      else if (chance > 0) values[at] = before + value * chance;
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
