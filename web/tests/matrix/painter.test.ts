import { expect, it } from "vitest";

import { paint } from "../../src/matrix/painter";
import { heights, trackRange } from "../../src/matrix/tracks";

const colours = Uint32Array.from({ length: 256 }, (_, i) => 0xff000000 + i);

it("a tile is painted by its ramp, but for what is set aside, hidden or no number", () => {
  const tile = { rows: 2, cols: 4, values: Float32Array.of(9, 0, 0.5, 1, 9, NaN, 2, 9) };
  const pixels = new Uint32Array(8).fill(7);
  const ramp = (value: number): number => Math.min(1, value);
  paint(tile, { ramp, colours, factor: 1, drawn: (row) => [1, row === 0 ? 10 : 3] }, pixels);
  expect([...pixels]).toEqual([0, 0xff000000, 0xff000080, 0xff0000ff, 0, 0, 0xff0000ff, 0]);
});

it("what a tile holds is multiplied before it gets its colour", () => {
  const pixels = new Uint32Array(1);
  paint({ rows: 1, cols: 1, values: Float32Array.of(0.25) }, { ramp: (v) => v, colours, factor: 4, drawn: () => [0, 1] }, pixels);
  expect(pixels[0]).toBe(0xff0000ff);
});

it("a track shows the largest of the positions under a pixel, and nothing beyond the matrix", () => {
  const track = { label: "", values: Float32Array.of(0, 1, 4, 2, 0, 0), logarithmic: false };
  const range = trackRange(track, 0);
  expect(range).toEqual([0, 4]);
  expect([...heights(track, range, -2, 0.5, 4)].map((height) => Math.round(height * 100))).toEqual([0, 25, 100, 2]);
  expect([...heights(track, range, 2, 2, 4)].map((height) => Math.round(height * 100))).toEqual([100, 100, 50, 50]);
});
