/** A page whose server is a function: two heads of one small document. */

import { TILE, tileBytes, vectorBytes } from "../../src/protocol";
import { Page } from "../../src/state/page";
import type { Transport } from "../../src/transport/transport";
import { ATLAS } from "../state/atlas";

/** 256 greys: a place on the scale can be read from the colour. */
const GREYS = btoa(String.fromCharCode(...Array.from({ length: 768 }, (_, i) => Math.floor(i / 3))));

export const SMALL_ATLAS = {
  ...ATLAS,
  colours: { "lift-light": GREYS, "lift-dark": GREYS, "weight-light": GREYS, "weight-dark": GREYS },
};

/** An entry of the only matrix: 0.01 everywhere that is seen, and one large one. */
export const PLANTED = { row: 40, col: 7, value: 0.5 } as const;
export const entry = (row: number, col: number): number =>
  col > row ? 0 : row === PLANTED.row && col === PLANTED.col ? PLANTED.value : 0.01;

export class FunctionTransport implements Transport {
  readonly asked: string[] = [];

  constructor(
    readonly size: number,
    readonly tokens: readonly string[] | null,
  ) {}

  json(path: string): Promise<unknown> {
    this.asked.push(path);
    if (path.startsWith("/api/tokens/")) return Promise.resolve({ tokens: this.tokens });
    if (path.startsWith("/api/spans/")) return Promise.resolve({ spans: [{ start: 2, stop: 40, label: "a <span>" }] });
    if (path.startsWith("/api/cells/")) return Promise.resolve({ exact: "0.5" });
    return Promise.reject(new Error(`asked for ${path}`));
  }

  bytes(path: string): Promise<ArrayBuffer> {
    this.asked.push(path);
    const { size } = this;
    if (path.startsWith("/api/columns/")) return Promise.resolve(vectorBytes(Float32Array.from({ length: size }, (_, row) => entry(row, 0))));
    const found = /^\/api\/tiles\/[^/]+\/(\d+)\/(\d+)\/(\d+)\?reduce=(\w+)/.exec(path);
    if (!found) return Promise.reject(new Error(`asked for ${path}`));
    const [level, row, col] = found.slice(1, 4).map(Number) as [number, number, number];
    return Promise.resolve(tileBytes(tileOf(size, level, row, col)));
  }

  onEvent(): () => void {
    return () => undefined;
  }
}

/** A tile of the largest entries. */
function tileOf(size: number, level: number, row: number, col: number): { rows: number; cols: number; values: Float32Array } {
  const side = 2 ** (Math.max(0, Math.ceil(Math.log2(size / TILE))) - level);
  const cells = Math.ceil(size / side);
  const [rows, cols] = [Math.min(TILE, cells - row * TILE), Math.min(TILE, cells - col * TILE)];
  const values = new Float32Array(rows * cols);
  for (let r = 0; r < rows * side; r++) {
    for (let c = 0; c < cols * side; c++) {
      const [i, j] = [row * TILE * side + r, col * TILE * side + c];
      const at = Math.floor(r / side) * cols + Math.floor(c / side);
      if (i < size && j < size) values[at] = Math.max(values[at] ?? 0, entry(i, j));
    }
  }
  return { rows, cols, values };
}

export const pageOf = (transport: Transport): Page => new Page(transport, SMALL_ATLAS);
