/** The cells of a matrix that a picture shows: the tiles' own numbers, each as one coloured cell. */

import { levelFactor, rampOf, type Range } from "../matrix/scales";
import { paint } from "../matrix/painter";
import { cellSide, levelFor } from "../matrix/pyramid";
import type { ShownMatrix } from "../matrix/shown";
import { visibleCells } from "../matrix/shown";
import type { Reduce } from "../protocol";
import { TILE, parseTile, paths } from "../protocol";
import type { Transport } from "../transport/transport";
import { RequestError } from "../transport/transport";
import type { Cells } from "./scene";
import type { Part } from "./sight";

export interface Colouring {
  readonly reduce: Reduce;
  readonly range: Range;
  readonly colours: Uint32Array;
  /** Whether the first column is left out. */
  readonly sink: boolean;
}

/** Cells, and which of the matrix they are. */
export interface CellsInSight {
  readonly cells: Cells;
  readonly level: number;
  /** Entries along the side of a cell. */
  readonly side: number;
  /** The first cell, counted from the matrix' corner. */
  readonly row: number;
  readonly col: number;
}

const AT_ONCE = 4;

/** Fetch and colour what is in sight, at the level that suits so many pixels of an entry, or at a coarser one that is there. */
export async function cellsInSight(
  matrix: ShownMatrix,
  part: Part,
  pixelsPerEntry: number,
  colouring: Colouring,
  transport: Transport,
  signal: AbortSignal,
): Promise<CellsInSight> {
  for (let level = levelFor(matrix.pyramid, pixelsPerEntry); ; level--) {
    try {
      return await ofLevel(matrix, part, level, colouring, transport, signal);
    } catch (error) {
      // a file holds some levels only
      if (level === 0 || !(error instanceof RequestError) || error.status !== 404) throw error;
    }
  }
}

async function ofLevel(
  matrix: ShownMatrix,
  part: Part,
  level: number,
  { reduce, range, colours, sink }: Colouring,
  transport: Transport,
  signal: AbortSignal,
): Promise<CellsInSight> {
  const side = cellSide(matrix.pyramid, level);
  const [row, rowEnd] = [Math.floor(part.y / side), Math.ceil(part.bottom / side)];
  const [col, colEnd] = [Math.floor(part.x / side), Math.ceil(part.right / side)];
  const cells = { columns: colEnd - col, rows: rowEnd - row, pixels: new Uint32Array((colEnd - col) * (rowEnd - row)) };
  const ramp = rampOf(range);
  const factor = levelFactor(reduce, level);
  const one = async ([tileRow, tileCol]: readonly [number, number]): Promise<void> => {
    const tile = parseTile(await transport.bytes(paths.tile(matrix.name, level, tileRow, tileCol, reduce, level === 0 ? "f32" : "f16"), signal));
    const pixels = new Uint32Array(tile.rows * tile.cols);
    const drawn = (r: number): readonly [number, number] => {
      const [first, end] = visibleCells(matrix.layer, level, tileRow * TILE + r);
      return [Math.max(first, sink ? 1 : 0) - tileCol * TILE, end - tileCol * TILE];
    };
    paint(tile, { ramp, colours, factor, drawn }, pixels);
    const [left, right] = [Math.max(col, tileCol * TILE), Math.min(colEnd, tileCol * TILE + tile.cols)];
    for (let r = Math.max(row, tileRow * TILE); r < Math.min(rowEnd, tileRow * TILE + tile.rows); r++) {
      const from = (r - tileRow * TILE) * tile.cols - tileCol * TILE;
      cells.pixels.set(pixels.subarray(from + left, from + right), (r - row) * cells.columns + left - col);
    }
  };
  const tiles: [number, number][] = [];
  for (let r = Math.floor(row / TILE); r * TILE < rowEnd; r++) {
    for (let c = Math.floor(col / TILE); c * TILE < colEnd; c++) tiles.push([r, c]);
  }
  await someAtOnce(tiles, AT_ONCE, one);
  return { cells, level, side, row, col };
}

/** Do some work for each of many things, so many at a time; the first that fails ends it. */
export async function someAtOnce<T>(things: readonly T[], most: number, work: (thing: T) => Promise<void>): Promise<void> {
  const left = things.values();
  await Promise.all(
    Array.from({ length: most }, async () => {
      for (const thing of left) await work(thing);
    }),
  );
}
