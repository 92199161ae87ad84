import { describe, expect, test } from "vitest";

import type { FarPort, Model } from "../../src/notebook/bridge";
import { connect } from "../../src/notebook/bridge";
import type { Port, Said, Told } from "../../src/transport/comm";
import { CommTransport } from "../../src/transport/comm";
import { RequestError } from "../../src/transport/transport";

type Listener = (message: unknown, buffers: readonly DataView[]) => void;

/** Python's end: keeps what was sent, and says what the test wants. */
class Kernel implements Model {
  readonly sent: Record<string, unknown>[] = [];
  readonly listeners = new Set<Listener>();

  get(): unknown {
    return 700;
  }
  send(message: unknown): void {
    this.sent.push(message as Record<string, unknown>);
  }
  on(_: string, listener: Listener): void {
    this.listeners.add(listener);
  }
  off(_: string, listener: Listener): void {
    this.listeners.delete(listener);
  }
  say(message: unknown, ...buffers: Uint8Array[]): void {
    for (const listener of this.listeners) listener(message, buffers.map((b) => new DataView(b.buffer, b.byteOffset, b.byteLength)));
  }
  asked(): Record<string, unknown>[] {
    return this.sent.filter((message) => message["kind"] === "ask");
  }
}

/** A page at a kernel, by a channel that delivers at once. */
function page(kernel: Kernel, drawn: number): { transport: CommTransport; leave: () => void } {
  const near: Port = { postMessage: (message: Said) => far.onmessage?.({ data: message } as MessageEvent<Said>), onmessage: null };
  const far: FarPort = { postMessage: (message: Told) => near.onmessage?.({ data: message } as MessageEvent<Told>), onmessage: null };
  const leave = connect(kernel, far, drawn);
  return { transport: new CommTransport(near), leave };
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("a page in a notebook", () => {
  test("asks by path and query, and is answered with JSON or bytes", async () => {
    const kernel = new Kernel();
    const { transport } = page(kernel, 3);
    const tile = transport.bytes("/api/tiles/a.0.0%3Alinear/1/2/3?reduce=max&as=f16");
    const atlas = transport.json("/api/atlas");
    expect(kernel.asked().map(({ path, query }) => [path, query])).toEqual([
      ["/api/tiles/a.0.0%3Alinear/1/2/3", { reduce: "max", as: "f16" }],
      ["/api/atlas", {}],
    ]);
    const [first, second] = kernel.asked();
    // an answer lies somewhere inside of a larger buffer
    kernel.say({ kind: "answer", id: second?.["id"], status: 200, type: "application/json" }, bytes('xx{"a":1}').subarray(2));
    kernel.say({ kind: "answer", id: first?.["id"], status: 200, type: "" }, new Uint8Array([7, 8]));
    expect(await atlas).toEqual({ a: 1 });
    expect(new Uint8Array(await tile)).toEqual(new Uint8Array([7, 8]));
  });

  test("is told why it is refused", async () => {
    const kernel = new Kernel();
    const { transport } = page(kernel, 1);
    const wrong = transport.json("/api/nothing");
    const broken = transport.json("/api/broken");
    const [one, two] = kernel.asked();
    kernel.say({ kind: "answer", id: one?.["id"], status: 404, type: "" }, bytes('{"error":"no such path"}'));
    kernel.say({ kind: "answer", id: two?.["id"], status: 500, type: "" }, bytes("oh"));
    await expect(wrong).rejects.toEqual(new RequestError(404, "no such path"));
    await expect(broken).rejects.toThrow("The notebook could not answer this.");
  });

  test("takes a question back", async () => {
    const kernel = new Kernel();
    const { transport } = page(kernel, 1);
    const stop = new AbortController();
    const asked = transport.bytes("/api/x", stop.signal);
    stop.abort();
    await expect(asked).rejects.toThrow("nobody waits");
    const id = kernel.asked()[0]?.["id"];
    expect(kernel.sent.at(-1)).toEqual({ kind: "cancel", id });
    kernel.say({ kind: "answer", id, status: 200, type: "" }, bytes("{}"));
    const before = kernel.sent.length;
    await expect(transport.bytes("/api/x", stop.signal)).rejects.toThrow("nobody waits");
    expect(kernel.sent.length).toBe(before);
  });

  test("hears what is said unasked, and asks for it once", () => {
    const kernel = new Kernel();
    const { transport } = page(kernel, 1);
    const heard: unknown[] = [];
    const stop = transport.onEvent((event) => heard.push(event));
    transport.onEvent(() => undefined);
    expect(kernel.sent.filter(({ kind }) => kind === "listen").length).toBe(1);
    kernel.say({ kind: "event", event: { type: "done" } });
    stop();
    kernel.say({ kind: "event", event: { type: "done" } });
    expect(heard).toEqual([{ type: "done" }]);
  });

  test("does not take the answers of another page, and says when it comes and goes", async () => {
    const kernel = new Kernel();
    const one = page(kernel, 4);
    const two = page(kernel, 5);
    const [asked, other] = [one.transport.json("/api/x"), two.transport.json("/api/x")];
    const [first, second] = kernel.asked();
    expect(first?.["id"]).not.toBe(second?.["id"]);
    kernel.say({ kind: "answer", id: second?.["id"], status: 200, type: "" }, bytes("2"));
    kernel.say({ kind: "answer", id: first?.["id"], status: 200, type: "" }, bytes("1"));
    expect(await Promise.all([asked, other])).toEqual([1, 2]);
    one.leave();
    expect(kernel.sent.filter(({ kind }) => kind === "open" || kind === "close")).toEqual([
      { kind: "open", view: 4 },
      { kind: "open", view: 5 },
      { kind: "close", view: 4 },
    ]);
    expect(kernel.listeners.size).toBe(1);
  });
});
