/** The button group "Save": pictures of what is shown, and a page of it that needs no server. */

import { useEffect, useRef } from "preact/hooks";

import { Icon } from "../parts/icon";
import { usePage } from "../state/page";
import { view } from "../state/view";
import type { Kind } from "./saving";
import { save, saving } from "./saving";

interface Entry {
  readonly kind: Kind;
  readonly label: string;
  readonly meaning: string;
}

const PICTURES: readonly Entry[] = [
  { kind: "png", label: "PNG", meaning: "a picture as large as on the screen" },
  { kind: "png2", label: "PNG, 2×", meaning: "twice as many pixels each way" },
  { kind: "svg", label: "SVG", meaning: "text and axes as vectors, cells without loss" },
];
const PAGE: Entry = { kind: "html", label: "Page (HTML)", meaning: "one file that opens without a network, to look around in" };
const ATLAS_PAGE: Entry = { ...PAGE, meaning: "one file that opens without a network: all small maps and statistics" };

export function SaveMenu() {
  const page = usePage();
  const place = useRef<HTMLDetailsElement>(null);
  const running = saving.value;
  const inAtlas = view.value.layer === null;
  // a page that was saved has nobody who could make another one
  const entries = page.atlas.excerpt ? PICTURES : [...PICTURES, inAtlas ? ATLAS_PAGE : PAGE];
  const close = (): void => {
    if (place.current) place.current.open = false;
  };
  useEffect(() => {
    const outside = (event: PointerEvent): void => {
      if (event.target instanceof Node && !place.current?.contains(event.target)) close();
    };
    document.addEventListener("pointerdown", outside);
    return () => document.removeEventListener("pointerdown", outside);
  }, []);
  return (
    <details
      ref={place}
      class="save"
      onKeyDown={(event) => {
        if (event.key !== "Escape" || !place.current?.open) return;
        event.stopPropagation();
        event.preventDefault();
        close();
        place.current.querySelector("summary")?.focus();
      }}
      onFocusOut={(event) => {
        if (event.relatedTarget instanceof Node && !place.current?.contains(event.relatedTarget)) close();
      }}
    >
      <summary title="save a picture or a page of what is shown">
        <Icon name="save" /> Save
      </summary>
      <div class="save-list" role="group" aria-label={inAtlas ? "Save the atlas" : "Save the matrix"}>
        {running ? (
          <div class="save-running" role="status">
            <span>{running.kind === "html" ? "collecting the page …" : "drawing the picture …"}</span>
            <progress {...(running.share === null ? {} : { value: running.share })} aria-label="how much is done" />
            <button type="button" onClick={() => running.stop()}>
              Stop
            </button>
          </div>
        ) : (
          entries.map(({ kind, label, meaning }) => (
            <button key={kind} type="button" class="plain" onClick={() => void save(page, kind).then(close)}>
              <b>{label}</b>
              <small>{meaning}</small>
            </button>
          ))
        )}
      </div>
    </details>
  );
}
