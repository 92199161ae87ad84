/**
 * What the page asks and what it is told: paths, the types of the answers, and the three kinds of bytes.
 *
 * The same paths and answers travel over HTTP, over a notebook's comm and out of an exported file.
 */

/** Cells along the side of a tile. */
export const TILE = 256;

export type Reduce = "max" | "mean" | "mass" | "lift";

// ---------------------------------------------------------------------------------------------------- answers in JSON

export interface LayerInfo {
  readonly layer: number;
  readonly name: string;
  readonly heads: readonly number[];
  readonly queries: number;
  readonly keys: number;
  /** The deepest level, whose cells are single entries; level 0 is one tile. */
  readonly levels: number;
  readonly causal: boolean;
  readonly window: number | null;
}

export interface CaptureInfo {
  readonly id: string;
  readonly title: string;
  readonly model: string;
  readonly kind: string;
  readonly tokens: number | null;
  readonly text: boolean;
  /** Worst relative error of A·V against the model's own attention output, null where it was not checked. */
  readonly error: number | null;
  readonly layers: readonly LayerInfo[];
}

export interface StatisticInfo {
  readonly name: string;
  readonly label: string;
  readonly meaning: string;
  readonly unit: string;
}

export type ColourName = "lift-light" | "lift-dark" | "weight-light" | "weight-dark";

/** What a page that was saved holds of a matrix. */
export interface HeldInfo {
  readonly matrix: string;
  /** Entries along the side of the smallest cells that are there everywhere; 1 where every entry is. */
  readonly cell: number;
  /** Rows and columns, from and up to, of which every entry is there. */
  readonly exact: readonly [rows: readonly [number, number], cols: readonly [number, number]] | null;
}

/** What a page that was saved holds of the atlas of all heads. */
export interface HeldMaps {
  /** Cells a side that the small maps have at most, by what they show. */
  readonly sides: Readonly<Partial<Record<Reduce, number>>>;
  /** Layers that are there, and how many the model has. */
  readonly layers: number;
  readonly of: number;
}

/** An explanation that a page was saved with: what was asked. */
export interface ExplainedInfo {
  readonly capture: string;
  readonly method: string;
  readonly target: string;
  readonly budget: number;
}

export interface AtlasInfo {
  readonly version: string;
  readonly captures: readonly CaptureInfo[];
  readonly statistics: readonly StatisticInfo[];
  readonly reducers: readonly Reduce[];
  readonly patterns: readonly { readonly spec: string; readonly label: string }[];
  readonly spans: readonly string[];
  readonly methods: readonly string[];
  /** Each 256 colours as base64 of red, green, blue. */
  readonly colours: Readonly<Record<ColourName, string>>;
  /** Only on a page that was saved: what it holds of matrices. */
  readonly excerpt?: readonly HeldInfo[];
  /** Only on a page that was saved from the atlas: it holds all heads, but none of them can be opened. */
  readonly maps?: HeldMaps;
  /** Only on a page that was saved: what was explained. */
  readonly explained?: readonly ExplainedInfo[];
}

export interface TokensAnswer {
  readonly tokens: readonly string[] | null;
  readonly kinds?: unknown;
}

export interface CellAnswer {
  readonly value: number;
  /** The number in full, as Python writes it. */
  readonly exact: string;
  /** The scaled logit before the softmax, null for matrices that have none. */
  readonly score: number | null;
  /** 1 = the largest entry of its row; null if the key is hidden from the query. */
  readonly rank: number | null;
  readonly visible: boolean;
  readonly lift: number | null;
  readonly row_sum: number;
}

export interface PeakAnswer {
  readonly row: number;
  readonly col: number;
  readonly value: number;
}

export interface StatisticsAnswer {
  readonly layers: Readonly<Record<string, Readonly<Record<string, readonly (number | null)[]>>>>;
  readonly done: number;
  readonly of: number;
  /** Roles that heads were found to have, by "layer.head", the most telling first; empty where none were measured. */
  readonly roles: Readonly<Record<string, readonly string[]>>;
  /** The scores of roles: they stand among the numbers of the layers, and are named `role:` and the role. */
  readonly scores: readonly StatisticInfo[];
  /** Whether nothing more will come. */
  readonly complete: boolean;
}

/** What the score of a role is called among the statistics. */
export const scoreName = (role: string): string => `role:${role}`;

export interface Span {
  readonly start: number;
  readonly stop: number;
  readonly label: string;
}

export interface SpansAnswer {
  readonly spans: readonly Span[];
}

/** What the server says unasked. */
export type ServerEvent =
  | { readonly type: "statistics"; readonly capture: string; readonly layer: number }
  | { readonly type: "done" }
  | { readonly type: "roles" }
  | { readonly type: "error"; readonly message: string };

// ------------------------------------------------------------------------------------------------------------- bytes

/** A rectangle of numbers, row after row. */
export interface Tile {
  readonly rows: number;
  readonly cols: number;
  readonly values: Float32Array;
}

export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
}

const HEADER = 16;
const FLOAT32 = 1;
const FLOAT16 = 2;

/** Read a tile ("ATL1"). Always returns single precision; half precision is multiplied by its scale. */
export function parseTile(bytes: ArrayBuffer): Tile {
  const view = opened(bytes, "ATL1");
  const kind = view.getUint8(4);
  const rows = view.getUint16(6, true);
  const cols = view.getUint16(8, true);
  const scale = view.getFloat32(12, true);
  return { rows, cols, values: numbers(bytes, kind, rows * cols, scale) };
}

/** Read vectors ("ATLV"): all of one length, padded with NaN where one is shorter. */
export function parseVectors(bytes: ArrayBuffer): Float32Array[] {
  const view = opened(bytes, "ATLV");
  const kind = view.getUint8(4);
  const count = view.getUint16(6, true);
  const length = view.getUint32(8, true);
  const all = numbers(bytes, kind, count * length, view.getFloat32(12, true));
  return Array.from({ length: count }, (_, i) => all.subarray(i * length, (i + 1) * length));
}

/** Read maps ("ATLM"), all of one size: half precision, each with a scale of its own. */
export function parseMaps(bytes: ArrayBuffer): Tile[] {
  const view = opened(bytes, "ATLM");
  const kind = view.getUint8(4);
  const [rows, cols, count] = [6, 8, 10].map((at) => view.getUint16(at, true)) as [number, number, number];
  const [start, size] = [HEADER + 4 * count, rows * cols];
  if (kind !== FLOAT16) throw new ProtocolError(`wanted maps of kind ${FLOAT16}, got ${kind}`);
  if (bytes.byteLength !== start + 2 * count * size) {
    throw new ProtocolError(`wanted ${count} maps in ${start + 2 * count * size} bytes, got ${bytes.byteLength} bytes`);
  }
  return Array.from({ length: count }, (_, i) => {
    const scale = view.getFloat32(HEADER + 4 * i, true);
    return { rows, cols, values: whole(new Uint16Array(bytes, start + 2 * i * size, size), scale) };
  });
}

/** A tile as bytes, in single precision: what `parseTile` reads. */
export function tileBytes({ rows, cols, values }: Tile): ArrayBuffer {
  const [bytes, view] = headed("ATL1", values);
  view.setUint16(6, rows, true);
  view.setUint16(8, cols, true);
  return bytes;
}

/** One vector as bytes: what `parseVectors` reads. */
export function vectorBytes(values: Float32Array): ArrayBuffer {
  const [bytes, view] = headed("ATLV", values);
  view.setUint16(6, 1, true);
  view.setUint32(8, values.length, true);
  return bytes;
}

function headed(magic: string, values: Float32Array): readonly [ArrayBuffer, DataView] {
  const bytes = new ArrayBuffer(HEADER + 4 * values.length);
  const view = new DataView(bytes);
  for (let i = 0; i < 4; i++) view.setUint8(i, magic.charCodeAt(i));
  view.setUint8(4, FLOAT32);
  view.setFloat32(12, 1, true);
  new Float32Array(bytes, HEADER).set(values);
  return [bytes, view];
}

function opened(bytes: ArrayBuffer, magic: string): DataView {
  if (bytes.byteLength < HEADER) throw new ProtocolError(`wanted at least ${HEADER} bytes, got ${bytes.byteLength}`);
  const view = new DataView(bytes);
  for (let i = 0; i < 4; i++) {
    if (view.getUint8(i) !== magic.charCodeAt(i)) throw new ProtocolError(`wanted bytes that begin with ${magic}`);
  }
  return view;
}

function numbers(bytes: ArrayBuffer, kind: number, count: number, scale: number): Float32Array {
  const width = kind === FLOAT32 ? 4 : kind === FLOAT16 ? 2 : 0;
  if (width === 0) throw new ProtocolError(`wanted numbers of kind 1 or 2, got ${kind}`);
  if (bytes.byteLength !== HEADER + count * width) {
    throw new ProtocolError(`wanted ${count} numbers in ${HEADER + count * width} bytes, got ${bytes.byteLength} bytes`);
  }
  // every machine that runs a browser today is little-endian, as the bytes are
  if (kind === FLOAT32) return new Float32Array(bytes, HEADER, count);
  return whole(new Uint16Array(bytes, HEADER, count), scale);
}

/** Numbers in half precision, multiplied by their scale. */
function whole(halves: Uint16Array, scale: number): Float32Array {
  const values = new Float32Array(halves.length);
  const table = halfTable();
  for (let i = 0; i < values.length; i++) values[i] = (table[halves[i] ?? 0] ?? 0) * scale;
  return values;
}

let halfValues: Float32Array | null = null;

/** All 65,536 half-precision numbers: looking one up is faster than working it out, and Float16Array is not everywhere. */
function halfTable(): Float32Array {
  if (halfValues) return halfValues;
  const table = new Float32Array(65536);
  for (let code = 0; code < 65536; code++) {
    const sign = code & 0x8000 ? -1 : 1;
    const exponent = (code >> 10) & 0x1f;
    const fraction = code & 0x3ff;
    if (exponent === 0) table[code] = sign * fraction * 2 ** -24;
    else if (exponent === 31) table[code] = fraction ? NaN : sign * Infinity;
    else table[code] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  halfValues = table;
  return table;
}

/** The 256 colours of one scale as packed pixels (little-endian RGBA), opaque. */
export function parseColours(base64: string): Uint32Array {
  const text = atob(base64);
  if (text.length !== 768) throw new ProtocolError(`wanted 768 bytes of colours, got ${text.length}`);
  const colours = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const [r, g, b] = [text.charCodeAt(3 * i), text.charCodeAt(3 * i + 1), text.charCodeAt(3 * i + 2)];
    colours[i] = (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
  }
  return colours;
}

// ------------------------------------------------------------------------------------------------------------- names

/** One matrix: `capture.layer.head`, where head may be "mean", and a pattern's approximation of it after a colon. */
export interface Term {
  readonly capture: string;
  readonly layer: number;
  readonly head: number | "mean";
  readonly pattern: string | null;
}

export function termName(term: Term): string {
  const plain = `${term.capture}.${term.layer}.${term.head}`;
  return term.pattern === null ? plain : `${plain}:${term.pattern}`;
}

/** Read a term, or return null if it is none. */
export function parseTerm(text: string): Term | null {
  const found = /^([a-z]{1,3})\.(\d{1,5})\.(\d{1,5}|mean)(?::([^~]{1,200}))?$/.exec(text);
  if (!found) return null;
  const [, capture = "", layer = "", head = "", pattern] = found;
  return { capture, layer: Number(layer), head: head === "mean" ? "mean" : Number(head), pattern: pattern ?? null };
}

/** The name of the difference of two matrices, first minus second. */
export function differenceName(first: string, second: string): string {
  return `${first}~${second}`;
}

// ------------------------------------------------------------------------------------------------------------- paths

const named = encodeURIComponent;

export const paths = {
  atlas: () => "/api/atlas",
  tokens: (capture: string) => `/api/tokens/${named(capture)}`,
  tile: (matrix: string, level: number, row: number, col: number, reduce: Reduce, as: "f16" | "f32") =>
    `/api/tiles/${named(matrix)}/${level}/${row}/${col}?reduce=${reduce}&as=${as}`,
  maps: (capture: string, layer: number, reduce: Reduce) => `/api/maps/${named(capture)}/${layer}?reduce=${reduce}`,
  row: (matrix: string, row: number) => `/api/rows/${named(matrix)}/${row}`,
  column: (matrix: string, col: number) => `/api/columns/${named(matrix)}/${col}`,
  cell: (matrix: string, row: number, col: number) => `/api/cells/${named(matrix)}/${row}/${col}`,
  peak: (matrix: string, rows: readonly [number, number], cols: readonly [number, number]) =>
    `/api/peaks/${named(matrix)}?rows=${rows[0]}-${rows[1]}&cols=${cols[0]}-${cols[1]}`,
  tracks: (matrix: string) => `/api/tracks/${named(matrix)}`,
  statistics: (capture: string) => `/api/statistics/${named(capture)}`,
  spans: (capture: string, kind: string) => `/api/spans/${named(capture)}/${named(kind)}`,
  head: (capture: string, layer: number, head: number) => `/api/heads/${named(capture)}/${layer}/${head}`,
  comparison: (first: string, second: string) => `/api/comparisons/${named(differenceName(first, second))}`,
  explanations: () => "/api/explanations",
  startExplanation: (capture: string, method: string, target: string, budget: number) =>
    `/api/explanations/start?capture=${named(capture)}&method=${named(method)}&target=${named(target)}&budget=${budget}`,
  explanation: (number: string) => `/api/explanations/${named(number)}`,
  cancelExplanation: (number: string) => `/api/explanations/${named(number)}/cancel`,
  page: (
    view: string,
    matrices: readonly string[],
    reduce: Reduce,
    part: { readonly rows: readonly [number, number]; readonly cols: readonly [number, number] } | null,
    explanations: readonly string[],
  ) =>
    `/api/page?view=${named(view)}&matrices=${named(matrices.join(","))}&reduce=${reduce}` +
    (part ? `&rows=${part.rows.join("-")}&cols=${part.cols.join("-")}` : "") +
    (explanations.length > 0 ? `&explanations=${explanations.join(",")}` : ""),
  atlasPage: (view: string, capture: string, reduce: Reduce) =>
    `/api/page?view=${named(view)}&capture=${named(capture)}&reduce=${reduce}`,
  events: () => "/api/events",
} as const;
