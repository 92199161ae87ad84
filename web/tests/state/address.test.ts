import { describe, expect, it } from "vitest";

import { read, usualView, write } from "../../src/state/address";
import type { Explained, View } from "../../src/state/view";
import { REDUCERS, kindsOf, usualScale } from "../../src/state/view";
import { ATLAS } from "./atlas";

/** Numbers that are the same in every run (mulberry32). */
function dice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const EXPLAINED: readonly Explained[] = [
  { method: "chefer", target: "-1: Paris/ Rome", budget: 160 },
  { method: "rollout:released", target: "next@120", budget: 0 },
  { method: "first_token", target: "-3: a&b=c#d%e \u202e\n/", budget: 64 },
];

function anyView(seed: number): View {
  const next = dice(seed);
  const below = (n: number): number => Math.floor(next() * n);
  const pick = <T>(choices: readonly T[]): T => choices[below(choices.length)] as T;
  const capture = pick(["a", "b", "c"]);
  const open = next() < 0.7;
  const size = capture === "c" ? 90 : 700;
  const reduce = pick(REDUCERS);
  const kind = pick(kindsOf(reduce));
  const low = kind === "linear" ? 0 : Number((next() / 10 + 1e-6).toPrecision(4));
  const against = open && next() < 0.5 ? pick(capture === "c" ? ["c.0.1", "c.3.mean"] : ["b.3.2:sliding_window:width=256,sinks=4", "a.0.mean"]) : null;
  const explained = next() < 0.5 ? pick(EXPLAINED) : null;
  const other = explained && pick(EXPLAINED);
  return {
    capture,
    colour: explained === null ? "matrix" : pick(["matrix", "explanation"] as const),
    explained,
    explainedBeside: other === explained ? null : other,
    layer: open ? pick([0, 3]) : null,
    head: open ? pick([0, 1, 2, "mean"] as const) : null,
    against,
    mode: against === null ? "single" : pick(["single", "beside", "difference"] as const),
    reduce,
    scale: next() < 0.3 ? usualScale(kind, reduce) : { kind, low, high: low + Number((next() + 0.01).toPrecision(3)), locked: next() < 0.5 },
    sink: next() < 0.5,
    window: next() < 0.5 ? { x: below(size) - 10 + 0.25, y: below(size), width: below(size) + 0.5 } : null,
    row: next() < 0.5 ? below(size) : null,
    col: next() < 0.5 ? below(size) : null,
    reading: pick(["row", "col"] as const),
    shade: pick(["log", "linear"] as const),
    panels: { text: next() < 0.5, card: next() < 0.5, explain: next() < 0.5 },
    sort: pick(["layer", "entropy", "-far"]),
    statistic: pick([null, "entropy", "far"]),
    size: pick(["fit", "large"] as const),
    role: pick([null, "induction", "looks at & = % ü"]),
    theme: pick(["auto", "light", "dark"] as const),
    spans: pick([null, "line"]),
    search: pick(["", "a&b=c#d%e", "𝒜 → \n", "+ +"]),
  };
}

describe("an address", () => {
  it("brings back the view that it was written from", () => {
    for (let seed = 0; seed < 400; seed++) {
      const view = anyView(seed);
      const hash = write(view, ATLAS);
      const back = read(`#${hash}`, ATLAS);
      expect(back.ignored, hash).toEqual([]);
      const { scale, ...rest } = back.view;
      const { scale: asked, ...others } = view;
      expect(rest, hash).toEqual(others);
      expect([scale.kind, scale.locked]).toEqual([asked.kind, asked.locked]);
      expect(scale.low).toBeCloseTo(asked.low, 6);
      expect(scale.high / asked.high).toBeCloseTo(1, 5);
      expect(write(back.view, ATLAS)).toBe(hash);
    }
  });

  it("is empty where all is as usual", () => {
    expect(write(usualView(ATLAS), ATLAS)).toBe("");
    expect(read("", ATLAS)).toEqual({ view: usualView(ATLAS), ignored: [] });
  });

  it("is short and can be read", () => {
    const view: View = { ...usualView(ATLAS), layer: 3, head: 2, row: 7, against: "b.3.2:local:width=8", mode: "difference" };
    expect(write(view, ATLAS)).toBe("a.3.2&minus=b.3.2:local:width=8&row=7");
  });

  it("may name the score of a role, which is known only when it is measured", () => {
    expect(read("#show=role:induction&sort=-role:induction", ATLAS)).toMatchObject({ ignored: [], view: { statistic: "role:induction", sort: "-role:induction" } });
  });

  it("does not depend on the order of its parts", () => {
    const read1 = read("#row=650&scale=log,0.001,1&reduce=max&a.3.1", ATLAS);
    expect(read1).toEqual(read("#a.3.1&reduce=max&scale=log,0.001,1&row=650", ATLAS));
    expect(read1.view.row).toBe(650);
    expect(read1.view.scale.low).toBe(0.001);
  });

  it.each([
    "z.1.2", "a.9.0", "a.3.7", "a.3", "a.3.1:local", "constructor", "a.3.1&row=700", "a.3.1&row=-1", "a.3.1&row=1e2", "a.3.1&col=", "c.3.1&col=90",
    "reduce=median", "reduce=max&scale=lift,0.1,2", "scale=lift,2,1", "scale=lift,0,2", "scale=lift,0.1,2,open", "scale=lift,0.1,2,locked,1", "scale=lift,NaN,2",
    "scale=lift,0.1,Infinity", "at=1,2", "at=1,2,0", "at=1,2,3,4", "at=1e30,0,1", "at=a,b,c", "sink=yes", "by=diagonal", "panels=text,", "panels=__proto__",
    "sort=--entropy", "sort=role:", "sort=name", "show=layer", "size=huge", "theme=blue", "spans=paragraph", "find=%", "find=%E0%A4", "unknown=1", "__proto__=1", "toString=1", "=", "role=",
    "a.3.1&beside=a.3.9", "a.3.1&minus=c.3.1", "a.3.1&minus=a.3.1~a.3.2", "beside=a.3.1", `find=${"x".repeat(201)}`,
    "why=magic/0/-1", "why=chefer/0", "why=chefer/-1/-1", "why=chefer/1025/-1", "why=chefer/064/-1", "why=chefer/0/Paris", "why=chefer:a:b/0/-1", "why=__proto__/0/-1",
    `why=chefer/0/-1: ${"x".repeat(120)}`, "also=chefer/0/-1", "why=chefer/0/-1&also=chefer/0/-1", "colour=explanation", "why=chefer/0/-1&colour=red", "<script>", "a.3.1&by=%2e%2e",
  ])("leaves out what means nothing: %s", (hash) => {
    const { view, ignored } = read(hash, ATLAS);
    expect(ignored).toHaveLength(1);
    // what is left is itself a view that an address can bring back
    expect(read(write(view, ATLAS), ATLAS)).toEqual({ view, ignored: [] });
  });

  it("keeps the good parts beside a bad one", () => {
    const { view, ignored } = read("#a.3.1&row=5&col=9999&reduce=mass", ATLAS);
    expect([view.layer, view.head, view.row, view.col, view.reduce]).toEqual([3, 1, 5, null, "mass"]);
    expect(ignored).toEqual(["col=9999"]);
  });

  it("never fails, whatever is in it", () => {
    const alphabet = ["a", "b", ".", "0", "3", "1", "=", "&", ",", "%", "~", ":", "row", "scale", "at", "-", "e", "#", "\ud800", "mean", "panels", "log", "find", "role"];
    for (let seed = 0; seed < 2000; seed++) {
      const next = dice(seed);
      const hash = Array.from({ length: 1 + Math.floor(next() * 12) }, () => alphabet[Math.floor(next() * alphabet.length)]).join("");
      const { view } = read(hash, ATLAS);
      expect(read(write(view, ATLAS), ATLAS).ignored).toEqual([]);
    }
  });

  it("opens no head on a page that was saved from the atlas", () => {
    const saved = { ...ATLAS, excerpt: [], maps: { sides: { lift: 64 }, layers: 2, of: 2 } };
    expect(read("a.0.1&sort=far", saved)).toMatchObject({ view: { layer: null, head: null, sort: "far" }, ignored: ["a.0.1"] });
    expect(read("b", saved)).toMatchObject({ view: { capture: "b" }, ignored: [] });
    expect(read("a.0.1", ATLAS)).toMatchObject({ view: { layer: 0, head: 1 }, ignored: [] });
  });
});
