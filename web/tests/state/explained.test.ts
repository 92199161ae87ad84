import { describe, expect, it } from "vitest";

import { isTarget, parseExplained, targetWords, travelling } from "../../src/state/explained";
import type { Explained } from "../../src/state/view";
import { FIRST, explain, explainBeside, openCapture, readBy, readExplanation } from "../../src/state/view";

const CHEFER: Explained = { method: "chefer", target: "-1", budget: 160 };
const ROLLOUT: Explained = { method: "rollout", target: "-1", budget: 0 };

describe("an explanation's name", () => {
  it("may hold what its target holds", () => {
    expect(parseExplained("chefer/160/-1: a/b/c", ["chefer"])).toEqual({ method: "chefer", budget: 160, target: "-1: a/b/c" });
    expect(parseExplained("chefer:paper/0/label:2", ["chefer"])).toEqual({ method: "chefer:paper", budget: 0, target: "label:2" });
    expect(parseExplained("chefer/160/-1", [])).toBeNull();
  });

  it.each(["-1", " 14 ", "-1: Paris", "-1: Paris/ Rome", "next@120", "next@ -2", "label:1"])("takes the target %j", (text) => {
    expect(isTarget(text)).toBe(true);
  });

  it.each(["", "Paris", "1.5", "next@", "label:x", "-1:", "--1", `-1:${"x".repeat(200)}`])("refuses the target %j", (text) => {
    expect(isTarget(text)).toBe(false);
  });

  it.each([
    ["-1", "what comes next"],
    ["14", "what comes after token 14"],
    ["-1: Paris", "“ Paris” at the end"],
    ["7: Paris/ Rome", "“ Paris” rather than “ Rome” after token 7"],
    ["next@120", "the token after 120"],
    ["label:1", "class 1"],
  ])("says %j in words", (target, words) => expect(targetWords(target)).toBe(words));

  it("can travel in an address", () => {
    expect(() => encodeURIComponent(travelling("-1: \ud800"))).not.toThrow();
  });
});

describe("what is explained", () => {
  it("colours the text until a side of the matrix does", () => {
    const shown = explain(CHEFER)(FIRST);
    expect([shown.colour, shown.explained]).toEqual(["explanation", CHEFER]);
    const read = readBy("col")(shown);
    expect([read.colour, read.reading, read.explained]).toEqual(["matrix", "col", CHEFER]);
    expect(readExplanation(read).colour).toBe("explanation");
    expect(readExplanation(FIRST)).toBe(FIRST);
  });

  it("is compared with another, and never with itself", () => {
    const both = explainBeside(ROLLOUT)(explain(CHEFER)(FIRST));
    expect(both.explainedBeside).toEqual(ROLLOUT);
    expect(explainBeside({ ...CHEFER })(both).explainedBeside).toBeNull();
    expect(explain({ ...ROLLOUT })(both).explainedBeside).toBeNull();
    expect(explain(null)(both)).toEqual(FIRST);
    expect(explainBeside(ROLLOUT)(FIRST)).toEqual(FIRST);
  });

  it("means nothing in another document", () => {
    const other = openCapture("b")(explainBeside(ROLLOUT)(explain(CHEFER)(FIRST)));
    expect([other.explained, other.explainedBeside, other.colour]).toEqual([null, null, "matrix"]);
  });
});
