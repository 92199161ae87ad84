/** Things that the page has to say, each until it is dismissed. */

import { signal } from "@preact/signals";

export interface NoticeInfo {
  readonly id: number;
  readonly text: string;
  readonly kind: "note" | "error";
}

export const notices = signal<readonly NoticeInfo[]>([]);

let last = 0;
const MOST = 4;

/** Sentences that need to be said only once, and whether they were. */
const rare = new Map<string, boolean>();

/** From now on say a sentence once and for all, whatever stands before it; it is no error, but how things are. */
export const onlyOnce = (sentence: string): void => void rare.set(sentence, false);

/** Say something; the same sentence is not said twice at once. */
export function notify(text: string, kind: NoticeInfo["kind"] = "note"): void {
  for (const [sentence, said] of rare) {
    if (!text.endsWith(sentence)) continue;
    if (said) return;
    rare.set(sentence, true);
    [text, kind] = [sentence, "note"];
  }
  if (notices.peek().some((notice) => notice.text === text)) return;
  notices.value = [...notices.peek(), { id: ++last, text, kind }].slice(-MOST);
}

export function dismiss(id: number): void {
  notices.value = notices.peek().filter((notice) => notice.id !== id);
}
