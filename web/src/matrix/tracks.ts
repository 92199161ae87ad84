/** One number a position, drawn along an axis of the map and in step with its zoom. */

import type { Ink, Pen } from "./drawing";
import { brief } from "./scales";

export interface Track {
  readonly label: string;
  readonly values: Float32Array;
  /** Numbers that differ by orders of magnitude are drawn by their logarithm. */
  readonly logarithmic: boolean;
}

/** The range of a track: of all of it, so that it stays while one pans; `skip` positions at its beginning are set aside. */
export function trackRange(track: Track, skip: number): readonly [low: number, high: number] {
  const sorted = track.values.slice(skip).filter((value) => Number.isFinite(value)).sort();
  const high = sorted[sorted.length - 1] ?? 1;
  if (!track.logarithmic) return [0, high > 0 ? high : 1];
  const trimmed = sorted[Math.floor((sorted.length - 1) * 0.999)] ?? high;
  const low = (sorted[Math.floor(sorted.length * 0.02)] ?? 0) / 2;
  return [Math.min(Math.max(low, trimmed * 1e-5), trimmed / 2), trimmed];
}

/** The largest value under each pixel (or of the position under it), as heights from 0 to 1. */
export function heights(
  track: Track,
  range: readonly [number, number],
  from: number,
  perEntry: number,
  length: number,
): Float32Array {
  const { values, logarithmic } = track;
  const [low, high] = range;
  const found = new Float32Array(Math.ceil(length));
  const over = logarithmic ? 1 / Math.log(high / low) : 1 / (high - low);
  for (let pixel = 0; pixel < found.length; pixel++) {
    const first = Math.max(0, Math.floor(from + pixel / perEntry));
    const last = Math.min(values.length, Math.max(first + 1, Math.ceil(from + (pixel + 1) / perEntry - 1e-6)));
    let largest = -Infinity;
    if (from + (pixel + 1) / perEntry > 0) for (let i = first; i < last; i++) largest = Math.max(largest, values[i] ?? NaN);
    const height = logarithmic ? Math.log(Math.max(largest, low * 1e-9) / low) * over : (largest - low) * over;
    found[pixel] = Number.isFinite(largest) ? Math.min(1, Math.max(0.02, height)) : 0;
  }
  return found;
}

export function drawTrack(
  pen: Pen,
  side: "top" | "left",
  track: Track,
  range: readonly [number, number],
  from: number,
  perEntry: number,
  selected: number | null,
  ink: Ink,
): void {
  const { context } = pen;
  const across = side === "top";
  const depth = (across ? pen.height : pen.width) - 2;
  const bars = heights(track, range, from, perEntry, across ? pen.width : pen.height);
  context.fillStyle = ink.track;
  for (const [at, height] of bars.entries()) {
    const size = height * depth;
    if (across) context.fillRect(at, pen.height - size, 1, size);
    else context.fillRect(pen.width - size, at, size, 1);
  }
  if (selected !== null) {
    const at = (selected - from) * perEntry;
    context.fillStyle = ink.accentSoft;
    if (across) context.fillRect(at, 0, Math.max(2, perEntry), pen.height);
    else context.fillRect(0, at, pen.width, Math.max(2, perEntry));
  }
}

/** What a track is called, and where its scale ends. */
export const trackName = (track: Track, range: readonly [number, number]): string => `${track.label} ≤ ${brief(range[1])}`;
