/**
 * What the maps of one screen have in common: colours and range, the cell under the pointer, and what is in sight, so
 * that two maps beside one another move together.
 */

import { computed, signal } from "@preact/signals";

import type { Span } from "../protocol";
import type { Page } from "../state/page";
import { coloursOf } from "../state/theme";
import type { Window } from "../state/view";
import { change, view, withWindow } from "../state/view";
import type { Extent } from "./pyramid";
import type { Range } from "./scales";
import type { Sight } from "./zoomer";

export interface Hovered {
  readonly extent: Extent;
  /** The name of the matrix that the pointer is on. */
  readonly over: string;
}

/** A map that follows when another one moves. */
export interface Follower {
  readonly show: (window: Window) => void;
}

export class Shared {
  readonly hovered = signal<Hovered | null>(null);
  /** Counts tiles that have come while the pointer rests on a map: what it reads may be among them. */
  readonly arrived = signal(0);
  /** Whether panning keeps to the diagonal. */
  readonly following = signal(false);
  readonly range = signal<Range>({ kind: "lift", low: 0.5, high: 2, signed: false });
  /** Whether the first column is set aside. */
  readonly sink = computed(() => view.value.sink);
  readonly spans = signal<readonly Span[]>([]);
  readonly #maps = new Set<Follower>();

  constructor(readonly page: Page) {}

  /** The colours for a range, as the server has them: diverging where there is a middle. */
  colours(): Uint32Array {
    const { kind, signed } = this.range.value;
    return coloursOf(this.page.atlas, signed || kind === "lift" ? "lift" : "weight");
  }

  join(map: Follower): () => void {
    this.#maps.add(map);
    return () => this.#maps.delete(map);
  }

  /** A map was moved by hand: the others follow at once, and the view once it rests. */
  moved(by: Follower, sight: Sight, settled: boolean): void {
    const window = windowOf(sight);
    for (const map of this.#maps) if (map !== by) map.show(window);
    if (settled) change(withWindow(window));
  }
}

/** Rounded, so that an address stays short and the same sight is the same window. */
export const windowOf = (sight: Sight): Window => ({
  x: rounded(sight.x),
  y: rounded(sight.y),
  width: rounded(sight.width / sight.perEntry),
});

const rounded = (value: number): number => Math.round(value * 100) / 100;

export const sameWindow = (one: Window | null, other: Window | null): boolean =>
  one === other ||
  (one !== null && other !== null && one.x === other.x && one.y === other.y && one.width === other.width);
