/** Which explanations go into a page that is saved. */

import type { Job } from "../explain/jobs";
import { keyOf } from "../explain/jobs";
import { parseTerm } from "../protocol";
import type { Explained, View } from "../state/view";
import { explain, explainBeside } from "../state/view";

/** As many as a page may hold. */
const MOST = 8;

/** What was found of the documents whose matrices are saved; of too many, what is shown, and what stands beside it, stay. */
export function explanationsFor(from: View, matrices: readonly string[], jobs: readonly Job[]): readonly Job[] {
  const captures = new Set(matrices.flatMap((name) => name.split("~").map((term) => parseTerm(term)?.capture)));
  const shown = [from.explained, from.explainedBeside].map((asked) => asked && keyOf({ capture: from.capture, asked }));
  const place = (job: Job): number => {
    const at = shown.indexOf(keyOf(job));
    return at < 0 ? shown.length : at;
  };
  const found = jobs.filter((job) => job.state === "done" && captures.has(job.capture));
  const kept = new Set([...found].sort((a, b) => place(a) - place(b)).slice(0, MOST));
  return found.filter((job) => kept.has(job));
}

/** The view without explanations that the page will not have. */
export function onlyKept(from: View, kept: readonly Job[]): View {
  const keys = new Set(kept.map(keyOf));
  const has = (asked: Explained | null): boolean => asked !== null && keys.has(keyOf({ capture: from.capture, asked }));
  if (!has(from.explained)) return from.explained === null ? from : explain(null)(from);
  return from.explainedBeside === null || has(from.explainedBeside) ? from : explainBeside(null)(from);
}
