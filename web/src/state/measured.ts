/** What the server has measured of a capture's heads so far; it goes on measuring while somebody looks. */

import type { ReadonlySignal } from "@preact/signals";
import { signal } from "@preact/signals";

import type { StatisticsAnswer } from "../protocol";
import { paths } from "../protocol";
import type { Transport } from "../transport/transport";
import { isAbort } from "../transport/transport";
import { reasonOf } from "./loaded";
import { notify } from "./notices";

export type Measured = StatisticsAnswer;

const NOTHING: Measured = Object.freeze({ layers: {}, done: 0, of: 0, roles: {}, scores: [], complete: false });
const [SOON, OFTEN, SELDOM] = [600, 1500, 4000];

/** Asks for what was measured until all of it is; sooner when the server says that there is more. */
export class Measuring {
  readonly #measured = signal<Measured>(NOTHING);
  readonly #stop = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #asking = false;
  #again = false;
  #unlisten: () => void;

  constructor(
    readonly transport: Transport,
    readonly capture: string,
  ) {
    this.#unlisten = transport.onEvent((event) => {
      if (event.type === "error") notify(event.message, "error");
      else if (event.type !== "statistics" || event.capture === capture) void this.#ask();
    });
    void this.#ask();
  }

  get measured(): ReadonlySignal<Measured> {
    return this.#measured;
  }

  stop(): void {
    this.#unlisten();
    this.#stop.abort();
    clearTimeout(this.#timer);
  }

  async #ask(): Promise<void> {
    if (this.#asking) {
      this.#again = true;
      return;
    }
    this.#asking = true;
    clearTimeout(this.#timer);
    let wait = OFTEN;
    try {
      const answer = await this.transport.json(paths.statistics(this.capture), this.#stop.signal);
      const now = answer as StatisticsAnswer;
      const before = this.#measured.peek();
      // roles come when all layers are there
      const news = now.done !== before.done || now.of !== before.of || now.scores.length !== before.scores.length || now.complete !== before.complete;
      if (news) this.#measured.value = now;
      else wait = SELDOM;
    } catch (error) {
      if (isAbort(error)) return;
      notify(`The heads' statistics cannot be read: ${reasonOf(error)}`, "error");
      wait = Infinity;
    } finally {
      this.#asking = false;
    }
    if (this.#stop.signal.aborted || !Number.isFinite(wait) || this.#measured.peek().complete) return;
    this.#timer = setTimeout(() => void this.#ask(), this.#again ? SOON : wait);
    this.#again = false;
  }
}
