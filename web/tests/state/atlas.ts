/** What a small server would say there is. */

import type { AtlasInfo, LayerInfo } from "../../src/protocol";

const layer = (number: number, size: number): LayerInfo => ({
  layer: number,
  name: `layers.${number}`,
  heads: [0, 1, 2],
  queries: size,
  keys: size,
  levels: Math.max(0, Math.ceil(Math.log2(size / 256))),
  causal: true,
  window: null,
});

const capture = (id: string, size: number) => ({
  id,
  title: `${id}.txt`,
  model: "small",
  kind: "decoder",
  tokens: size,
  text: true,
  error: 1e-6,
  layers: [layer(0, size), layer(3, size)],
});

export const ATLAS: AtlasInfo = {
  version: "0",
  captures: [capture("a", 700), capture("b", 700), capture("c", 90)],
  statistics: ["entropy", "far"].map((name) => ({ name, label: name, meaning: `${name}.`, unit: "" })),
  reducers: ["max", "mean", "mass", "lift"],
  patterns: [],
  spans: ["line", "sentence"],
  methods: ["rollout", "chefer", "first_token"],
  colours: { "lift-light": "", "lift-dark": "", "weight-light": "", "weight-dark": "" },
};
