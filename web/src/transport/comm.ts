/** The transport of a page inside of a notebook: questions and answers are messages over a port, which a widget carries on to Python. */

import type { ServerEvent } from "../protocol";
import type { Transport } from "./transport";
import { RequestError } from "./transport";

/** What the page says. */
export type Said =
  | { readonly kind: "ask"; readonly id: number; readonly path: string; readonly query: Readonly<Record<string, string>> }
  | { readonly kind: "cancel"; readonly id: number }
  | { readonly kind: "listen" };

/** What it is told. */
export type Told =
  | { readonly kind: "answer"; readonly id: number; readonly status: number; readonly type: string; readonly body: ArrayBuffer }
  | { readonly kind: "event"; readonly event: ServerEvent };

/** A message channel's end, or what is like one. */
export interface Port {
  postMessage(message: Said): void;
  onmessage: ((message: MessageEvent<Told>) => unknown) | null;
}

interface Waiting {
  readonly resolve: (body: ArrayBuffer) => void;
  readonly reject: (reason: Error) => void;
}

export class CommTransport implements Transport {
  readonly #port: Port;
  readonly #waiting = new Map<number, Waiting>();
  readonly #listeners = new Set<(event: ServerEvent) => void>();
  #next = 1;
  #listening = false;

  constructor(port: Port) {
    this.#port = port;
    port.onmessage = (message) => this.#hear(message.data);
  }

  async json(path: string, signal?: AbortSignal): Promise<unknown> {
    return JSON.parse(new TextDecoder().decode(await this.bytes(path, signal)));
  }

  bytes(path: string, signal?: AbortSignal): Promise<ArrayBuffer> {
    return new Promise((resolve, reject) => {
      const gone = (): void => {
        this.#waiting.delete(id);
        this.#port.postMessage({ kind: "cancel", id });
        reject(new DOMException("nobody waits for this any more", "AbortError"));
      };
      const settled = (): void => {
        signal?.removeEventListener("abort", gone);
      };
      const id = this.#next++;
      if (signal?.aborted) {
        reject(new DOMException("nobody waits for this any more", "AbortError"));
        return;
      }
      this.#waiting.set(id, {
        resolve: (body) => {
          settled();
          resolve(body);
        },
        reject: (reason) => {
          settled();
          reject(reason);
        },
      });
      signal?.addEventListener("abort", gone, { once: true });
      const [plain = "", query = ""] = path.split("?", 2);
      this.#port.postMessage({ kind: "ask", id, path: plain, query: Object.fromEntries(new URLSearchParams(query)) });
    });
  }

  onEvent(listener: (event: ServerEvent) => void): () => void {
    this.#listeners.add(listener);
    if (!this.#listening) {
      this.#listening = true;
      this.#port.postMessage({ kind: "listen" });
    }
    return () => void this.#listeners.delete(listener);
  }

  #hear(told: Told): void {
    if (told.kind === "event") {
      for (const listener of this.#listeners) listener(told.event);
      return;
    }
    const waiting = this.#waiting.get(told.id);
    if (!waiting) return;
    this.#waiting.delete(told.id);
    if (told.status === 200) waiting.resolve(told.body);
    else waiting.reject(new RequestError(told.status, reasonOf(told.body)));
  }
}

function reasonOf(body: ArrayBuffer): string {
  try {
    const said: unknown = JSON.parse(new TextDecoder().decode(body));
    if (said !== null && typeof said === "object" && "error" in said) return String(said.error);
  } catch {
    // not JSON: what it says is not for people
  }
  return "The notebook could not answer this.";
}
