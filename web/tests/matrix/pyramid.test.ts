import { describe, expect, it } from "vitest";

import type { LayerInfo } from "../../src/protocol";
import type { Pyramid } from "../../src/matrix/pyramid";
import { cellExtent, cellSide, laidOut, levelFor, onDiagonal, tileCount, tileExtent } from "../../src/matrix/pyramid";
import { visibleCells } from "../../src/matrix/shown";

const of = (queries: number, keys: number): Pyramid => {
  let levels = 0;
  while (256 * 2 ** levels < Math.max(queries, keys)) levels++;
  return { queries, keys, levels };
};

const SIZES = [
  [1, 1],
  [256, 256],
  [257, 257],
  [1, 7510],
  [7510, 7510],
  [300, 5000],
  [32768, 32768],
  [65536, 65536],
] as const;

describe.each(SIZES)("%d × %d", (queries, keys) => {
  const pyramid = of(queries, keys);

  it("fits into one tile at level 0", () => {
    expect(tileCount(pyramid, 0)).toEqual({ rows: 1, cols: 1 });
  });

  it("has tiles that cover it without gap or overlap", () => {
    for (let level = 0; level <= pyramid.levels; level++) {
      const { rows, cols } = tileCount(pyramid, level);
      let next = 0;
      for (let row = 0; row < rows; row++) {
        const extent = tileExtent(pyramid, level, row, 0);
        expect(extent.row).toBe(next);
        expect(extent.rowEnd).toBeGreaterThan(extent.row);
        next = extent.rowEnd;
      }
      expect(next).toBe(queries);
      expect(tileExtent(pyramid, level, 0, cols - 1).colEnd).toBe(keys);
    }
  });

  it("is laid out in whole cells, and in no more tiles than it has", () => {
    const { width, height } = laidOut(pyramid);
    for (let level = 0; level <= pyramid.levels; level++) {
      const side = cellSide(pyramid, level);
      expect([width % side, height % side]).toEqual([0, 0]);
      const { rows, cols } = tileCount(pyramid, level);
      expect(Math.ceil(width / side / 256)).toBe(cols);
      expect(Math.ceil(height / side / 256)).toBe(rows);
    }
  });
});

it("a cell ends where the matrix does", () => {
  expect(cellExtent(of(7510, 7510), 0, 234, 0)).toEqual({ row: 7488, rowEnd: 7510, col: 0, colEnd: 32 });
});

it("the level read never has more cells than pixels", () => {
  const pyramid = of(7510, 7510);
  expect(levelFor(pyramid, 500 / 7510)).toBe(1);
  expect(levelFor(pyramid, 1)).toBe(pyramid.levels);
  expect(levelFor(pyramid, 0.999)).toBe(pyramid.levels - 1);
  expect(levelFor(pyramid, 1e-9)).toBe(0);
});

it("the diagonal ends at the last query and the last key, and points fall square onto it", () => {
  expect(onDiagonal(of(100, 100), 30, 50)).toEqual({ x: 40, y: 40 });
  expect(onDiagonal(of(10, 100), 95, 5)).toEqual({ x: 95, y: 5 });
  expect(onDiagonal(of(100, 100), 500, 500)).toEqual({ x: 100, y: 100 });
});

describe("cells that can be seen", () => {
  const KINDS = [
    { queries: 700, keys: 700, causal: true, window: null },
    { queries: 40, keys: 700, causal: true, window: null },
    { queries: 700, keys: 700, causal: true, window: 100 },
    { queries: 700, keys: 700, causal: false, window: 30 },
    { queries: 300, keys: 700, causal: false, window: null },
    { queries: 700, keys: 300, causal: true, window: null },
  ] as const;

  it.each(KINDS)("are those with an entry that can: %j", (kind) => {
    const { queries, keys, causal, window } = kind;
    const { levels } = of(queries, keys);
    const layer: LayerInfo = { layer: 0, name: "", heads: [0], levels, queries, keys, causal, window };
    const sees = (query: number, key: number): boolean => {
      const back = query + keys - queries - key;
      return !(causal && back < 0) && (window === null || Math.abs(back) < window);
    };
    for (let level = 0; level <= levels; level++) {
      const side = 2 ** (levels - level);
      for (let row = 0; row * side < queries; row += 7) {
        const seen = [];
        for (let col = 0; col * side < keys; col++) {
          let any = false;
          for (let query = row * side; query < Math.min(queries, (row + 1) * side); query++) {
            for (let key = col * side; key < Math.min(keys, (col + 1) * side); key++) any ||= sees(query, key);
          }
          if (any) seen.push(col);
        }
        const [first, end] = visibleCells(layer, level, row);
        expect(Array.from({ length: end - first }, (_, i) => first + i)).toEqual(seen);
      }
    }
  });
});
