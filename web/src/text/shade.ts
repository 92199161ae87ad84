/** How strongly each token is coloured, from the numbers of a row or a column. Arithmetic only. */

export interface Shading {
  /** The number that gets the full colour. */
  readonly top: number;
  /** −1 … 1: against and for. */
  readonly strength: (value: number) => number;
}

/** The logarithm looks this far below the top. */
const DECADES = 3.5;

/**
 * How numbers become strengths. With `aside`, the first token, where unused attention rests, does not decide what counts
 * as much.
 */
export function shadingOf(values: Float32Array, kind: "log" | "linear", aside: boolean): Shading {
  let top = 0;
  for (let i = aside && values.length > 1 ? 1 : 0; i < values.length; i++) {
    const size = Math.abs(values[i] ?? 0);
    if (size > top) top = size;
  }
  const strength = (value: number): number => {
    const size = Math.min(1, Math.abs(value) / top);
    if (!(size > 0) || top === 0) return 0;
    const place = kind === "linear" ? size : Math.max(0, 1 + Math.log10(size) / DECADES);
    return Math.sign(value) * place;
  };
  return { top, strength };
}

/** How scores become strengths: evenly, up to a size that somebody has chosen with all of them in sight. */
export function scoreShading(top: number): Shading {
  return { top, strength: (value) => (top > 0 && !Number.isNaN(value) ? Math.max(-1, Math.min(1, value / top)) : 0) };
}

/** The tokens with the largest numbers, largest first; hidden tokens and zeros are none. */
export function largest(values: Float32Array, count: number, aside: boolean): readonly number[] {
  const best: number[] = [];
  let least = 0;
  for (let i = aside ? 1 : 0; i < values.length; i++) {
    const size = Math.abs(values[i] ?? 0);
    if (!(size > least)) continue;
    let at = best.length;
    while (at > 0 && Math.abs(values[best[at - 1] ?? 0] ?? 0) < size) at--;
    best.splice(at, 0, i);
    if (best.length > count) best.pop();
    if (best.length === count) least = Math.abs(values[best[count - 1] ?? 0] ?? 0);
  }
  return best;
}
