/** The colours and the numbers they stand for, with a handle at either end of the range. */

import { useEffect, useRef } from "preact/hooks";

import { Icon } from "../parts/icon";
import { change, view, withLock, withRange } from "../state/view";
import type { Range } from "./scales";
import { brief, ticksOf, valueAt } from "./scales";
import type { Shared } from "./shared";

interface Props {
  readonly shared: Shared;
  readonly unit: string;
  readonly onFit: () => void;
}

/** How far beyond its present range a bar reaches on either side, so that there is somewhere to drag a handle to. */
const BEYOND = 0.12;

export function ColourBar({ shared, unit, onFit }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const bar = useRef<HTMLDivElement>(null);
  const range = shared.range.value;
  const colours = shared.colours();
  useEffect(() => {
    if (canvas.current) drawBar(canvas.current, colours);
  }, [colours]);
  const { locked } = view.value.scale;
  return (
    <div class="map-scale">
      <span class="map-unit">{unit}</span>
      <span class="map-range">
        <button type="button" class="plain" title="Fit the range to the whole matrix" onClick={onFit}>
          fit
        </button>
        <button
          type="button"
          class="plain"
          aria-pressed={locked}
          title="Keep this range when another matrix is opened"
          aria-label="Lock the range"
          onClick={() => change(withLock(!locked))}
        >
          <Icon name="locked" />
        </button>
      </span>
      <div class="map-bar" ref={bar}>
        <canvas ref={canvas} width={1} height={256} aria-hidden="true" />
        {ticksOf(range, 9).map(({ place, label }) => (
          <span key={label} class="map-tick" style={{ bottom: `${100 * inBar(place)}%` }}>
            {label}
          </span>
        ))}
        <Handle end="low" range={range} bar={bar} />
        <Handle end="high" range={range} bar={bar} />
      </div>
    </div>
  );
}

const inBar = (place: number): number => (BEYOND + place) / (1 + 2 * BEYOND);
const inRange = (share: number): number => share * (1 + 2 * BEYOND) - BEYOND;

function drawBar(canvas: HTMLCanvasElement, colours: Uint32Array): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  const image = new ImageData(1, 256);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < 256; i++) pixels[255 - i] = colours[Math.min(255, Math.max(0, Math.round(inRange((i + 0.5) / 256) * 255)))] ?? 0;
  context.putImageData(image, 0, 0);
}

interface HandleProps {
  readonly end: "low" | "high";
  readonly range: Range;
  readonly bar: { readonly current: HTMLDivElement | null };
}

function Handle({ end, range, bar }: HandleProps) {
  // what the bar meant when the drag began: it is laid out anew with each step, and would run away from the pointer
  const start = useRef<{ readonly range: Range; readonly box: DOMRect } | null>(null);
  const value = end === "low" ? range.low : range.high;
  const onKey = (event: KeyboardEvent): void => {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!steps) return;
    event.preventDefault();
    event.stopPropagation();
    change(moved(range, end, valueAt(range, (end === "low" ? 0 : 1) + steps / 50)));
  };
  return (
    <span
      class={`map-handle ${end}`}
      style={{ bottom: `${100 * inBar(end === "low" ? 0 : 1)}%` }}
      role="slider"
      aria-orientation="vertical"
      tabIndex={0}
      aria-label={end === "low" ? "Lower end of the colours" : "Upper end of the colours"}
      aria-valuenow={value}
      aria-valuetext={brief(value, range.kind === "lift")}
      title={brief(value, range.kind === "lift")}
      onKeyDown={onKey}
      onPointerDown={(event) => {
        if (!bar.current) return;
        event.currentTarget.setPointerCapture(event.pointerId);
        start.current = { range, box: bar.current.getBoundingClientRect() };
      }}
      onPointerMove={(event) => {
        if (!start.current) return;
        const { range: before, box } = start.current;
        const place = inRange(Math.min(1, Math.max(0, (box.bottom - event.clientY) / box.height)));
        change(moved(range, end, valueAt(before, place)));
      }}
      onPointerUp={() => (start.current = null)}
      onPointerCancel={() => (start.current = null)}
    />
  );
}

/** The range with one end elsewhere. A signed range keeps its middle, so its two ends move together. */
function moved(range: Range, end: "low" | "high", value: number): ReturnType<typeof withRange> {
  if (range.signed) {
    const far = Math.max(Math.abs(value), 1e-12);
    return range.kind === "log" ? withRange(Math.min(range.low, far / 10), far) : withRange(-far, far);
  }
  return end === "low" ? withRange(Math.min(value, range.high * 0.98), range.high) : withRange(range.low, value);
}
