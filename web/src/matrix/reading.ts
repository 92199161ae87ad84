/** What is under the pointer: at once from the tiles that are here, exactly a moment later from the server. */

import type { CellAnswer, PeakAnswer } from "../protocol";
import { TILE, paths } from "../protocol";
import type { Transport } from "../transport/transport";
import { Latest, isAbort } from "../transport/transport";
import type { Extent } from "./pyramid";
import { cellExtent, cellSide, levelFor } from "./pyramid";
import type { MatrixSource } from "./tileSource";

/** A cell of the map, as large as it is drawn. */
export interface CellReading {
  readonly extent: Extent;
  readonly level: number;
  /** The number that is drawn; null while its tile is on its way. */
  readonly value: number | null;
}

export const isEntry = ({ row, rowEnd, col, colEnd }: Extent): boolean => rowEnd - row === 1 && colEnd - col === 1;

/** The cell that is drawn at a point of the matrix, or null outside of it. */
export function cellAt(source: MatrixSource, x: number, y: number, pixelsPerEntry: number): CellReading | null {
  const { pyramid } = source.asked;
  if (x < 0 || y < 0 || x >= pyramid.keys || y >= pyramid.queries) return null;
  const wanted = levelFor(pyramid, pixelsPerEntry);
  // the picture shows a coarser tile until the wanted one is here; what is read is what is seen
  for (let level = wanted; level >= 0; level--) {
    const side = cellSide(pyramid, level);
    const [row, col] = [Math.floor(y / side), Math.floor(x / side)];
    const painted = source.painted(level, Math.floor(row / TILE), Math.floor(col / TILE));
    if (!painted) continue;
    const value = painted.tile.values[(row % TILE) * painted.tile.cols + (col % TILE)];
    return { extent: cellExtent(pyramid, level, row, col), level, value: value ?? null };
  }
  const side = cellSide(pyramid, wanted);
  return { extent: cellExtent(pyramid, wanted, Math.floor(y / side), Math.floor(x / side)), level: wanted, value: null };
}

/** Asks about single entries, the newest one only, and not before the pointer has rested on it. */
export class EntryAsker {
  readonly #latest = new Latest();
  #timer = 0;

  constructor(
    readonly transport: Transport,
    readonly rest: number,
  ) {}

  ask(matrix: string, row: number, col: number, tell: (answer: CellAnswer) => void, fail: (error: unknown) => void): void {
    this.stop();
    this.#timer = window.setTimeout(() => {
      this.transport.json(paths.cell(matrix, row, col), this.#latest.next()).then(
        (answer) => tell(answer as CellAnswer),
        (error: unknown) => {
          if (!isAbort(error)) fail(error);
        },
      );
    }, this.rest);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#latest.stop();
  }
}

/** The largest entry of a cell. */
export async function peakOf(transport: Transport, matrix: string, extent: Extent, signal: AbortSignal): Promise<PeakAnswer> {
  const answer = await transport.json(paths.peak(matrix, [extent.row, extent.rowEnd], [extent.col, extent.colEnd]), signal);
  return answer as PeakAnswer;
}
