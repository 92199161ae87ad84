/** Where the cells of the atlas stand. Arithmetic only. */

import type { HeadPlace } from "./order";

export interface Spot {
  readonly head: HeadPlace;
  readonly x: number;
  readonly y: number;
  readonly row: number;
  readonly column: number;
}

export interface AxisLabel {
  readonly text: string;
  readonly x: number;
  readonly y: number;
  readonly align: "start" | "middle" | "end";
}

export interface Layout {
  /** Side of a map in pixels. */
  readonly cell: number;
  readonly spots: readonly Spot[];
  readonly labels: readonly AxisLabel[];
  readonly height: number;
  /** Whether cells name themselves and their number, because no axis does or there is room for it. */
  readonly captions: boolean;
}

interface Asked {
  readonly width: number;
  readonly height: number;
  readonly size: "fit" | "large";
  /** Layers against heads; otherwise one after the other in the order given. */
  readonly aligned: boolean;
}

const GAP = 4;
const BAR = 5;
const CAPTION = 18;
const [LEFT, TOP] = [44, 36];
/** Below this a map says nothing any more; layers then go downward and the page scrolls. */
const LEAST = 22;
const [LARGE, LISTED] = [148, 84];

export function layOut(heads: readonly HeadPlace[], asked: Asked): Layout {
  return asked.aligned ? aligned(heads, asked) : listed(heads, asked);
}

function aligned(heads: readonly HeadPlace[], { width, height, size }: Asked): Layout {
  const layers = distinct(heads.map((head) => head.layer.layer));
  const numbers = distinct(heads.map((head) => head.head));
  const fits = Math.floor((width - LEFT) / layers.length) - GAP;
  const across = size === "fit" && fits >= LEAST && layers.length >= numbers.length;
  const [over, down] = across ? [layers, numbers] : [numbers, layers];
  const wide = Math.floor((width - LEFT) / over.length) - GAP;
  const high = Math.floor((height - TOP) / down.length) - GAP - BAR;
  // with layers downward the page scrolls in any case
  const most = size === "large" ? LARGE : across ? Math.max(36, high) : LISTED;
  const cell = Math.max(12, Math.min(wide, most));
  const captions = cell >= 72;
  const [stepX, stepY] = [cell + GAP, cell + GAP + (captions ? CAPTION : BAR)];
  const placeOver = new Map(over.map((number, i) => [number, i]));
  const placeDown = new Map(down.map((number, i) => [number, i]));
  const spots = heads.map((head): Spot => {
    const [a, b] = across ? [head.layer.layer, head.head] : [head.head, head.layer.layer];
    const [column, row] = [placeOver.get(a) ?? 0, placeDown.get(b) ?? 0];
    return { head, x: LEFT + column * stepX, y: TOP + row * stepY, row, column };
  });
  const every = Math.ceil(20 / stepX);
  const labels: AxisLabel[] = [
    { text: across ? "layer →" : "head →", x: LEFT, y: 0, align: "start" },
    { text: across ? "head ↓" : "layer ↓", x: 0, y: TOP - 17, align: "start" },
    ...over.flatMap((number, i): AxisLabel[] =>
      i % every ? [] : [{ text: String(number), x: LEFT + i * stepX + cell / 2, y: TOP - 17, align: "middle" }],
    ),
    ...down.map((number, i): AxisLabel => ({ text: String(number), x: LEFT - 10, y: TOP + i * stepY + cell / 2 - 6, align: "end" })),
  ];
  return { cell, spots, labels, height: TOP + down.length * stepY, captions };
}

function listed(heads: readonly HeadPlace[], { width, size }: Asked): Layout {
  const columns = Math.max(1, Math.floor((width + GAP) / ((size === "large" ? LARGE : LISTED) + 2 * GAP)));
  const cell = Math.floor((width + GAP) / columns) - 2 * GAP;
  const [stepX, stepY] = [cell + 2 * GAP, cell + 2 * GAP + CAPTION];
  const spots = heads.map((head, i): Spot => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    return { head, x: column * stepX, y: row * stepY, row, column };
  });
  return { cell, spots, labels: [], height: Math.ceil(heads.length / columns) * stepY, captions: true };
}

const distinct = (numbers: readonly number[]): number[] => [...new Set(numbers)].sort((a, b) => a - b);

/** The spots within a band of the grid: of a thousand heads, no more are in the page than can be seen. */
export const within = (spots: readonly Spot[], from: number, upTo: number, cell: number): readonly Spot[] =>
  spots.filter((spot) => spot.y + cell + CAPTION > from && spot.y < upTo);

/** Some spots that are put into the page together. */
export interface Group {
  readonly spots: readonly Spot[];
  readonly top: number;
  readonly bottom: number;
}

const GROUP = 16;

/** The spots in groups that stay the same while one scrolls: what has not changed of a group need not be looked through. */
export const grouped = ({ spots, cell }: Layout): readonly Group[] =>
  Array.from({ length: Math.ceil(spots.length / GROUP) }, (_, i) => {
    const some = spots.slice(i * GROUP, (i + 1) * GROUP);
    const tops = some.map(({ y }) => y);
    return { spots: some, top: Math.min(...tops), bottom: Math.max(...tops) + cell + CAPTION };
  });

/** The spot that an arrow, or Home and End, leads to; undefined at the edge. */
export function towards(spots: readonly Spot[], from: Spot, key: string): Spot | undefined {
  const row = spots.filter((spot) => spot.row === from.row).sort((a, b) => a.column - b.column);
  const at = row.indexOf(from);
  if (key === "Home") return row[0];
  if (key === "End") return row.at(-1);
  if (key === "ArrowLeft") return at > 0 ? row[at - 1] : undefined;
  if (key === "ArrowRight") return row[at + 1];
  if (key !== "ArrowUp" && key !== "ArrowDown") return undefined;
  const column = spots.filter((spot) => spot.column === from.column).sort((a, b) => a.row - b.row);
  return column[column.indexOf(from) + (key === "ArrowDown" ? 1 : -1)];
}
