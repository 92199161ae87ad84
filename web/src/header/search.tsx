/** The search box: words in the text, a position, or a head. */

import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";

import { Icon } from "../parts/icon";
import { whole } from "../parts/numbers";
import { open } from "../state/opening";
import { usePage } from "../state/page";
import { change, view, withSearch } from "../state/view";
import type { Finding } from "../text/finding";

/** Counts up whenever somebody asks for the search box by a key. */
export const searchAsked = signal(0);

const SETTLED = 150;

export function SearchBox({ finding }: { readonly finding: Finding }) {
  const { atlas } = usePage();
  const { search, layer, capture } = view.value;
  const [typed, setTyped] = useState(search);
  const box = useRef<HTMLInputElement>(null);
  const timer = useRef(0);
  useEffect(() => setTyped(search), [search]);
  const asked = searchAsked.value;
  useEffect(() => {
    if (asked > 0) box.current?.select();
    if (asked > 0) box.current?.focus();
  }, [asked]);
  const hits = finding.hits.value;
  const current = finding.current.value;
  const commit = (text: string): void => {
    clearTimeout(timer.current);
    if (text !== view.peek().search) change(withSearch(text));
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === "Escape") {
      event.stopPropagation();
      if (typed !== "") {
        setTyped("");
        commit("");
      } else box.current?.blur();
    }
    if (event.key !== "Enter") return;
    event.preventDefault();
    commit(typed);
    const head = /^(\d+)\.(\d+)$/.exec(typed.trim());
    const info = head && atlas.captures.find(({ id }) => id === capture)?.layers.find((one) => one.layer === Number(head[1]));
    if (head && info?.heads.includes(Number(head[2]))) open(atlas, info.layer, Number(head[2]));
    else if (layer !== null) finding.step(event.shiftKey ? -1 : 1);
  };
  const said = search === "" ? "" : hits.length === 0 ? "none" : current < 0 ? whole(hits.length) : `${whole(current + 1)} / ${whole(hits.length)}`;
  return (
    <div class="search" role="search">
      <Icon name="search" />
      <input
        ref={box}
        type="search"
        value={typed}
        placeholder={layer === null ? "text, position, or head 12.3" : "text or position"}
        aria-label="Search for text, a position, or a head"
        aria-keyshortcuts="/"
        spellcheck={false}
        maxLength={200}
        onInput={(event) => {
          const text = event.currentTarget.value;
          setTyped(text);
          clearTimeout(timer.current);
          timer.current = window.setTimeout(() => commit(text), SETTLED);
        }}
        onKeyDown={onKeyDown}
      />
      <output aria-live="polite">{said}</output>
      {hits.length > 0 && layer !== null && (
        <>
          <button type="button" class="plain" aria-label="Previous hit" title="previous hit (p)" onClick={() => finding.step(-1)}>
            <Icon name="up" />
          </button>
          <button type="button" class="plain" aria-label="Next hit" title="next hit (n)" onClick={() => finding.step(1)}>
            <Icon name="down" />
          </button>
        </>
      )}
    </div>
  );
}
