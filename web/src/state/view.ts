/**
 * What is looked at, and how: one frozen record. Everything that a shared address should bring back is here and nowhere
 * else, so components keep no state of that kind. Updates are pure functions from one view to the next.
 */

import { signal } from "@preact/signals";

import type { Reduce } from "../protocol";
import { differenceName, termName } from "../protocol";

export type { Reduce };
export type ScaleKind = "linear" | "log" | "lift";
export type Theme = "auto" | "light" | "dark";
export type Mode = "single" | "beside" | "difference";

/** Which numbers get which colours; values below `low` look like `low`, above `high` like `high`. */
export interface Scale {
  readonly kind: ScaleKind;
  readonly low: number;
  readonly high: number;
  /** Whether the range stays when the reducer or the kind changes; it never moves by itself while one pans. */
  readonly locked: boolean;
}

/** What part of a matrix is in sight, in entries: x counts keys, y counts queries. */
export interface Window {
  readonly x: number;
  readonly y: number;
  readonly width: number;
}

export interface Panels {
  readonly text: boolean;
  readonly card: boolean;
  readonly explain: boolean;
}

/** An explanation: by which method, of what, and how many forward passes may measure how far it can be trusted. */
export interface Explained {
  readonly method: string;
  readonly target: string;
  readonly budget: number;
}

export interface View {
  readonly capture: string;
  /** null: the atlas of all heads */
  readonly layer: number | null;
  readonly head: number | "mean" | null;
  /** Another matrix, by its name, shown beside or subtracted. */
  readonly against: string | null;
  readonly mode: Mode;
  readonly reduce: Reduce;
  readonly scale: Scale;
  /** Whether the first column, where unused attention often rests, is set aside. */
  readonly sink: boolean;
  /** null: the whole matrix */
  readonly window: Window | null;
  readonly row: number | null;
  readonly col: number | null;
  /** What colours the text: what the selected row looks at, or what looks at the selected column. */
  readonly reading: "row" | "col";
  /** How strongly the text is coloured: by the logarithm of a value, or by the value. */
  readonly shade: "log" | "linear";
  /** Whose numbers colour the text: those of the matrix (see `reading`), or those of the explanation. */
  readonly colour: "matrix" | "explanation";
  readonly explained: Explained | null;
  /** Another explanation, to be compared with the one that is explained. */
  readonly explainedBeside: Explained | null;
  readonly panels: Panels;
  /** How the atlas is ordered: "layer", or a statistic's name, with "-" before it for the lowest first. */
  readonly sort: string;
  /** The statistic whose size each cell of the atlas shows; null for the first that there is. */
  readonly statistic: string | null;
  /** How large the cells of the atlas are: all on one screen, or large enough to be read. */
  readonly size: "fit" | "large";
  /** Which heads the atlas shows: a role, or a statistic above a value as in "far>0.5"; null for all. */
  readonly role: string | null;
  readonly theme: Theme;
  readonly spans: string | null;
  readonly search: string;
}

/** What a scale spans unless somebody chooses otherwise: the same for every head, so that pictures can be compared. */
export function usualScale(kind: ScaleKind, reduce: Reduce): Scale {
  if (kind === "lift") return { kind, low: 2 ** -7, high: 2 ** 7, locked: false };
  const high = reduce === "mass" ? 100 : reduce === "mean" ? 0.01 : 1;
  if (kind === "linear") return { kind, low: 0, high, locked: false };
  return { kind, low: high * (reduce === "max" ? 1e-4 : 1e-5), high, locked: false };
}

export const REDUCERS: readonly Reduce[] = ["max", "mean", "mass", "lift"];
export const KINDS: readonly ScaleKind[] = ["linear", "log", "lift"];

const RATIOS = ["lift"] as const;
const AMOUNTS = ["log", "linear"] as const;

/** The scales that suit a reducer: a ratio has a middle, the others begin at nothing. */
export const kindsOf = (reduce: Reduce): readonly ScaleKind[] => (reduce === "lift" ? RATIOS : AMOUNTS);

export const FIRST: View = Object.freeze({
  capture: "a",
  layer: null,
  head: null,
  against: null,
  mode: "single",
  reduce: "lift",
  scale: usualScale("lift", "lift"),
  sink: true,
  window: null,
  row: null,
  col: null,
  reading: "row",
  shade: "log",
  colour: "matrix",
  explained: null,
  explainedBeside: null,
  panels: { text: true, card: true, explain: false },
  sort: "layer",
  statistic: null,
  size: "fit",
  role: null,
  theme: "auto",
  spans: null,
  search: "",
});

/** The view, as everything on the page reads it. */
export const view = signal<View>(FIRST);

/** Put another view in place of the present one. */
export function change(update: (from: View) => View): void {
  const next = update(view.peek());
  if (next !== view.peek()) view.value = Object.freeze(next);
}

// ---- names of matrices -----------------------------------------------------------------------------------------------

/** The name of one head's matrix. */
export const termOf = (capture: string, layer: number, head: number | "mean"): string =>
  termName({ capture, layer, head, pattern: null });

/** The name of the matrix that is open; null in the atlas. */
export function termShown(from: View): string | null {
  return from.layer === null || from.head === null ? null : termOf(from.capture, from.layer, from.head);
}

/** The names of the matrices that are drawn: none, one, or two beside one another; a difference is one. */
export function matricesShown(from: View): readonly string[] {
  const term = termShown(from);
  if (term === null) return [];
  if (from.against === null || from.mode === "single") return [term];
  return from.mode === "beside" ? [term, from.against] : [differenceName(term, from.against)];
}

// ---- updates ---------------------------------------------------------------------------------------------------------

/** Open a head; what is selected and in sight stays, for heads of a capture lie over the same text. */
export const openHead =
  (layer: number, head: number | "mean") =>
  (from: View): View =>
    from.layer === layer && from.head === head ? from : { ...from, layer, head };

/** Back to the atlas. */
export const openAtlas = (from: View): View => (from.layer === null ? from : { ...from, layer: null, head: null, window: null });

/** Another document or model: positions of the one mean nothing in the other. */
export const openCapture =
  (capture: string) =>
  (from: View): View =>
    from.capture === capture
      ? from
      : {
          ...from,
          ...{ capture, layer: null, head: null, against: null, mode: "single", window: null, row: null, col: null },
          ...{ colour: "matrix", explained: null, explainedBeside: null },
        };

export const withReduce =
  (reduce: Reduce) =>
  (from: View): View => {
    if (from.reduce === reduce) return from;
    const suits = kindsOf(reduce).includes(from.scale.kind);
    const kind = suits ? from.scale.kind : reduce === "lift" ? "lift" : "log";
    const keeps = from.scale.locked && kind === from.scale.kind;
    return { ...from, reduce, scale: keeps ? from.scale : usualScale(kind, reduce) };
  };

export const withKind =
  (kind: ScaleKind) =>
  (from: View): View =>
    from.scale.kind === kind ? from : { ...from, scale: usualScale(kind, from.reduce) };

export const withRange =
  (low: number, high: number) =>
  (from: View): View =>
    low < high ? { ...from, scale: { ...from.scale, low, high } } : from;

export const withLock =
  (locked: boolean) =>
  (from: View): View => ({ ...from, scale: { ...from.scale, locked } });

export const withSink =
  (sink: boolean) =>
  (from: View): View => ({ ...from, sink });

export const withWindow =
  (window: Window | null) =>
  (from: View): View => ({ ...from, window });

/** Select an entry; null leaves a side unselected. */
export const select =
  (row: number | null, col: number | null) =>
  (from: View): View =>
    from.row === row && from.col === col ? from : { ...from, row, col };

/** Colour the text by a side of the matrix. */
export const readBy =
  (reading: "row" | "col") =>
  (from: View): View => ({ ...from, reading, colour: "matrix" });

/** Colour the text by the explanation; without one, it stays as it is. */
export const readExplanation = (from: View): View => (from.explained === null ? from : { ...from, colour: "explanation" });

/** Look at an explanation; one that stood beside is not compared with itself. */
export const explain =
  (explained: Explained | null) =>
  (from: View): View => {
    if (explained === null) return { ...from, explained, explainedBeside: null, colour: "matrix" };
    const beside = from.explainedBeside;
    const same = beside !== null && explainedName(beside) === explainedName(explained);
    return { ...from, explained, explainedBeside: same ? null : beside, colour: "explanation" };
  };

/** Compare the explanation with another; null ends it. */
export const explainBeside =
  (beside: Explained | null) =>
  (from: View): View => {
    const same = beside !== null && from.explained !== null && explainedName(beside) === explainedName(from.explained);
    return { ...from, explainedBeside: from.explained === null || same ? null : beside };
  };

/** What tells an explanation from others. */
export const explainedName = ({ method, target, budget }: Explained): string => `${method}/${budget}/${target}`;

/** Compare with another matrix; null ends it. */
export const compareWith =
  (against: string | null, mode: Mode = "beside") =>
  (from: View): View => ({ ...from, against, mode: against === null ? "single" : mode });

export const withShade =
  (shade: "log" | "linear") =>
  (from: View): View => ({ ...from, shade });

export const withPanel =
  (name: keyof Panels, open: boolean) =>
  (from: View): View => ({ ...from, panels: { ...from.panels, [name]: open } });

export const withTheme =
  (theme: Theme) =>
  (from: View): View => ({ ...from, theme });

export const withSort =
  (sort: string) =>
  (from: View): View => ({ ...from, sort });

/** Show another statistic; an order by the old one becomes an order by the new one. */
export const withStatistic =
  (statistic: string) =>
  (from: View): View => {
    const sign = from.sort.startsWith("-") ? "-" : "";
    return { ...from, statistic, sort: from.sort === "layer" ? "layer" : sign + statistic };
  };

export const withSize =
  (size: "fit" | "large") =>
  (from: View): View => ({ ...from, size });

export const withRole =
  (role: string | null) =>
  (from: View): View => ({ ...from, role });

export const withSpans =
  (spans: string | null) =>
  (from: View): View => ({ ...from, spans });

/** Look for something; half of a surrogate pair cannot be in an address, and is replaced as elsewhere in the web. */
export const withSearch =
  (search: string) =>
  (from: View): View => ({ ...from, search: search.replace(/\p{Surrogate}/gu, "\ufffd") });
