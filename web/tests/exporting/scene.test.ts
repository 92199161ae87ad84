import { inflateSync } from "node:zlib";

import { describe, expect, it } from "vitest";

import { draw } from "../../src/exporting/canvas";
import { matrixScene } from "../../src/exporting/matrix_scene";
import { png } from "../../src/exporting/png";
import type { Cells, ImageMark, Mark, Scene, TextMark } from "../../src/exporting/scene";
import { opaque } from "../../src/exporting/scene";
import { partInSight } from "../../src/exporting/sight";
import { escaped, svg } from "../../src/exporting/svg";
import { fileName } from "../../src/exporting/words";
import { shownMatrix } from "../../src/matrix/shown";
import type { View } from "../../src/state/view";
import { FIRST, usualScale } from "../../src/state/view";
import { FunctionTransport, PLANTED, SMALL_ATLAS, pageOf } from "./page";

const HOSTILE = ["</text><script>alert(1)</script>", "\u202egnp.exe", "\ud800", "\0", "]]>", "&amp;", " ", "\ufffe"];
const measure = (text: string): number => 6.6 * text.length;
const scale = { ...usualScale("linear", "max"), low: 0, high: 1 };
const VIEW: View = { ...FIRST, layer: 0, head: 1, reduce: "max", scale, sink: false, row: PLANTED.row, col: PLANTED.col };

function sceneOf(view: Partial<View>, tokens: readonly string[] | null = null, capture = "c", size = 90): Promise<Scene> {
  const page = pageOf(new FunctionTransport(size, tokens));
  const signal = new AbortController().signal;
  // a difference has no tracks, which are another test's matter
  const whole = { ...VIEW, capture, against: `${capture}.0.2`, mode: "difference" as const, ...view };
  return matrixScene(page, whole, { width: 450, height: 450 }, 1, measure, signal);
}

const all = (marks: readonly Mark[]): Mark[] => marks.flatMap((mark) => (mark.kind === "clipped" ? [mark, ...all(mark.marks)] : [mark]));
const texts = (scene: Scene): TextMark[] => all(scene.marks).filter((mark) => mark.kind === "text");
const mapOf = (scene: Scene): ImageMark => {
  const found = all(scene.marks).find((mark): mark is ImageMark => mark.kind === "image" && mark.cells.rows > 1);
  if (!found) throw new Error("no map");
  return found;
};
const grey = ({ pixels, columns }: Cells, row: number, col: number): number => (pixels[row * columns + col] ?? 0) & 255;

describe("a scene of a matrix", () => {
  it("has a cell for each entry, with its own colour", async () => {
    const { cells, width } = mapOf(await sceneOf({}));
    expect([cells.rows, cells.columns]).toEqual([90, 90]);
    expect(width).toBeCloseTo(450);
    // a signed scale has its middle at one half
    expect(grey(cells, PLANTED.row, PLANTED.col)).toBe(Math.round((0.5 + PLANTED.value / 2) * 255));
    expect(grey(cells, 60, 3)).toBe(Math.round(0.505 * 255));
    expect(cells.pixels[3 * 90 + 60]).toBe(0); // hidden by causality
  });

  it("shows the part in sight at the level that suits it", async () => {
    const part = await sceneOf({ window: { x: 100, y: 120.5, width: 45 } }, null, "a", 700);
    const { cells, x, y, height } = mapOf(part);
    expect([cells.columns, cells.rows]).toEqual([45, 46]);
    expect(height).toBeCloseTo(460);
    const box = all(part.marks).find((mark) => mark.kind === "clipped" && mark.box.width === 450 && mark.box.height === 450);
    expect(box?.kind === "clipped" && [box.box.x - x, box.box.y - y]).toEqual([0, 5]);
    expect(mapOf(await sceneOf({}, null, "a", 700)).cells.rows).toBe(350);
  });

  it("sets the first column aside", async () => {
    const scene = await sceneOf({ sink: true });
    const { cells } = mapOf(scene);
    expect(cells.pixels[50 * 90]).toBe(0);
    expect(cells.pixels[50 * 90 + 1]).not.toBe(0);
    expect(all(scene.marks).filter((mark) => mark.kind === "image" && mark.cells.columns === 1)).toHaveLength(1);
  });

  it("labels positions, or tokens where there is room, and says what it is", async () => {
    const tokens = Array.from({ length: 90 }, (_, i) => HOSTILE[i] ?? ` w${i}`);
    const near = texts(await sceneOf({ window: { x: 0, y: 0, width: 15 } }, tokens)).map(({ text }) => text);
    expect(near).toContain("·w9");
    expect(near).toContain("␀");
    expect(near).toContain("⟨U+202E⟩gnp.exe");
    expect(near.join("")).not.toMatch(/[\u202e\ud800\0]/);
    const far = await sceneOf({ spans: "line" }, tokens);
    const words = texts(far).map(({ text }) => text);
    expect(words).toContain("50");
    expect(words).toContain("a·<span>");
    expect(words).toContain("difference of attention");
    expect(words.some((text) => text.includes("linear scale, 0 – 1"))).toBe(true);
    expect(words.some((text) => text.startsWith("query 40 ·w40 → key 7") && text.endsWith("A − A′ = 0.5"))).toBe(true);
    expect(far.title).toContain("c.txt");
  });
});

describe("what is in sight", () => {
  const of = { queries: 100, keys: 200, levels: 0 };
  it("is cut at the edges, and the whole where nothing of it would be left", () => {
    expect(partInSight(of, { x: -50, y: 90, width: 100 }, { width: 500, height: 500 })).toEqual({ x: 0, y: 90, right: 50, bottom: 100, perEntry: 5 });
    expect(partInSight(of, { x: 900, y: 0, width: 10 }, { width: 400, height: 400 })).toEqual({ x: 0, y: 0, right: 200, bottom: 100, perEntry: 2 });
  });
});

describe("SVG", () => {
  it("is XML whatever the text is, and holds the cells without loss", async () => {
    const tokens = Array.from({ length: 90 }, (_, i) => HOSTILE[i % HOSTILE.length] ?? "");
    const scene = await sceneOf({ window: { x: 0, y: 0, width: 15 } }, tokens);
    const text = await svg({ ...scene, title: HOSTILE.join("") });
    expect(text).not.toContain("<script");
    expect(text).not.toMatch(/[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/u);
    expect(text).toContain("image-rendering: pixelated");
    expect(text.match(/<text/g)?.length).toBeGreaterThan(30);
    expect(text.match(/<[a-zA-Z]/g)?.length).toBe((text.match(/\/>/g)?.length ?? 0) + (text.match(/<\/[a-zA-Z]/g)?.length ?? 0));
    const { cells } = mapOf(scene);
    const embedded = Array.from(text.matchAll(/base64,([^"]+)"/g), (found) => readPng(Buffer.from(found[1] ?? "", "base64")));
    expect(embedded.some(({ columns, rows, pixels }) => columns === cells.columns && rows === cells.rows && same(pixels, cells.pixels))).toBe(true);
  });

  it("escapes", () => {
    expect(escaped(`<a href="x">&'\0`)).toBe("&lt;a href=&quot;x&quot;&gt;&amp;&apos;\ufffd");
    expect(opaque("rgb(34 36 42 / 14%)")).toEqual({ colour: "#22242a", opacity: 0.14 });
  });
});

describe("PNG", () => {
  it("of cells has their pixels", async () => {
    const cells = { columns: 3, rows: 2, pixels: Uint32Array.from([1, 0xff0000ff, 0, 0xffffffff, 0xff102030, 7]) };
    const read = readPng(Buffer.from(await png(cells)));
    expect([read.columns, read.rows]).toEqual([3, 2]);
    expect(read.pixels).toEqual(cells.pixels);
  });

  it("of a scene is drawn mark by mark", async () => {
    const scene = await sceneOf({});
    const said: unknown[][] = [];
    const context = new Proxy({}, {
      get: (_, name) => (...values: unknown[]) => void said.push([String(name), ...values]),
      set: (_, name, value) => Boolean(said.push([String(name), value])),
    });
    draw(context as CanvasRenderingContext2D, scene, (cells) => cells as unknown as CanvasImageSource);
    expect(said).toContainEqual(["imageSmoothingEnabled", false]);
    expect(said.filter(([name]) => name === "fillText").map(([, text]) => text)).toEqual(texts(scene).map(({ text }) => text));
    const { cells, x, y, width, height } = mapOf(scene);
    expect(said).toContainEqual(["drawImage", cells, x, y, width, height]);
  });
});

describe("the name of a file", () => {
  it("says what is in it, and nothing that a system forbids", () => {
    const atlas = { ...SMALL_ATLAS, captures: SMALL_ATLAS.captures.map((capture) => ({ ...capture, title: "../a <b>:\u202e日本.txt" })) };
    const shown = ["a.0.1", "a.3.2"].map((name) => shownMatrix(name, atlas)).filter((one) => one !== null);
    expect(fileName({ ...VIEW, reduce: "lift" }, atlas, shown.slice(0, 1), "png")).toBe("a-b-U-202E-日本.txt-0.1-lift.png");
    expect(fileName(VIEW, atlas, shown, "svg")).toBe("a-b-U-202E-日本.txt-0.1-and-3.2-max.svg");
    expect(fileName({ ...VIEW, layer: null }, atlas, [], "png")).toBe("a-b-U-202E-日本.txt-atlas-max.png");
  });
});

const same = (one: Uint32Array, other: Uint32Array): boolean => one.length === other.length && one.every((value, i) => value === other[i]);

function readPng(bytes: Buffer): Cells {
  const [columns, rows] = [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
  const parts: Buffer[] = [];
  for (let at = 8; at < bytes.length; at += 12 + bytes.readUInt32BE(at)) {
    if (bytes.toString("latin1", at + 4, at + 8) === "IDAT") parts.push(bytes.subarray(at + 8, at + 8 + bytes.readUInt32BE(at)));
  }
  const lines = inflateSync(Buffer.concat(parts));
  const pixels = Uint32Array.from({ length: columns * rows }, (_, i) => {
    const row = Math.floor(i / columns);
    return lines.readUInt32LE(row * (4 * columns + 1) + 1 + 4 * (i % columns));
  });
  return { columns, rows, pixels };
}
