import { describe, expect, it } from "vitest";

import { ProtocolError, differenceName, parseColours, parseMaps, parseTerm, parseTile, parseVectors, paths, termName } from "../src/protocol";

function tile(kind: number, rows: number, cols: number, scale: number, numbers: ArrayBufferView): ArrayBuffer {
  const bytes = new Uint8Array(16 + numbers.byteLength);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode("ATL1"));
  view.setUint8(4, kind);
  view.setUint16(6, rows, true);
  view.setUint16(8, cols, true);
  view.setFloat32(12, scale, true);
  bytes.set(new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength), 16);
  return bytes.buffer;
}

describe("tiles", () => {
  it("are read row after row", () => {
    const read = parseTile(tile(1, 2, 3, 1, Float32Array.of(1, 2, 3, 4, 5, 6.5)));
    expect([read.rows, read.cols]).toEqual([2, 3]);
    expect([...read.values]).toEqual([1, 2, 3, 4, 5, 6.5]);
  });

  it("of half precision are multiplied by their scale, every kind of number among them", () => {
    // 1, −2, the smallest subnormal, the largest number, infinity, not a number
    const halves = Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00, 0x7e00);
    const read = parseTile(tile(2, 1, 6, 0.5, halves));
    expect([...read.values]).toEqual([0.5, -1, 2 ** -25, 32752, Infinity, NaN]);
  });

  it.each([
    ["too short", new ArrayBuffer(3)],
    ["of another kind", tile(3, 1, 1, 1, Float32Array.of(1))],
    ["cut off", tile(1, 2, 2, 1, Float32Array.of(1, 2, 3))],
    ["with something behind", tile(1, 1, 1, 1, Float32Array.of(1, 2))],
    ["with another beginning", new ArrayBuffer(20)],
  ])("that are %s are refused", (_, bytes) => {
    expect(() => parseTile(bytes)).toThrow(ProtocolError);
  });
});

/** Maps of one row and two columns, with these scales. */
function maps(scales: readonly number[], halves: Uint16Array, kind = 2): ArrayBuffer {
  const numbers = new Uint8Array(4 * scales.length + halves.byteLength);
  numbers.set(new Uint8Array(Float32Array.from(scales).buffer));
  numbers.set(new Uint8Array(halves.buffer), 4 * scales.length);
  const bytes = tile(kind, 1, 2, 1, numbers);
  new Uint8Array(bytes)[3] = 77; // M
  new DataView(bytes).setUint16(10, scales.length, true);
  return bytes;
}

describe("maps", () => {
  it("have each a scale of its own", () => {
    const read = parseMaps(maps([0.5, 8], Uint16Array.of(0x3c00, 0, 0x3800, 0x3c00)));
    expect(read.map(({ rows, cols, values }) => [rows, cols, ...values])).toEqual([
      [1, 2, 0.5, 0],
      [1, 2, 4, 8],
    ]);
    expect(paths.maps("a", 12, "lift")).toBe("/api/maps/a/12?reduce=lift");
  });

  it.each([
    ["cut off", maps([1, 1], Uint16Array.of(1, 2, 3))],
    ["of another kind", maps([1], Uint16Array.of(1, 2), 1)],
    ["tiles", tile(2, 1, 2, 1, Uint16Array.of(1, 2))],
  ])("that are %s are refused", (_, bytes) => {
    expect(() => parseMaps(bytes)).toThrow(ProtocolError);
  });
});

it("vectors are as many and as long as they say", () => {
  const bytes = new ArrayBuffer(16 + 6 * 4);
  const view = new DataView(bytes);
  new Uint8Array(bytes).set(new TextEncoder().encode("ATLV"));
  view.setUint8(4, 1);
  view.setUint16(6, 2, true);
  view.setUint32(8, 3, true);
  view.setFloat32(12, 1, true);
  [1, 2, 3, 4, 5, NaN].forEach((value, i) => view.setFloat32(16 + 4 * i, value, true));
  expect(parseVectors(bytes).map((vector) => [...vector])).toEqual([
    [1, 2, 3],
    [4, 5, NaN],
  ]);
});

it("colours become opaque pixels", () => {
  const bytes = Array.from({ length: 768 }, (_, i) => [0x12, 0x34, 0x56][i] ?? 255);
  const colours = parseColours(btoa(String.fromCharCode(...bytes)));
  expect(colours[0]).toBe(0xff563412);
  expect(colours[255]).toBe(0xffffffff);
  expect(() => parseColours(btoa("abc"))).toThrow(ProtocolError);
});

describe("names", () => {
  it.each(["a.0.0", "b.12.mean", "aa.3.4:sliding_window:width=256,sinks=4"])("%s is read and written back", (name) => {
    const term = parseTerm(name);
    expect(term && termName(term)).toBe(name);
  });

  it.each(["", "a", "a.1", "a.1.x", "A.1.2", "a.1.2~a.1.3", "../a.1.2", "a.1.2:"])("%s is none", (name) => {
    expect(parseTerm(name)).toBeNull();
  });

  it("are one part of a path, whatever they hold", () => {
    const path = paths.tile(differenceName("a.1.2:x/y", "b.1.2"), 3, 4, 5, "max", "f16");
    expect(path).toBe("/api/tiles/a.1.2%3Ax%2Fy~b.1.2/3/4/5?reduce=max&as=f16");
  });
});
