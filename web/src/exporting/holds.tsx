/** What a page that was saved holds, said in its head: it is a part, and must not be taken for the whole. */

import { whole } from "../parts/numbers";
import type { AtlasInfo, HeldInfo, HeldMaps } from "../protocol";
import { shownMatrix } from "../matrix/shown";

export function Holds({ atlas }: { readonly atlas: AtlasInfo }) {
  if (!atlas.excerpt) return null;
  const words = atlas.maps ? mapsWords(atlas.maps) : atlas.excerpt.map((held) => heldWords(held, atlas)).join("; ");
  return (
    <p class="holds">
      <b>A saved part.</b> {words}.
    </p>
  );
}

/** "The small maps of all heads, of at most 64 cells a side (mean: 32); none can be opened". */
export function mapsWords({ sides, layers, of }: HeldMaps): string {
  const every = Object.entries(sides);
  const finest = Math.max(...every.map(([, side]) => side));
  const coarser = every.filter(([, side]) => side < finest).map(([reduce, side]) => `${reduce}: ${side}`);
  const whose = layers === of ? "all heads" : `the ${layers} layers of ${of} that were measured`;
  return `The small maps of ${whose}, of at most ${finest} cells a side${coarser.length ? ` (${coarser.join(", ")})` : ""}; no head can be opened`;
}

export function heldWords({ matrix, cell, exact }: HeldInfo, atlas: AtlasInfo): string {
  const title = shownMatrix(matrix, atlas)?.title ?? matrix;
  const coarse = cell === 1 ? "" : ` in cells of ${cell} × ${cell} entries`;
  if (cell === 1) return `${title}: every entry`;
  const part = exact && `exact where queries ${span(exact[0])} meet keys ${span(exact[1])}`;
  return `${title}:${coarse}${part ? `, ${part}` : ""}`;
}

const span = ([from, end]: readonly [number, number]): string => `${whole(from)} – ${whole(end - 1)}`;
