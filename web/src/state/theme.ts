/** The theme in force, and its tables of colours. */

import { computed, signal } from "@preact/signals";

import type { AtlasInfo } from "../protocol";
import { parseColours } from "../protocol";
import { view } from "./view";

const dark = matchMedia("(prefers-color-scheme: dark)");
const prefersDark = signal(dark.matches);
dark.addEventListener("change", () => void (prefersDark.value = dark.matches));

export const theme = computed<"light" | "dark">(() => {
  const asked = view.value.theme;
  return asked === "auto" ? (prefersDark.value ? "dark" : "light") : asked;
});

const tables = new Map<string, Uint32Array>();

/** The colours of ratios or of weights in the theme in force. */
export function coloursOf(atlas: AtlasInfo, kind: "lift" | "weight"): Uint32Array {
  const name = `${kind}-${theme.value}` as const;
  let table = tables.get(name);
  if (!table) tables.set(name, (table = parseColours(atlas.colours[name])));
  return table;
}
