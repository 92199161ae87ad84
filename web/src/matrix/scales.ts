/**
 * From numbers to places on a colour bar. 0 is its one end and 1 its other; a signed scale and a ratio have their middle
 * at one half.
 */

import type { Reduce } from "../protocol";
import type { Scale, ScaleKind } from "../state/view";

/** Which numbers are shown: how they run, their range, and whether they have a sign. */
export interface Range {
  readonly kind: ScaleKind;
  readonly low: number;
  readonly high: number;
  /** A difference of two matrices: below nothing there is as much as above. */
  readonly signed: boolean;
}

/** A function from a number to its place, cut to 0 … 1. */
export type Ramp = (value: number) => number;

/** How numbers run that may have a sign: a difference is no ratio, and small ones count as the logarithm has it. */
export const kindShown = (kind: ScaleKind, signed: boolean): ScaleKind => (signed && kind === "lift" ? "log" : kind);

export const rangeOf = (scale: Scale, signed: boolean): Range => ({
  kind: kindShown(scale.kind, signed),
  low: scale.low,
  high: scale.high,
  signed,
});

const cut = (place: number): number => (place > 0 ? (place < 1 ? place : 1) : 0);

export function rampOf(range: Range): Ramp {
  const { low, high } = range;
  if (range.signed) return range.kind === "log" ? signedLog(low, high) : (value) => cut(0.5 + value / high / 2);
  if (range.kind === "linear") return (value) => cut((value - low) / (high - low));
  const from = Math.log(low);
  const over = 1 / (Math.log(high) - from);
  return (value) => (value > 0 ? cut((Math.log(value) - from) * over) : 0);
}

/** Both signs by their logarithms, which meet in the middle: whatever is smaller than `low` is as good as nothing. */
function signedLog(low: number, high: number): Ramp {
  const from = Math.log(low);
  const over = 0.5 / (Math.log(high) - from);
  return (value) => {
    const size = Math.abs(value);
    if (!(size > low)) return 0.5;
    return cut(0.5 + Math.sign(value) * (Math.log(size) - from) * over);
  };
}

/** The number at a place: what `rampOf` undoes. */
export function valueAt(range: Range, place: number): number {
  const { low, high } = range;
  if (range.signed) {
    const side = Math.sign(place - 0.5);
    const far = Math.abs(place - 0.5) * 2;
    return range.kind === "log" ? side * low * (high / low) ** far : side * far * high;
  }
  return range.kind === "linear" ? low + place * (high - low) : low * (high / low) ** place;
}

// ------------------------------------------------------------------------------------------------------ fitting a range

/** The share of the largest cells that may lie beyond the range: single peaks would leave everything else dark. */
const BEYOND = 0.002;
const DECADES = 1e-4;

/**
 * The range that suits the whole of a matrix, from the cells of its level 0. It does not look at what is in sight, so
 * that colours mean the same wherever one pans.
 */
export function fitRange(cells: Iterable<number>, kind: ScaleKind, reduce: Reduce, signed: boolean): readonly [number, number] {
  const sizes = Float32Array.from(magnitudes(cells, reduce === "lift" && !signed)).sort();
  const high = sizes[Math.min(sizes.length - 1, Math.floor(sizes.length * (1 - BEYOND)))];
  if (high === undefined) return kind === "lift" ? [0.5, 2] : [signed || kind === "linear" ? 0 : DECADES, 1];
  if (reduce === "lift" && !signed) {
    const far = Math.min(Math.max(high, 2), 4096);
    return kind === "linear" ? [0, far] : [1 / far, far];
  }
  if (kind === "linear") return [signed ? -high : 0, high];
  const usual = sizes[Math.floor(sizes.length * 0.05)] ?? high;
  return [Math.min(Math.max(usual / 4, high * DECADES), high / 10), high];
}

/** Sizes above nothing; of ratios, how far they lie from 1 either way, so that one limit suits both sides. */
function* magnitudes(cells: Iterable<number>, ratio: boolean): Iterable<number> {
  for (const cell of cells) {
    const size = Math.abs(cell);
    if (size > 0 && Number.isFinite(size)) yield ratio ? Math.max(size, Math.min(1 / size, 64)) : size;
  }
}

/** What a number of a level is multiplied by to be coloured: masses are of larger cells the further out one is. */
export function levelFactor(reduce: Reduce, level: number): number {
  return reduce === "mass" ? 4 ** level : 1;
}

// ---------------------------------------------------------------------------------------------------------- ticks, words

/** Places and labels for the marks of a colour bar. */
export function ticksOf(range: Range, most = 6): readonly { readonly place: number; readonly label: string }[] {
  const ramp = rampOf(range);
  const values = range.signed
    ? signedTicks(range, most)
    : range.kind === "linear"
      ? niceSteps(range.low, range.high, most)
      : powers(range.low, range.high, range.kind === "lift" ? 2 : 10, most);
  const ticks = values.map((value) => ({ place: ramp(value), label: brief(value, range.kind === "lift") }));
  // the smallest of either sign would stand on the nothing between them
  return range.signed ? ticks.filter(({ place }, i) => values[i] === 0 || Math.abs(place - 0.5) > 0.05) : ticks;
}

function signedTicks(range: Range, most: number): number[] {
  const above = range.kind === "log" ? powers(range.low, range.high, 10, most / 2) : niceSteps(0, range.high, most / 2);
  const sizes = above.filter((value) => value > 0);
  return [...sizes.map((value) => -value).reverse(), 0, ...sizes];
}

/** Multiples of 1, 2 or 5 times a power of ten. */
export function niceSteps(low: number, high: number, most: number): number[] {
  const rough = (high - low) / Math.max(1, most);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) ?? 10);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step + 0);
  return found;
}

function powers(low: number, high: number, base: number, most: number): number[] {
  const first = Math.ceil(Math.log(low) / Math.log(base) - 1e-9);
  const last = Math.floor(Math.log(high) / Math.log(base) + 1e-9);
  const every = Math.max(1, Math.ceil((last - first + 1) / most));
  const found = [];
  // counted from the power 0, so that 1 stays among them
  for (let i = Math.ceil(first / every) * every; i <= last; i += every) found.push(base ** i);
  return found;
}

/** A number in few characters. */
export function brief(value: number, ratio = false): string {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (ratio && size < 1) return `1/${brief(1 / value)}`;
  if (size >= 1e5 || size < 1e-3) {
    const [digits = "", exponent = ""] = value.toExponential(1).split("e");
    return `${digits.replace(/\.0$/, "")}e${exponent.replace("+", "")}`.replace("-", "−").replace("e-", "e−");
  }
  return String(Number(value.toPrecision(3))).replace("-", "−");
}
