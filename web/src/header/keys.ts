/** Keys that mean the same wherever the focus is; those of one part are handled there. */

import { stepHead } from "../head/bar";
import { helpOpen } from "../parts/help";
import type { Page } from "../state/page";
import { change, openAtlas, select, view } from "../state/view";
import type { Finding } from "../text/finding";
import { searchAsked } from "./search";

/** Whether somebody is typing, so that letters are letters. */
const types = (target: EventTarget | null): boolean =>
  target instanceof HTMLTextAreaElement ||
  target instanceof HTMLSelectElement ||
  (target instanceof HTMLInputElement && !["radio", "checkbox", "range", "button"].includes(target.type));

export function listenToKeys(page: Page, finding: Finding): () => void {
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || types(event.target)) return;
    // an open dialog has the keys to itself, and Escape closes it
    if (document.querySelector("dialog[open]")) return;
    const { capture, layer, row, col } = view.peek();
    const info = page.capture(capture);
    const does: Readonly<Record<string, (() => void) | null>> = {
      "/": () => void (searchAsked.value += 1),
      "?": () => void (helpOpen.value = true),
      n: () => finding.step(1),
      p: () => finding.step(-1),
      "[": layer !== null && info ? () => stepHead(info, -1) : null,
      "]": layer !== null && info ? () => stepHead(info, 1) : null,
      Escape: row !== null || col !== null ? () => change(select(null, null)) : () => change(openAtlas),
    };
    const act = Object.hasOwn(does, event.key) ? does[event.key] : null;
    if (!act) return;
    event.preventDefault();
    act();
  };
  addEventListener("keydown", onKeyDown);
  return () => removeEventListener("keydown", onKeyDown);
}
