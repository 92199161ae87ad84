/** Keeps the address and the view alike: moves between heads are steps that "back" undoes, all else only rewrites the address. */

import { effect } from "@preact/signals";

import type { AtlasInfo } from "../protocol";
import { read, write } from "./address";
import { notify } from "./notices";
import type { View } from "./view";
import { view } from "./view";

/** Panning and dragging change the view many times a second; browsers refuse an address that changes so often. */
const SETTLED = 250;

/** Begin with what the address asks for, and keep both alike; returns a function that stops. */
export function followAddress(atlas: AtlasInfo): () => void {
  let placed = "";
  let timer: number | undefined;
  const fromAddress = (): void => {
    if (location.hash.replace(/^#/, "") === write(view.peek(), atlas)) return;
    const { view: wanted, ignored } = read(location.hash, atlas);
    if (ignored.length > 0) notify(`Parts of the address mean nothing here and were left out: ${ignored.join(", ")}`);
    clearTimeout(timer);
    placed = placeOf(wanted);
    view.value = Object.freeze(wanted);
  };
  const put = (push: boolean): void => {
    const hash = write(view.peek(), atlas);
    // a frame that was made from text has no address that could be changed
    if (location.protocol === "about:" || hash === location.hash.replace(/^#/, "")) return;
    const address = hash ? `#${hash}` : location.pathname + location.search;
    if (push) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  };
  if (location.hash.length > 1) fromAddress();
  else view.value = Object.freeze(read("", atlas).view);
  placed = placeOf(view.peek());
  const stop = effect(() => {
    const place = placeOf(view.value);
    clearTimeout(timer);
    if (place !== placed) {
      placed = place;
      put(true);
    } else timer = window.setTimeout(() => put(false), SETTLED);
  });
  addEventListener("popstate", fromAddress);
  addEventListener("hashchange", fromAddress);
  return () => {
    stop();
    clearTimeout(timer);
    removeEventListener("popstate", fromAddress);
    removeEventListener("hashchange", fromAddress);
  };
}

/** What somebody would call being somewhere else. */
const placeOf = (from: View): string => [from.capture, from.layer, from.head, from.against, from.mode].join(" ");
