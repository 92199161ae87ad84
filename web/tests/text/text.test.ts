import { describe, expect, it } from "vitest";

import { chunkAt, chunksOf, guessedHeight } from "../../src/text/chunks";
import { beside, indexOf, search, tokenAt } from "../../src/text/search";
import { largest, shadingOf } from "../../src/text/shade";

describe("blocks of a document", () => {
  const lines = Array.from({ length: 5000 }, (_, i) => (i % 9 === 8 ? "x\n" : " word"));

  it.each([[lines], [Array.from({ length: 32768 }, () => "a")], [["one"]], [[]]])("hold each token once, in order", (tokens) => {
    const chunks = chunksOf(tokens);
    expect(chunks.flatMap(({ start, stop }) => Array.from({ length: stop - start }, (_, i) => start + i))).toEqual(tokens.map((_, i) => i));
    for (const { start, stop } of chunks) expect(stop - start).toBeLessThanOrEqual(320);
    const lost = tokens.filter((_, i) => {
      const chunk = chunks[chunkAt(chunks, i)];
      return !chunk || i < chunk.start || i >= chunk.stop;
    });
    expect(lost).toEqual([]);
  });

  it("end with lines where there are any", () => {
    for (const { stop } of chunksOf(lines).slice(0, -1)) expect(lines[stop - 1]).toBe("x\n");
    // tokens of code hold the end of a line and the next one's indent
    const code = Array.from({ length: 3000 }, (_, i) => (i % 7 === 6 ? "\n    " : " x"));
    for (const { start } of chunksOf(code).slice(1)) expect(code[start]).toBe("\n    ");
  });

  it("are guessed to be as high as their lines", () => {
    expect(guessedHeight({ start: 0, stop: 9, characters: 100, breaks: 0 }, 50, 20)).toBe(40);
    expect(guessedHeight({ start: 0, stop: 9, characters: 10, breaks: 9 }, 50, 20)).toBe(200);
  });
});

describe("searching", () => {
  const tokens = ["The", " cat", "\n", "İs", " the", "THE", "12"];
  const index = indexOf(tokens);

  it("finds words across tokens, whatever their case", () => {
    expect(search(index, "the")).toEqual([{ start: 0, stop: 1 }, { start: 4, stop: 5 }, { start: 5, stop: 6 }]);
    expect(search(index, "E C")).toEqual([{ start: 0, stop: 2 }]);
    expect(search(index, "s the")).toEqual([{ start: 3, stop: 5 }]);
    expect(search(index, "dog")).toEqual([]);
    expect(search(index, "")).toEqual([]);
  });

  it("takes a number for a position, too", () => {
    expect(search(index, "3")).toEqual([{ start: 3, stop: 4 }]);
    expect(search(index, "12")).toEqual([{ start: 6, stop: 7 }]);
    expect(search(index, "#5")).toEqual([{ start: 5, stop: 6 }]);
    expect(search(index, "#7")).toEqual([]);
  });

  it("knows the token of each character", () => {
    let at = 0;
    tokens.forEach((token, i) => {
      for (let c = 0; c < token.toLowerCase().length; c++) expect(tokenAt(index, at++)).toBe(i);
    });
  });

  it("goes from hit to hit and around the ends", () => {
    const hits = search(index, "the");
    expect([beside(hits, -1, 1), beside(hits, 0, 1), beside(hits, 5, 1), beside(hits, 0, -1), beside(hits, 3, -1)]).toEqual([0, 1, 0, 2, 0]);
    expect(beside([], 0, 1)).toBe(-1);
  });
});

describe("shading", () => {
  const values = Float32Array.of(0.9, 0.01, 0.08, 0, -0.04, NaN);

  it("gives the largest the full colour, the first token aside or not", () => {
    expect(shadingOf(values, "linear", true).strength(0.08)).toBeCloseTo(1);
    expect(shadingOf(values, "linear", true).strength(0.9)).toBe(1);
    expect(shadingOf(values, "linear", false).strength(0.45)).toBeCloseTo(0.5);
    expect(shadingOf(values, "linear", true).strength(-0.04)).toBeCloseTo(-0.5);
  });

  it("grows with the logarithm, and nothing is nothing", () => {
    const { strength } = shadingOf(values, "log", true);
    expect(strength(0.008)).toBeCloseTo(1 - 1 / 3.5);
    expect([strength(0), strength(NaN), strength(1e-9)]).toEqual([0, 0, 0]);
    expect(shadingOf(new Float32Array(3), "log", true).strength(1)).toBe(0);
  });

  it("lists what is largest by size, without what is hidden or nothing", () => {
    expect(largest(values, 10, false)).toEqual([0, 2, 4, 1]);
    expect(largest(values, 2, true)).toEqual([2, 4]);
    const many = Float32Array.from({ length: 4000 }, (_, i) => (i * 7919) % 4001);
    const sorted = Array.from(many.keys()).sort((a, b) => (many[b] ?? 0) - (many[a] ?? 0));
    expect(largest(many, 24, false)).toEqual(sorted.slice(0, 24));
  });
});
