import { describe, expect, it } from "vitest";

import { LINE, shortened, ticksAlong } from "../../src/matrix/labels";

describe("labels along an axis", () => {
  it("are every token in sight once each has a line's room", () => {
    const { kind, ticks } = ticksAlong(10.5, LINE, 5 * LINE, 1000, 60, true);
    expect(kind).toBe("tokens");
    expect(ticks.map(({ position }) => position)).toEqual([10, 11, 12, 13, 14, 15]);
    expect(ticks[0]?.at).toBeCloseTo(0);
  });

  it.each([
    [LINE - 0.1, true],
    [LINE * 4, false],
  ])("are positions at %d pixels (tokens: %s)", (perEntry, tokens) => {
    expect(ticksAlong(0, perEntry, 500, 1000, 60, tokens).kind).toBe("positions");
  });

  it("do not stand beyond the matrix, nor nearer than asked", () => {
    const { ticks } = ticksAlong(-2000, 0.05, 1000, 7510, 60, true);
    for (const { position } of ticks) {
      expect(position).toBeGreaterThanOrEqual(0);
      expect(position).toBeLessThan(7510);
    }
    const gaps = ticks.slice(1).map(({ at }, i) => at - (ticks[i]?.at ?? 0));
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(59);
  });

  it("are whole positions, however near one is", () => {
    const { ticks } = ticksAlong(3, 300, 900, 10, 20, false);
    expect(ticks.map(({ position }) => position)).toEqual([3, 4, 5]);
  });
});

describe("a label that is too long", () => {
  const measure = (text: string): number => Array.from(text).length * 10;

  it.each([
    ["short", 50, "short"],
    ["longer text", 60, "longe…"],
    ["no room", 5, ""],
    ["🙂🙂🙂🙂", 30, "🙂🙂…"],
  ])("%s in %d pixels is %s", (text, room, wanted) => {
    expect(shortened(text, room, measure)).toBe(wanted);
  });
});
