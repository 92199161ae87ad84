/** The first column, set aside: a strip of its own beside the map, from no attention at all to all of it. */

import type { Ink, Pen } from "./drawing";
import type { Sight } from "./zoomer";

export function drawSink(pen: Pen, column: Float32Array, sight: Sight, colours: Uint32Array, ink: Ink): void {
  const { context, width, height } = pen;
  for (let pixel = 0; pixel < height; pixel++) {
    const first = Math.max(0, Math.floor(sight.y + pixel / sight.perEntry));
    const last = Math.min(column.length, Math.max(first + 1, Math.ceil(sight.y + (pixel + 1) / sight.perEntry - 1e-6)));
    if (sight.y + (pixel + 1) / sight.perEntry <= 0 || first >= column.length) continue;
    let sum = 0;
    for (let i = first; i < last; i++) sum += Math.abs(column[i] ?? 0);
    context.fillStyle = css(colours[Math.round((255 * sum) / (last - first))] ?? 0);
    context.fillRect(0, pixel, width, 1);
  }
  const [top, bottom] = [0, column.length].map((row) => Math.min(height, Math.max(0, (row - sight.y) * sight.perEntry)));
  context.strokeStyle = ink.line;
  context.strokeRect(0.5, (top ?? 0) + 0.5, width - 1, Math.max(0, (bottom ?? height) - (top ?? 0) - 1));
}

/** A packed pixel as CSS writes colours. */
export const css = (pixel: number): string => `rgb(${pixel & 255} ${(pixel >> 8) & 255} ${(pixel >> 16) & 255})`;
