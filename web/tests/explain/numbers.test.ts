import { describe, expect, it } from "vitest";

import type { Curve } from "../../src/explain/answer";
import { Pace, about } from "../../src/explain/pace";
import { endsOf, plotOf } from "../../src/explain/plots";
import { ranked, rankedOf } from "../../src/explain/ranking";
import { scoreShading } from "../../src/text/shade";

describe("the ranked list", () => {
  it("goes by size, earlier tokens first where sizes are equal, and shares ranks", () => {
    const { order, ranks } = rankedOf([0.1, -0.5, null, 0.5, 0]);
    expect(order).toEqual([1, 3, 0, 4]);
    expect(ranks).toEqual([3, 1, null, 1, 4]);
  });

  it("goes by either of two, and leaves out what says nothing", () => {
    const first = [3, 0, 1, null];
    const second = [0.1, 0.4, 0.2, 0.3];
    expect(ranked([first, second], 0, 10)).toEqual([
      { token: 0, scores: [3, 0.1], ranks: [1, 4] },
      { token: 2, scores: [1, 0.2], ranks: [2, 3] },
    ]);
    expect(ranked([first, second], 1, 2).map(({ token }) => token)).toEqual([1, 3]);
    expect(ranked([], 0, 3)).toEqual([]);
  });

  it("colours evenly up to full colour, against as well as for", () => {
    const { strength } = scoreShading(2);
    expect([1, -1, 5, -5, 0, NaN].map(strength)).toEqual([0.5, -0.5, 1, -1, 0, 0]);
    expect(scoreShading(0).strength(1)).toBe(0);
  });
});

describe("how long it will take", () => {
  it("follows the pace of each step by itself", () => {
    const pace = new Pace();
    expect(pace.left(0, { done: 0, total: 10, what: "a" })).toBeNull();
    expect(pace.left(0.5, { done: 1, total: 10, what: "a" })).toBeNull();
    expect(pace.left(2, { done: 2, total: 10, what: "a" })).toBeCloseTo(8);
    // while the next thing is under way, what it took so far is not to come any more
    expect(pace.left(2.5, { done: 2, total: 10, what: "a" })).toBeCloseTo(7.5);
    expect(pace.left(9, { done: 2, total: 10, what: "a" })).toBeCloseTo(7);
    expect(pace.left(10, { done: 1, total: 4, what: "b" })).toBeNull();
    expect(pace.left(30, { done: 4, total: 4, what: "b" })).toBe(0);
  });

  it.each([
    [1, "a few seconds"],
    [12, "about 15 s"],
    [60, "about a minute"],
    [170, "about 3 min"],
    [7200, "about 2.0 h"],
  ])("says %d seconds as %s", (seconds, words) => expect(about(seconds)).toBe(words));
});

describe("curves", () => {
  const curve = (order: string, own: boolean, values: readonly number[], low: readonly number[] = []): Curve => ({
    kind: "deletion", order, own, fractions: [0, 0.5, 1], values, low, high: low.map((value) => value + 1),
  });

  it("are drawn from chance to the method's own, over all shares", () => {
    const other = { ...curve("recency", false, [-1, -2]), fractions: [0, 1] };
    const plot = plotOf([curve("chefer", true, [-1, -4, -5]), other, curve("random", false, [-1, -2, -3], [-2, -3, -4])], "deletion", "chefer (paper)");
    expect(plot?.lines.map(({ name, values }) => [name, values])).toEqual([
      ["random", [-1, -2, -3]],
      ["recency", [-1, null, -2]],
      ["chefer (paper)", [-1, -4, -5]],
    ]);
    expect(plot?.band).toEqual({ low: [-2, -3, -4], high: [-1, -2, -3] });
    expect(plotOf([curve("chefer", true, [1, 2, 3])], "insertion", "chefer")).toBeNull();
    const [low, high] = endsOf([plot, null]);
    expect([low < -5, low > -6, high > -1, high < 0]).toEqual([true, true, true, true]);
  });

  it("name a baseline that is explained itself once", () => {
    const plot = plotOf([curve("recency", true, [1, 2, 3]), curve("recency", true, [1, 2, 3])], "deletion", "recency");
    expect(plot?.lines.map(({ name, own }) => [name, own])).toEqual([["recency", true]]);
    expect(plot?.band).toBeNull();
  });
});
