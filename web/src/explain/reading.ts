/** The explanation as numbers that colour the text, once it is found. */

import { useEffect, useMemo } from "preact/hooks";

import type { Reading } from "../state/reading";
import { view } from "../state/view";
import type { Explanation } from "./answer";
import type { Explaining } from "./jobs";

export interface Explained {
  /** What is found of what is explained, and of what stands beside it. */
  readonly all: readonly Explanation[];
  readonly reading: Reading | null;
}

/** Follow the view: ask for what it explains, wherever that came from, and read what is found. */
export function useExplained(explaining: Explaining, capture: string): Explained {
  const { explained, explainedBeside } = view.value;
  useEffect(() => {
    // an address asks, too; what was called off is not asked for again by itself
    for (const asked of [explained, explainedBeside]) if (asked && !explaining.find(capture, asked)) explaining.ask(capture, asked);
  }, [explaining, capture, explained, explainedBeside]);
  const [own, beside] = [explained, explainedBeside].map((asked) => explaining.find(capture, asked)?.found ?? null);
  return useMemo(
    () => ({ all: own ? [own, ...(beside ? [beside] : [])] : [], reading: own ? readingOf(own) : null }),
    [own, beside],
  );
}

const readingOf = ({ scores, answers, end }: Explanation): Reading => ({
  matrix: "",
  by: "explanation",
  at: answers ?? -1,
  values: Float32Array.from(scores, (score) => score ?? NaN),
  full: end ?? 0,
});
