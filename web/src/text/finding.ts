/** What the search finds in the document that is open: one answer for the search box, the text and the keys. */

import type { ReadonlySignal } from "@preact/signals";
import { computed } from "@preact/signals";

import { valueOf } from "../state/loaded";
import type { Page } from "../state/page";
import { change, select, view } from "../state/view";
import type { Hit, Index } from "./search";
import { beside, indexOf, search } from "./search";

export class Finding {
  readonly tokens: ReadonlySignal<readonly string[] | null>;
  readonly hits: ReadonlySignal<readonly Hit[]>;
  /** Which hit the selection is, counted from 0; -1 if it is none. */
  readonly current: ReadonlySignal<number>;

  constructor(readonly page: Page) {
    // selecting changes the view, too, but not these: the text is searched only when it or the words change
    const capture = computed(() => view.value.capture);
    const wanted = computed(() => view.value.search);
    this.tokens = computed(() => valueOf(page.tokens(capture.value).value));
    const index = computed<Index | null>(() => (this.tokens.value ? indexOf(this.tokens.value) : null));
    this.hits = computed(() => (index.value && wanted.value ? search(index.value, wanted.value) : []));
    this.current = computed(() => {
      const { reading } = view.value;
      const at = this.tokenOf(reading, view.value[reading]);
      return at === null ? -1 : this.hits.value.findIndex((hit) => hit.start === at);
    });
  }

  /** Whether the document is still on its way. */
  waiting(): boolean {
    return this.page.tokens(view.value.capture).value.state === "waiting";
  }

  /** Queries may be the last tokens only; a token's position and its row then differ by this. */
  shift(): number {
    const { capture, layer } = view.peek();
    const layers = this.page.capture(capture)?.layers ?? [];
    const info = layers.find((known) => known.layer === layer) ?? layers[0];
    return info ? Math.max(0, info.keys - info.queries) : 0;
  }

  /** The token that a row or a column is. */
  tokenOf(side: "row" | "col", at: number | null): number | null {
    return at === null ? null : side === "row" ? at + this.shift() : at;
  }

  /** Select a token on the side that colours the text; not every token has a row. */
  pick(token: number): void {
    const row = token - this.shift();
    if (view.peek().reading === "row") {
      if (row >= 0) change((from) => select(row, from.col)(from));
    } else change((from) => select(from.row, token)(from));
  }

  /** Go to the next or the previous hit. */
  step(by: 1 | -1): void {
    const { reading } = view.peek();
    const at = this.tokenOf(reading, view.peek()[reading]) ?? (by > 0 ? -1 : Infinity);
    const hit = this.hits.peek()[beside(this.hits.peek(), at, by)];
    if (hit) this.pick(hit.start);
  }
}
