/** One head in the atlas: its small map, how large the chosen statistic is, and its name where no axis says it. */

import { memo } from "preact/compat";
import { useLayoutEffect, useRef } from "preact/hooks";

import type { Maps } from "./maps";
import type { Spot } from "./layout";

interface Props {
  readonly spot: Spot;
  readonly maps: Maps;
  readonly size: number;
  /** How far along its range the statistic is, 0 to 1; null while it is not measured. */
  readonly share: number | null;
  /** The statistic in words. */
  readonly said: string | null;
  readonly captions: boolean;
  readonly dimmed: boolean;
  readonly first: boolean;
  readonly marked: boolean;
}

export const Cell = memo(function Cell({ spot, maps, size, share, said, captions, dimmed, first, marked }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const { head } = spot;
  useLayoutEffect(() => (canvas.current ? maps.attach(canvas.current, head.layer, head.head) : undefined), [maps, head]);
  const kind = ["cell", dimmed && "dimmed", marked && "marked"].filter(Boolean).join(" ");
  return (
    <button
      type="button"
      class={kind}
      data-head={head.label}
      tabIndex={first ? 0 : -1}
      aria-label={`Layer ${head.layer.layer}, head ${head.head}${said === null ? "" : `, ${said}`}`}
      style={{ left: `${spot.x}px`, top: `${spot.y}px`, width: `${size}px` }}
    >
      {/* a canvas is large before it is painted; a thousand of them would be 200 MB of nothing */}
      <canvas ref={canvas} width={1} height={1} style={{ width: `${size}px`, height: `${size}px` }} />
      <span class="amount">{share !== null && <i style={{ width: `${(100 * share).toFixed(1)}%` }} />}</span>
      {captions && (
        <span class="caption">
          <b>{head.label}</b>
          {size > 60 && said !== null && <span>{said}</span>}
        </span>
      )}
    </button>
  );
});
