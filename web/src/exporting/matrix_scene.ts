/** Describes the view of a head, or of two beside one another, as a picture: all of what is in sight on the screen. */

import type { Ink } from "../matrix/drawing";
import { INK } from "../matrix/drawing";
import type { Tracks } from "../matrix/extras";
import { tracksOf } from "../matrix/extras";
import type { Range } from "../matrix/scales";
import { rangeOf } from "../matrix/scales";
import type { ShownMatrix } from "../matrix/shown";
import { reduceOf, shownMatrix } from "../matrix/shown";
import { trackName } from "../matrix/tracks";
import { LINE as LETTERS } from "../matrix/labels";
import { visible } from "../parts/glyphs";
import { whole } from "../parts/numbers";
import type { CellAnswer, Span, SpansAnswer, TokensAnswer } from "../protocol";
import { parseVectors, paths } from "../protocol";
import type { Page } from "../state/page";
import { coloursOf, theme } from "../state/theme";
import type { View } from "../state/view";
import { matricesShown } from "../state/view";
import { SMALL, axisMarks, overMarks, trackMarks } from "./around";
import type { CellsInSight } from "./cells";
import { cellsInSight } from "./cells";
import { ABOVE, BELOW, LINE, legendMarks, legendWidth, titleMarks } from "./legend";
import type { Box, Cells, Mark, Measure, Scene } from "./scene";
import type { Part, Size } from "./sight";
import { partInSight } from "./sight";
import { meaning, readable, scaleWords, sourceOf } from "./words";

const [TRACK, NAME, SINK, PAD, MARGIN, BETWEEN] = [44, 16, 14, 4, 20, 24];
/** What axes need for tokens, for numbers, and for the brackets of spans besides. */
const AXES = { tokens: { left: 118, top: 80 }, positions: { left: 50, top: 26 }, spans: 15 } as const;

/** The matrices that a view shows. */
export const shownBy = (view: View, page: Page): ShownMatrix[] =>
  matricesShown(view)
    .map((name) => shownMatrix(name, page.atlas))
    .filter((one) => one !== null);

export async function matrixScene(page: Page, view: View, size: Size, scale: number, measure: Measure, signal: AbortSignal): Promise<Scene> {
  const matrices = shownBy(view, page);
  const [first] = matrices;
  if (!first) throw new Error("There is no matrix here to be drawn.");
  const ink = INK[theme.peek()];
  const range = rangeOf(view.scale, first.signed);
  const colours = coloursOf(page.atlas, range.signed || range.kind === "lift" ? "lift" : "weight");
  const panes: Pane[] = [];
  let left = MARGIN;
  for (const matrix of matrices) {
    const known = await gathered(page, view, matrix, { size, scale, range, colours, signal });
    const pane = paneOf(known, view, left, matrices.length > 1, ink, measure);
    panes.push(pane);
    left += pane.width + BETWEEN;
  }
  const bottom = Math.max(...panes.map(({ height }) => height));
  const cells = panes[0]?.inSight;
  const reduce = reduceOf(first, view.reduce);
  const say = [sourceOf(first, page.atlas), ...(matrices.length > 1 ? [] : [sizeWords(first)])].filter(Boolean).join(" · ");
  const titles = matrices.map((matrix) => matrix.title).join(" | ");
  const heading = titles.charAt(0).toUpperCase() + titles.slice(1);
  const words = [meaning(reduce, first.signed, cells?.side ?? 1), `${scaleWords(view)} · attlas ${page.atlas.version}`];
  const width = Math.max(left - BETWEEN + MARGIN, legendWidth(words, measure) + 2 * MARGIN);
  const room = width - 2 * MARGIN;
  const selected = await selectedWords(page, view, first, signal);
  const marks: Mark[] = [...titleMarks(readable(heading), say, MARGIN, room, ink, measure), ...panes.flatMap((pane) => pane.marks)];
  marks.push(...legendMarks(range, colours, words, { x: MARGIN + 8, y: bottom + 14, room: room - 16 }, ink, measure));
  const line = bottom + 14 + BELOW;
  if (selected) marks.push({ kind: "text", x: MARGIN, y: line, text: selected, font: LINE, fill: ink.accent, anchor: "start" });
  return {
    width: Math.ceil(selected ? Math.max(width, 2 * MARGIN + measure(selected, LINE)) : width),
    height: Math.ceil(line + (selected ? 14 : -6)),
    ground: ink.ground,
    title: `${readable(heading)} · ${say}`,
    marks,
  };
}

const sizeWords = ({ pyramid }: ShownMatrix): string => `${whole(pyramid.queries)} queries × ${whole(pyramid.keys)} keys`;

/** Everything that a pane is drawn from. */
interface Gathered {
  readonly matrix: ShownMatrix;
  readonly part: Part;
  readonly inSight: CellsInSight;
  readonly tokens: readonly string[] | null;
  readonly spans: readonly Span[];
  readonly tracks: Tracks | null;
  readonly strip: Cells | null;
}

interface Asked {
  readonly size: Size;
  readonly scale: number;
  readonly range: Range;
  readonly colours: Uint32Array;
  readonly signal: AbortSignal;
}

async function gathered(page: Page, view: View, matrix: ShownMatrix, { size, scale, range, colours, signal }: Asked): Promise<Gathered> {
  const { transport, atlas } = page;
  const part = partInSight(matrix.pyramid, view.window, size);
  const vectors = async (path: string): Promise<readonly Float32Array[]> => parseVectors(await transport.bytes(path, signal));
  const colouring = { reduce: reduceOf(matrix, view.reduce), range, colours, sink: view.sink };
  const [inSight, { tokens }, spans, tracks, column] = await Promise.all([
    cellsInSight(matrix, part, part.perEntry * scale, colouring, transport, signal),
    transport.json(paths.tokens(matrix.capture), signal) as Promise<TokensAnswer>,
    view.spans === null ? null : (transport.json(paths.spans(matrix.capture, view.spans), signal) as Promise<SpansAnswer>),
    matrix.signed ? null : vectors(paths.tracks(matrix.name)),
    view.sink ? vectors(paths.column(matrix.name, 0)) : null,
  ]);
  return {
    matrix,
    part,
    inSight,
    // a matrix between two texts has no tokens of the one for both of its sides
    tokens: tokens?.length === matrix.pyramid.keys ? tokens : null,
    spans: spans?.spans ?? [],
    tracks: tracks && tracksOf(matrix, tracks),
    strip: column?.[0] ? stripOf(column[0], part, coloursOf(atlas, "weight")) : null,
  };
}

interface Pane {
  readonly marks: readonly Mark[];
  readonly width: number;
  /** Where it ends. */
  readonly height: number;
  readonly inSight: CellsInSight;
}

function paneOf({ matrix, part, inSight, tokens, spans, tracks, strip }: Gathered, view: View, left: number, titled: boolean, ink: Ink, measure: Measure): Pane {
  const { pyramid } = matrix;
  const above = ABOVE + (titled ? 18 : 0) + (tracks ? NAME + TRACK : 0);
  const beside = strip ? SINK : 0;
  const axes = AXES[tokens && part.perEntry >= LETTERS ? "tokens" : "positions"];
  const band = spans.length > 0 ? AXES.spans : 0;
  const [wide, high] = [axes.left + band, axes.top + band];
  const map: Box = {
    x: left + wide + beside,
    y: above + high,
    width: (part.right - part.x) * part.perEntry,
    height: (part.bottom - part.y) * part.perEntry,
  };
  const common = { perEntry: part.perEntry, tokens, spans };
  const inside = (index: number | null, from: number, end: number): number | null => (index !== null && index >= Math.floor(from) && index < end ? index : null);
  const row = inside(view.row, part.y, part.bottom);
  const col = inside(view.col, part.x, part.right);
  const marks: Mark[] = [];
  const clipped = (box: Box, within: readonly Mark[]): void => void marks.push({ kind: "clipped", box, marks: within });
  if (titled) {
    marks.push({ kind: "text", x: left, y: ABOVE + 13, text: readable(matrix.title), font: { ...LINE, bold: true }, fill: ink.text, anchor: "start" });
  }
  const top = { x: map.x, y: above, width: map.width, height: high };
  const side = { x: left, y: map.y, width: wide, height: map.height };
  // the first and the last number of an axis may stand over its ends
  clipped(
    { ...top, x: top.x - 24, width: top.width + 48 },
    axisMarks({ ...common, side: "top", box: top, from: part.x, end: part.right, count: pyramid.keys, shift: 0, selected: col }, ink, measure),
  );
  clipped(
    { ...side, y: side.y - 6, height: side.height + 12 },
    axisMarks({ ...common, side: "left", box: side, from: part.y, end: part.bottom, count: pyramid.queries, shift: pyramid.keys - pyramid.queries, selected: row }, ink, measure),
  );
  const cell = inSight.side * part.perEntry;
  const image: Mark = {
    kind: "image",
    x: map.x + inSight.col * cell - part.x * part.perEntry,
    y: map.y + inSight.row * cell - part.y * part.perEntry,
    width: inSight.cells.columns * cell,
    height: inSight.cells.rows * cell,
    cells: inSight.cells,
  };
  const diagonal = matrix.layer.causal || pyramid.keys === pyramid.queries;
  clipped(map, [image, ...overMarks(map, part, pyramid, { row: view.row, col: view.col, spans, diagonal }, ink)]);
  marks.push({ kind: "rect", ...map, stroke: ink.line });
  if (strip) {
    const at = { x: left + wide, y: map.y, width: SINK - PAD, height: map.height };
    marks.push({ kind: "image", ...at, cells: strip }, { kind: "rect", ...at, stroke: ink.line });
  }
  let right = map.x + map.width;
  if (tracks) {
    const over = { x: map.x, y: above - TRACK, width: map.width, height: TRACK };
    const name = { kind: "text", font: SMALL, fill: ink.faint, anchor: "start" } as const;
    marks.push({ ...name, x: map.x, y: over.y - 5, text: trackName(tracks.received.track, tracks.received.range) });
    clipped(over, trackMarks(tracks.received, "top", over, part.x, part.perEntry, col, ink));
    for (const known of [tracks.entropy, tracks.distance]) {
      const box = { x: right + PAD, y: map.y, width: TRACK - PAD, height: map.height };
      clipped(box, trackMarks(known, "right", box, part.y, part.perEntry, row, ink));
      marks.push({ ...name, x: box.x + 11, y: map.y - 6, text: trackName(known.track, known.range), upward: true });
      right += TRACK;
    }
  }
  return { marks, width: right - left, height: map.y + map.height, inSight };
}

/** The first column as a strip of one cell a pixel: how much of each query's attention rests there. */
function stripOf(column: Float32Array, part: Part, colours: Uint32Array): Cells {
  const rows = Math.max(1, Math.round((part.bottom - part.y) * part.perEntry));
  const pixels = Uint32Array.from({ length: rows }, (_, pixel) => {
    const first = Math.floor(part.y + (pixel + 0.01) / part.perEntry);
    const last = Math.min(column.length, Math.max(first + 1, Math.ceil(part.y + (pixel + 0.99) / part.perEntry)));
    let sum = 0;
    for (let i = first; i < last; i++) sum += Math.abs(column[i] ?? 0);
    return colours[Math.min(255, Math.round((255 * sum) / Math.max(1, last - first)))] ?? 0;
  });
  return { columns: 1, rows, pixels };
}

/** What is selected, in words and with its number. */
async function selectedWords(page: Page, view: View, matrix: ShownMatrix, signal: AbortSignal): Promise<string> {
  const { row, col } = view;
  if (row === null && col === null) return "";
  const { tokens } = (await page.transport.json(paths.tokens(matrix.capture), signal)) as TokensAnswer;
  const { keys, queries } = matrix.pyramid;
  const named = (position: number, shift: number): string => {
    const token = tokens?.length === keys ? tokens[position + shift] : undefined;
    return `${whole(position)}${token === undefined ? "" : ` ${clipped(visible(token))}`}`;
  };
  const query = row === null ? "" : `query ${named(row, keys - queries)}`;
  const key = col === null ? "" : `key ${named(col, 0)}`;
  if (row === null || col === null) return `selected: ${query}${key}`;
  const value = await page.transport.json(paths.cell(matrix.name, row, col), signal).then(
    (answer) => ` = ${(answer as CellAnswer).exact}`,
    () => "", // a file does not hold every entry
  );
  return `${query} → ${key}: ${matrix.signed ? "A − A′" : "A"}${value}`;
}

const clipped = (text: string): string => (text.length > 40 ? `${text.slice(0, 40)}…` : text);
