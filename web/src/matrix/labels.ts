/** Which labels fit along an axis: every token when each has the room of a line of text, numbered positions otherwise. */

import { niceSteps } from "./scales";

/** Pixels that a line of small text needs. */
export const LINE = 11;

export interface Tick {
  /** Pixels from the axis' beginning to the middle of the position. */
  readonly at: number;
  readonly position: number;
}

export interface Ticks {
  readonly kind: "tokens" | "positions";
  readonly ticks: readonly Tick[];
}

/**
 * Choose the labels of an axis.
 *
 * `from` is the position at the axis' beginning (a fraction while one is half out of sight), `perEntry` the pixels of a
 * position, `length` the pixels of the axis, `count` how many positions there are, `apart` how many pixels two numbers
 * have to lie apart.
 */
export function ticksAlong(
  from: number,
  perEntry: number,
  length: number,
  count: number,
  apart: number,
  tokens: boolean,
): Ticks {
  const first = Math.max(0, Math.floor(from));
  const last = Math.min(count - 1, Math.ceil(from + length / perEntry) - 1);
  const middle = (position: number): number => (position + 0.5 - from) * perEntry;
  if (tokens && perEntry >= LINE) {
    const ticks = [];
    for (let position = first; position <= last; position++) ticks.push({ at: middle(position), position });
    return { kind: "tokens", ticks };
  }
  const most = Math.max(1, Math.floor(((last - first) * perEntry) / apart));
  const positions = niceSteps(first, last, most).filter((value) => Number.isInteger(value));
  return { kind: "positions", ticks: positions.map((position) => ({ at: middle(position), position })) };
}

/** Shorten a text until it is at most `room` wide; `measure` says how wide a text is. */
export function shortened(text: string, room: number, measure: (text: string) => number): string {
  if (measure(text) <= room) return text;
  const characters = Array.from(text);
  let fits = 0;
  for (let low = 0, high = characters.length; low <= high; ) {
    const middle = (low + high) >> 1;
    if (measure(`${characters.slice(0, middle).join("")}…`) <= room) {
      fits = middle;
      low = middle + 1;
    } else high = middle - 1;
  }
  return fits > 0 ? `${characters.slice(0, fits).join("")}…` : "";
}
