import { gzipSync } from "node:zlib";

import { describe, expect, it, vi } from "vitest";

import type { AtlasInfo, CellAnswer } from "../../src/protocol";
import { parseTile, parseVectors, paths, tileBytes, vectorBytes } from "../../src/protocol";
import { notices, notify, onlyOnce } from "../../src/state/notices";
import { EmbeddedTransport, LEFT_OUT, embeddedContent, pythonic, together } from "../../src/transport/embedded";
import { ATLAS } from "../state/atlas";

/** As the server packs it: all first bytes of the numbers, then all second ones. */
function planes(bytes: ArrayBuffer, width: number): Uint8Array {
  const from = new Uint8Array(bytes);
  if (width === 1) return from;
  const numbers = from.subarray(16);
  const count = numbers.length / width;
  const whole = from.slice();
  for (let i = 0; i < numbers.length; i++) whole[16 + (i % width) * count + Math.floor(i / width)] = numbers[i] ?? 0;
  return whole;
}

const packed = (bytes: ArrayBuffer, width: number): readonly [number, string] => [width, gzipSync(planes(bytes, width)).toString("base64")];
const words = (content: unknown): readonly [number, string] => packed(new TextEncoder().encode(JSON.stringify(content)).buffer, 1);

const SIDE = 256;
/** Each query of the first tile spreads its attention evenly, but for one entry. */
const entries = Float32Array.from({ length: SIDE * SIDE }, (_, i) => {
  const [row, col] = [Math.floor(i / SIDE), i % SIDE];
  return col > row ? 0 : row === 20 && col === 3 ? 0.00001 : 1 / (row + 1);
});
const first = tileBytes({ rows: SIDE, cols: SIDE, values: entries });
const factors = Float32Array.from({ length: SIDE }, (_, row) => row + 1);

const ANSWERS = {
  "/api/atlas": words(ATLAS satisfies AtlasInfo),
  "/api/tokens/a": words({ tokens: ["</script>", "\u2028"] }),
  "/api/tiles/a.0.1/0/0/0?reduce=lift": packed(tileBytes({ rows: 1, cols: 2, values: Float32Array.from([1, 2]) }), 4),
  "/api/tiles/a.0.1/2/0/0?reduce=max": packed(first, 4),
  "/api/tiles/a.0.1/2/0/0?reduce=lift": packed(vectorBytes(factors), 4),
};
const transport = (): EmbeddedTransport => new EmbeddedTransport({ view: "a.0.1", answers: ANSWERS });

describe("a page that holds its own answers", () => {
  it("answers what it holds", async () => {
    const answers = transport();
    expect(await answers.json("/api/tokens/a")).toEqual({ tokens: ["</script>", "\u2028"] });
    for (const as of ["f16", "f32"] as const) {
      const tile = parseTile(await answers.bytes(paths.tile("a.0.1", 0, 0, 0, "lift", as)));
      expect(Array.from(tile.values)).toEqual([1, 2]);
    }
  });

  it("gives exact entries to every reducer, and their lift", async () => {
    const answers = transport();
    for (const reduce of ["max", "mean", "mass"] as const) {
      expect(parseTile(await answers.bytes(paths.tile("a.0.1", 2, 0, 0, reduce, "f16"))).values).toEqual(entries);
    }
    const lift = parseTile(await answers.bytes(paths.tile("a.0.1", 2, 0, 0, "lift", "f16"))).values;
    expect(lift[100 * SIDE + 50]).toBeCloseTo(1);
    expect(lift[20 * SIDE + 3]).toBeCloseTo(0.00021);
  });

  it("refuses what it lacks, but knows where nothing can be seen", async () => {
    const answers = transport();
    await expect(answers.bytes(paths.tile("a.0.1", 1, 0, 0, "lift", "f16"))).rejects.toMatchObject({ status: 404, message: LEFT_OUT });
    await expect(answers.bytes(paths.tile("a.0.1", 2, 2, 0, "max", "f16"))).rejects.toMatchObject({ status: 404 });
    await expect(answers.bytes(paths.row("a.0.1", 400))).rejects.toMatchObject({ status: 404 });
    await expect(answers.json(paths.cell("a.0.1", 400, 3))).rejects.toMatchObject({ status: 404 });
    await expect(answers.json(paths.head("a", 0, 1))).rejects.toMatchObject({ status: 404 });
    await expect(answers.json("/api/__proto__")).rejects.toMatchObject({ status: 404 });
    const hidden = parseTile(await answers.bytes(paths.tile("a.0.1", 2, 0, 2, "max", "f16")));
    expect([hidden.rows, hidden.cols]).toEqual([256, 188]);
    expect(hidden.values.every((value) => value === 0)).toBe(true);
  });

  it("works out rows, entries and peaks from exact tiles", async () => {
    const answers = transport();
    const [row] = parseVectors(await answers.bytes(paths.row("a.0.1", 20)));
    expect(row).toHaveLength(700);
    expect(row?.[4]).toBeCloseTo(1 / 21);
    const cell = (await answers.json(paths.cell("a.0.1", 20, 3))) as CellAnswer;
    expect(cell).toMatchObject({ visible: true, rank: 21, score: null, value: Math.fround(0.00001) });
    expect(cell.exact).toBe("9.999999747378752e-06");
    expect(cell.lift).toBeCloseTo(0.00021);
    expect(((await answers.json(paths.cell("a.0.1", 20, 30))) as CellAnswer).visible).toBe(false);
    expect(await answers.json(paths.peak("a.0.1", [10, 40], [0, 200]))).toMatchObject({ row: 10, col: 0 });
    await expect(answers.json(paths.peak("a.0.1", [250, 270], [0, 4]))).rejects.toMatchObject({ status: 404 });
  });

  it("is told from one that has a server by an element", () => {
    expect(embeddedContent()).toBeNull();
    const element = document.createElement("script");
    element.type = "application/json";
    element.id = "content";
    element.textContent = JSON.stringify({ view: "a", answers: {} });
    document.body.append(element);
    expect(embeddedContent()).toEqual({ view: "a", answers: {} });
    element.remove();
  });

  it("says once that it is a part", () => {
    vi.useFakeTimers();
    onlyOnce(LEFT_OUT);
    notify(`The text cannot be coloured: ${LEFT_OUT}`, "error");
    expect(notices.value).toMatchObject([{ text: LEFT_OUT, kind: "note" }]);
    notices.value = [];
    notify(LEFT_OUT, "error");
    expect(notices.value).toEqual([]);
    vi.useRealTimers();
  });
});

describe("numbers", () => {
  it("are put together again", () => {
    const bytes = vectorBytes(Float32Array.from([1.5, -2, 3e-9]));
    expect(together(Uint8Array.from(planes(bytes, 4)).buffer, 4)).toEqual(bytes);
  });

  it("are written as Python writes them", () => {
    expect([0, -0, 1, 0.5, 1e-4, 1e-5, 1.5e-12, 0.00012, 2e16].map(pythonic)).toEqual([
      "0.0", "-0.0", "1.0", "0.5", "0.0001", "1e-05", "1.5e-12", "0.00012", "2e+16",
    ]);
  });
});
