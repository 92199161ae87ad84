/** What part of a matrix a picture shows, and how large: the window of the view, cut at the matrix' edges. */

import type { Pyramid } from "../matrix/pyramid";
import type { Window } from "../state/view";

export interface Size {
  readonly width: number;
  readonly height: number;
}

export interface Part {
  /** Entries at the upper left corner and beyond the lower right one, fractions too. */
  readonly x: number;
  readonly y: number;
  readonly right: number;
  readonly bottom: number;
  /** Pixels of an entry. */
  readonly perEntry: number;
}

/** No entry is drawn larger than this; the map's own zoom ends there, too. */
const LARGEST = 64;

/** The part of a matrix that is in sight on a map of some size. */
export function partInSight(of: Pyramid, window: Window | null, size: Size): Part {
  const whole = { x: 0, y: 0, right: of.keys, bottom: of.queries };
  const fitting = Math.min(size.width / of.keys, size.height / of.queries, LARGEST);
  if (!window) return { ...whole, perEntry: fitting };
  const perEntry = size.width / window.width;
  const cut = {
    x: Math.max(0, window.x),
    y: Math.max(0, window.y),
    right: Math.min(of.keys, window.x + window.width),
    bottom: Math.min(of.queries, window.y + size.height / perEntry),
  };
  return cut.right - cut.x > 0 && cut.bottom - cut.y > 0 ? { ...cut, perEntry } : { ...whole, perEntry: fitting };
}

/** The size of the map on the screen, or a usual one where there is none. */
export function sizeOnScreen(root: ParentNode = document): Size {
  const map = root.querySelector(".map-zoom");
  const [width, height] = [map?.clientWidth ?? 0, map?.clientHeight ?? 0];
  return width > 0 && height > 0 ? { width, height } : { width: 900, height: 700 };
}
