/**
 * The map of the matrix that `view` has open: one, a difference, or two beside one another that move together; with its
 * own controls (reducer, scale and range, first token aside, diagonal) and the read-out below.
 */

import "./matrix.css";

import { useCallback, useEffect, useMemo, useRef } from "preact/hooks";

import { Apart } from "../compare/apart";
import { comparedTerms } from "../compare/wanted";
import { reasonOf, valueOf } from "../state/loaded";
import { notify } from "../state/notices";
import type { Page } from "../state/page";
import { usePage } from "../state/page";
import { change, matricesShown, usualScale, view, withRange, withWindow } from "../state/view";
import { Latest, isAbort } from "../transport/transport";
import { ColourBar } from "./colourBar";
import { Controls } from "./controls";
import { fittedRange } from "./fitting";
import { onMapKey } from "./keys";
import type { MatrixMapControl } from "./map";
import { MatrixPane } from "./pane";
import { Readout } from "./readout";
import { cellSide, diagonalKey } from "./pyramid";
import { rangeOf } from "./scales";
import { Shared } from "./shared";
import type { ShownMatrix } from "./shown";
import { reduceOf, shownMatrix } from "./shown";

export function MatrixMap() {
  const page = usePage();
  const shared = useMemo(() => new Shared(page), [page]);
  const controls = useRef(new Map<string, MatrixMapControl>());
  const names = matricesShown(view.value).join(" ");
  const matrices = useMemo(
    () => names.split(" ").map((name) => shownMatrix(name, page.atlas)).filter((one) => one !== null),
    [names, page],
  );
  const [first] = matrices;
  const onControl = useCallback((name: string, control: MatrixMapControl | null) => {
    if (control) controls.current.set(name, control);
    else controls.current.delete(name);
  }, []);
  const { scale, reduce, spans } = view.value;
  const signed = first?.signed ?? false;
  useEffect(() => void (shared.range.value = rangeOf(scale, signed)), [shared, scale, signed]);
  const known = first && spans !== null ? valueOf(page.spans(first.capture, spans).value) : null;
  useEffect(() => void (shared.spans.value = known ?? []), [shared, known]);
  const fit = useFit(first ?? null, names);
  if (!first) return <p class="map-nothing">There is no such matrix here.</p>;

  const main = (): MatrixMapControl | undefined => controls.current.get(first.name);
  const compared = comparedTerms(view.value, page.atlas);
  const whole = (): void => {
    shared.following.value = false;
    change(withWindow(null));
    main()?.zoomer.show(null);
  };
  const diagonal = (): void => {
    const control = main();
    shared.following.value = !shared.following.peek();
    const sight = control?.zoomer.sight();
    if (!control || !sight || !shared.following.peek()) return;
    const { row } = view.peek();
    const middle = Math.floor(sight.y + sight.height / sight.perEntry / 2);
    const query = Math.min(first.pyramid.queries - 1, Math.max(0, row ?? middle));
    control.zoomer.reveal(query, diagonalKey(first.pyramid, query), true);
  };
  return (
    <section
      class="matrix"
      tabIndex={0}
      aria-label={`Matrix of ${first.title}`}
      onKeyDown={(event) => {
        const control = main();
        // keys that something inside of the map has taken, as a button or a list, are not the map's
        if (!control || event.defaultPrevented || event.target !== event.currentTarget) return;
        if (onMapKey(event, { pyramid: first.pyramid, zoomer: control.zoomer, diagonal, whole })) event.preventDefault();
      }}
    >
      <header class="map-header">
        <Controls
          page={page}
          matrix={first}
          following={shared.following}
          onDiagonal={diagonal}
          onWhole={whole}
          onZoom={(factor) => main()?.zoomer.zoomBy(factor)}
        />
      </header>
      <div class={matrices.length > 1 ? "map-panes two" : "map-panes"}>
        {matrices.map((matrix) => (
          <MatrixPane
            key={`${matrix.name} ${reduceOf(matrix, reduce)}`}
            matrix={matrix}
            shared={shared}
            titled={matrices.length > 1 || matrix.signed}
            beside={matrix !== first && sameRows(page, first, matrix)}
            onControl={onControl}
          />
        ))}
        <ColourBar shared={shared} unit={unitOf(first)} onFit={fit} />
      </div>
      {compared && (
        <Apart
          first={compared[0]}
          second={compared[1]}
          matrix={first}
          sight={() => main()?.zoomer.sight() ?? null}
          onGo={(row, col) => main()?.zoomer.reveal(row, col, false)}
        />
      )}
      <Readout page={page} shared={shared} matrices={matrices} controlOf={(name) => controls.current.get(name)} />
    </section>
  );
}

/** Whether two matrices have the same tokens along their axes, so that those of the queries need stand there but once. */
function sameRows(page: Page, one: ShownMatrix, other: ShownMatrix): boolean {
  if (one.pyramid.queries !== other.pyramid.queries || one.pyramid.keys !== other.pyramid.keys) return false;
  if (one.capture === other.capture) return true;
  const [first, second] = [one, other].map(({ capture }) => valueOf(page.tokens(capture).value));
  return first?.length === second?.length && (first ?? []).every((token, i) => token === second?.[i]);
}

/** What the numbers of the colour bar are. */
function unitOf(matrix: ShownMatrix): string {
  const reduce = reduceOf(matrix, view.value.reduce);
  const side = cellSide(matrix.pyramid, 0);
  if (reduce === "mass") return `mass of ${side} × ${side}`;
  return matrix.signed ? "difference" : reduce === "lift" ? "lift" : "attention";
}

/**
 * Fits the range to a matrix when it is opened, unless the range is locked or was given by the address; returns a
 * function that fits it in any case.
 */
function useFit(matrix: ShownMatrix | null, names: string): () => void {
  const page = usePage();
  const latest = useRef(new Latest());
  const fitted = useRef("");
  const { reduce, scale, sink } = view.value;
  const key = `${names} ${reduce} ${scale.kind} ${sink}`;
  const fit = useCallback(() => {
    if (!matrix) return;
    fittedRange(matrix, view.peek().reduce, view.peek().scale.kind, view.peek().sink, page.transport, latest.current.next()).then(
      ([low, high]) => change(withRange(low, high)),
      (error: unknown) => {
        if (!isAbort(error)) notify(reasonOf(error), "error");
      },
    );
  }, [matrix, page]);
  useEffect(() => {
    const { scale: now, reduce: by } = view.peek();
    const usual = usualScale(now.kind, by);
    const given = fitted.current === "" && (now.low !== usual.low || now.high !== usual.high);
    fitted.current = key;
    if (!now.locked && !given) fit();
  }, [key, fit]);
  useEffect(() => () => latest.current.stop(), []);
  return fit;
}
