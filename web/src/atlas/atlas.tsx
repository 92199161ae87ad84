/** All heads of a capture at a glance: the page's home, and where a head is picked to compare with. */

import { useComputed } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import type { CaptureInfo } from "../protocol";
import { rampOf, rangeOf } from "../matrix/scales";
import { Reading } from "../parts/help";
import { hideHover, showHover } from "../parts/hover";
import { usePage } from "../state/page";
import { coloursOf } from "../state/theme";
import { usualScale, view } from "../state/view";
import { HeadHover } from "./card";
import { Cells } from "./cell";
import { AtlasControls } from "./controls";
import { grouped, layOut, towards, within } from "./layout";
import { Maps } from "./maps";
import { useBand, useGradually, useRoom } from "./room";
import { Sheet } from "./sheet";
import type { HeadPlace } from "./order";
import { has, headsOf, ordered, rangeOf as statisticRange, statisticOf } from "./order";

interface Props {
  readonly capture: CaptureInfo;
  readonly onPick: (layer: number, head: number) => void;
  /** A head that is marked: the one that another is compared with, or the one last open. */
  readonly marked?: string | undefined;
}

export function Atlas({ capture, onPick, marked }: Props) {
  const page = usePage();
  const measured = page.measured(capture.id).value;
  const shown = useComputed(() => {
    const { sort, role, reduce, scale, statistic, size } = view.value;
    return JSON.stringify({ sort, role, reduce, scale, statistic, size });
  }).value;
  const { sort, role, reduce, size, statistic, ...asked } = useMemo(() => view.peek(), [shown]);
  // a range that was fitted to one head is no measure for all of them; one that somebody has locked is meant
  const scale = useMemo(() => (asked.scale.locked ? asked.scale : usualScale(asked.scale.kind, reduce)), [asked.scale, reduce]);
  const info = [...page.atlas.statistics, ...measured.scores].find((known) => known.name === statistic) ?? page.atlas.statistics[0];
  const grid = useRef<HTMLDivElement>(null);
  const room = useRoom(grid);
  const canvas = useRef<HTMLCanvasElement>(null);
  const sheet = useRef<Sheet | null>(null);
  const maps = useMemo(() => new Maps(page.transport), [page]);
  useLayoutEffect(() => {
    if (!canvas.current) return undefined;
    const drawn = (sheet.current = new Sheet(canvas.current, maps));
    maps.onArrival = () => drawn.refresh();
    return () => {
      drawn.stop();
      maps.stop();
    };
  }, [maps]);
  useEffect(() => hideHover, []);

  const heads = useMemo(() => headsOf(capture), [capture]);
  const order = useMemo(() => ordered(heads, sort, measured), [heads, sort, sort === "layer" ? null : measured]);
  const aligned = sort === "layer" && role === null;
  const list = useMemo(
    () => (aligned ? order : order.filter((head) => has(head, role, measured) !== false)),
    [order, role, aligned, aligned ? null : measured],
  );
  // nothing is laid out before it is known how much room there is
  const layout = useMemo(() => layOut(room ? list : [], { ...(room ?? { width: 0, height: 0 }), size, aligned }), [list, room, size, aligned]);
  const band = useBand(grid);
  const wanted = useMemo(() => within(layout.spots, band.from, band.upTo, layout.cell), [layout, band]);
  const groups = useMemo(() => grouped(layout), [layout]);
  const inSight = useGradually(useMemo(() => groups.filter(({ top, bottom }) => bottom > band.from && top < band.upTo), [groups, band]), layout);
  const range = info && statisticRange(heads, info.name, measured);
  const colours = coloursOf(page.atlas, scale.kind === "lift" ? "lift" : "weight");
  const ramp = useMemo(() => rampOf(rangeOf(scale, false)), [scale]);
  const shareOf = (head: HeadPlace): number | null => {
    const value = info ? statisticOf(head, info.name, measured) : null;
    return value === null || !range ? null : range[1] > range[0] ? (value - range[0]) / (range[1] - range[0]) : 1;
  };
  useLayoutEffect(() => {
    const layers = [...new Set(wanted.map(({ head }) => head.layer))];
    maps.show({ capture: capture.id, reduce, ramp, colours, measured: (layer) => measured.layers[String(layer)] !== undefined }, layers);
    const drawn = wanted.map(({ head, x, y }) => ({ head, x, y, share: shareOf(head), dimmed: has(head, role, measured) === null }));
    sheet.current?.show({ layout, ...band, drawn });
  }, [maps, capture, reduce, ramp, colours, layout, wanted, band, role, measured, info]);

  const [focused, setFocused] = useState(marked);
  // Tab comes back to where it left, if that is in sight
  const holding = (label: string | undefined): (typeof inSight)[number] | undefined => inSight.find(({ spots }) => spots.some(({ head }) => head.label === label));
  const first = holding(focused) ? focused : inSight[0]?.spots[0]?.head.label;
  const [withFirst, withMarked] = [holding(first), holding(marked)];
  const spotOf = (target: EventTarget | null) => {
    const cell = target instanceof Element ? target.closest<HTMLElement>(".cell") : null;
    const spot = cell && layout.spots.find(({ head }) => head.label === cell.dataset["head"]);
    return cell && spot ? { cell, spot } : null;
  };
  const tell = (target: EventTarget | null): void => {
    const found = spotOf(target);
    if (!found) {
      hideHover();
      return;
    }
    const { head } = found.spot;
    showHover(
      found.cell.getBoundingClientRect(),
      <HeadHover head={head} maps={maps} statistics={page.atlas.statistics} measured={page.measured(capture.id).peek()} />,
    );
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const found = spotOf(event.target);
    if (!found || event.ctrlKey || event.metaKey || event.altKey) return;
    const next = towards(layout.spots, found.spot, event.key);
    if (!next) return;
    event.preventDefault();
    setFocused(next.head.label);
    grid.current?.querySelector<HTMLElement>(`[data-head="${next.head.label}"]`)?.focus();
  };
  return (
    <section class="atlas" aria-label="Atlas of all heads">
      {info && <AtlasControls measured={measured} statistic={info.name} colours={colours} scale={scale} />}
      <div
        ref={grid}
        class="grid"
        role="group"
        aria-label="Attention of every head"
        style={{ height: `${layout.height}px` }}
        onClick={(event) => {
          const found = spotOf(event.target);
          if (found) onPick(found.spot.head.layer.layer, found.spot.head.head);
        }}
        onPointerOver={(event) => event.pointerType !== "touch" && tell(event.target)}
        onPointerLeave={hideHover}
        onFocusIn={(event) => {
          const found = spotOf(event.target);
          if (found) setFocused(found.spot.head.label);
          if (event.target instanceof Element && event.target.matches(":focus-visible")) tell(event.target);
        }}
        onFocusOut={hideHover}
        onKeyDown={onKeyDown}
      >
        <canvas ref={canvas} class="sheet" aria-hidden="true" />
        {layout.labels.map(({ text, x, y, align }) => (
          <span key={`${text} ${x} ${y}`} class={`axis ${align}`} style={{ left: `${x}px`, top: `${y}px` }} aria-hidden="true">
            {text}
          </span>
        ))}
        {inSight.map((group) => (
          <Cells
            key={group.spots[0]?.head.label}
            spots={group.spots}
            size={layout.cell}
            info={info}
            role={role}
            measured={measured}
            captions={layout.captions}
            first={group === withFirst ? first : undefined}
            marked={group === withMarked ? marked : undefined}
          />
        ))}
      </div>
      {list.length === 0 && <p class="faint">No head is like that.</p>}
      <Reading />
    </section>
  );
}
