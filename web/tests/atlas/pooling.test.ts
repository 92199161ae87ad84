import { describe, expect, it } from "vitest";

import { evenSpread, factorFor, pooled } from "../../src/atlas/pooling";

const layer = { queries: 300, keys: 420, levels: 1, causal: true, window: null };

/** The even spread added up entry by entry. */
function slowly(of: { queries: number; keys: number; levels: number; causal: boolean; window: number | null }): number[] {
  const side = 2 ** of.levels;
  const cols = Math.ceil(of.keys / side);
  const all = new Array<number>(Math.ceil(of.queries / side) * cols).fill(0);
  for (let i = 0; i < of.queries; i++) {
    const at = i + of.keys - of.queries;
    const near = (j: number): boolean => of.window === null || (of.causal ? at - j : Math.abs(at - j)) < of.window;
    const seen = Array.from({ length: of.keys }, (_, j) => j).filter((j) => (!of.causal || j <= at) && near(j));
    for (const j of seen) {
      const cell = Math.floor(i / side) * cols + Math.floor(j / side);
      all[cell] = (all[cell] ?? 0) + 1 / seen.length;
    }
  }
  return all;
}

describe("small maps", () => {
  it.each([layer, { ...layer, causal: false }, { ...layer, window: 37 }, { ...layer, causal: false, window: 5 }, { ...layer, queries: 420 }])(
    "know the even spread of their cells: %j",
    (of) => {
      const even = evenSpread(of);
      const wanted = slowly(of);
      expect(even.values.length).toBe(wanted.length);
      const worst = Math.max(...wanted.map((value, i) => Math.abs(value - (even.values[i] ?? NaN))));
      expect(worst).toBeLessThan(1e-4);
    },
  );

  it("say the same of joined cells as of the entries themselves", () => {
    const even = evenSpread(layer);
    const cells = even.values.length;
    const mass = { ...even, values: Float32Array.from({ length: cells }, (_, i) => (even.values[i] ?? 0) * (1 + (i % 7))) };
    const lift = { ...even, values: mass.values.map((value, i) => ((even.values[i] ?? 0) > 0 ? value / (even.values[i] ?? 1) : 0)) };
    const [joined, ratio, chance] = [pooled(mass, even, 3, "mass"), pooled(lift, even, 3, "lift"), pooled(even, even, 3, "mass")];
    joined.values.forEach((value, i) => {
      if (Number.isNaN(value)) expect(ratio.values[i]).toBeNaN();
      else expect(ratio.values[i]).toBeCloseTo(value / (chance.values[i] ?? 1), 3);
    });
    const sum = (values: Float32Array): number => values.reduce((total, value) => total + (Number.isNaN(value) ? 0 : value), 0);
    expect(sum(joined.values)).toBeCloseTo(sum(mass.values), 1);
  });

  it("keep the largest, and leave what cannot be seen blank", () => {
    const even = { rows: 2, cols: 3, values: Float32Array.of(1, 0, 0, 1, 1, 0) };
    const tile = { rows: 2, cols: 3, values: Float32Array.of(0.5, 0, 0, 0.25, 0.75, 0) };
    expect(Array.from(pooled(tile, even, 2, "max").values)).toEqual([0.75, NaN]);
    expect(Array.from(pooled(tile, even, 2, "mean").values)).toEqual([0.375, NaN]);
    expect(factorFor(256, 36)).toBe(7);
    expect(factorFor(90, 400)).toBe(1);
  });
});
