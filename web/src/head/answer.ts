/** The answer of a head's card, read with care: each part may be missing, and then there is a reason. */

export interface HeadStatistic {
  readonly name: string;
  readonly label: string;
  readonly value: number | null;
  readonly even: number | null;
}

export interface RoleScore {
  readonly label: string;
  readonly score: number | null;
  readonly low: number | null;
  readonly high: number | null;
  readonly baseline: number | null;
  readonly passes: boolean | null;
}

export interface PatternLoss {
  readonly label: string;
  readonly spec: string;
  readonly mean: number;
  readonly max: number;
}

export interface HeadAnswer {
  readonly statistics: readonly HeadStatistic[] | null;
  readonly roles: readonly RoleScore[] | null;
  readonly spectra: { readonly qk: readonly number[]; readonly ov: readonly number[] } | null;
  readonly patterns: readonly PatternLoss[] | null;
  /** Why a part is missing, by its name. */
  readonly reason: Readonly<Record<string, string>>;
}

/** Read an answer; what is not there is null. */
export function readHead(answer: unknown): HeadAnswer {
  const from = (answer ?? {}) as Partial<Record<keyof HeadAnswer | "reasons", unknown>>;
  return {
    statistics: filled(from.statistics) as HeadAnswer["statistics"],
    roles: filled(from.roles) as HeadAnswer["roles"],
    spectra: (from.spectra ?? null) as HeadAnswer["spectra"],
    patterns: filled(from.patterns) as HeadAnswer["patterns"],
    reason: (from.reasons ?? {}) as HeadAnswer["reason"],
  };
}

const filled = (value: unknown): readonly unknown[] | null => (Array.isArray(value) && value.length > 0 ? (value as unknown[]) : null);
