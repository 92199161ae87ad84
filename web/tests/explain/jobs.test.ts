import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { JobAnswer } from "../../src/explain/answer";
import { Explaining } from "../../src/explain/jobs";
import type { Explained } from "../../src/state/view";
import type { Transport } from "../../src/transport/transport";
import { RequestError } from "../../src/transport/transport";

const CHEFER: Explained = { method: "chefer", target: "-1: Paris/ Rome", budget: 160 };
const told = (state: JobAnswer["state"], done: number, error: string | null = null): JobAnswer => ({
  id: "7",
  state,
  progress: { done, total: 10, what: "walking down" },
  error,
  explanation: null,
});

/** A server whose answers to looks are given. */
function server(start: JobAnswer | Error, looks: readonly JobAnswer[]): { readonly asked: string[]; readonly transport: Transport } {
  const asked: string[] = [];
  let at = 0;
  const transport: Transport = {
    json: (path) => {
      asked.push(path);
      if (path.endsWith("/cancel")) return Promise.resolve(told("cancelled", 0));
      if (path.includes("/start")) return start instanceof Error ? Promise.reject(start) : Promise.resolve(start);
      return Promise.resolve(looks[Math.min(at++, looks.length - 1)]);
    },
    bytes: () => Promise.reject(new Error("nobody asks for bytes")),
    onEvent: () => () => undefined,
  };
  return { asked, transport };
}

describe("an explanation that is asked for", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("is followed until it is done, and asked for once", async () => {
    const { asked, transport } = server(told("waiting", 0), [told("running", 1), told("running", 5), told("done", 10)]);
    const explaining = new Explaining(transport, () => Date.now() / 1000);
    explaining.ask("a", CHEFER);
    explaining.ask("a", CHEFER);
    await vi.advanceTimersByTimeAsync(0);
    expect(asked).toEqual(["/api/explanations/start?capture=a&method=chefer&target=-1%3A%20Paris%2F%20Rome&budget=160"]);
    await vi.advanceTimersByTimeAsync(250);
    expect(explaining.find("a", CHEFER)?.progress.done).toBe(1);
    await vi.advanceTimersByTimeAsync(5000);
    expect(explaining.find("a", CHEFER)?.state).toBe("done");
    explaining.ask("a", CHEFER);
    await vi.advanceTimersByTimeAsync(5000);
    expect(asked).toHaveLength(4);
    expect(explaining.find("b", CHEFER)).toBeNull();
  });

  it("is called off on both sides, and can be asked for again", async () => {
    const { asked, transport } = server(told("waiting", 0), [told("running", 1)]);
    const explaining = new Explaining(transport);
    explaining.ask("a", CHEFER);
    await vi.advanceTimersByTimeAsync(300);
    const job = explaining.find("a", CHEFER);
    if (job) explaining.cancel(job);
    await vi.advanceTimersByTimeAsync(5000);
    expect(explaining.find("a", CHEFER)?.state).toBe("cancelled");
    expect(asked.at(-1)).toBe("/api/explanations/7/cancel");
    explaining.ask("a", CHEFER);
    await vi.advanceTimersByTimeAsync(300);
    expect(explaining.find("a", CHEFER)?.state).toBe("running");
    const again = explaining.find("a", CHEFER);
    if (again) explaining.remove(again);
    expect(explaining.jobs.value).toEqual([]);
  });

  it("tells why it was refused, or why it failed", async () => {
    const refused = new Explaining(server(new RequestError(422, "target: too far"), []).transport);
    refused.ask("a", CHEFER);
    const failed = new Explaining(server(told("waiting", 0), [told("failed", 3, "it failed")]).transport);
    failed.ask("a", CHEFER);
    await vi.advanceTimersByTimeAsync(1000);
    expect([refused, failed].map((one) => one.find("a", CHEFER))).toMatchObject([
      { state: "failed", error: "target: too far" },
      { state: "failed", error: "it failed" },
    ]);
  });
});
