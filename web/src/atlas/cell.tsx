/** One head in the atlas, as what can be pressed and read: its map lies on the sheet below. Its name, where no axis says it. */

import { memo } from "preact/compat";

import type { Spot } from "./layout";
import { BELOW } from "./sheet";

interface Props {
  readonly spot: Spot;
  readonly size: number;
  /** The statistic in words. */
  readonly said: string | null;
  readonly captions: boolean;
  readonly dimmed: boolean;
  readonly first: boolean;
  readonly marked: boolean;
}

export const Cell = memo(function Cell({ spot, size, said, captions, dimmed, first, marked }: Props) {
  const { head } = spot;
  const kind = ["cell", dimmed && "dimmed", marked && "marked"].filter(Boolean).join(" ");
  return (
    <button
      type="button"
      class={kind}
      data-head={head.label}
      tabIndex={first ? 0 : -1}
      aria-label={`Layer ${head.layer.layer}, head ${head.head}${said === null ? "" : `, ${said}`}`}
      style={{ left: `${spot.x}px`, top: `${spot.y}px`, width: `${size}px`, paddingTop: `${size + BELOW}px` }}
    >
      {captions && (
        <span class="caption">
          <b>{head.label}</b>
          {size > 60 && said !== null && <span>{said}</span>}
        </span>
      )}
    </button>
  );
});
