/** Which heads the atlas shows, and in what order. */

import type { CaptureInfo, LayerInfo } from "../protocol";
import type { Measured } from "../state/measured";

export interface HeadPlace {
  readonly layer: LayerInfo;
  readonly head: number;
  /** Where the head's numbers stand among those of its layer. */
  readonly index: number;
  /** "layer.head" */
  readonly label: string;
}

/** All heads of a capture, layer after layer. */
export function headsOf(capture: CaptureInfo): HeadPlace[] {
  return capture.layers.flatMap((layer) =>
    layer.heads.map((head, index) => ({ layer, head, index, label: `${layer.layer}.${head}` })),
  );
}

/** A statistic of a head, or null while it is not measured. */
export function statisticOf(head: HeadPlace, name: string, measured: Measured): number | null {
  return measured.layers[String(head.layer.layer)]?.[name]?.[head.index] ?? null;
}

/** The heads in the order that `sort` asks for; those without a number come last, whichever way the order goes. */
export function ordered(heads: readonly HeadPlace[], sort: string, measured: Measured): readonly HeadPlace[] {
  if (sort === "layer") return heads;
  const [name, sign] = sort.startsWith("-") ? [sort.slice(1), 1] : [sort, -1];
  const values = new Map(heads.map((head) => [head, statisticOf(head, name, measured)]));
  return [...heads].sort((a, b) => {
    const [x, y] = [values.get(a) ?? null, values.get(b) ?? null];
    if (x === null || y === null) return Number(x === null) - Number(y === null);
    return sign * (x - y);
  });
}

/** The condition that `role` states if it is one on a statistic, as in "far>0.5". */
function condition(role: string): { readonly name: string; readonly above: number } | null {
  const found = /^([a-z_]+)>(\d+(?:\.\d+)?)$/.exec(role);
  return found ? { name: found[1] ?? "", above: Number(found[2]) } : null;
}

/** Whether a head is among those that are asked for; null while that is not known yet. */
export function has(head: HeadPlace, role: string | null, measured: Measured): boolean | null {
  if (role === null) return true;
  const asked = condition(role);
  if (!asked) return measured.roles[head.label]?.includes(role) ?? false;
  const value = statisticOf(head, asked.name, measured);
  return value === null ? null : value > asked.above;
}

/** From where to where a statistic goes over all heads, with its place between them worked out for one of them. */
export function rangeOf(heads: readonly HeadPlace[], name: string, measured: Measured): readonly [number, number] | null {
  let [low, high] = [Infinity, -Infinity];
  for (const head of heads) {
    const value = statisticOf(head, name, measured);
    if (value !== null && Number.isFinite(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
  }
  return low <= high ? [low, high] : null;
}
