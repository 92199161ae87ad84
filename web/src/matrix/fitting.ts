/** The range that a matrix is first shown with: worked out from its whole, never from what happens to be in sight. */

import type { Reduce } from "../protocol";
import { parseTile, paths } from "../protocol";
import type { ScaleKind } from "../state/view";
import type { Transport } from "../transport/transport";
import { fitRange, kindShown } from "./scales";
import type { ShownMatrix } from "./shown";
import { reduceOf, visibleCells } from "./shown";

export async function fittedRange(
  matrix: ShownMatrix,
  asked: Reduce,
  kind: ScaleKind,
  sink: boolean,
  transport: Transport,
  signal: AbortSignal,
): Promise<readonly [number, number]> {
  const reduce = reduceOf(matrix, asked);
  const tile = parseTile(await transport.bytes(paths.tile(matrix.name, 0, 0, 0, reduce, "f32"), signal));
  const cells: number[] = [];
  for (let row = 0; row < tile.rows; row++) {
    const [first, end] = visibleCells(matrix.layer, 0, row);
    for (let col = Math.max(first, sink ? 1 : 0); col < Math.min(end, tile.cols); col++) {
      cells.push(tile.values[row * tile.cols + col] ?? NaN);
    }
  }
  return fitRange(cells, kindShown(kind, matrix.signed), reduce, matrix.signed);
}
