/** What the server says of explanations. */

export interface MethodInfo {
  readonly name: string;
  readonly summary: string;
  readonly paper: string;
  readonly needs: "attention" | "values" | "gradients" | "passes" | "nothing";
  readonly signed: boolean;
  /** By whose rules it can be computed, the default first; empty where there is one way. */
  readonly presets: readonly string[];
  /** Why it cannot be had here. */
  readonly reason: string | null;
}

export interface MethodsAnswer {
  readonly methods: readonly MethodInfo[];
  /** Why a capture cannot be explained at all, by its name. */
  readonly reasons: Readonly<Record<string, string | null>>;
}

export type Verdict = "more faithful than chance" | "less faithful than chance" | "cannot tell";

export interface Measure {
  readonly name: string;
  readonly unit: string;
  readonly value: number | null;
  /** How much better than random orders, with its 95 % interval. */
  readonly advantage: number | null;
  readonly low: number | null;
  readonly high: number | null;
  /** How often chance does as well. */
  readonly p: number | null;
  readonly baselines: Readonly<Record<string, number | null>>;
}

export interface Curve {
  readonly kind: "deletion" | "insertion";
  readonly order: string;
  /** Whether it is the order of the method itself. */
  readonly own: boolean;
  readonly fractions: readonly number[];
  readonly values: readonly (number | null)[];
  /** Between which values 95 % of the random orders lie; empty for the others. */
  readonly low: readonly (number | null)[];
  readonly high: readonly (number | null)[];
}

export interface Faithfulness {
  readonly verdict: Verdict;
  readonly summary: string;
  readonly passes: number;
  readonly measures: readonly Measure[];
  readonly curves: readonly Curve[];
}

export interface Explanation {
  readonly name: string;
  readonly summary: string;
  readonly paper: string;
  readonly target: { readonly name: string; readonly position: number | null; readonly quantity: string };
  readonly value: number | null;
  readonly signed: boolean;
  /** One a token; null where it is not finite. */
  readonly scores: readonly (number | null)[];
  /** The size of a score that is shown in full colour. */
  readonly end: number | null;
  /** The token where the model answers. */
  readonly answers: number | null;
  readonly cautions: readonly string[];
  readonly description: string;
  readonly faithfulness: Faithfulness | null;
}

export interface Progress {
  readonly done: number;
  readonly total: number;
  readonly what: string;
}

export interface JobAnswer {
  readonly id: string;
  readonly state: "waiting" | "running" | "done" | "failed" | "cancelled";
  readonly progress: Progress;
  readonly error: string | null;
  readonly explanation: Explanation | null;
}
