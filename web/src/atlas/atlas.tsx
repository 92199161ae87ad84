/** All heads of a capture at a glance: the page's home, and where a head is picked to compare with. */

import { useComputed } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import type { CaptureInfo } from "../protocol";
import { rampOf, rangeOf } from "../matrix/scales";
import { Reading } from "../parts/help";
import { hideHover, showHover } from "../parts/hover";
import { worded } from "../parts/numbers";
import { usePage } from "../state/page";
import { coloursOf, theme } from "../state/theme";
import { usualScale, view } from "../state/view";
import { HeadHover } from "./card";
import { Cell } from "./cell";
import { AtlasControls } from "./controls";
import { layOut, towards, within } from "./layout";
import { Maps } from "./maps";
import { useBand, useGradually, useRoom } from "./room";
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
  const maps = useMemo(() => new Maps(page.transport, null), [page]);
  useEffect(() => () => maps.stop(), [maps]);
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
  const inSight = useGradually(wanted, layout);
  const range = info && statisticRange(heads, info.name, measured);
  const colours = coloursOf(page.atlas, scale.kind === "lift" ? "lift" : "weight");
  useLayoutEffect(() => {
    maps.show({
      capture: capture.id,
      reduce,
      ramp: rampOf(rangeOf(scale, false)),
      colours,
      pixels: layout.cell * devicePixelRatio,
      measured: (layer) => measured.layers[String(layer)] !== undefined,
    });
  }, [maps, capture, reduce, scale, colours, layout.cell, measured, theme.value]);

  const [focused, setFocused] = useState(marked);
  // Tab comes back to where it left, if that is in sight
  const first = inSight.some(({ head }) => head.label === focused) ? focused : inSight[0]?.head.label;
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
        {layout.labels.map(({ text, x, y, align }) => (
          <span key={`${text} ${x} ${y}`} class={`axis ${align}`} style={{ left: `${x}px`, top: `${y}px` }} aria-hidden="true">
            {text}
          </span>
        ))}
        {inSight.map((spot) => {
          const { head } = spot;
          const value = info ? statisticOf(head, info.name, measured) : null;
          return (
            <Cell
              key={head.label}
              spot={spot}
              maps={maps}
              size={layout.cell}
              share={value === null || !range ? null : range[1] > range[0] ? (value - range[0]) / (range[1] - range[0]) : 1}
              said={value === null || !info ? null : worded(info.unit, value)}
              captions={layout.captions}
              dimmed={has(head, role, measured) === null}
              first={head.label === first}
              marked={head.label === marked}
            />
          );
        })}
      </div>
      {list.length === 0 && <p class="faint">No head is like that.</p>}
      <Reading />
    </section>
  );
}
