/** Opening a head, wherever one is named. */

import type { AtlasInfo } from "../protocol";
import { notify } from "./notices";
import { change, openHead } from "./view";

export const NOT_HELD = "This file holds only a part: the small maps of the heads, none of which can be opened.";

/** Open a head; a page that was saved from the atlas holds none, and says so. */
export function open(atlas: AtlasInfo, layer: number, head: number): void {
  if (atlas.maps) notify(NOT_HELD);
  else change(openHead(layer, head));
}
