/** What is needed to know of a matrix by its name alone: its shape, what of it can be seen, whose tokens it is about. */

import { inLine } from "../parts/glyphs";
import type { AtlasInfo, LayerInfo, Reduce } from "../protocol";
import { parseTerm } from "../protocol";
import type { Pyramid } from "./pyramid";
import { cellSide } from "./pyramid";

export interface ShownMatrix {
  readonly name: string;
  readonly capture: string;
  readonly layer: LayerInfo;
  readonly pyramid: Pyramid;
  /** Whether its entries have a sign, as those of a difference. */
  readonly signed: boolean;
  readonly title: string;
}

/** Read a name as the view has it; null if it names nothing that is there. */
export function shownMatrix(name: string, atlas: AtlasInfo): ShownMatrix | null {
  const terms = name.split("~");
  const known = terms.map((text) => {
    const term = parseTerm(text);
    const capture = atlas.captures.find(({ id }) => id === term?.capture);
    const layer = capture?.layers.find((one) => one.layer === term?.layer);
    if (!term || !capture || !layer) return null;
    const head = term.head === "mean" ? "mean of heads" : `head ${term.head}`;
    const where = atlas.captures.length > 1 ? `${inLine(capture.title)}, ` : "";
    return { capture, layer, title: `${where}layer ${term.layer}, ${head}${term.pattern === null ? "" : `, ${term.pattern}`}` };
  });
  const [first] = known;
  if (!first || known.some((one) => one === null)) return null;
  const { queries, keys, levels } = first.layer;
  return {
    name,
    capture: first.capture.id,
    layer: first.layer,
    pyramid: { queries, keys, levels },
    signed: terms.length > 1,
    title: known.map((one) => one?.title).join(" − "),
  };
}

/** A difference has no even spread of its own to be compared with. */
export const reduceOf = (matrix: ShownMatrix, reduce: Reduce): Reduce => (matrix.signed && reduce === "lift" ? "max" : reduce);

/**
 * Which cells of a row of cells hold anything that can be seen: from the first, up to the second. A cell counts if any
 * query of its rows may see any key of its columns.
 */
export function visibleCells(of: LayerInfo, level: number, cellRow: number): readonly [first: number, end: number] {
  const side = cellSide(of, level);
  const shift = of.keys - of.queries;
  const lowest = cellRow * side + shift;
  const highest = Math.min((cellRow + 1) * side, of.queries) - 1 + shift;
  const reach = of.window ?? Infinity;
  const firstKey = Math.max(0, lowest - reach + 1);
  const lastKey = Math.min(of.keys - 1, of.causal ? highest : highest + reach - 1);
  return lastKey < firstKey ? [0, 0] : [Math.floor(firstKey / side), Math.floor(lastKey / side) + 1];
}
