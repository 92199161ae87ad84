import { describe, expect, it } from "vitest";

import type { Job } from "../../src/explain/jobs";
import { explanationsFor, onlyKept } from "../../src/exporting/explained";
import type { Explained, View } from "../../src/state/view";
import { FIRST } from "../../src/state/view";

const asked = (method: string): Explained => ({ method, target: "-1", budget: 0 });
const job = (number: number, method: string, capture = "a", state: Job["state"] = "done"): Job => ({
  ...{ capture, asked: asked(method), number: String(number), state },
  ...{ progress: { done: 0, total: 0, what: "" }, left: null, error: null, found: null },
});
const JOBS = [job(1, "rollout"), job(2, "flow", "a", "running"), job(3, "chefer"), job(4, "flow", "b"), job(5, "recency")];
const view: View = { ...FIRST, layer: 0, head: 0, explained: asked("recency"), explainedBeside: asked("chefer"), colour: "explanation" };
const numbers = (jobs: readonly Job[]): string => jobs.map(({ number }) => number).join(" ");

describe("the explanations of a page that is saved", () => {
  it("are those that were found of what it shows", () => {
    expect(numbers(explanationsFor(view, ["a.0.0"], JOBS))).toBe("1 3 5");
    expect(numbers(explanationsFor(view, ["a.0.0~b.0.0"], JOBS))).toBe("1 3 4 5");
    expect(numbers(explanationsFor(FIRST, ["a.0.0"], JOBS))).toBe("1 3 5");
  });

  it("are eight at most, the shown one among them", () => {
    const many = Array.from({ length: 12 }, (_, i) => ({ ...job(i, "rollout"), asked: { ...asked("rollout"), target: String(i) } }));
    const last: View = { ...view, explained: { ...asked("rollout"), target: "11" } };
    expect(numbers(explanationsFor(last, ["a.0.0"], many))).toBe("0 1 2 3 4 5 6 11");
  });

  it("are all that its view speaks of", () => {
    const kept = explanationsFor(view, ["a.0.0"], JOBS);
    expect(onlyKept(view, kept)).toBe(view);
    expect(onlyKept({ ...view, explainedBeside: asked("flow") }, kept)).toMatchObject({ explained: asked("recency"), explainedBeside: null });
    const without = onlyKept({ ...view, explained: asked("flow") }, kept);
    expect(without).toMatchObject({ explained: null, explainedBeside: null, colour: "matrix" });
    expect(onlyKept(FIRST, kept)).toBe(FIRST);
  });
});
