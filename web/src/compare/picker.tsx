/** Choosing what to compare with: the same head elsewhere, a pattern, what somebody writes, or a head from the atlas. */

import { useEffect, useRef, useState } from "preact/hooks";

import { Atlas } from "../atlas/atlas";
import { inLine } from "../parts/glyphs";
import { Icon } from "../parts/icon";
import { Menu } from "../parts/menu";
import type { CaptureInfo, Term } from "../protocol";
import { parseTerm, paths, termName } from "../protocol";
import { reasonOf } from "../state/loaded";
import { usePage } from "../state/page";
import { change, compareWith, view } from "../state/view";
import { areAlike, readWanted } from "./wanted";

interface Props {
  readonly capture: CaptureInfo;
  readonly open: boolean;
  readonly onClose: () => void;
}

export function ComparePicker({ capture, open, onClose }: Props) {
  const { atlas } = usePage();
  const dialog = useRef<HTMLDialogElement>(null);
  const [from, setFrom] = useState(capture.id);
  useEffect(() => setFrom(capture.id), [capture]);
  useEffect(() => {
    if (open && !dialog.current?.open) dialog.current?.showModal();
    if (!open) dialog.current?.close();
  }, [open]);
  const { layer, head } = view.value;
  if (layer === null || head === null) return null;
  const own: Term = { capture: capture.id, layer, head, pattern: null };
  const source = atlas.captures.find(({ id }) => id === from) ?? capture;
  const pick = (name: string): void => {
    const other = parseTerm(name);
    const { mode, against } = view.peek();
    const subtracts = other !== null && areAlike(own, other, atlas) && (against === null || mode === "difference");
    change(compareWith(name, subtracts ? "difference" : "beside"));
    onClose();
  };
  const named = (to: number, label: string): { value: string; label: string } => ({ value: termName({ ...own, layer: to }), label });
  const layers = capture.layers.filter((info) => info.layer !== layer && (head === "mean" || info.heads.includes(head)));
  const captures = atlas.captures.filter(({ id, layers: all }) => id !== capture.id && all.some((info) => info.layer === layer && (head === "mean" || info.heads.includes(head))));
  return (
    <dialog ref={dialog} class="picker" aria-labelledby="picker-title" onClose={onClose}>
      <header>
        <h2 id="picker-title">
          Compare layer {layer}, {head === "mean" ? "mean of heads" : `head ${head}`} with …
        </h2>
        <button type="button" class="plain" aria-label="Close" onClick={onClose}>
          <Icon name="close" />
        </button>
      </header>
      <div class="ways">
        {captures.map(({ id, title }) => (
          <button key={id} type="button" class="button" onClick={() => pick(termName({ ...own, capture: id }))}>
            the same head of {inLine(`${id}: ${title}`)}
          </button>
        ))}
        {layers.length > 0 && (
          <PickMenu
            label="the same head of another layer"
            first="layer …"
            options={layers.map((info) => named(info.layer, `layer ${info.layer}`))}
            onPick={pick}
          />
        )}
        {atlas.patterns.length > 0 && (
          <PickMenu
            label="what a pattern would make of it"
            first="pattern …"
            options={atlas.patterns.map(({ spec, label }) => ({ value: termName({ ...own, pattern: spec }), label }))}
            onPick={pick}
          />
        )}
        <Written own={own} onPick={pick} />
      </div>
      {atlas.captures.length > 1 && (
        <div class="pick-of">
          <Menu
            label="or pick a head of"
            groups={[{ label: null, options: atlas.captures.map(({ id, title }) => ({ value: id, label: inLine(`${id}: ${title}`) })) }]}
            value={from}
            onChange={setFrom}
          />
        </div>
      )}
      {open && <Atlas capture={source} marked={source === capture ? `${layer}.${head}` : undefined} onPick={(l, h) => pick(termName({ capture: source.id, layer: l, head: h, pattern: null }))} />}
    </dialog>
  );
}

interface PickMenuProps {
  readonly label: string;
  readonly first: string;
  readonly options: readonly { readonly value: string; readonly label: string }[];
  readonly onPick: (name: string) => void;
}

/** A list that acts as soon as something is chosen. */
function PickMenu({ label, first, options, onPick }: PickMenuProps) {
  return <Menu label={label} groups={[{ label: null, options: [{ value: "", label: first }, ...options] }]} value="" onChange={(name) => name && onPick(name)} />;
}

/** What somebody writes, tried before it is shown, so that what is wrong is said where it was written. */
function Written({ own, onPick }: { readonly own: Term; readonly onPick: (name: string) => void }) {
  const { atlas, transport } = usePage();
  const [text, setText] = useState("");
  const [wrong, setWrong] = useState<string | null>(null);
  const [trying, setTrying] = useState(false);
  const submit = (event: Event): void => {
    event.preventDefault();
    const wanted = readWanted(text, own, atlas);
    if ("reason" in wanted) {
      setWrong(wanted.reason);
      return;
    }
    setWrong(null);
    setTrying(true);
    // one row is enough to know whether a pattern is one, and fits
    transport.bytes(paths.row(wanted.term, 0)).then(
      () => {
        setTrying(false);
        onPick(wanted.term);
      },
      (error: unknown) => {
        setTrying(false);
        setWrong(reasonOf(error));
      },
    );
  };
  return (
    <form class="written" onSubmit={submit}>
      <label>
        <span class="legend">as written</span>
        <input
          type="text"
          placeholder="12.3 or sliding_window:width=64"
          spellcheck={false}
          aria-invalid={wrong !== null}
          value={text}
          onInput={(event) => {
            setText(event.currentTarget.value);
            setWrong(null);
          }}
        />
      </label>
      <button type="submit" disabled={trying}>
        {trying ? "…" : "Compare"}
      </button>
      {wrong !== null && (
        <p class="failed" role="alert">
          {wrong}
        </p>
      )}
    </form>
  );
}
