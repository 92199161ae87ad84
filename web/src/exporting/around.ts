/** What stands around and over a map in a picture: axes with their labels, tracks, what is selected, spans. */

import type { Ink } from "../matrix/drawing";
import { shortened, ticksAlong } from "../matrix/labels";
import type { Pyramid } from "../matrix/pyramid";
import type { KnownTrack } from "../matrix/extras";
import { heights } from "../matrix/tracks";
import { visible } from "../parts/glyphs";
import type { Span } from "../protocol";
import type { Box, Font, Mark, Measure } from "./scene";
import { baseline } from "./scene";
import type { Part } from "./sight";

export const SMALL: Font = { size: 11, family: "sans" };
export const TOKEN: Font = { size: 11, family: "mono" };
/** Pixels along the map that the brackets of spans take. */
const SPAN_BAND = 15;
const PAD = 4;

export interface Axis {
  readonly side: "top" | "left";
  readonly box: Box;
  readonly from: number;
  readonly end: number;
  readonly perEntry: number;
  readonly count: number;
  readonly tokens: readonly string[] | null;
  /** What to add to an index to get the token's position. */
  readonly shift: number;
  readonly selected: number | null;
  readonly spans: readonly Span[];
}

export function axisMarks(axis: Axis, ink: Ink, measure: Measure): Mark[] {
  const { box, from, perEntry, tokens } = axis;
  const across = axis.side === "top";
  const length = across ? box.width : box.height;
  const inner = (across ? box.y + box.height : box.x + box.width) - (axis.spans.length > 0 ? SPAN_BAND : 0);
  const room = (across ? box.height : box.width) - (axis.spans.length > 0 ? SPAN_BAND : 0) - 2 * PAD;
  const start = across ? box.x : box.y;
  const { kind, ticks } = ticksAlong(from, perEntry, length, axis.count, across ? 64 : 34, tokens !== null);
  const marks: Mark[] = [];
  if (axis.selected !== null) {
    const at = start + (axis.selected - from) * perEntry;
    const thick = Math.max(2, perEntry);
    marks.push({ kind: "rect", fill: ink.accentSoft, ...(across ? { ...box, x: at, width: thick } : { ...box, y: at, height: thick }) });
  }
  for (const { at, position } of ticks) {
    if (at < 0 || at > length) continue;
    const place = start + at;
    const strong = position === axis.selected;
    const fill = strong ? ink.accent : kind === "tokens" ? ink.text : ink.faint;
    if (kind === "positions") {
      const text = position.toLocaleString("en");
      if (across) {
        marks.push({ kind: "rect", x: place - 0.5, y: inner - 5, width: 1, height: 5, fill: ink.line });
        marks.push({ kind: "text", x: place, y: baseline(inner - 13, SMALL), text, font: SMALL, fill, anchor: "middle" });
      } else {
        marks.push({ kind: "rect", x: inner - 5, y: place - 0.5, width: 5, height: 1, fill: ink.line });
        marks.push({ kind: "text", x: inner - 8, y: baseline(place, SMALL), text, font: SMALL, fill, anchor: "end" });
      }
      continue;
    }
    const whole = visible(tokens?.[position + axis.shift] ?? "");
    const text = shortened(whole, room, (words) => measure(words, TOKEN));
    if (!across) marks.push({ kind: "text", x: inner - PAD, y: baseline(place, TOKEN), text, font: TOKEN, fill, anchor: "end" });
    else if (measure(whole, TOKEN) <= perEntry - 2 * PAD) {
      marks.push({ kind: "text", x: place, y: baseline(inner - 9, TOKEN), text: whole, font: TOKEN, fill, anchor: "middle" });
    } else marks.push({ kind: "text", x: baseline(place, TOKEN), y: inner - PAD, text, font: TOKEN, fill, anchor: "start", upward: true });
  }
  return [...marks, ...spanMarks(axis, inner, ink, measure)];
}

function spanMarks(axis: Axis, inner: number, ink: Ink, measure: Measure): Mark[] {
  const { box } = axis;
  const across = axis.side === "top";
  const [start, length] = across ? [box.x, box.width] : [box.y, box.height];
  const marks: Mark[] = [];
  for (const [index, span] of axis.spans.entries()) {
    const from = Math.max(0, (span.start - axis.shift - axis.from) * axis.perEntry);
    const end = Math.min(length, (span.stop - axis.shift - axis.from) * axis.perEntry);
    if (end - from < 0.5) continue;
    const fill = index % 2 ? ink.line : ink.accentSoft;
    const [at, size] = [start + from, end - from];
    const band = SPAN_BAND - 2;
    marks.push({ kind: "rect", fill, ...(across ? { x: at, y: inner + 1, width: size, height: band } : { x: inner + 1, y: at, width: band, height: size }) });
    const text = size > 30 ? shortened(visible(span.label), size - 2 * PAD, (words) => measure(words, SMALL)) : "";
    const middle = at + size / 2;
    if (text && across) marks.push({ kind: "text", x: middle, y: baseline(inner + SPAN_BAND / 2, SMALL), text, font: SMALL, fill: ink.faint, anchor: "middle" });
    else if (text) marks.push({ kind: "text", x: baseline(inner + SPAN_BAND / 2, SMALL), y: middle, text, font: SMALL, fill: ink.faint, anchor: "middle", upward: true });
  }
  return marks;
}

/** A track as one area along the map's upper or right side. */
export function trackMarks(
  { track, range }: KnownTrack,
  side: "top" | "right",
  box: Box,
  from: number,
  perEntry: number,
  selected: number | null,
  ink: Ink,
): Mark[] {
  const across = side === "top";
  const [length, depth] = across ? [box.width, box.height - 2] : [box.height, box.width - 2];
  const points: number[] = [];
  const put = (along: number, height: number): void => {
    if (across) points.push(box.x + along, box.y + box.height - height);
    else points.push(box.x + height, box.y + along);
  };
  put(0, 0);
  let last = 0;
  const bars = heights(track, range, from, perEntry, length);
  for (const [at, share] of bars.entries()) {
    const height = share * depth;
    // where the height stays, one line does for many pixels
    if (at > 0 && height !== last) put(at, last);
    if (at === 0 || height !== last) put(at, height);
    last = height;
  }
  put(length, last);
  put(length, 0);
  const marks: Mark[] = [{ kind: "area", points, fill: ink.track }];
  if (selected !== null) {
    const at = (across ? box.x : box.y) + (selected - from) * perEntry;
    const thick = Math.max(2, perEntry);
    marks.push({ kind: "rect", fill: ink.accentSoft, ...(across ? { ...box, x: at, width: thick } : { ...box, y: at, height: thick }) });
  }
  return marks;
}

export interface Over {
  readonly row: number | null;
  readonly col: number | null;
  readonly spans: readonly Span[];
  readonly diagonal: boolean;
}

/** What lies over the map: the diagonal, borders of spans, the selected row and column. */
export function overMarks(box: Box, part: Part, of: Pyramid, { row, col, spans, diagonal }: Over, ink: Ink): Mark[] {
  const { perEntry: size } = part;
  const x = (key: number): number => box.x + (key - part.x) * size;
  const y = (query: number): number => box.y + (query - part.y) * size;
  const shift = of.keys - of.queries;
  const marks: Mark[] = [];
  if (diagonal) marks.push({ kind: "line", from: [x(shift), y(0)], to: [x(of.keys), y(of.queries)], stroke: ink.line, dashed: true });
  const seen = spans.filter(({ start }) => (start > part.x && start < part.right) || (start - shift > part.y && start - shift < part.bottom));
  if ((box.width + box.height) / Math.max(1, seen.length) >= 24) {
    for (const { start } of seen) {
      marks.push({ kind: "rect", x: Math.round(x(start)), y: box.y, width: 1, height: box.height, fill: ink.line });
      marks.push({ kind: "rect", x: box.x, y: Math.round(y(start - shift)), width: box.width, height: 1, fill: ink.line });
    }
  }
  const thin = Math.max(size, 1);
  // beside the row and the column, never over their entries
  if (row !== null) marks.push({ kind: "rect", x: box.x - 2, y: y(row) - 0.5, width: box.width + 4, height: thin + 1, stroke: ink.accent });
  if (col !== null) marks.push({ kind: "rect", x: x(col) - 0.5, y: box.y - 2, width: thin + 1, height: box.height + 4, stroke: ink.accent });
  if (row !== null && col !== null) {
    const ring = Math.max(thin + 2, 9);
    const place = { x: x(col) + size / 2 - ring / 2, y: y(row) + size / 2 - ring / 2, width: ring, height: ring };
    marks.push({ kind: "rect", ...place, stroke: ink.accent, thick: 2 });
  }
  return marks;
}
