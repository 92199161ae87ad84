import { describe, expect, it } from "vitest";

import { candidates, cut, peakIn } from "../../src/compare/peak";
import { areAlike, comparedTerms, readWanted, termWords } from "../../src/compare/wanted";
import type { Term } from "../../src/protocol";
import { parseTerm } from "../../src/protocol";
import { FIRST, compareWith, openHead } from "../../src/state/view";
import type { Transport } from "../../src/transport/transport";
import { ATLAS } from "../state/atlas";

const OWN: Term = { capture: "a", layer: 3, head: 1, pattern: null };
const termOf = (text: string): Term => parseTerm(text) ?? OWN;

describe("what is written to be compared with", () => {
  it.each([
    ["0.2", "a.0.2"],
    [" b.3.mean ", "b.3.mean"],
    ["linear", "a.3.1:linear"],
    ["sliding_window:width=256,sinks=4", "a.3.1:sliding_window:width=256,sinks=4"],
    ["b.0.0:bigbird:block=64", "b.0.0:bigbird:block=64"],
  ])("%j is %s", (text, term) => expect(readWanted(text, OWN, ATLAS)).toEqual({ term }));

  it.each([
    ["", "Nothing is written"],
    ["Head 3", "neither a head nor a pattern"],
    ["<b>", "neither a head nor a pattern"],
    ["linear~a.0.0", "neither a head nor a pattern"],
    ["z.0.0", "There is no capture z, only a, b, c."],
    ["9.0", "There is no layer 9: a has 0, 3."],
    ["0.7", "Layer 0 has no head 7: there are 0, 1, 2, and mean."],
    [`linear:${"x".repeat(300)}`, "at most 200 characters"],
    ["0.1:a~b", "no ~ in it"],
  ])("%j is refused in a sentence", (text, reason) => {
    const found = readWanted(text, OWN, ATLAS);
    expect("reason" in found && found.reason).toContain(reason);
  });

  it("is told in as few words as tell it apart", () => {
    const words = (text: string): string => termWords(termOf(text), OWN, ATLAS);
    expect(["a.3.2", "b.3.1", "a.3.1:linear", "c.0.mean:linear", "a.3.1"].map(words)).toEqual([
      "layer 3, head 2", "b.txt", "linear", "c.txt, layer 0, mean of heads, linear", "itself",
    ]);
  });

  it("is subtracted only from a matrix of the same size", () => {
    expect([areAlike(OWN, termOf("b.0.1"), ATLAS), areAlike(OWN, termOf("c.0.1"), ATLAS), areAlike(OWN, termOf("b.7.1"), ATLAS)]).toEqual([true, false, false]);
    const head = openHead(3, 1)(FIRST);
    expect(comparedTerms(compareWith("b.0.1", "beside")(head), ATLAS)).toEqual(["a.3.1", "b.0.1"]);
    expect(comparedTerms(compareWith("c.0.1", "beside")(head), ATLAS)).toBeNull();
    expect(comparedTerms(compareWith("b.0.1", "single")(head), ATLAS)).toBeNull();
    expect(comparedTerms(head, ATLAS)).toBeNull();
  });
});

describe("the largest entry in sight", () => {
  const of = { queries: 8192, keys: 8192, levels: 5 };
  const whole = { row: 0, rowEnd: 8192, col: 0, colEnd: 8192 };
  const cells = (peaks: readonly (readonly [row: number, col: number, value: number])[]): Float32Array => {
    const values = new Float32Array(256 * 256);
    for (const [row, col, value] of peaks) values[row * 256 + col] = value;
    return values;
  };
  /** A server whose matrix has single entries, each at the last row and column of its cell. */
  function server(peaks: readonly (readonly [row: number, col: number, value: number])[]): { readonly asked: string[]; readonly transport: Transport } {
    const asked: string[] = [];
    const transport: Transport = {
      json: (path) => {
        asked.push(path);
        const [r0 = 0, r1 = 0, c0 = 0, c1 = 0] = [...path.matchAll(/(\d+)-(\d+)/g)].flatMap(([, from, to]) => [Number(from), Number(to)]);
        const inside = peaks.map(([row, col, value]) => ({ row: 32 * row + 31, col: 32 * col + 31, value })).filter(({ row, col }) => row >= r0 && row < r1 && col >= c0 && col < c1);
        inside.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
        return Promise.resolve(inside[0] ?? { row: r0, col: c0, value: 0 });
      },
      bytes: (path) => {
        asked.push(path);
        const bytes = new ArrayBuffer(16 + 4 * 65536);
        const header = new DataView(bytes);
        for (let i = 0; i < 4; i++) header.setUint8(i, "ATL1".charCodeAt(i));
        header.setUint8(4, 1);
        header.setUint16(6, 256, true);
        header.setUint16(8, 256, true);
        header.setFloat32(12, 1, true);
        new Float32Array(bytes, 16).set(cells(peaks));
        return Promise.resolve(bytes);
      },
      onEvent: () => () => undefined,
    };
    return { asked, transport };
  }
  const { signal } = new AbortController();

  it("is asked for at once where that can be", async () => {
    const { asked, transport } = server([[1, 1, -0.5]]);
    expect(await peakIn("a.0.0~a.0.1", of, { row: 0, rowEnd: 4096, col: 0, colEnd: 4096 }, transport, signal)).toEqual({ row: 63, col: 63, value: -0.5 });
    expect(asked).toEqual(["/api/peaks/a.0.0~a.0.1?rows=0-4096&cols=0-4096"]);
  });

  it("is found among cells of a large part, with its sign", async () => {
    const { asked, transport } = server([[10, 3, 0.5], [200, 100, -0.75], [4, 4, 0.1]]);
    expect(await peakIn("a.0.0~a.0.1", of, whole, transport, signal)).toEqual({ row: 6431, col: 3231, value: -0.75 });
    expect(asked).toHaveLength(2);
  });

  it("does not believe a cell that is cut by the edge", async () => {
    const { asked, transport } = server([[200, 100, -0.75], [10, 3, 0.5]]);
    const part = { ...whole, rowEnd: 6431 };
    expect(await peakIn("a.0.0~a.0.1", of, part, transport, signal)).toEqual({ row: 351, col: 127, value: 0.5 });
    expect(asked).toHaveLength(3);
  });

  it("is none where nothing differs", async () => {
    expect((await peakIn("a.0.0~a.0.1", of, whole, server([]).transport, signal)).value).toBe(0);
    expect(candidates(of, { rows: 256, cols: 256, values: cells([]) }, whole)).toEqual([]);
    expect(cut(whole, { row: 9000, rowEnd: 9001, col: 0, colEnd: 1 })).toBeNull();
  });
});
