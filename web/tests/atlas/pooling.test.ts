import { describe, expect, it } from "vitest";

import { evenSpread, factorFor, pooled, sideOf } from "../../src/atlas/pooling";

const layer = { queries: 300, keys: 420, causal: true, window: null };

/** The even spread added up entry by entry. */
function slowly(of: { queries: number; keys: number; causal: boolean; window: number | null }, side: number): number[] {
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
  it.each([layer, { ...layer, causal: false }, { ...layer, window: 37 }, { ...layer, causal: false, window: 5 }, { ...layer, queries: 420 }, { ...layer, queries: 3 }])(
    "know the even spread of their cells: %j",
    (of) => {
      for (const side of [1, 2, 4, 32, 512]) {
        const even = evenSpread(of, side);
        const wanted = slowly(of, side);
        expect(even.values.length).toBe(wanted.length);
        // what nobody sees is nothing, not almost nothing
        expect(Array.from(even.values, (value) => value > 0)).toEqual(wanted.map((value) => value > 0));
        const worst = wanted.reduce((most, value, i) => Math.max(most, Math.abs(value - (even.values[i] ?? NaN))), 0);
        expect(worst).toBeLessThan(1e-4 * side);
        expect(even.heights.reduce((sum, one) => sum + one)).toBe(of.queries);
        expect(even.widths.reduce((sum, one) => sum + one)).toBe(of.keys);
      }
    },
  );

  it("tell how many entries their cells have", () => {
    expect(sideOf(layer, { rows: 75, cols: 105 })).toBe(4);
    expect(sideOf({ queries: 1, keys: 7 }, { rows: 1, cols: 7 })).toBe(1);
    expect(sideOf({ queries: 3, keys: 40 }, { rows: 1, cols: 10 })).toBe(4);
    for (const n of [129, 150, 256, 257, 7510]) {
      for (const side of [1, 2, 64]) expect(sideOf({ queries: n, keys: n }, { rows: Math.ceil(n / side), cols: Math.ceil(n / side) })).toBe(side);
    }
  });

  it("say the same of joined cells as of the entries themselves", () => {
    const even = evenSpread(layer, 2);
    const cells = even.values.length;
    const mass = { ...even, values: Float32Array.from({ length: cells }, (_, i) => (even.values[i] ?? 0) * (1 + (i % 7))) };
    const lift = { ...even, values: mass.values.map((value, i) => ((even.values[i] ?? 0) > 0 ? value / (even.values[i] ?? 1) : NaN)) };
    const [joined, ratio, chance] = [pooled(mass, even, 3, "mass"), pooled(lift, even, 3, "lift"), pooled({ ...even }, even, 3, "mass")];
    joined.values.forEach((value, i) => {
      if (Number.isNaN(value)) expect(ratio.values[i]).toBeNaN();
      else expect(ratio.values[i]).toBeCloseTo(value / (chance.values[i] ?? 1), 3);
    });
    const sum = (values: Float32Array): number => values.reduce((total, value) => total + (Number.isNaN(value) ? 0 : value), 0);
    expect(sum(joined.values)).toBeCloseTo(sum(mass.values), 1);
  });

  it("keep the largest, and leave what cannot be seen blank", () => {
    const even = { rows: 2, cols: 3, values: Float32Array.of(1, 0, 0, 1, 1, 0), heights: Float32Array.of(2, 1), widths: Float32Array.of(2, 2, 1) };
    const map = { rows: 2, cols: 3, values: Float32Array.of(0.5, 0, 0, 0.25, 0.75, 0) };
    expect(Array.from(pooled(map, even, 2, "max").values)).toEqual([0.75, NaN]);
    expect(Array.from(pooled(map, even, 1, "max").values)).toEqual([0.5, NaN, NaN, 0.25, 0.75, NaN]);
    expect(factorFor(256, 36)).toBe(7);
    expect(factorFor(90, 400)).toBe(1);
  });

  it("have means of entries, also at the edge, where cells have fewer", () => {
    const even = { rows: 2, cols: 2, values: Float32Array.of(1, 1, 1, 1), heights: Float32Array.of(2, 1), widths: Float32Array.of(2, 1) };
    const map = { rows: 2, cols: 2, values: Float32Array.of(0.9, 0, 0, 0) };
    expect(pooled(map, even, 2, "mean").values[0]).toBeCloseTo((0.9 * 4) / 9);
  });
});
