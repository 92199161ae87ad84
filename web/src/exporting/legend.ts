/** What stands above and below the maps of a picture: its title, and what its colours mean. */

import type { Ink } from "../matrix/drawing";
import { shortened } from "../matrix/labels";
import type { Range } from "../matrix/scales";
import { ticksOf } from "../matrix/scales";
import { SMALL } from "./around";
import type { Font, Mark, Measure } from "./scene";

export const TITLE: Font = { size: 16, family: "sans", bold: true };
export const LINE: Font = { size: 12, family: "sans" };
/** Heights that a title and a legend take. */
export const [ABOVE, BELOW] = [52, 46];
const BAR = 240;

export function titleMarks(title: string, line: string, x: number, room: number, ink: Ink, measure: Measure): Mark[] {
  const fitting = (text: string, font: Font): string => shortened(text, room, (words) => measure(words, font));
  return [
    { kind: "text", x, y: 20, text: fitting(title, TITLE), font: TITLE, fill: ink.text, anchor: "start" },
    { kind: "text", x, y: 39, text: fitting(line, LINE), font: LINE, fill: ink.faint, anchor: "start" },
  ];
}

/** The width that colours with such words beside them need. */
export const legendWidth = (words: readonly string[], measure: Measure): number =>
  BAR + 28 + 8 + Math.max(0, ...words.map((text, index) => measure(text, index === 0 ? LINE : SMALL)));

/** The colours and their numbers, what a cell says beside them, and what is said below. */
export function legendMarks(
  range: Range,
  colours: Uint32Array,
  words: readonly string[],
  place: { readonly x: number; readonly y: number; readonly room: number },
  ink: Ink,
  measure: Measure,
): Mark[] {
  const { x, y, room } = place;
  const bar = Math.min(BAR, room);
  const pixels = colours.slice(0, 256);
  const marks: Mark[] = [
    { kind: "image", x, y, width: bar, height: 10, cells: { columns: 256, rows: 1, pixels } },
    { kind: "rect", x: x - 0.5, y: y - 0.5, width: bar + 1, height: 11, stroke: ink.line },
  ];
  for (const { place: share, label } of ticksOf(range, 5)) {
    marks.push({ kind: "rect", x: x + share * bar - 0.5, y: y + 10, width: 1, height: 4, fill: ink.faint });
    marks.push({ kind: "text", x: x + share * bar, y: y + 25, text: label, font: SMALL, fill: ink.faint, anchor: "middle" });
  }
  const left = x + bar + 28;
  const side = room - bar - 28;
  for (const [index, text] of side > 120 ? words.entries() : []) {
    const font = index === 0 ? LINE : SMALL;
    const fitting = shortened(text, side, (part) => measure(part, font));
    marks.push({ kind: "text", x: left, y: y + 9 + 17 * index, text: fitting, font, fill: index === 0 ? ink.text : ink.faint, anchor: "start" });
  }
  return marks;
}
