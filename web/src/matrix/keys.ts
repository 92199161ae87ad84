/** What keys do while the map has the focus. */

import { change, select, view } from "../state/view";
import type { Pyramid } from "./pyramid";
import type { Zoomer } from "./zoomer";

export interface KeyActions {
  readonly pyramid: Pyramid;
  readonly zoomer: Zoomer;
  readonly diagonal: () => void;
  readonly whole: () => void;
}

const ARROWS: Readonly<Record<string, readonly [down: number, across: number]>> = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};

/** Do what a key asks for; returns whether it asked for anything. */
export function onMapKey(event: KeyboardEvent, { pyramid, zoomer, diagonal, whole }: KeyActions): boolean {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  const arrow = ARROWS[event.key];
  if (arrow) {
    step(arrow, event.shiftKey, pyramid, zoomer);
    return true;
  }
  switch (event.key) {
    case "+":
    case "=":
      zoomer.zoomBy(1.6);
      return true;
    case "-":
    case "−":
      zoomer.zoomBy(1 / 1.6);
      return true;
    case "0":
      whole();
      return true;
    case "d":
      diagonal();
      return true;
    case "Enter": {
      const { row, col } = view.peek();
      if (row === null || col === null) return false;
      zoomer.reveal(row, col, true);
      return true;
    }
    default:
      return false;
  }
}

/** Arrows move what is selected, ten at a time with Shift; while nothing is, they move the map. */
function step([down, across]: readonly [number, number], far: boolean, pyramid: Pyramid, zoomer: Zoomer): void {
  const { row, col } = view.peek();
  if (row === null || col === null) {
    zoomer.panBy(across * (far ? 0.8 : 0.15), down * (far ? 0.8 : 0.15));
    return;
  }
  const by = far ? 10 : 1;
  const next = [within(row + down * by, pyramid.queries), within(col + across * by, pyramid.keys)] as const;
  change(select(next[0], next[1]));
  zoomer.reveal(next[0], next[1], false);
}

const within = (position: number, count: number): number => Math.min(count - 1, Math.max(0, position));
