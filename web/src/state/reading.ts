/** The exact numbers that colour the text: a row or a column of the matrix that is open, as far as it has come. */

import type { ReadonlySignal } from "@preact/signals";
import { effect, signal } from "@preact/signals";

import { parseVectors, paths } from "../protocol";
import type { Transport } from "../transport/transport";
import { Latest, isAbort } from "../transport/transport";
import { reasonOf } from "./loaded";
import { notify } from "./notices";
import { matricesShown, view } from "./view";

export interface Reading {
  readonly matrix: string;
  /**
   * What the numbers are: a query's row, a key's column, or, with nothing selected, what each key receives; or the
   * scores of an explanation, which belong to no matrix.
   */
  readonly by: "row" | "col" | "received" | "explanation";
  /** The selected query or key, or where the explained answer is given; -1 where there is none. */
  readonly at: number;
  /** One number each token: keys for a row, queries for a column. */
  readonly values: Float32Array;
  /** The size that is shown in full colour, where that does not follow from the numbers. */
  readonly full?: number;
}

/** Somebody who moves through the text asks for many rows in a second; only where they stay is asked for. */
const SETTLED = 40;

/** Follow the view; returns what is read now, and a function that stops. */
export function follow(transport: Transport): { readonly reading: ReadonlySignal<Reading | null>; readonly stop: () => void } {
  const reading = signal<Reading | null>(null);
  const latest = new Latest();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const ask = async (wanted: Omit<Reading, "values">): Promise<void> => {
    const { matrix, by, at } = wanted;
    const path = by === "row" ? paths.row(matrix, at) : by === "col" ? paths.column(matrix, at) : paths.tracks(matrix);
    try {
      const [values] = parseVectors(await transport.bytes(path, latest.next()));
      if (values) reading.value = { ...wanted, values };
    } catch (error) {
      if (!isAbort(error)) notify(`The text cannot be coloured: ${reasonOf(error)}`, "error");
    }
  };
  let asked = "";
  const stop = effect(() => {
    const { row, col, reading: side } = view.value;
    const [matrix] = matricesShown(view.value);
    const at = side === "row" ? row : col;
    const wanted = { matrix: matrix ?? "", by: at === null ? ("received" as const) : side, at: at ?? -1 };
    const key = matrix === undefined ? "" : `${wanted.matrix} ${wanted.by} ${wanted.at}`;
    if (key === asked) return;
    asked = key;
    clearTimeout(timer);
    if (matrix === undefined) {
      latest.stop();
      reading.value = null;
    } else timer = setTimeout(() => void ask(wanted), SETTLED);
  });
  return {
    reading,
    stop: () => {
      stop();
      latest.stop();
      clearTimeout(timer);
    },
  };
}
