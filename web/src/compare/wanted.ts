/** What somebody writes to say with what a matrix is compared: another head, another layer, a pattern. */

import { inLine } from "../parts/glyphs";
import type { AtlasInfo, Term } from "../protocol";
import { parseTerm, termName } from "../protocol";
import type { View } from "../state/view";
import { termShown } from "../state/view";

export type Wanted = { readonly term: string } | { readonly reason: string };

const FORMS = "write a head as 12.3, a head of another capture as b.12.3, or a pattern as sliding_window:width=256,sinks=4";

/**
 * Read what was written, seen from the matrix that is open. Whether a pattern is one, and fits, only the server knows.
 */
export function readWanted(text: string, from: Term, atlas: AtlasInfo): Wanted {
  const words = text.trim();
  if (words === "") return { reason: `Nothing is written: ${FORMS}.` };
  const head = /^(?:([a-z]{1,3})\.)?(\d{1,5})\.(\d{1,5}|mean)(?::(.+))?$/.exec(words);
  if (!head) {
    // one word and its settings can only be a pattern of the matrix itself
    if (!/^[a-z][a-z_]*(:[^~]*)?$/.test(words)) return { reason: `“${words.slice(0, 40)}” is neither a head nor a pattern: ${FORMS}.` };
    return checked({ ...from, pattern: words }, atlas);
  }
  const [, capture = from.capture, layer, number, pattern] = head;
  return checked({ capture, layer: Number(layer), head: number === "mean" ? "mean" : Number(number), pattern: pattern ?? null }, atlas);
}

function checked(term: Term, atlas: AtlasInfo): Wanted {
  const known = atlas.captures.map(({ id }) => id);
  const capture = atlas.captures.find(({ id }) => id === term.capture);
  if (!capture) return { reason: `There is no capture ${term.capture}, only ${known.join(", ")}.` };
  const layer = capture.layers.find((one) => one.layer === term.layer);
  if (!layer) return { reason: `There is no layer ${term.layer}: ${capture.id} has ${span(capture.layers.map((one) => one.layer))}.` };
  if (term.head !== "mean" && !layer.heads.includes(term.head)) {
    return { reason: `Layer ${term.layer} has no head ${term.head}: there are ${span(layer.heads)}, and mean.` };
  }
  const name = termName(term);
  return parseTerm(name) ? { term: name } : { reason: "A pattern has at most 200 characters, and no ~ in it." };
}

const span = (numbers: readonly number[]): string =>
  numbers.length > 4 ? `${numbers[0] ?? ""} to ${numbers.at(-1) ?? ""}` : numbers.join(", ");

/** Whether entries of two matrices can be subtracted: both have as many queries and keys. */
export function areAlike(one: Term, other: Term, atlas: AtlasInfo): boolean {
  const [first, second] = [one, other].map((term) =>
    atlas.captures.find(({ id }) => id === term.capture)?.layers.find(({ layer }) => layer === term.layer),
  );
  return first !== undefined && second !== undefined && first.queries === second.queries && first.keys === second.keys;
}

/** A matrix in words, as seen from another: what is the same of both is left out. */
export function termWords(term: Term, from: Term, atlas: AtlasInfo): string {
  const parts: string[] = [];
  if (term.capture !== from.capture) parts.push(atlas.captures.find(({ id }) => id === term.capture)?.title ?? term.capture);
  if (term.layer !== from.layer || term.head !== from.head) parts.push(`layer ${term.layer}, ${term.head === "mean" ? "mean of heads" : `head ${term.head}`}`);
  if (term.pattern !== null) parts.push(atlas.patterns.find(({ spec }) => spec === term.pattern)?.label ?? term.pattern);
  return inLine(parts.join(", ")) || "itself";
}

/** The two matrices that are compared, where each entry of the one has one of the other beside it. */
export function comparedTerms(from: View, atlas: AtlasInfo): readonly [string, string] | null {
  const name = termShown(from);
  const [own, other] = [name, from.against].map((text) => (text === null ? null : parseTerm(text)));
  if (from.mode === "single" || name === null || from.against === null || !own || !other) return null;
  return areAlike(own, other, atlas) ? [name, from.against] : null;
}
