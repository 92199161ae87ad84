/** The document, coloured by what the selected token looks at, or by what looks at it. */

import { useSignal } from "@preact/signals";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import { hideHover, showHover } from "../parts/hover";
import { quoted } from "../parts/glyphs";
import { figures, weight } from "../parts/numbers";
import { valueOf } from "../state/loaded";
import { usePage } from "../state/page";
import type { Reading } from "../state/reading";
import { change, view } from "../state/view";
import { ChunkBlock } from "./chunk";
import { chunkAt, chunksOf, guessedHeight } from "./chunks";
import type { Finding } from "./finding";
import { scoreShading, shadingOf } from "./shade";

interface Props {
  readonly tokens: readonly string[];
  readonly reading: Reading | null;
  readonly finding: Finding;
  readonly onSelect: (token: number) => void;
}

/** Blocks this far above and below what is in sight are in the page. */
const MARGIN = "600px 0px";
const [PER_LINE, LINE] = [52, 22];

export function Text({ tokens, reading, finding, onSelect }: Props) {
  const page = usePage();
  const { capture, shade, sink, row, col, reading: side, spans: kind } = view.value;
  const hits = finding.hits.value;
  const spans = kind === null ? null : valueOf(page.spans(capture, kind).value);
  const scroller = useRef<HTMLDivElement>(null);
  const chunks = useMemo(() => chunksOf(tokens), [tokens]);
  const heights = useRef(new Map<number, number>());
  const [near, setNear] = useState<ReadonlySet<number>>(new Set());
  const chosen = useSignal<number | null>(null); // which token Tab comes back to
  const selected = finding.tokenOf(side, side === "row" ? row : col);
  const partner = side === "row" ? finding.tokenOf("col", col) : finding.tokenOf("row", row);

  const shift = reading?.by === "col" ? finding.shift() : 0;
  const values = useMemo(() => reading && placed(reading.values, shift), [reading, shift]);
  // attention to the first token is set aside; what the first token itself looks at never is, nor what explains
  const explains = reading?.by === "explanation";
  const aside = sink && reading?.by !== "col" && !explains;
  const full = reading?.full;
  const shading = useMemo(
    () => (values === null ? null : full === undefined ? shadingOf(values, shade, aside) : scoreShading(full)),
    [values, shade, aside, full],
  );
  const answers = explains && reading.at >= 0 ? reading.at : null;
  const hitTokens = useMemo(() => new Set(hits.flatMap((hit) => Array.from({ length: hit.stop - hit.start }, (_, i) => hit.start + i))), [hits]);
  const span = selected === null ? undefined : spans?.find(({ start, stop }) => start <= selected && selected < stop);
  const marks = useMemo(
    () => ({ selected, partner, span: span ? ([span.start, span.stop] as const) : null, hits: hitTokens, answers }),
    [selected, partner, span, hitTokens, answers],
  );
  const onHeight = useCallback((number: number, height: number) => void heights.current.set(number, height), []);

  useEffect(() => {
    const frame = scroller.current;
    if (!frame) return;
    heights.current.clear();
    const coming = new Set<number>();
    let next = 0;
    const bring = (): void => {
      // one with each frame, so that nothing else has to wait for all of them
      const [first = 0] = coming;
      coming.delete(first);
      setNear((before) => new Set([...before, first]));
      next = coming.size > 0 ? requestAnimationFrame(bring) : 0;
    };
    const watcher = new IntersectionObserver(
      (entries) => {
        const gone: number[] = [];
        for (const entry of entries) {
          const number = Number((entry.target as HTMLElement).dataset["chunk"]);
          if (entry.isIntersecting) coming.add(number);
          else if (!coming.delete(number)) gone.push(number);
        }
        if (gone.length > 0) setNear((before) => new Set([...before].filter((number) => !gone.includes(number))));
        if (coming.size > 0) next ||= requestAnimationFrame(bring);
      },
      { root: frame, rootMargin: MARGIN },
    );
    for (const block of frame.querySelectorAll(".chunk")) watcher.observe(block);
    return () => {
      watcher.disconnect();
      cancelAnimationFrame(next);
    };
  }, [chunks]);

  // a selection that came from elsewhere is brought into sight; its block may have to be put into the page first
  const own = useRef<number | null>(null);
  useLayoutEffect(() => {
    if (selected === null || own.current === selected) return;
    own.current = null;
    const number = chunkAt(chunks, selected);
    const frame = scroller.current;
    if (!frame) return;
    if (!near.has(number)) {
      setNear((before) => new Set(before).add(number));
      return;
    }
    const token = frame.querySelector<HTMLElement>(`[data-i="${selected}"]`);
    if (!token) return;
    own.current = selected;
    const [box, around] = [token.getBoundingClientRect(), frame.getBoundingClientRect()];
    if (box.top < around.top + 24 || box.bottom > around.bottom - 24) frame.scrollTop += box.top - around.top - frame.clientHeight / 3;
  }, [selected, chunks, near]);

  const tokenOf = (target: EventTarget | null): { readonly element: HTMLElement; readonly i: number } | null => {
    const element = target instanceof Element ? target.closest<HTMLElement>(".t") : null;
    return element ? { element, i: Number(element.dataset["i"]) } : null;
  };
  const pick = (i: number): void => {
    own.current = i; // it is where the pointer is, and nothing need move
    onSelect(i);
  };
  const tell = (target: EventTarget | null): void => {
    const found = tokenOf(target);
    if (!found) {
      hideHover();
      return;
    }
    const value = values?.[found.i];
    showHover(
      found.element.getClientRects()[0] ?? found.element.getBoundingClientRect(),
      <dl class="token-hover">
        <dt>token {found.i}</dt>
        <dd>
          <code>{quoted(tokens[found.i] ?? "")}</code>
        </dd>
        {reading && value !== undefined && !Number.isNaN(value) && [<dt key="what">{WHAT[reading.by]}</dt>, <dd key="value">{numberWords(reading.by, value)}</dd>]}
      </dl>,
    );
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = chosen.peek() ?? selected ?? 0;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tokens.length - 1 }[event.key] ?? lineFrom(scroller.current, at, event.key);
    if (event.key === "Enter" || event.key === " ") pick(at);
    else if (to === null || to < 0 || to >= tokens.length) return;
    else {
      chosen.value = to;
      own.current = null;
      onSelect(to);
    }
    event.preventDefault();
  };
  return (
    <div
      ref={scroller}
      class="text"
      role="application"
      aria-roledescription="document"
      aria-label={`The document, ${tokens.length} tokens; arrows move the selected token`}
      tabIndex={0}
      onClick={(event) => {
        const found = tokenOf(event.target);
        if (!found) return;
        chosen.value = found.i;
        if (found.i === selected) change((from) => (side === "row" ? { ...from, row: null } : { ...from, col: null }));
        else pick(found.i);
      }}
      onPointerOver={(event) => event.pointerType !== "touch" && tell(event.target)}
      onPointerLeave={hideHover}
      onScroll={hideHover}
      onKeyDown={onKeyDown}
    >
      {chunks.map((chunk, number) => (
        <ChunkBlock
          key={chunk.start}
          chunk={chunk}
          number={number}
          tokens={tokens}
          near={near.has(number)}
          height={heights.current.get(number) ?? guessedHeight(chunk, PER_LINE, LINE)}
          values={values}
          shading={shading}
          marks={marks}
          aside={aside}
          onHeight={onHeight}
        />
      ))}
    </div>
  );
}

/** Numbers of queries, put where the queries stand in the text when they are only its last tokens. */
function placed(values: Float32Array, shift: number): Float32Array {
  if (shift === 0) return values;
  const all = new Float32Array(shift + values.length).fill(NaN);
  all.set(values, shift);
  return all;
}

const WHAT = { row: "attended to", col: "attends", received: "receives", explanation: "score" } as const;

function numberWords(by: Reading["by"], value: number): string {
  if (by === "explanation") return figures(value, 4);
  return by === "received" ? figures(value, 4) : `${weight(value)}  (${value.toPrecision(5)})`;
}

/** The token one line above or below, nearest to where a token stands; null where its block is not in the page. */
function lineFrom(frame: HTMLElement | null, at: number, key: string): number | null {
  const by = key === "ArrowDown" ? 1 : key === "ArrowUp" ? -1 : 0;
  const from = frame?.querySelector<HTMLElement>(`[data-i="${at}"]`)?.getClientRects()[0];
  if (!by || !frame || !from) return null;
  let [best, least, line] = [null as number | null, Infinity, NaN];
  for (let i = at + by; ; i += by) {
    const box = frame.querySelector<HTMLElement>(`[data-i="${i}"]`)?.getClientRects()[0];
    if (!box) return best;
    if (by * (box.top - from.top) < from.height / 2) continue;
    if (Number.isNaN(line)) line = box.top;
    if (Math.abs(box.top - line) > from.height / 2) return best;
    const far = Math.abs(box.left + box.width / 2 - from.left - from.width / 2);
    if (far < least) [best, least] = [i, far];
  }
}
