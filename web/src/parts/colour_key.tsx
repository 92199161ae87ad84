/** What the colours mean: a bar of them with its numbers. */

import { useLayoutEffect, useRef } from "preact/hooks";

import { rangeOf, ticksOf } from "../matrix/scales";
import type { Scale } from "../state/view";

interface Props {
  readonly colours: Uint32Array;
  readonly scale: Scale;
}

export function ColourKey({ colours, scale }: Props) {
  const bar = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(() => {
    const context = bar.current?.getContext("2d");
    if (!context) return;
    const image = context.createImageData(256, 1);
    new Uint32Array(image.data.buffer).set(colours.subarray(0, 256));
    context.putImageData(image, 0, 0);
  }, [colours]);
  const ticks = ticksOf(rangeOf(scale, false), 5);
  return (
    <div class="colour-key" role="img" aria-label={`colours from ${ticks[0]?.label ?? ""} to ${ticks.at(-1)?.label ?? ""}`}>
      <canvas ref={bar} width={256} height={1} />
      <div class="ticks">
        {ticks.map(({ place, label }) => (
          <span key={label} style={{ left: `${(100 * place).toFixed(2)}%` }}>
            {scale.kind === "lift" && label !== "…" ? `${label}×` : label}
          </span>
        ))}
      </div>
    </div>
  );
}
