/** What keys do, and how to read the maps. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { Icon } from "./icon";

export const helpOpen = signal(false);

const KEYS: readonly (readonly [title: string, rows: readonly (readonly [keys: readonly string[], does: string])[]])[] = [
  [
    "Everywhere",
    [
      [["/"], "search the text, or go to a position"],
      [["n", "p"], "next and previous hit"],
      [["Esc"], "back: from a search, a selection, a head"],
      [["?"], "this help"],
    ],
  ],
  [
    "Atlas",
    [
      [["←", "→", "↑", "↓"], "go from head to head"],
      [["Enter"], "open the head"],
      [["Home", "End"], "first and last head of a row"],
    ],
  ],
  [
    "Matrix",
    [
      [["←", "→", "↑", "↓"], "move the selected entry, with Shift by ten"],
      [["+", "−"], "zoom"],
      [["0"], "the whole matrix"],
      [["d"], "keep to the diagonal"],
      [["[", "]"], "previous and next head"],
    ],
  ],
  [
    "Text",
    [
      [["←", "→"], "previous and next token"],
      [["↑", "↓"], "line above and below"],
      [["Enter"], "select the token"],
    ],
  ],
];

const READING: readonly (readonly [string, string])[] = [
  ["Rows are queries, columns are keys.", "A row says how one token spreads its attention over the tokens that it may see; it sums to 1."],
  ["Lift", "is attention over what an even spread would give: 1× is indifference, warm is more, blue is less."],
  ["Max, mean and mass", "say what a pixel shows of the entries that it covers: the largest, their average, or their sum. Zoomed in, a pixel is one entry."],
  ["The first token", "often soaks up what a head has no use for. Set aside, it does not decide what counts as much."],
];

export function Help() {
  const place = useRef<HTMLDialogElement>(null);
  const open = helpOpen.value;
  useEffect(() => {
    const dialog = place.current;
    if (open && dialog && !dialog.open) dialog.showModal();
    if (!open) dialog?.close();
  }, [open]);
  const close = (): void => void (helpOpen.value = false);
  return (
    <dialog ref={place} class="help" aria-labelledby="help-title" onClose={close} onClick={(event) => event.target === place.current && close()}>
      <header>
        <h2 id="help-title">Keys, and how to read the maps</h2>
        <button type="button" class="plain" aria-label="Close" onClick={close}>
          <Icon name="close" />
        </button>
      </header>
      <div class="keys">
        {KEYS.map(([title, rows]) => (
          <section key={title}>
            <h3>{title}</h3>
            <dl>
              {rows.map(([keys, does]) => [
                <dt key={does}>{keys.map((key) => <kbd key={key}>{key}</kbd>)}</dt>,
                <dd key={`${does}.`}>{does}</dd>,
              ])}
            </dl>
          </section>
        ))}
      </div>
      <Reading />
    </dialog>
  );
}

/** How to read the maps, in a few sentences. */
export function Reading() {
  return (
    <div class="reading">
      {READING.map(([what, says]) => (
        <p key={what}>
          <b>{what}</b> {says}
        </p>
      ))}
    </div>
  );
}
