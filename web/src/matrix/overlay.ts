/** What is drawn over a map: the diagonal, the spans' borders, the selected row and column, the entry under the pointer. */

import type { Span } from "../protocol";
import type { Ink, Pen } from "./drawing";
import type { Extent, Pyramid } from "./pyramid";
import type { Sight } from "./zoomer";

export interface Marks {
  readonly row: number | null;
  readonly col: number | null;
  readonly hovered: Extent | null;
  readonly spans: readonly Span[];
  readonly diagonal: boolean;
  readonly following: boolean;
}

export function drawOverlay(pen: Pen, sight: Sight, pyramid: Pyramid, marks: Marks, ink: Ink): void {
  const { context } = pen;
  const x = (col: number): number => (col - sight.x) * sight.perEntry;
  const y = (row: number): number => (row - sight.y) * sight.perEntry;
  context.save();
  context.beginPath();
  context.rect(x(0), y(0), pyramid.keys * sight.perEntry, pyramid.queries * sight.perEntry);
  context.strokeStyle = ink.line;
  context.lineWidth = 1;
  context.stroke();
  context.clip();
  if (marks.diagonal) drawDiagonal(context, x, y, pyramid, marks.following, ink);
  drawSpanLines(context, sight, pyramid, marks.spans, x, y, ink);
  if (marks.hovered) drawHovered(context, pen, marks.hovered, x, y, ink);
  drawSelected(context, pen, sight, marks, x, y, ink);
  context.restore();
}

type Place = (entry: number) => number;

/** Where key and query are the same position: entries of the diagonal lie below the line's middle, not beside it. */
function drawDiagonal(context: CanvasRenderingContext2D, x: Place, y: Place, of: Pyramid, strong: boolean, ink: Ink): void {
  const shift = of.keys - of.queries;
  context.beginPath();
  context.moveTo(x(shift), y(0));
  context.lineTo(x(of.keys), y(of.queries));
  context.strokeStyle = strong ? ink.accent : ink.faint;
  context.globalAlpha = strong ? 0.8 : 0.3;
  context.lineWidth = 1;
  context.setLineDash(strong ? [] : [4, 4]);
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 1;
}

/** Borders of spans, where they lie far enough apart not to cover what is below. */
function drawSpanLines(
  context: CanvasRenderingContext2D,
  sight: Sight,
  of: Pyramid,
  spans: readonly Span[],
  x: Place,
  y: Place,
  ink: Ink,
): void {
  const shift = of.keys - of.queries;
  const [right, bottom] = [sight.x + sight.width / sight.perEntry, sight.y + sight.height / sight.perEntry];
  const seen = spans.filter(({ start }) => (start > sight.x && start < right) || (start - shift > sight.y && start - shift < bottom));
  if (seen.length === 0 || (sight.width + sight.height) / seen.length < 24) return;
  context.fillStyle = ink.line;
  for (const { start } of seen) {
    context.fillRect(Math.round(x(start)), 0, 1, sight.height);
    context.fillRect(0, Math.round(y(start - shift)), sight.width, 1);
  }
}

function drawHovered(context: CanvasRenderingContext2D, pen: Pen, of: Extent, x: Place, y: Place, ink: Ink): void {
  const [left, top] = [x(of.col), y(of.row)];
  const [width, height] = [Math.max(1, x(of.colEnd) - left), Math.max(1, y(of.rowEnd) - top)];
  context.fillStyle = ink.line;
  context.fillRect(0, top, pen.width, height);
  context.fillRect(left, 0, width, pen.height);
  if (width > 3) {
    context.strokeStyle = ink.text;
    context.lineWidth = 1;
    context.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1);
  }
}

function drawSelected(context: CanvasRenderingContext2D, pen: Pen, sight: Sight, marks: Marks, x: Place, y: Place, ink: Ink): void {
  const size = sight.perEntry;
  // beside the row and the column, never over their entries
  const thin = Math.max(size, 1);
  context.beginPath();
  if (marks.row !== null) context.rect(-2, y(marks.row) - 0.5, pen.width + 4, thin + 1);
  if (marks.col !== null) context.rect(x(marks.col) - 0.5, -2, thin + 1, pen.height + 4);
  outlined(context, 1, ink);
  if (marks.row === null || marks.col === null) return;
  // a single entry far out is less than a pixel: its ring keeps a size that can be seen
  const ring = Math.max(thin + 2, 9);
  context.beginPath();
  context.rect(x(marks.col) + size / 2 - ring / 2, y(marks.row) + size / 2 - ring / 2, ring, ring);
  outlined(context, 2, ink);
}

/** A line that can be seen on every colour: on a wider one of the ground's. */
function outlined(context: CanvasRenderingContext2D, width: number, ink: Ink): void {
  context.strokeStyle = ink.ground;
  context.lineWidth = width + 2;
  context.globalAlpha = 0.65;
  context.stroke();
  context.globalAlpha = 1;
  context.strokeStyle = ink.accent;
  context.lineWidth = width;
  context.stroke();
}
