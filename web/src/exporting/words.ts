/** What a picture says of itself: in its title, below it, and in the name of its file. */

import type { ShownMatrix } from "../matrix/shown";
import { reduceOf } from "../matrix/shown";
import { brief } from "../matrix/scales";
import { visible } from "../parts/glyphs";
import type { AtlasInfo, Reduce } from "../protocol";
import { parseTerm } from "../protocol";
import type { View } from "../state/view";

/** A name in running text: spaces stay spaces, everything else can be seen. */
export const readable = (text: string): string => visible(text).replaceAll("·", " ").trim();

/** What a cell of so many entries a side shows. */
export function meaning(reduce: Reduce, signed: boolean, side: number): string {
  const what = {
    max: signed ? "largest difference" : "largest attention",
    mean: signed ? "mean difference" : "mean attention",
    mass: signed ? "difference of mass" : "mass of attention",
    lift: "lift: attention over an even spread",
  }[reduce];
  if (side === 1) return reduce === "lift" ? what : signed ? "difference of attention" : "attention";
  return `${what}, of cells of ${side} × ${side} entries`;
}

export function scaleWords({ scale }: View): string {
  const ratio = scale.kind === "lift";
  return `${ratio ? "logarithmic" : scale.kind === "log" ? "logarithmic" : "linear"} scale, ${brief(scale.low, ratio)} – ${brief(scale.high, ratio)}`;
}

/** The document and the model that a matrix is of. */
export function sourceOf(matrix: ShownMatrix, atlas: AtlasInfo): string {
  const capture = atlas.captures.find(({ id }) => id === matrix.capture);
  return capture ? `${readable(capture.title)} · ${readable(capture.model)}` : "";
}

/** A file's name that says what is in it: "paper.txt-12.3-lift.png", with what it is compared with in between. */
export function fileName(view: View, atlas: AtlasInfo, matrices: readonly ShownMatrix[], ending: string): string {
  const capture = atlas.captures.find(({ id }) => id === view.capture);
  const parts = [readable(capture?.title ?? "attlas")];
  const [first] = matrices;
  if (first) {
    const terms = matrices.flatMap((matrix) => matrix.name.split("~"));
    const several = new Set(terms.map((term) => parseTerm(term)?.capture)).size > 1;
    parts.push(terms.map((term) => (several ? term : term.replace(/^[a-z]+\./, ""))).join(first.signed ? "-minus-" : "-and-"));
    parts.push(reduceOf(first, view.reduce));
  } else parts.push("atlas", view.reduce);
  return `${parts.map(plain).filter(Boolean).join("-")}.${ending}`;
}

/** Letters and digits of any script; nothing that any system's file names may not hold. */
const plain = (text: string): string =>
  text
    .replace(/[^\p{L}\p{N}._-]+/gu, "-")
    .replace(/^[-.]+|[-.]+$/g, "")
    .slice(0, 60);
