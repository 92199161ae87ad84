/** The entry of largest size in a part of a matrix, however large the part is. */

import type { Pyramid, Extent } from "../matrix/pyramid";
import { cellExtent, cellSide } from "../matrix/pyramid";
import type { PeakAnswer } from "../protocol";
import { parseTile, paths } from "../protocol";
import type { Transport } from "../transport/transport";

/** Entries that the server searches at once. */
export const MOST = 4096 ** 2;
/** Cells that are searched one by one before it is left at what was found: cells cut by the edge of a part can mislead. */
const TRIES = 8;

const sizeOf = (extent: Extent): number => (extent.rowEnd - extent.row) * (extent.colEnd - extent.col);

export function cut(one: Extent, other: Extent): Extent | null {
  const both = {
    row: Math.max(one.row, other.row),
    rowEnd: Math.min(one.rowEnd, other.rowEnd),
    col: Math.max(one.col, other.col),
    colEnd: Math.min(one.colEnd, other.colEnd),
  };
  return both.rowEnd > both.row && both.colEnd > both.col ? both : null;
}

/** Cells of the uppermost level that lie in a part, those with the largest entries first. */
export function candidates(of: Pyramid, cells: { readonly rows: number; readonly cols: number; readonly values: Float32Array }, part: Extent): readonly { readonly extent: Extent; readonly most: number }[] {
  const side = cellSide(of, 0);
  const found: { extent: Extent; most: number }[] = [];
  for (let row = Math.floor(part.row / side); row < Math.min(cells.rows, Math.ceil(part.rowEnd / side)); row++) {
    for (let col = Math.floor(part.col / side); col < Math.min(cells.cols, Math.ceil(part.colEnd / side)); col++) {
      const extent = cut(cellExtent(of, 0, row, col), part);
      const most = Math.abs(cells.values[row * cells.cols + col] ?? 0);
      if (extent && most > 0) found.push({ extent, most });
    }
  }
  return found.sort((a, b) => b.most - a.most);
}

/** Find it: in one search where the part is small enough, and otherwise first among cells, then in the cells. */
export async function peakIn(matrix: string, of: Pyramid, part: Extent, transport: Transport, signal: AbortSignal): Promise<PeakAnswer> {
  const search = async (where: Extent): Promise<PeakAnswer> =>
    (await transport.json(paths.peak(matrix, [where.row, where.rowEnd], [where.col, where.colEnd]), signal)) as PeakAnswer;
  if (sizeOf(part) <= MOST) return search(part);
  const cells = parseTile(await transport.bytes(paths.tile(matrix, 0, 0, 0, "max", "f32"), signal));
  let best: PeakAnswer = { row: part.row, col: part.col, value: 0 };
  for (const { extent, most } of candidates(of, cells, part).slice(0, TRIES)) {
    // no cell that follows can hold anything larger; the uppermost level is pooled in single precision
    if (Math.abs(best.value) >= most * (1 - 1e-5)) break;
    const found = await search(extent);
    if (Math.abs(found.value) > Math.abs(best.value)) best = found;
  }
  return best;
}
