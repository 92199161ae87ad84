/** The explanations that were asked for: on their way, found, refused or called off. */

import type { ReadonlySignal } from "@preact/signals";
import { signal } from "@preact/signals";

import { paths } from "../protocol";
import type { Loaded } from "../state/loaded";
import { WAITING, fill, reasonOf } from "../state/loaded";
import type { Explained } from "../state/view";
import { explainedName } from "../state/view";
import type { Transport } from "../transport/transport";
import { isAbort } from "../transport/transport";
import type { Explanation, JobAnswer, MethodsAnswer, Progress } from "./answer";
import { Pace } from "./pace";

export interface Job {
  readonly capture: string;
  readonly asked: Explained;
  /** What the server calls it; null before it has answered. */
  readonly number: string | null;
  readonly state: JobAnswer["state"];
  readonly progress: Progress;
  /** Seconds until the present step is done; null while that cannot be told. */
  readonly left: number | null;
  readonly error: string | null;
  readonly found: Explanation | null;
}

const NOTHING: Progress = { done: 0, total: 0, what: "" };
/** Milliseconds between looks at how far one is: short ones are there at once, long ones are not bothered. */
const [SOON, LATER] = [200, 1000];

export const isOver = (job: Job): boolean => job.state !== "waiting" && job.state !== "running";

export class Explaining {
  readonly #jobs = signal<readonly Job[]>([]);
  readonly #methods = signal<Loaded<MethodsAnswer>>(WAITING);
  readonly #stops = new Map<string, { readonly controller: AbortController; number: string | null }>();
  #asked = false;

  constructor(
    readonly transport: Transport,
    readonly now: () => number = () => performance.now() / 1000,
  ) {}

  /** All that were asked for, in their order. */
  get jobs(): ReadonlySignal<readonly Job[]> {
    return this.#jobs;
  }

  /** What can be asked for; the server is asked when somebody first wants to know. */
  get methods(): ReadonlySignal<Loaded<MethodsAnswer>> {
    if (!this.#asked) {
      this.#asked = true;
      fill(this.#methods, this.transport.json(paths.explanations()) as Promise<MethodsAnswer>);
    }
    return this.#methods;
  }

  find(capture: string, asked: Explained | null): Job | null {
    return (asked && this.#jobs.value.find((job) => keyOf(job) === keyOf({ capture, asked }))) ?? null;
  }

  /** Ask for one; what is found or under way stays, what failed or was called off is tried again. */
  ask(capture: string, asked: Explained): void {
    const known = this.#jobs.peek().find((job) => keyOf(job) === keyOf({ capture, asked }));
    if (known && (!isOver(known) || known.state === "done")) return;
    const job: Job = { capture, asked, number: null, state: "waiting", progress: NOTHING, left: null, error: null, found: null };
    if (known) this.#put(job);
    else this.#jobs.value = [...this.#jobs.peek(), job];
    void this.#follow(job);
  }

  /** Call one off. */
  cancel(job: Job): void {
    const running = this.#stops.get(keyOf(job));
    running?.controller.abort();
    this.#stops.delete(keyOf(job));
    if (running?.number) this.#tell(running.number);
    this.#put({ ...job, state: "cancelled", left: null });
  }

  /** Take one off the list, and call it off if it is under way. */
  remove(job: Job): void {
    if (!isOver(job)) this.cancel(job);
    this.#jobs.value = this.#jobs.peek().filter((one) => keyOf(one) !== keyOf(job));
  }

  stop(): void {
    for (const { controller } of this.#stops.values()) controller.abort();
    this.#stops.clear();
  }

  /** Tell the server that one is not wanted; if that does not arrive, it notices by itself after a while. */
  #tell(number: string): void {
    this.transport.json(paths.cancelExplanation(number)).catch(() => undefined);
  }

  async #follow(job: Job): Promise<void> {
    const running = { controller: new AbortController(), number: null as string | null };
    const { signal: gone } = running.controller;
    this.#stops.set(keyOf(job), running);
    const pace = new Pace();
    const { method, target, budget } = job.asked;
    try {
      let told = (await this.transport.json(paths.startExplanation(job.capture, method, target, budget))) as JobAnswer;
      running.number = told.id;
      for (let looks = 0; ; looks++) {
        if (gone.aborted) {
          this.#tell(told.id);
          return;
        }
        const { state, progress, error, explanation } = told;
        const left = state === "running" ? pace.left(this.now(), progress) : null;
        const now: Job = { ...job, number: told.id, state, progress, left, error, found: explanation };
        this.#put(now);
        if (isOver(now)) break;
        await new Promise((resolve) => setTimeout(resolve, looks < 5 ? SOON : LATER));
        told = (await this.transport.json(paths.explanation(told.id), gone)) as JobAnswer;
      }
    } catch (error) {
      if (!isAbort(error)) this.#put({ ...job, state: "failed", error: reasonOf(error) });
    }
    if (this.#stops.get(keyOf(job)) === running) this.#stops.delete(keyOf(job));
  }

  #put(job: Job): void {
    this.#jobs.value = this.#jobs.peek().map((one) => (keyOf(one) === keyOf(job) ? job : one));
  }
}

export const keyOf = ({ capture, asked }: Pick<Job, "capture" | "asked">): string => `${capture}/${explainedName(asked)}`;
