/** One block of the text; its tokens are in the page only while it is near what is in sight. */

import { memo } from "preact/compat";
import { useLayoutEffect, useRef } from "preact/hooks";

import { Token } from "../parts/token";
import type { Chunk } from "./chunks";
import type { Shading } from "./shade";

export interface Marks {
  readonly selected: number | null;
  /** The other side of the selected entry. */
  readonly partner: number | null;
  readonly span: readonly [number, number] | null;
  readonly hits: ReadonlySet<number>;
  /** Where the answer is given that is explained. */
  readonly answers: number | null;
}

interface Props {
  readonly chunk: Chunk;
  readonly number: number;
  readonly tokens: readonly string[];
  readonly near: boolean;
  readonly height: number;
  readonly values: Float32Array | null;
  readonly shading: Shading | null;
  readonly marks: Marks;
  readonly aside: boolean;
  readonly onHeight: (number: number, height: number) => void;
}

/** Colours come in so many steps: finer ones nobody can tell apart, and equal ones are not set again. */
const STEPS = 24;

export const ChunkBlock = memo(
  function ChunkBlock({ chunk, number, tokens, near, height, values, shading, marks, aside, onHeight }: Props) {
    const place = useRef<HTMLDivElement>(null);
    useLayoutEffect(() => {
      if (near && place.current) onHeight(number, place.current.offsetHeight);
    });
    if (!near) return <div class="chunk" data-chunk={number} style={{ height: `${height}px` }} />;
    const shown = [];
    for (let i = chunk.start; i < chunk.stop; i++) {
      const value = values?.[i];
      const strength = shading && value !== undefined ? Math.round(shading.strength(value) * STEPS) / STEPS : 0;
      const kind = [
        "t",
        strength < 0 && "against",
        i === marks.selected && "selected",
        i === marks.partner && "partner",
        marks.span && marks.span[0] <= i && i < marks.span[1] && "spanned",
        marks.hits.has(i) && "hit",
        i === marks.answers && "answers",
        aside && i === 0 && values && "aside",
      ];
      shown.push(
        <span
          key={i}
          data-i={i}
          class={kind.filter(Boolean).join(" ")}
          style={strength === 0 ? undefined : { "--s": `${(100 * Math.abs(strength)).toFixed(0)}%` }}
        >
          <Token text={tokens[i] ?? ""} position={i} flow begins={i === chunk.start && i > 0} titled={false} />
        </span>,
      );
    }
    return (
      <div ref={place} class="chunk" data-chunk={number}>
        {shown}
      </div>
    );
  },
  (before, after) => {
    if (!before.near && !after.near) return before.height === after.height;
    return (Object.keys(after) as (keyof Props)[]).every((name) => name === "height" || before[name] === after[name]);
  },
);
