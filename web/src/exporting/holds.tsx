/** What a page that was saved holds, said in its head: it is a part, and must not be taken for the whole. */

import { whole } from "../parts/numbers";
import type { AtlasInfo, HeldInfo } from "../protocol";
import { shownMatrix } from "../matrix/shown";

export function Holds({ atlas }: { readonly atlas: AtlasInfo }) {
  if (!atlas.excerpt) return null;
  return (
    <p class="holds">
      <b>A saved part.</b> {atlas.excerpt.map((held) => heldWords(held, atlas)).join("; ")}.
    </p>
  );
}

export function heldWords({ matrix, cell, exact }: HeldInfo, atlas: AtlasInfo): string {
  const title = shownMatrix(matrix, atlas)?.title ?? matrix;
  const coarse = cell === 1 ? "" : ` in cells of ${cell} × ${cell} entries`;
  if (cell === 1) return `${title}: every entry`;
  const part = exact && `exact where queries ${span(exact[0])} meet keys ${span(exact[1])}`;
  return `${title}:${coarse}${part ? `, ${part}` : ""}`;
}

const span = ([from, end]: readonly [number, number]): string => `${whole(from)} – ${whole(end - 1)}`;
