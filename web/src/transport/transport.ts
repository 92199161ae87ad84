/** How paths reach whoever answers them: over HTTP, over a notebook's comm, or out of an exported file. */

import type { ServerEvent } from "../protocol";

export interface Transport {
  /** Ask for JSON; the caller names the type that `protocol.ts` gives for the path. */
  json(path: string, signal?: AbortSignal): Promise<unknown>;
  /** Ask for bytes. */
  bytes(path: string, signal?: AbortSignal): Promise<ArrayBuffer>;
  /** Listen to what is said unasked; returns a function that stops listening. */
  onEvent(listener: (event: ServerEvent) => void): () => void;
}

/** An answer that is a refusal, with the one sentence that the server gave. */
export class RequestError extends Error {
  override readonly name = "RequestError";

  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** Whether an error only says that nobody waits for the answer any more. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** Lets the newest request of a kind go on and aborts the one before. */
export class Latest {
  #running: AbortController | null = null;

  next(): AbortSignal {
    this.#running?.abort();
    this.#running = new AbortController();
    return this.#running.signal;
  }

  stop(): void {
    this.#running?.abort();
    this.#running = null;
  }
}
