import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { ServerEvent, StatisticsAnswer } from "../../src/protocol";
import { Measuring } from "../../src/state/measured";
import type { Transport } from "../../src/transport/transport";

const ROLE = { name: "role:induction", label: "induction", meaning: "", unit: "share" };
const answer = (done: number, complete: boolean, scores: StatisticsAnswer["scores"] = []): StatisticsAnswer => ({
  ...{ layers: {}, done, of: 2, roles: scores.length > 0 ? { "0.1": ["induction"] } : {}, scores, complete },
});

function server(answers: StatisticsAnswer[]): { readonly say: (event: ServerEvent) => void; readonly transport: Transport; readonly count: () => number } {
  let asked = 0;
  let hear: ((event: ServerEvent) => void) | null = null;
  const transport: Transport = {
    json: () => Promise.resolve(answers[Math.min(asked++, answers.length - 1)]),
    bytes: () => Promise.reject(new Error("nobody asks for bytes")),
    onEvent: (listener) => {
      hear = listener;
      return () => undefined;
    },
  };
  return { say: (event) => hear?.(event), transport, count: () => asked };
}

describe("what is measured", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("is asked for until nothing more comes: roles come after all layers", async () => {
    const { transport, count } = server([answer(1, false), answer(2, false), answer(2, false), answer(2, true, [ROLE])]);
    const measuring = new Measuring(transport, "a");
    await vi.advanceTimersByTimeAsync(0);
    expect(measuring.measured.value.done).toBe(1);
    await vi.advanceTimersByTimeAsync(20_000);
    expect(measuring.measured.value.roles).toEqual({ "0.1": ["induction"] });
    expect(count()).toBe(4);
  });

  it("is asked for at once when the server has more", async () => {
    const { transport, say } = server([answer(2, false), answer(2, true, [ROLE])]);
    const measuring = new Measuring(transport, "a");
    await vi.advanceTimersByTimeAsync(0);
    say({ type: "roles" });
    await vi.advanceTimersByTimeAsync(0);
    expect(measuring.measured.value.scores).toEqual([ROLE]);
  });

  it("is asked for no more when it has ended before its end", async () => {
    const { transport, count } = server([answer(1, true)]);
    const measuring = new Measuring(transport, "a");
    await vi.advanceTimersByTimeAsync(60_000);
    expect(count()).toBe(1);
    expect(measuring.measured.value.complete).toBe(true);
  });
});
