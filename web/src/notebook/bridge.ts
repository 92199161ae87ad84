/** Carries what one page says to the widget's model in Python, and the answers back; each page has numbers of its own. */

import type { Said, Told } from "../transport/comm";

/** What this needs of anywidget's model. */
export interface Model {
  get(name: string): unknown;
  send(message: unknown): void;
  on(event: "msg:custom", listener: (message: unknown, buffers: readonly DataView[]) => void): void;
  off(event: "msg:custom", listener: (message: unknown, buffers: readonly DataView[]) => void): void;
}

/** The end of the channel that is not the page's. */
export interface FarPort {
  postMessage(message: Told, transfer: ArrayBuffer[]): void;
  onmessage: ((message: MessageEvent<Said>) => unknown) | null;
}

/** Questions of one page: more than anyone asks. */
const ROOM = 2 ** 20;

/**
 * Connect a page to the model; returns a function that takes the page away.
 *
 * Several pages may show the same model, in other cells and other windows, and all of them hear every message. So the numbers of a
 * page's questions lie in a range that was drawn for it.
 */
export function connect(model: Model, port: FarPort, drawn = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0): () => void {
  const first = drawn * ROOM;
  const hear = (message: unknown, buffers: readonly DataView[]): void => {
    const told = message as { kind?: string; id?: number; status?: number; type?: string; event?: never };
    if (told.kind === "event") port.postMessage({ kind: "event", event: told.event as never }, []);
    if (told.kind !== "answer" || told.id === undefined || told.id < first || told.id >= first + ROOM) return;
    const body = copied(buffers[0]);
    port.postMessage(
      { kind: "answer", id: told.id - first, status: told.status ?? 500, type: told.type ?? "", body },
      [body],
    );
  };
  model.on("msg:custom", hear);
  port.onmessage = ({ data }) => model.send("id" in data ? { ...data, id: first + (data.id % ROOM) } : data);
  model.send({ kind: "open", view: drawn });
  return () => {
    model.off("msg:custom", hear);
    port.onmessage = null;
    model.send({ kind: "close", view: drawn });
  };
}

function copied(view: DataView | undefined): ArrayBuffer {
  const body = new ArrayBuffer(view?.byteLength ?? 0);
  if (view) new Uint8Array(body).set(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
  return body;
}
