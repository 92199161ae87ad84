/** What lies beside a map and is asked for once: the tracks along its axes, and the first column. */

import { parseVectors, paths } from "../protocol";
import { reasonOf } from "../state/loaded";
import { notify } from "../state/notices";
import type { Transport } from "../transport/transport";
import { isAbort } from "../transport/transport";
import type { ShownMatrix } from "./shown";
import type { Track } from "./tracks";
import { trackRange } from "./tracks";

export interface KnownTrack {
  readonly track: Track;
  readonly range: readonly [number, number];
}

export interface Tracks {
  readonly received: KnownTrack;
  readonly entropy: KnownTrack;
  readonly distance: KnownTrack;
}

export class Extras {
  tracks: Tracks | null = null;
  firstColumn: Float32Array | null = null;
  readonly #requests = new AbortController();
  #columnAsked = false;

  constructor(
    readonly matrix: ShownMatrix,
    readonly transport: Transport,
    readonly here: () => void,
  ) {
    // a difference has no entropy and no distances
    if (!matrix.signed) this.#ask(paths.tracks(matrix.name), (vectors) => (this.tracks = tracksOf(matrix, vectors)));
  }

  needFirstColumn(): void {
    if (this.#columnAsked) return;
    this.#columnAsked = true;
    this.#ask(paths.column(this.matrix.name, 0), ([column]) => (this.firstColumn = column ?? null));
  }

  destroy(): void {
    this.#requests.abort();
  }

  #ask(path: string, keep: (vectors: readonly Float32Array[]) => void): void {
    this.transport.bytes(path, this.#requests.signal).then(
      (bytes) => {
        keep(parseVectors(bytes));
        this.here();
      },
      (error: unknown) => {
        if (!isAbort(error)) notify(reasonOf(error), "error");
      },
    );
  }
}

/** The vectors of an answer, each with the range that it is drawn in. */
export function tracksOf({ pyramid }: ShownMatrix, vectors: readonly Float32Array[]): Tracks | null {
  const [received, entropy, distance] = vectors;
  if (!received || !entropy || !distance) return null;
  const known = (label: string, values: Float32Array, logarithmic: boolean, skip: number): KnownTrack => {
    const track = { label, values, logarithmic };
    return { track, range: trackRange(track, skip) };
  };
  return {
    received: known("received", received.subarray(0, pyramid.keys), true, 1),
    entropy: known("entropy", entropy.subarray(0, pyramid.queries), false, 0),
    distance: known("distance", distance.subarray(0, pyramid.queries), false, 0),
  };
}
