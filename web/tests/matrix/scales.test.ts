import { describe, expect, it } from "vitest";

import type { Range } from "../../src/matrix/scales";
import { brief, fitRange, levelFactor, niceSteps, rampOf, ticksOf, valueAt } from "../../src/matrix/scales";

const RANGES: readonly Range[] = [
  { kind: "linear", low: 0, high: 0.3, signed: false },
  { kind: "linear", low: 0.1, high: 0.3, signed: false },
  { kind: "log", low: 1e-4, high: 1, signed: false },
  { kind: "lift", low: 1 / 128, high: 128, signed: false },
  { kind: "linear", low: -0.5, high: 0.5, signed: true },
  { kind: "log", low: 1e-5, high: 0.5, signed: true },
];

describe.each(RANGES)("%j", (range) => {
  const ramp = rampOf(range);

  it("finds the place of the number that is there", () => {
    for (const place of [0, 0.1, 0.25, 0.75, 1]) expect(ramp(valueAt(range, place))).toBeCloseTo(place, 6);
  });

  it("rises and stays within its ends", () => {
    const values = [-10, -0.5, -1e-3, 0, 1e-6, 1e-3, 0.2, 0.5, 1, 1000];
    const places = values.map(ramp);
    expect(places).toEqual([...places].sort((a, b) => a - b));
    expect(Math.min(...places)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...places)).toBeLessThanOrEqual(1);
  });

  it("has ticks in order, within the bar, with different labels", () => {
    const ticks = ticksOf(range);
    expect(ticks.length).toBeGreaterThan(1);
    expect(new Set(ticks.map(({ label }) => label)).size).toBe(ticks.length);
    const places = ticks.map(({ place }) => place);
    expect(places).toEqual([...places].sort((a, b) => a - b));
  });
});

it("nothing and an even spread lie in the middle of what has one", () => {
  expect(rampOf({ kind: "lift", low: 1 / 8, high: 8, signed: false })(1)).toBe(0.5);
  expect(rampOf({ kind: "log", low: 1e-4, high: 1, signed: true })(0)).toBe(0.5);
  expect(rampOf({ kind: "linear", low: -1, high: 1, signed: true })(0)).toBe(0.5);
});

describe("a fitted range", () => {
  const cells = Float32Array.from({ length: 10_000 }, (_, i) => (i + 1) / 10_000);

  it("lets single peaks lie beyond", () => {
    const peaked = Float32Array.from(cells);
    peaked[17] = 1000;
    const [, high] = fitRange(peaked, "linear", "max", false);
    expect(high).toBeGreaterThan(0.95);
    expect(high).toBeLessThan(1.01);
  });

  it("of a ratio is as far above 1 as below", () => {
    const [low, high] = fitRange([0.01, 0.5, 1, 3, 30], "lift", "lift", false);
    expect(low * high).toBeCloseTo(1, 6);
    expect(high).toBeGreaterThanOrEqual(30);
  });

  it("of a difference is symmetric", () => {
    expect(fitRange([-3, 1, 2], "linear", "max", true)).toEqual([-3, 3]);
  });

  it.each(["linear", "log", "lift"] as const)("is a range even of nothing at all (%s)", (kind) => {
    for (const none of [[], [0, 0], [NaN]]) {
      const [low, high] = fitRange(none, kind, kind === "lift" ? "lift" : "max", false);
      expect(low).toBeLessThan(high);
      if (kind !== "linear") expect(low).toBeGreaterThan(0);
    }
  });
});

it("masses of smaller cells are weighed as those of level 0", () => {
  expect([levelFactor("mass", 0), levelFactor("mass", 3), levelFactor("max", 3)]).toEqual([1, 64, 1]);
});

it("steps are round numbers that begin at nothing, not at minus nothing", () => {
  expect(niceSteps(0, 7509, 8)).toEqual([0, 1000, 2000, 3000, 4000, 5000, 6000, 7000]);
  expect(Object.is(niceSteps(-0.4, 10, 5)[0], 0)).toBe(true);
});

it.each([
  [0, false, "0"],
  [0.25, true, "1/4"],
  [0.25, false, "0.25"],
  [1e-4, false, "1e−4"],
  [-0.5, false, "−0.5"],
  [123456, false, "1.2e5"],
])("%d (ratio: %s) is written %s", (value, ratio, text) => {
  expect(brief(value, ratio)).toBe(text);
});
