/** Describes the atlas as a picture: the small map of every head that it shows, in the same order and places. */

import { layOut } from "../atlas/layout";
import { has, headsOf, ordered, rangeOf as statisticRange, statisticOf } from "../atlas/order";
import { evenSpread, factorFor, pooled } from "../atlas/pooling";
import { INK } from "../matrix/drawing";
import { shortened } from "../matrix/labels";
import { rampOf, rangeOf } from "../matrix/scales";
import { whole, worded } from "../parts/numbers";
import type { LayerInfo, Reduce, Tile } from "../protocol";
import { parseTile, paths } from "../protocol";
import type { Page } from "../state/page";
import { coloursOf, theme } from "../state/theme";
import type { View } from "../state/view";
import { termOf, usualScale } from "../state/view";
import { isAbort } from "../transport/transport";
import { SMALL } from "./around";
import { someAtOnce } from "./cells";
import { ABOVE, BELOW, legendMarks, legendWidth, titleMarks } from "./legend";
import type { Cells, Mark, Measure, Scene } from "./scene";
import { baseline } from "./scene";
import type { Size } from "./sight";
import { meaning, readable, scaleWords } from "./words";

const MARGIN = 20;
const AT_ONCE = 4;
const BAR = "#4a6fa5";

/** How far along it is: maps that are here, of how many. */
export type Progress = (done: number, of: number) => void;

export async function atlasScene(page: Page, view: View, size: Size, scale: number, measure: Measure, signal: AbortSignal, progress: Progress): Promise<Scene> {
  const capture = page.capture(view.capture);
  if (!capture) throw new Error("There is no document here.");
  const measured = page.measured(capture.id).peek();
  const { sort, role, reduce } = view;
  const shownScale = view.scale.locked ? view.scale : usualScale(view.scale.kind, reduce);
  const range = rangeOf(shownScale, false);
  const ramp = rampOf(range);
  const ink = INK[theme.peek()];
  const colours = coloursOf(page.atlas, range.kind === "lift" ? "lift" : "weight");
  const heads = headsOf(capture);
  const list = ordered(heads, sort, measured).filter((head) => has(head, role, measured) !== false);
  const layout = layOut(list, { ...size, size: view.size, aligned: sort === "layer" && role === null });
  const info = [...page.atlas.statistics, ...measured.scores].find(({ name }) => name === view.statistic) ?? page.atlas.statistics[0];
  const extremes = info ? statisticRange(heads, info.name, measured) : null;
  const evens = new Map<string, Tile>();
  const marks: Mark[] = [];
  const [left, top] = [MARGIN, ABOVE + 8];
  for (const { text, x, y, align } of layout.labels) {
    marks.push({ kind: "text", x: left + x, y: baseline(top + y + 6, SMALL), text, font: SMALL, fill: ink.faint, anchor: align });
  }
  // heads that nobody has measured yet would each cost the server a pass over a whole matrix
  const ready = layout.spots.filter(({ head }) => measured.layers[String(head.layer.layer)] !== undefined);
  let missing = layout.spots.length - ready.length;
  let done = 0;
  await someAtOnce(ready, AT_ONCE, async ({ head, x, y }) => {
    const box = { x: left + x, y: top + y, width: layout.cell, height: layout.cell };
    try {
      const path = paths.tile(termOf(capture.id, head.layer.layer, head.head), 0, 0, 0, reduce, "f16");
      const cells = smallMap(parseTile(await page.transport.bytes(path, signal)), head.layer, reduce, layout.cell * scale, evens, (value) => colours[(ramp(value) * 255 + 0.5) | 0] ?? 0);
      const side = layout.cell / Math.max(cells.columns, cells.rows);
      marks.push({ kind: "image", x: box.x, y: box.y, width: cells.columns * side, height: cells.rows * side, cells });
    } catch (error) {
      if (isAbort(error)) throw error;
      missing++;
    }
    progress(++done, ready.length);
    const value = info ? statisticOf(head, info.name, measured) : null;
    if (value === null || !info || !extremes) return;
    const share = extremes[1] > extremes[0] ? (value - extremes[0]) / (extremes[1] - extremes[0]) : 1;
    marks.push({ kind: "rect", x: box.x, y: box.y + box.height + 2, width: layout.cell, height: 2, fill: ink.line });
    marks.push({ kind: "rect", x: box.x, y: box.y + box.height + 2, width: layout.cell * share, height: 2, fill: BAR });
    if (!layout.captions) return;
    const middle = baseline(box.y + box.height + 12, SMALL);
    const name = { ...SMALL, bold: true };
    const said = shortened(worded(info.unit, value), layout.cell - measure(head.label, name) - 4, (text) => measure(text, SMALL));
    marks.push({ kind: "text", x: box.x, y: middle, text: head.label, font: name, fill: ink.text, anchor: "start" });
    marks.push({ kind: "text", x: box.x + layout.cell, y: middle, text: said, font: SMALL, fill: ink.faint, anchor: "end" });
  });
  const bottom = top + layout.height;
  const title = `${readable(capture.title)} · ${readable(capture.model)}`;
  const count = `${layout.spots.length === 1 ? "1 head" : `${whole(layout.spots.length)} heads`}${role === null ? "" : ` (${role})`}`;
  const line = [count, info && extremes ? `bars: ${info.label}` : "", missing > 0 ? `${whole(missing)} not measured yet` : ""].filter(Boolean).join(" · ");
  const first = capture.layers[0];
  const words = [meaning(reduce, false, first ? 2 ** first.levels : 1), `${scaleWords({ ...view, scale: shownScale })} · attlas ${page.atlas.version}`];
  const right = left + Math.max(0, ...layout.spots.map(({ x }) => x + layout.cell)) + MARGIN;
  const width = Math.max(right, legendWidth(words, measure) + 2 * MARGIN);
  const room = width - 2 * MARGIN;
  marks.push(...titleMarks(title, line, MARGIN, room, ink, measure));
  marks.push(...legendMarks(range, colours, words, { x: MARGIN + 8, y: bottom + 14, room: room - 16 }, ink, measure));
  return { width: Math.ceil(width), height: Math.ceil(bottom + 14 + BELOW - 6), ground: ink.ground, title: `${title} · all heads`, marks };
}

/** A map no finer than the pixels that it gets; where nothing can be seen it is transparent. */
function smallMap(tile: Tile, layer: LayerInfo, reduce: Reduce, pixels: number, evens: Map<string, Tile>, colour: (value: number) => number): Cells {
  const key = [layer.queries, layer.keys, layer.causal, layer.window].join(" ");
  const even = evens.get(key) ?? evenSpread(layer);
  evens.set(key, even);
  const { rows, cols, values } = pooled(tile, even, factorFor(Math.max(tile.rows, tile.cols), pixels), reduce);
  return { columns: cols, rows, pixels: Uint32Array.from(values, (value) => (Number.isNaN(value) ? 0 : colour(value))) };
}

/** The room that the atlas has on the screen. */
export function roomOnScreen(root: ParentNode = document): Size {
  const grid = root.querySelector<HTMLElement>(".atlas .grid");
  return grid?.clientWidth ? { width: grid.clientWidth, height: innerHeight - grid.offsetTop - 24 } : { width: 1000, height: 600 };
}
