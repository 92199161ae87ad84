/** Describes the atlas as a picture: the small map of every head that it shows, in the same order and places. */

import { layOut } from "../atlas/layout";
import { has, headsOf, ordered, rangeOf as statisticRange, statisticOf } from "../atlas/order";
import { coloured } from "../atlas/maps";
import { evenSpread, sideOf } from "../atlas/pooling";
import { INK } from "../matrix/drawing";
import { shortened } from "../matrix/labels";
import { rampOf, rangeOf } from "../matrix/scales";
import { whole, worded } from "../parts/numbers";
import { parseMaps, paths } from "../protocol";
import type { Page } from "../state/page";
import { coloursOf, theme } from "../state/theme";
import type { View } from "../state/view";
import { usualScale } from "../state/view";
import { isAbort } from "../transport/transport";
import { SMALL } from "./around";
import { someAtOnce } from "./cells";
import { ABOVE, BELOW, legendMarks, legendWidth, titleMarks } from "./legend";
import type { Mark, Measure, Scene } from "./scene";
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
  const marks: Mark[] = [];
  const [left, top] = [MARGIN, ABOVE + 8];
  for (const { text, x, y, align } of layout.labels) {
    marks.push({ kind: "text", x: left + x, y: baseline(top + y + 6, SMALL), text, font: SMALL, fill: ink.faint, anchor: align });
  }
  // layers that nobody has measured yet would each cost the server a pass over their matrices
  const ready = layout.spots.filter(({ head }) => measured.layers[String(head.layer.layer)] !== undefined);
  let missing = layout.spots.length - ready.length;
  let done = 0;
  let side = 1;
  await someAtOnce([...new Set(ready.map(({ head }) => head.layer))], AT_ONCE, async (layer) => {
    const spots = ready.filter(({ head }) => head.layer === layer);
    try {
      const found = parseMaps(await page.transport.bytes(paths.maps(capture.id, layer.layer, reduce), signal));
      const [first] = found;
      side = first ? Math.max(side, sideOf(layer, first)) : side;
      const even = first && evenSpread(layer, sideOf(layer, first));
      for (const { head, x, y } of spots) {
        const map = found[head.index];
        if (!map || !even) continue;
        const cells = coloured(map, even, reduce, layout.cell * scale, (value) => colours[(ramp(value) * 255 + 0.5) | 0] ?? 0);
        const each = layout.cell / Math.max(cells.columns, cells.rows);
        marks.push({ kind: "image", x: left + x, y: top + y, width: cells.columns * each, height: cells.rows * each, cells });
      }
    } catch (error) {
      if (isAbort(error)) throw error;
      missing += spots.length;
    }
    progress((done += spots.length), ready.length);
  });
  for (const { head, x, y } of ready) {
    const box = { x: left + x, y: top + y, width: layout.cell, height: layout.cell };
    const value = info ? statisticOf(head, info.name, measured) : null;
    if (value === null || !info || !extremes) continue;
    const share = extremes[1] > extremes[0] ? (value - extremes[0]) / (extremes[1] - extremes[0]) : 1;
    marks.push({ kind: "rect", x: box.x, y: box.y + box.height + 2, width: layout.cell, height: 2, fill: ink.line });
    marks.push({ kind: "rect", x: box.x, y: box.y + box.height + 2, width: layout.cell * share, height: 2, fill: BAR });
    if (!layout.captions) continue;
    const middle = baseline(box.y + box.height + 12, SMALL);
    const name = { ...SMALL, bold: true };
    const said = shortened(worded(info.unit, value), layout.cell - measure(head.label, name) - 4, (text) => measure(text, SMALL));
    marks.push({ kind: "text", x: box.x, y: middle, text: head.label, font: name, fill: ink.text, anchor: "start" });
    marks.push({ kind: "text", x: box.x + layout.cell, y: middle, text: said, font: SMALL, fill: ink.faint, anchor: "end" });
  }
  const bottom = top + layout.height;
  const title = `${readable(capture.title)} · ${readable(capture.model)}`;
  const count = `${layout.spots.length === 1 ? "1 head" : `${whole(layout.spots.length)} heads`}${role === null ? "" : ` (${role})`}`;
  const line = [count, info && extremes ? `bars: ${info.label}` : "", missing > 0 ? `${whole(missing)} not measured yet` : ""].filter(Boolean).join(" · ");
  const words = [meaning(reduce, false, side), `${scaleWords({ ...view, scale: shownScale })} · attlas ${page.atlas.version}`];
  const right = left + Math.max(0, ...layout.spots.map(({ x }) => x + layout.cell)) + MARGIN;
  const width = Math.max(right, legendWidth(words, measure) + 2 * MARGIN);
  const room = width - 2 * MARGIN;
  marks.push(...titleMarks(title, line, MARGIN, room, ink, measure));
  marks.push(...legendMarks(range, colours, words, { x: MARGIN + 8, y: bottom + 14, room: room - 8 }, ink, measure));
  return { width: Math.ceil(width), height: Math.ceil(bottom + 14 + BELOW - 6), ground: ink.ground, title: `${title} · all heads`, marks };
}

/** The room that the atlas has on the screen. */
export function roomOnScreen(root: ParentNode = document): Size {
  const grid = root.querySelector<HTMLElement>(".atlas .grid");
  return grid?.clientWidth ? { width: grid.clientWidth, height: innerHeight - grid.offsetTop - 24 } : { width: 1000, height: 600 };
}
