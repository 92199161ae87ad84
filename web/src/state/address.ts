/**
 * The view as an address, `#a.12.3&reduce=max&at=120,4500,800&row=7`, and back.
 *
 * An address comes from anywhere, so each part is checked against what the server has; a part that makes no sense is left
 * out, and said so, and the rest is shown. What is as usual is not written.
 */

import type { AtlasInfo, LayerInfo } from "../protocol";
import { parseTerm, scoreName, termName } from "../protocol";
import { parseExplained } from "./explained";
import type { Mode, Panels, Scale, View, Window } from "./view";
import { FIRST, REDUCERS, explainedName, kindsOf, usualScale } from "./view";

/** What an address asks for, and those parts of it that were not understood. */
export interface Read {
  readonly view: View;
  readonly ignored: readonly string[];
}

const MODES: Readonly<Record<string, Mode>> = { with: "single", beside: "beside", minus: "difference" };
const PANELS = ["text", "card", "explain"] as const;
const LONGEST = 200;

// ---- writing ---------------------------------------------------------------------------------------------------------

/** Write a view as the part of an address after "#"; empty where all is as usual. */
export function write(view: View, atlas: AtlasInfo): string {
  const usual = usualView(atlas);
  const place = view.layer === null || view.head === null ? view.capture : `${view.capture}.${view.layer}.${view.head}`;
  const parts: string[] = place === usual.capture ? [] : [place];
  const put = (name: string, value: string | number): void => void parts.push(`${name}=${coded(String(value))}`);
  if (view.against !== null) {
    const mode = Object.entries(MODES).find(([, mode]) => mode === view.mode);
    put(mode?.[0] ?? "with", view.against);
  }
  if (view.reduce !== usual.reduce) put("reduce", view.reduce);
  const scale = writeScale(view.scale);
  if (scale !== writeScale(usualScale(view.reduce === "lift" ? "lift" : "log", view.reduce))) put("scale", scale);
  if (view.sink !== usual.sink) put("sink", view.sink ? "aside" : "in");
  if (view.window) put("at", [view.window.x, view.window.y, view.window.width].map(hundredths).join(","));
  if (view.row !== null) put("row", view.row);
  if (view.col !== null) put("col", view.col);
  if (view.reading !== usual.reading) put("by", view.reading);
  if (view.shade !== usual.shade) put("shade", view.shade);
  if (view.explained !== null) {
    put("why", explainedName(view.explained));
    if (view.explainedBeside !== null) put("also", explainedName(view.explainedBeside));
    if (view.colour !== usual.colour) put("colour", view.colour);
  }
  if (PANELS.some((name) => view.panels[name] !== usual.panels[name])) {
    put("panels", PANELS.filter((name) => view.panels[name]).join(",") || "none");
  }
  if (view.sort !== usual.sort) put("sort", view.sort);
  if (view.statistic !== null) put("show", view.statistic);
  if (view.size !== usual.size) put("size", view.size);
  if (view.role !== null) put("role", view.role);
  if (view.theme !== usual.theme) put("theme", view.theme);
  if (view.spans !== null) put("spans", view.spans);
  if (view.search !== "") put("find", view.search);
  return parts.join("&");
}

const writeScale = (scale: Scale): string =>
  [scale.kind, figure(scale.low), figure(scale.high), ...(scale.locked ? ["locked"] : [])].join(",");

/** Six figures say where a scale ends well enough. */
const figure = (value: number): string => String(Number(value.toPrecision(6)));
const hundredths = (value: number): string => String(Math.round(value * 100) / 100);

/** Characters that mean nothing in a fragment stay as they are, so that people can read it. */
const coded = (text: string): string =>
  encodeURIComponent(text).replace(/%(2C|3A|3D|40|2F)/g, (code) => decodeURIComponent(code));

// ---- reading ---------------------------------------------------------------------------------------------------------

/** What is shown when an address says nothing. */
export const usualView = (atlas: AtlasInfo): View => ({ ...FIRST, capture: atlas.captures[0]?.id ?? FIRST.capture });

/** Read an address, with or without its "#". */
export function read(hash: string, atlas: AtlasInfo): Read {
  const ignored: string[] = [];
  let view = usualView(atlas);
  const parts = hash.replace(/^#/, "").split("&").filter(Boolean);
  // what a part may say depends on the matrix, on the reducer and on the explanation, so these come first
  const urgency = (part: string): number => (part.includes("=") ? (/^(reduce|why)=/.test(part) ? 1 : 2) : 0);
  for (const part of [...parts].sort((a, b) => urgency(a) - urgency(b))) {
    const next = readPart(part, view, atlas);
    if (next) view = next;
    else ignored.push(part.slice(0, 60));
  }
  return { view, ignored };
}

function readPart(part: string, view: View, atlas: AtlasInfo): View | null {
  const equals = part.indexOf("=");
  if (equals < 0) return readPlace(decoded(part), view, atlas);
  const text = decoded(part.slice(equals + 1));
  if (text === null || text.length > LONGEST) return null;
  const name = part.slice(0, equals);
  const mode = Object.hasOwn(MODES, name) ? MODES[name] : undefined;
  if (mode) return readAgainst(text, mode, view, atlas);
  const field = Object.hasOwn(FIELDS, name) ? FIELDS[name] : undefined;
  const found = field?.(text, view, atlas);
  return found ? { ...view, ...found } : null;
}

type Field = (text: string, view: View, atlas: AtlasInfo) => Partial<View> | null;

const FIELDS: Readonly<Record<string, Field>> = {
  reduce: (text, _, atlas) => {
    const reduce = oneOf(text, REDUCERS.filter((name) => atlas.reducers.includes(name)));
    return reduce && { reduce, scale: usualScale(reduce === "lift" ? "lift" : "log", reduce) };
  },
  scale: (text, view) => {
    const scale = readScale(text, view);
    return scale && { scale };
  },
  sink: (text) => (oneOf(text, ["aside", "in"]) ? { sink: text === "aside" } : null),
  at: (text, view, atlas) => {
    const window = readWindow(text, layerOf(view, atlas));
    return window && { window };
  },
  row: (text, view, atlas) => {
    const row = index(text, layerOf(view, atlas)?.queries ?? 0);
    return row === null ? null : { row };
  },
  col: (text, view, atlas) => {
    const col = index(text, layerOf(view, atlas)?.keys ?? 0);
    return col === null ? null : { col };
  },
  by: (text) => {
    const reading = oneOf(text, ["row", "col"] as const);
    return reading && { reading };
  },
  shade: (text) => {
    const shade = oneOf(text, ["log", "linear"] as const);
    return shade && { shade };
  },
  why: (text, _, atlas) => {
    const explained = parseExplained(text, atlas.methods);
    return explained && { explained };
  },
  also: (text, view, atlas) => {
    if (!view.explained) return null;
    const explainedBeside = parseExplained(text, atlas.methods);
    return explainedBeside && explainedName(explainedBeside) !== explainedName(view.explained) ? { explainedBeside } : null;
  },
  colour: (text, view) => {
    const colour = oneOf(text, ["matrix", "explanation"] as const);
    return colour && view.explained ? { colour } : null;
  },
  panels: (text) => {
    const panels = readPanels(text);
    return panels && { panels };
  },
  sort: (text, _, atlas) => (text === "layer" || isStatistic(text.replace(/^-/, ""), atlas) ? { sort: text } : null),
  show: (text, _, atlas) => (isStatistic(text, atlas) ? { statistic: text } : null),
  size: (text) => {
    const size = oneOf(text, ["fit", "large"] as const);
    return size && { size };
  },
  role: (text) => (text ? { role: text } : null),
  theme: (text) => {
    const theme = oneOf(text, ["auto", "light", "dark"] as const);
    return theme && { theme };
  },
  spans: (text, _, atlas) => (atlas.spans.includes(text) ? { spans: text } : null),
  find: (text) => ({ search: text }),
};

/** Which roles there are is known only when they are measured. */
const isStatistic = (name: string, atlas: AtlasInfo): boolean =>
  atlas.statistics.some((known) => known.name === name) || (name.startsWith(scoreName("")) && name !== scoreName(""));

function readPlace(text: string | null, view: View, atlas: AtlasInfo): View | null {
  if (text === null) return null;
  if (atlas.captures.some((capture) => capture.id === text)) return { ...view, capture: text };
  const term = parseTerm(text);
  if (!term || term.pattern !== null || !termLayer(text, atlas) || atlas.maps) return null;
  return { ...view, capture: term.capture, layer: term.layer, head: term.head };
}

function readAgainst(text: string, mode: Mode, view: View, atlas: AtlasInfo): View | null {
  const [own, other] = [layerOf(view, atlas), termLayer(text, atlas)];
  const term = parseTerm(text);
  if (!own || !other || !term || view.layer === null) return null;
  // entries can be subtracted only where both matrices have them
  if (mode === "difference" && (own.queries !== other.queries || own.keys !== other.keys)) return null;
  return { ...view, against: termName(term), mode };
}

function readScale(text: string, view: View): Scale | null {
  const [kindText = "", lowText = "", highText = "", lock, ...rest] = text.split(",");
  const kind = oneOf(kindText, kindsOf(view.reduce));
  const [low, high] = [decimal(lowText), decimal(highText)];
  if (!kind || low === null || high === null || low >= high || rest.length > 0) return null;
  if ((lock !== undefined && lock !== "locked") || (kind !== "linear" && low <= 0)) return null;
  return { kind, low, high, locked: lock === "locked" };
}

function readWindow(text: string, layer: LayerInfo | null): Window | null {
  const [x, y, width, ...rest] = text.split(",").map(decimal);
  if (!layer || rest.length > 0 || x == null || y == null || width == null) return null;
  // somebody may pan a little beyond the matrix, but not to where nothing is in sight
  const reach = 4 * Math.max(layer.queries, layer.keys);
  if (width <= 0 || width > reach || Math.abs(x) > reach || Math.abs(y) > reach) return null;
  return { x, y, width };
}

function readPanels(text: string): Panels | null {
  const names = text === "none" ? [] : text.split(",");
  if (names.some((name) => !oneOf(name, PANELS))) return null;
  return { text: names.includes("text"), card: names.includes("card"), explain: names.includes("explain") };
}

// ---- small things ----------------------------------------------------------------------------------------------------

/** The layer that is open; in the atlas the first, whose positions are those of all. */
export function layerOf(view: View, atlas: AtlasInfo): LayerInfo | null {
  const layers = atlas.captures.find((capture) => capture.id === view.capture)?.layers ?? [];
  return (view.layer === null ? layers[0] : layers.find((info) => info.layer === view.layer)) ?? null;
}

/** The layer of the matrix with this name, or null if there is no such matrix. */
function termLayer(text: string, atlas: AtlasInfo): LayerInfo | null {
  const term = parseTerm(text);
  const capture = term && atlas.captures.find((known) => known.id === term.capture);
  const layer = capture?.layers.find((known) => known.layer === term?.layer);
  if (!term || !layer || (term.head !== "mean" && !layer.heads.includes(term.head))) return null;
  return layer;
}

function oneOf<T extends string>(text: string, choices: readonly T[]): T | null {
  return choices.find((choice) => choice === text) ?? null;
}

function index(text: string, below: number): number | null {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
  return value < below ? value : null;
}

function decimal(text: string): number | null {
  return /^-?\d{1,12}(\.\d{1,12})?(e[-+]?\d{1,3})?$/.test(text) && Number.isFinite(Number(text)) ? Number(text) : null;
}

function decoded(text: string): string | null {
  try {
    return decodeURIComponent(text).replace(/\p{Surrogate}/gu, "\ufffd");
  } catch {
    return null; // a "%" that begins nothing
  }
}
