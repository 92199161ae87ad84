/** Something that was asked for: on its way, here, or refused with a reason. */

import type { Signal } from "@preact/signals";

import { isAbort } from "../transport/transport";

export type Loaded<T> =
  | { readonly state: "waiting" }
  | { readonly state: "here"; readonly value: T }
  | { readonly state: "refused"; readonly reason: string };

export const WAITING: Loaded<never> = Object.freeze({ state: "waiting" });

/** What came, or null. */
export const valueOf = <T>(loaded: Loaded<T>): T | null => (loaded.state === "here" ? loaded.value : null);

/** Put what comes into a signal; a request that was aborted leaves it alone. */
export function fill<T>(into: Signal<Loaded<T>>, coming: Promise<T>): void {
  coming.then(
    (value) => void (into.value = { state: "here", value }),
    (error: unknown) => {
      if (!isAbort(error)) into.value = { state: "refused", reason: reasonOf(error) };
    },
  );
}

export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
