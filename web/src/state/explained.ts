/**
 * Explanations as an address and the command line write them: the method, the forward passes that may measure it, and
 * the target.
 */

import type { Explained } from "./view";

/** The end of the text: what the model would say next. */
export const END = "-1";

/** Forward passes that may measure an explanation, and what they suffice for. */
export const BUDGETS = [
  { passes: 0, label: "not measured" },
  { passes: 64, label: "a verdict" },
  { passes: 160, label: "verdict and curves" },
  { passes: 320, label: "the surest verdict" },
] as const;

const MOST = 1024;
const LONGEST = 120;
const METHOD = /^([a-z_]{1,40})(:[a-z0-9-]{1,40})?$/;
const TARGETS = [/^label:\s*\d{1,6}\s*$/, /^next@\s*-?\d{1,9}\s*$/, /^\s*-?\d{1,9}\s*$/, /^\s*-?\d{1,9}:[^]+$/];

/** Whether a text has one of the forms of a target; whether it fits the document only the server knows. */
export const isTarget = (text: string): boolean => text.length <= LONGEST && TARGETS.some((form) => form.test(text));

/** Half of a surrogate pair cannot travel in an address, and is replaced as elsewhere in the web. */
export const travelling = (text: string): string => text.replace(/\p{Surrogate}/gu, "\ufffd");

/** Read what `explainedName` wrote; null if it means nothing here. */
export function parseExplained(text: string, methods: readonly string[]): Explained | null {
  const found = /^([^/]*)\/(\d{1,4})\/([^]*)$/.exec(text);
  if (!found) return null;
  const [, method = "", passes = "", target = ""] = found;
  const name = METHOD.exec(method)?.[1] ?? "";
  const budget = Number(passes);
  if (!methods.includes(name) || budget > MOST || passes !== String(budget) || !isTarget(target)) return null;
  return { method, budget, target };
}

/** A target in words. */
export function targetWords(target: string): string {
  if (target.trim() === END) return "what comes next";
  const [, following] = /^next@\s*(-?\d+)/.exec(target) ?? [];
  if (following !== undefined) return `the token after ${following}`;
  const [, label] = /^label:\s*(\d+)/.exec(target) ?? [];
  if (label !== undefined) return `class ${label}`;
  const [, position = "", words] = /^\s*(-?\d+)(?::([^]+))?$/.exec(target) ?? [];
  const place = position === END ? "at the end" : `after token ${position}`;
  if (words === undefined) return `what comes ${place}`;
  const [first = "", other] = /^([^/]+)\/([^/]+)$/.exec(words)?.slice(1) ?? [words];
  return other === undefined ? `“${first}” ${place}` : `“${first}” rather than “${other}” ${place}`;
}
