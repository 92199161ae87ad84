/** How long something will go on, from how fast it went so far. Arithmetic only. */

import type { Progress } from "./answer";

/** Seconds of a step before its pace says anything. */
const SETTLED = 1;
/** Of how many seconds the pace is taken: what was fast at first may be slow now. */
const REMEMBERED = 30;

interface Seen {
  readonly at: number;
  readonly done: number;
}

/** Follows one piece of work; each of its steps has a pace of its own. */
export class Pace {
  #step = "";
  #seen: Seen[] = [];

  /** Seconds that the present step will still take; null while that cannot be told. Times are in seconds. */
  left(now: number, { done, total, what }: Progress): number | null {
    const step = `${what} ${total}`;
    if (step !== this.#step || done < (this.#seen.at(-1)?.done ?? 0)) {
      this.#step = step;
      this.#seen = [];
    }
    if (this.#seen.at(-1)?.done !== done) this.#seen.push({ at: now, done });
    while (this.#seen.length > 2 && (this.#seen[1]?.at ?? now) < now - REMEMBERED) this.#seen.shift();
    const [first, last] = [this.#seen[0], this.#seen.at(-1)];
    if (!first || !last || last.done <= first.done || total <= 0 || last.at - first.at < SETTLED) return null;
    const each = (last.at - first.at) / (last.done - first.done);
    // what passed since the last thing was done is part of the next one, and no more than that
    return Math.max(0, each * (total - done) - Math.min(each, now - last.at));
  }
}

/** A time as people say it. */
export function about(seconds: number): string {
  if (seconds < 5) return "a few seconds";
  if (seconds < 55) return `about ${5 * Math.ceil(seconds / 5)} s`;
  if (seconds < 90) return "about a minute";
  if (seconds < 55 * 60) return `about ${Math.round(seconds / 60)} min`;
  return `about ${(seconds / 3600).toFixed(1)} h`;
}
