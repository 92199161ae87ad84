/** One head in the atlas, as what can be pressed and read: its map lies on the sheet below. Its name, where no axis says it. */

import { memo } from "preact/compat";

import { worded } from "../parts/numbers";
import type { StatisticInfo } from "../protocol";
import type { Measured } from "../state/measured";
import type { Spot } from "./layout";
import { has, statisticOf } from "./order";
import { BELOW } from "./sheet";

interface GroupProps {
  readonly spots: readonly Spot[];
  readonly size: number;
  readonly info: StatisticInfo | undefined;
  readonly role: string | null;
  readonly measured: Measured;
  readonly captions: boolean;
  /** Which of them the Tab key comes to, and which is marked, if it is one of them. */
  readonly first: string | undefined;
  readonly marked: string | undefined;
}

export const Cells = memo(function Cells({ spots, info, role, measured, first, marked, ...same }: GroupProps) {
  return (
    <>
      {spots.map((spot) => {
        const { head } = spot;
        const value = info ? statisticOf(head, info.name, measured) : null;
        return (
          <Cell
            key={head.label}
            spot={spot}
            said={value === null || !info ? null : worded(info.unit, value)}
            dimmed={has(head, role, measured) === null}
            first={head.label === first}
            marked={head.label === marked}
            {...same}
          />
        );
      })}
    </>
  );
});

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

const Cell = memo(function Cell({ spot, size, said, captions, dimmed, first, marked }: Props) {
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
