/** Which tokens an explanation marks most, beside what another says of them. Arithmetic only. */

export type Scores = readonly (number | null)[];

export interface Ranked {
  readonly token: number;
  /** Of the one explanation, and of the other. */
  readonly scores: readonly (number | null)[];
  /** Each counted from 1; tokens of one size share a rank, those without a score have none. */
  readonly ranks: readonly (number | null)[];
}

/** The rank of each score's size, and the tokens from the largest size on. */
export function rankedOf(scores: Scores): { readonly order: readonly number[]; readonly ranks: readonly (number | null)[] } {
  const order = scores.flatMap((score, i) => (score === null ? [] : [i]));
  const size = (i: number | undefined): number => Math.abs((i === undefined ? null : scores[i]) ?? 0);
  // of equal sizes the earlier token comes first, in every browser
  order.sort((a, b) => size(b) - size(a) || a - b);
  const ranks: (number | null)[] = scores.map(() => null);
  order.forEach((token, at) => {
    const before = order[at - 1];
    ranks[token] = before !== undefined && size(before) === size(token) ? (ranks[before] ?? 1) : at + 1;
  });
  return { order, ranks };
}

/** The tokens that come first in one of some explanations: what `by` names decides. Zeros are not listed. */
export function ranked(all: readonly Scores[], by: number, count: number): readonly Ranked[] {
  const each = all.map(rankedOf);
  return (each[by]?.order ?? [])
    .slice(0, count)
    .filter((token) => all[by]?.[token] !== 0)
    .map((token) => ({
      token,
      scores: all.map((scores) => scores[token] ?? null),
      ranks: each.map(({ ranks }) => ranks[token] ?? null),
    }));
}
