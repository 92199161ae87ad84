/** The transport of a page that `attlas view` serves. */

import type { ServerEvent } from "../protocol";
import { paths } from "../protocol";
import type { Transport } from "./transport";
import { RequestError } from "./transport";

/** How often a busy server is asked again before the page says so. */
const TRIES = 4;

export class HttpTransport implements Transport {
  readonly #listeners = new Set<(event: ServerEvent) => void>();
  #source: EventSource | null = null;

  async json(path: string, signal?: AbortSignal): Promise<unknown> {
    return (await this.#answer(path, signal)).json();
  }

  async bytes(path: string, signal?: AbortSignal): Promise<ArrayBuffer> {
    return (await this.#answer(path, signal)).arrayBuffer();
  }

  onEvent(listener: (event: ServerEvent) => void): () => void {
    this.#listeners.add(listener);
    this.#source ??= this.#listen();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size > 0) return;
      this.#source?.close();
      this.#source = null;
    };
  }

  async #answer(path: string, signal?: AbortSignal): Promise<Response> {
    for (let left = TRIES; ; left--) {
      const response = await fetch(path, signal ? { signal } : {});
      if (response.ok) return response;
      if (response.status !== 503 || left === 0) throw await refusal(response);
      await pause(1000 * Number(response.headers.get("Retry-After") ?? 1), signal);
    }
  }

  #listen(): EventSource {
    const source = new EventSource(paths.events());
    for (const type of ["statistics", "done", "roles", "error"] as const) {
      source.addEventListener(type, (message: Event) => {
        // the browser's own "error" (the connection was lost; it tries again) carries no data
        if (!(message instanceof MessageEvent) || typeof message.data !== "string") return;
        const said = { ...(JSON.parse(message.data) as object), type } as ServerEvent;
        for (const listener of this.#listeners) listener(said);
      });
    }
    return source;
  }
}

async function refusal(response: Response): Promise<RequestError> {
  if (response.status === 401) {
    return new RequestError(401, "This page has no key to the server: open the address that the command printed.");
  }
  const said: unknown = await response.json().catch(() => null);
  const reason = said !== null && typeof said === "object" && "error" in said ? String(said.error) : response.statusText;
  return new RequestError(response.status, reason);
}

function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(new DOMException("nobody waits for this any more", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
