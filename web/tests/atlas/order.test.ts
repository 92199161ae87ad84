import { describe, expect, it } from "vitest";

import { layOut, towards, within } from "../../src/atlas/layout";
import { has, headsOf, ordered, rangeOf } from "../../src/atlas/order";
import type { Measured } from "../../src/state/measured";
import { ATLAS } from "../state/atlas";

const capture = ATLAS.captures[0];
if (!capture) throw new Error("no capture");
const heads = headsOf(capture);
const measured: Measured = { layers: { "0": { far: [0.2, 0.9, 0.5] } }, done: 1, of: 2, roles: { "3.1": ["induction"] }, scores: [], complete: false };
const labels = (list: readonly { readonly label: string }[]): string => list.map(({ label }) => label).join(" ");

describe("the order of heads", () => {
  it("goes by layer, or by a statistic either way, and what is not measured comes last", () => {
    expect(labels(ordered(heads, "layer", measured))).toBe("0.0 0.1 0.2 3.0 3.1 3.2");
    expect(labels(ordered(heads, "far", measured))).toBe("0.1 0.2 0.0 3.0 3.1 3.2");
    expect(labels(ordered(heads, "-far", measured))).toBe("0.0 0.2 0.1 3.0 3.1 3.2");
    expect(labels(ordered(heads, "entropy", measured))).toBe(labels(heads));
  });

  it("leaves the list that it was given alone", () => {
    const before = labels(heads);
    ordered(heads, "far", measured);
    expect(labels(heads)).toBe(before);
  });

  it("knows who is like what is asked for, and who is not known yet", () => {
    expect(heads.map((head) => has(head, "far>0.4", measured))).toEqual([false, true, true, null, null, null]);
    expect(heads.map((head) => has(head, "induction", measured))).toEqual([false, false, false, false, true, false]);
    expect(heads.every((head) => has(head, null, measured))).toBe(true);
  });

  it("finds from where to where a statistic goes", () => {
    expect(rangeOf(heads, "far", measured)).toEqual([0.2, 0.9]);
    expect(rangeOf(heads, "entropy", measured)).toBeNull();
  });
});

describe("the places of cells", () => {
  const asked = { width: 1200, height: 600, size: "fit", aligned: true } as const;

  it.each([
    [asked],
    [{ ...asked, width: 300 }],
    [{ ...asked, size: "large" as const }],
    [{ ...asked, aligned: false }],
    [{ ...asked, aligned: false, width: 90 }],
  ])("do not overlap, and lie within what there is: %j", (how) => {
    const { spots, cell, height } = layOut(heads, how);
    expect(spots).toHaveLength(heads.length);
    for (const a of spots) {
      expect(a.x + cell).toBeLessThanOrEqual(how.width);
      expect(a.y + cell).toBeLessThanOrEqual(height);
      for (const b of spots) expect(a === b || Math.abs(a.x - b.x) >= cell || Math.abs(a.y - b.y) > cell).toBe(true);
    }
  });

  it("fits a thousand heads across a screen, each large enough to be seen", () => {
    const layers = Array.from({ length: 32 }, (_, layer) => ({ ...capture.layers[0], layer, heads: Array.from({ length: 32 }, (_, i) => i) }));
    const many = headsOf({ ...capture, layers: layers as typeof capture.layers });
    const { cell, spots } = layOut(many, { ...asked, height: 1300 });
    expect(spots).toHaveLength(1024);
    expect(cell).toBeGreaterThanOrEqual(22);
  });

  it("are in the page only where they are in sight", () => {
    const { spots, cell, height } = layOut(heads, { ...asked, aligned: false, width: 90 });
    expect(within(spots, 0, height, cell)).toEqual(spots);
    expect(within(spots, -300, 0, cell)).toEqual([]);
    const [, second] = spots;
    expect(within(spots, (second?.y ?? 0) + 1, (second?.y ?? 0) + 2, cell)).toEqual([second]);
  });

  it("are left by the arrows towards their neighbours, and not over an edge", () => {
    const { spots } = layOut(heads, asked);
    const spot = (label: string) => spots.find(({ head }) => head.label === label);
    const from = spot("0.1");
    if (!from) throw new Error("no such head");
    const to = (key: string): string | undefined => towards(spots, from, key)?.head.label;
    const sideways = spot("3.1")?.row === from.row;
    expect(to(sideways ? "ArrowRight" : "ArrowDown")).toBe("3.1");
    expect(to(sideways ? "ArrowLeft" : "ArrowUp")).toBeUndefined();
    expect(to(sideways ? "ArrowDown" : "ArrowRight")).toBe("0.2");
    expect(to("x")).toBeUndefined();
  });
});
