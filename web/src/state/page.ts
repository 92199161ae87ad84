/** What all parts of the page share besides the view: whom to ask, what there is, and what was already answered. */

import type { ReadonlySignal, Signal } from "@preact/signals";
import { signal } from "@preact/signals";
import { createContext } from "preact";
import { useContext } from "preact/hooks";

import { Explaining } from "../explain/jobs";
import type { AtlasInfo, CaptureInfo, Span, SpansAnswer, TokensAnswer } from "../protocol";
import { paths } from "../protocol";
import type { Transport } from "../transport/transport";
import type { Loaded } from "./loaded";
import { WAITING, fill } from "./loaded";
import type { Measured } from "./measured";
import { Measuring } from "./measured";

export class Page {
  readonly explaining: Explaining;
  readonly #tokens = new Map<string, Signal<Loaded<readonly string[] | null>>>();
  readonly #measuring = new Map<string, Measuring>();
  readonly #spans = new Map<string, Signal<Loaded<readonly Span[]>>>();

  constructor(
    readonly transport: Transport,
    readonly atlas: AtlasInfo,
  ) {
    this.explaining = new Explaining(transport);
    // what a page was saved with is there at once
    for (const { capture, ...asked } of atlas.explained ?? []) this.explaining.ask(capture, asked);
  }

  capture(id: string): CaptureInfo | null {
    return this.atlas.captures.find((capture) => capture.id === id) ?? null;
  }

  /** The tokens of a capture, null where it has none; asked for once. */
  tokens(capture: string): ReadonlySignal<Loaded<readonly string[] | null>> {
    return this.#once(this.#tokens, capture, async () => {
      const answer = (await this.transport.json(paths.tokens(capture))) as TokensAnswer;
      return answer.tokens;
    });
  }

  /** Sentences, lines, turns or functions of a capture; asked for once. */
  spans(capture: string, kind: string): ReadonlySignal<Loaded<readonly Span[]>> {
    return this.#once(this.#spans, `${capture} ${kind}`, async () => {
      const answer = (await this.transport.json(paths.spans(capture, kind))) as SpansAnswer;
      return answer.spans;
    });
  }

  /** What was measured of the heads of a capture so far. */
  measured(capture: string): ReadonlySignal<Measured> {
    let measuring = this.#measuring.get(capture);
    if (!measuring) this.#measuring.set(capture, (measuring = new Measuring(this.transport, capture)));
    return measuring.measured;
  }

  #once<T>(known: Map<string, Signal<Loaded<T>>>, key: string, ask: () => Promise<T>): ReadonlySignal<Loaded<T>> {
    const before = known.get(key);
    if (before) return before;
    const made = signal<Loaded<T>>(WAITING);
    known.set(key, made);
    fill(made, ask());
    return made;
  }
}

export const PageContext = createContext<Page | null>(null);

export function usePage(): Page {
  const page = useContext(PageContext);
  if (!page) throw new Error("this part of the page stands outside of it");
  return page;
}
