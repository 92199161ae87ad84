import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { layOut, grouped } from "../../src/atlas/layout";
import { Maps } from "../../src/atlas/maps";
import { headsOf } from "../../src/atlas/order";
import { mapsWords } from "../../src/exporting/holds";
import type { CaptureInfo, LayerInfo } from "../../src/protocol";
import type { Transport } from "../../src/transport/transport";
import { RequestError } from "../../src/transport/transport";

const layers = Array.from({ length: 6 }, (_, layer): LayerInfo => ({
  ...{ layer, name: "", heads: [0, 1], queries: 4, keys: 4, levels: 0, causal: true, window: null },
}));
const capture: CaptureInfo = { id: "a", title: "", model: "", kind: "", tokens: 4, text: true, error: null, layers };
const heads = headsOf(capture);

/** Two maps, of ones and of twos. */
function bytes(): ArrayBuffer {
  const content = new ArrayBuffer(16 + 8 + 2 * 32);
  const view = new DataView(content);
  new Uint8Array(content).set(new TextEncoder().encode("ATLM"));
  view.setUint8(4, 2);
  for (const at of [6, 8]) view.setUint16(at, 4, true);
  view.setUint16(10, 2, true);
  for (const [i, scale] of [1, 2].entries()) view.setFloat32(16 + 4 * i, scale, true);
  new Uint16Array(content, 24).fill(0x3c00);
  return content;
}

class Asked implements Transport {
  readonly open: { readonly path: string; readonly answer: (content: ArrayBuffer) => void; readonly refuse: (error: Error) => void }[] = [];
  readonly aborted: string[] = [];
  json = (): Promise<unknown> => Promise.reject(new Error("nothing"));
  onEvent = () => () => undefined;

  bytes(path: string, signal?: AbortSignal): Promise<ArrayBuffer> {
    signal?.addEventListener("abort", () => void this.aborted.push(path));
    return new Promise((answer, refuse) => void this.open.push({ path, answer, refuse }));
  }

  get paths(): string[] {
    return this.open.map(({ path }) => path);
  }
}

const colours = Uint32Array.from({ length: 256 }, (_, i) => i);
const look = (measured: readonly number[], reduce: "max" | "lift" = "max") => ({
  ...{ capture: "a", reduce, ramp: (value: number) => value / 2, colours, measured: (layer: number) => measured.includes(layer) },
});

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("the maps of the atlas", () => {
  it("are asked for a layer at a time, measured ones first and a few at once", async () => {
    const transport = new Asked();
    const maps = new Maps(transport);
    const arrived = vi.fn();
    maps.onArrival = arrived;
    maps.show(look([1, 2, 4, 5]), layers);
    expect(transport.paths).toEqual([1, 2, 4].map((layer) => `/api/maps/a/${layer}?reduce=max`));
    transport.open[1]?.answer(bytes());
    await vi.advanceTimersByTimeAsync(0);
    expect(transport.paths.slice(3)).toEqual(["/api/maps/a/5?reduce=max"]);
    expect(arrived).toHaveBeenCalledTimes(1);
    expect(heads.filter((head) => maps.has(head)).map(({ label }) => label)).toEqual(["2.0", "2.1"]);
    for (const one of transport.open) one.answer(bytes());
    await vi.advanceTimersByTimeAsync(2000);
    expect(transport.paths).toHaveLength(4);
    // nobody measures: then the others are worth their computation, one after the other
    await vi.advanceTimersByTimeAsync(1000);
    expect(transport.paths.slice(4)).toEqual(["/api/maps/a/0?reduce=max"]);
    maps.stop();
  });

  it("have their own numbers in the colours that are in force, and nothing where nothing can be seen", async () => {
    const transport = new Asked();
    const maps = new Maps(transport);
    maps.show(look([0]), layers.slice(0, 1));
    const [first, second] = heads;
    if (!first || !second) throw new Error("no heads");
    expect(maps.picture(first, 100)).toBeNull();
    transport.open[0]?.answer(bytes());
    await vi.advanceTimersByTimeAsync(0);
    const seen = [1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1];
    expect(Array.from(maps.picture(first, 100)?.pixels ?? [])).toEqual(seen.map((one) => one * 128));
    expect(Array.from(maps.picture(second, 100)?.pixels ?? [])).toEqual(seen.map((one) => one * 255));
    expect(maps.picture(first, 2)).toMatchObject({ columns: 2, rows: 2 });
    const { version } = maps;
    maps.show({ ...look([0]), ramp: () => 0 }, layers.slice(0, 1));
    expect(maps.version).toBeGreaterThan(version);
    expect(transport.open).toHaveLength(1);
    maps.stop();
  });

  it("of another reducer take the place of those that are on their way", () => {
    const transport = new Asked();
    const maps = new Maps(transport);
    maps.show(look([0, 1]), layers);
    maps.show(look([0, 1], "lift"), layers);
    expect(transport.aborted).toEqual([0, 1].map((layer) => `/api/maps/a/${layer}?reduce=max`));
    expect(transport.paths.slice(2)).toEqual([0, 1].map((layer) => `/api/maps/a/${layer}?reduce=lift`));
    maps.stop();
    expect(transport.aborted).toHaveLength(4);
  });

  it("that are refused are not asked for again", async () => {
    const transport = new Asked();
    const maps = new Maps(transport);
    maps.show(look([0]), layers.slice(0, 1));
    transport.open[0]?.refuse(new RequestError(404, "nothing here"));
    await vi.advanceTimersByTimeAsync(9000);
    expect(transport.open).toHaveLength(1);
  });
});

it("cells are grouped by what stays together while one scrolls", () => {
  const many = headsOf({ ...capture, layers: Array.from({ length: 40 }, (_, layer) => ({ ...layers[0], layer, heads: [0, 1, 2] }) as LayerInfo) });
  for (const aligned of [true, false]) {
    const layout = layOut(many, { width: 600, height: 300, size: "large", aligned });
    const groups = grouped(layout);
    expect(groups.flatMap(({ spots }) => spots)).toEqual(layout.spots);
    for (const { spots, top, bottom } of groups) {
      expect(spots.every(({ y }) => y >= top && y + layout.cell <= bottom)).toBe(true);
    }
  }
});

it("a page that was saved from the atlas says what it holds", () => {
  expect(mapsWords({ sides: { lift: 64, max: 64, mean: 32 }, layers: 6, of: 6 })).toBe(
    "The small maps of all heads, of at most 64 cells a side (mean: 32); no head can be opened",
  );
  expect(mapsWords({ sides: { lift: 16 }, layers: 2, of: 6 })).toContain("of the 2 layers of 6 that were measured");
});
