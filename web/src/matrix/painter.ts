/** From the numbers of a tile to pixels, through a table of 256 colours: a change of range repaints and asks nobody. */

import type { Tile } from "../protocol";
import type { Ramp } from "./scales";

export interface Painting {
  readonly ramp: Ramp;
  /** 256 packed pixels. */
  readonly colours: Uint32Array;
  /** What numbers are multiplied by before the ramp. */
  readonly factor: number;
  /** Which cells of a row of the tile are drawn: from the first, up to the second. All others stay transparent. */
  readonly drawn: (row: number) => readonly [first: number, end: number];
}

/** What tiles are painted with, by level and place; the version tells whether a painted tile is still good. */
export interface Painter {
  readonly version: number;
  readonly for: (level: number, row: number, col: number) => Painting;
}

/** Write the pixels of a tile; `pixels` has its rows and columns. */
export function paint(tile: Tile, painting: Painting, pixels: Uint32Array): void {
  const { ramp, colours, factor, drawn } = painting;
  const { rows, cols, values } = tile;
  pixels.fill(0);
  for (let row = 0; row < rows; row++) {
    const [first, end] = drawn(row);
    for (let i = row * cols + Math.max(0, first), last = row * cols + Math.min(cols, end); i < last; i++) {
      const value = values[i] ?? NaN;
      if (value === value) pixels[i] = colours[(ramp(value * factor) * 255 + 0.5) | 0] ?? 0;
    }
  }
}
