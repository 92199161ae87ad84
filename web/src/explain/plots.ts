/** Curves of faithfulness, made ready to be drawn: one list of shares, and each curve's values at them. Arithmetic only. */

import type { Curve } from "./answer";

export interface Line {
  readonly name: string;
  readonly own: boolean;
  readonly values: readonly (number | null)[];
}

export interface Plot {
  readonly kind: Curve["kind"];
  /** Shares of the text taken away or put back, rising. */
  readonly shares: readonly number[];
  readonly lines: readonly Line[];
  /** Where 95 % of the random orders lie; null where none were tried. */
  readonly band: { readonly low: readonly (number | null)[]; readonly high: readonly (number | null)[] } | null;
}

/** Make the curves of a kind ready; null where there are none. Random comes first, the method's own last, on top. */
export function plotOf(curves: readonly Curve[], kind: Curve["kind"], name: string): Plot | null {
  const of = curves.filter((curve) => curve.kind === kind);
  if (of.length === 0) return null;
  const shares = [...new Set(of.flatMap((curve) => curve.fractions))].sort((a, b) => a - b);
  const at = (curve: Curve, values: readonly (number | null)[]): (number | null)[] => {
    const known = new Map(curve.fractions.map((share, i) => [share, values[i] ?? null]));
    return shares.map((share) => known.get(share) ?? null);
  };
  const lines = new Map<string, Line>();
  for (const curve of [...of].sort((a, b) => depth(a) - depth(b))) {
    // a baseline that is explained for its own sake is its own curve, and needs no second line
    const called = curve.own ? name : curve.order.replaceAll("_", " ");
    lines.set(called, { name: called, own: curve.own, values: at(curve, curve.values) });
  }
  const random = of.find((curve) => curve.low.length > 0 && curve.high.length > 0);
  return { kind, shares, lines: [...lines.values()], band: random ? { low: at(random, random.low), high: at(random, random.high) } : null };
}

const depth = (curve: Curve): number => (curve.own ? 2 : curve.order === "random" ? 0 : 1);

/** The ends of the scale that two plots share, with a little room. */
export function endsOf(plots: readonly (Plot | null)[]): readonly [number, number] {
  const values = plots.flatMap((plot) => [...(plot?.lines.flatMap((line) => line.values) ?? []), ...(plot?.band?.low ?? []), ...(plot?.band?.high ?? [])]);
  const known = values.filter((value) => value !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const room = (high - low || 1) * 0.06;
  return [low - room, high + room];
}
