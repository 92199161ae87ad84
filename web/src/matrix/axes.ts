/** Draws an axis: the labels of positions, marked where something is selected, and the spans of the text. */

import { visible } from "../parts/glyphs";
import type { Span } from "../protocol";
import type { Ink, Pen } from "./drawing";
import { SMALL, TOKEN } from "./drawing";
import type { Tick } from "./labels";
import { LINE, shortened, ticksAlong } from "./labels";

export interface Axis {
  readonly side: "top" | "left";
  /** Position at the beginning, and pixels of a position. */
  readonly from: number;
  readonly perEntry: number;
  readonly count: number;
  readonly tokens: readonly string[] | null;
  /** What to add to an index to get the token's position: queries may be the last of the keys. */
  readonly shift: number;
  readonly selected: number | null;
  readonly hovered: number | null;
  readonly spans: readonly Span[];
}

/** Pixels along the inner edge that the brackets of spans take. */
export const SPAN_BAND = 15;
const PAD = 4;
/** Pixels that a position takes: beside a token on the left, above it on the top. */
const NUMBER = 34;
const ABOVE = 13;

export function drawAxis(pen: Pen, axis: Axis, ink: Ink): void {
  const { context } = pen;
  const across = axis.side === "top";
  const length = across ? pen.width : pen.height;
  const depth = across ? pen.height : pen.width;
  const inner = depth - (axis.spans.length > 0 ? SPAN_BAND : 0);
  const { kind, ticks } = ticksAlong(axis.from, axis.perEntry, length, axis.count, across ? 64 : 34, axis.tokens !== null);
  drawMarks(pen, axis, ink);
  context.textBaseline = "middle";
  context.font = kind === "tokens" ? TOKEN : SMALL;
  for (const tick of ticks) {
    const token = axis.tokens?.[tick.position + axis.shift];
    const strong = tick.position === axis.selected || tick.position === axis.hovered;
    context.fillStyle = strong ? ink.accent : kind === "tokens" ? ink.text : ink.faint;
    if (kind === "tokens") {
      drawToken(context, axis, tick, token === undefined ? "" : visible(token), inner);
      drawPosition(pen, axis, tick, ink);
    } else drawNumber(pen, across, tick, inner, ink);
  }
  if (axis.spans.length > 0) drawSpans(pen, axis, ink, inner);
}

function drawMarks({ context, width, height }: Pen, axis: Axis, ink: Ink): void {
  for (const [position, colour] of [
    [axis.hovered, ink.line],
    [axis.selected, ink.accentSoft],
  ] as const) {
    if (position === null) continue;
    const at = (position - axis.from) * axis.perEntry;
    const thick = Math.max(2, axis.perEntry);
    context.fillStyle = colour;
    if (axis.side === "top") context.fillRect(at, 0, thick, height);
    else context.fillRect(0, at, width, thick);
  }
}

function drawToken(context: CanvasRenderingContext2D, axis: Axis, tick: Tick, text: string, inner: number): void {
  const measure = (part: string): number => context.measureText(part).width;
  if (axis.side === "left") {
    context.textAlign = "right";
    context.fillText(shortened(text, inner - NUMBER - 2 * PAD, measure), inner - PAD, tick.at);
    return;
  }
  if (measure(text) <= axis.perEntry - 2 * PAD) {
    context.textAlign = "center";
    context.fillText(text, tick.at, inner - 9);
    return;
  }
  context.save();
  context.translate(tick.at, inner - PAD);
  context.rotate(-Math.PI / 2);
  context.textAlign = "left";
  context.fillText(shortened(text, inner - ABOVE - 2 * PAD, measure), 0, 0);
  context.restore();
}

/** Tokens repeat, so their positions stand there too: beside each query, and above every few keys. */
function drawPosition(pen: Pen, axis: Axis, tick: Tick, ink: Ink): void {
  const { context } = pen;
  const across = axis.side === "top";
  const every = Math.max(1, Math.ceil(48 / axis.perEntry / 5) * 5);
  if (across && tick.position % every !== 0) return;
  context.save();
  context.font = SMALL;
  context.fillStyle = ink.faint;
  context.textAlign = across ? "center" : "left";
  const text = tick.position.toLocaleString("en");
  const half = context.measureText(text).width / 2;
  // one that is cut off at the edge would be read as another number
  if (!across || (tick.at >= half && tick.at <= pen.width - half)) context.fillText(text, across ? tick.at : 0, across ? 6 : tick.at);
  context.restore();
}

function drawNumber({ context, width, height }: Pen, across: boolean, tick: Tick, inner: number, ink: Ink): void {
  const length = across ? width : height;
  if (tick.at < 0 || tick.at > length) return;
  const text = tick.position.toLocaleString("en");
  const stroke = context.fillStyle;
  context.fillStyle = ink.line;
  if (across) context.fillRect(tick.at - 0.5, inner - 5, 1, 5);
  else context.fillRect(inner - 5, tick.at - 0.5, 5, 1);
  context.fillStyle = stroke;
  context.textAlign = across ? "center" : "right";
  // a number at the very edge is moved in, so that it can be read whole
  const half = across ? context.measureText(text).width / 2 : LINE / 2;
  const at = Math.min(Math.max(tick.at, half), length - half);
  if (across) context.fillText(text, at, inner - 12);
  else context.fillText(text, inner - 8, at);
}

function drawSpans({ context, width, height }: Pen, axis: Axis, ink: Ink, inner: number): void {
  const across = axis.side === "top";
  const length = across ? width : height;
  context.font = SMALL;
  const measure = (part: string): number => context.measureText(part).width;
  for (const [index, span] of axis.spans.entries()) {
    const from = Math.max(-1, (span.start - axis.shift - axis.from) * axis.perEntry);
    const to = Math.min(length + 1, (span.stop - axis.shift - axis.from) * axis.perEntry);
    if (to - from < 0.5) continue;
    context.fillStyle = index % 2 ? ink.line : ink.accentSoft;
    if (across) context.fillRect(from, inner + 1, to - from, SPAN_BAND - 2);
    else context.fillRect(inner + 1, from, SPAN_BAND - 2, to - from);
    const label = to - from > 30 ? shortened(visible(span.label), to - from - 2 * PAD, measure) : "";
    if (!label) continue;
    context.save();
    context.fillStyle = ink.faint;
    context.textAlign = "center";
    if (across) context.translate((from + to) / 2, inner + SPAN_BAND / 2);
    else {
      context.translate(inner + SPAN_BAND / 2, (from + to) / 2);
      context.rotate(-Math.PI / 2);
    }
    context.fillText(label, 0, 0);
    context.restore();
  }
}
