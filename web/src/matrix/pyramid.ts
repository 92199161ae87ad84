/**
 * The arithmetic of levels and tiles. A cell of level z covers 2^(deepest − z) entries each way; the deepest level has
 * the entries themselves, level 0 fits into one tile.
 */

import { TILE } from "../protocol";

export interface Pyramid {
  readonly queries: number;
  readonly keys: number;
  /** The deepest level. */
  readonly levels: number;
}

/** A rectangle of entries: rows from `row` up to `rowEnd`, columns from `col` up to `colEnd`. */
export interface Extent {
  readonly row: number;
  readonly rowEnd: number;
  readonly col: number;
  readonly colEnd: number;
}

/** Entries along the side of a cell. */
export const cellSide = (of: Pyramid, level: number): number => 2 ** (of.levels - level);

/**
 * The size that is laid out, in entries: the matrix, made up to whole cells of level 0. Then every cell of every level
 * is drawn as a square of its own size, where the last ones would otherwise be squeezed.
 */
export function laidOut(of: Pyramid): { readonly width: number; readonly height: number } {
  const side = cellSide(of, 0);
  return { width: Math.ceil(of.keys / side) * side, height: Math.ceil(of.queries / side) * side };
}

/** How many rows and columns of tiles a level has. */
export function tileCount(of: Pyramid, level: number): { readonly rows: number; readonly cols: number } {
  const side = cellSide(of, level) * TILE;
  return { rows: Math.ceil(of.queries / side), cols: Math.ceil(of.keys / side) };
}

/** The entries of a cell, cut at the matrix' edge. */
export function cellExtent(of: Pyramid, level: number, cellRow: number, cellCol: number): Extent {
  const side = cellSide(of, level);
  return {
    row: cellRow * side,
    rowEnd: Math.min((cellRow + 1) * side, of.queries),
    col: cellCol * side,
    colEnd: Math.min((cellCol + 1) * side, of.keys),
  };
}

/** The entries of a tile, cut at the matrix' edge. */
export function tileExtent(of: Pyramid, level: number, tileRow: number, tileCol: number): Extent {
  const side = cellSide(of, level) * TILE;
  return {
    row: tileRow * side,
    rowEnd: Math.min((tileRow + 1) * side, of.queries),
    col: tileCol * side,
    colEnd: Math.min((tileCol + 1) * side, of.keys),
  };
}

/**
 * The level to read at some zoom: the deepest whose cells are at least one pixel wide, so that nothing is left out by
 * drawing fewer pixels than there are cells.
 */
export function levelFor(of: Pyramid, pixelsPerEntry: number): number {
  for (let level = of.levels; level > 0; level--) {
    if (cellSide(of, level) * pixelsPerEntry >= 1) return level;
  }
  return 0;
}

/** The key on the diagonal of a query. With fewer queries than keys the queries are the last positions. */
export const diagonalKey = (of: Pyramid, row: number): number => row + of.keys - of.queries;

/** The point of the diagonal that is nearest to a point. */
export function onDiagonal(of: Pyramid, x: number, y: number): { readonly x: number; readonly y: number } {
  const shift = of.keys - of.queries;
  const along = (x - shift + y) / 2;
  const row = Math.min(Math.max(along, Math.max(0, -shift)), of.queries);
  return { x: row + shift, y: row };
}
