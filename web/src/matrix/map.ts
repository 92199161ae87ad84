/** One map with everything around it: owns the zoomer and the canvases, and redraws what a change concerns. */

import { computed, effect } from "@preact/signals";

import { TILE } from "../protocol";
import { reasonOf, valueOf } from "../state/loaded";
import { notify } from "../state/notices";
import { coloursOf, theme } from "../state/theme";
import { change, select, view } from "../state/view";
import { Latest, isAbort } from "../transport/transport";
import { drawAxis } from "./axes";
import { INK, cleared, oncePerFrame } from "./drawing";
import { Extras } from "./extras";
import { drawOverlay } from "./overlay";
import type { Painter } from "./painter";
import type { CellReading } from "./reading";
import { cellAt, isEntry, peakOf } from "./reading";
import { levelFactor, rampOf } from "./scales";
import type { Shared } from "./shared";
import { sameWindow, windowOf } from "./shared";
import type { ShownMatrix } from "./shown";
import { reduceOf, visibleCells } from "./shown";
import { drawSink } from "./sink";
import { MatrixSource } from "./tileSource";
import { drawTrack, trackName } from "./tracks";
import type { Sight } from "./zoomer";
import { Zoomer } from "./zoomer";

export interface Places {
  readonly map: HTMLElement;
  readonly overlay: HTMLCanvasElement;
  readonly top: HTMLCanvasElement;
  readonly left: HTMLCanvasElement;
  readonly received: HTMLCanvasElement;
  readonly entropy: HTMLCanvasElement;
  readonly distance: HTMLCanvasElement;
  readonly sink: HTMLCanvasElement;
  /** The names of the tracks. */
  readonly names: Readonly<Record<"received" | "entropy" | "distance", HTMLElement>>;
}

export class MatrixMapControl {
  readonly zoomer: Zoomer;
  readonly source: MatrixSource;
  readonly #frame = oncePerFrame(() => this.#draw());
  readonly #stops: (() => void)[] = [];
  readonly #extras: Extras;
  readonly #listening = new AbortController();
  readonly #peak = new Latest();
  #painter: Painter | null = null;
  #version = 0;
  #pointer: { readonly x: number; readonly y: number } | null = null;
  /** While another map or the view moves this one, its movements are not handed on. */
  #led = false;

  constructor(
    readonly places: Places,
    readonly matrix: ShownMatrix,
    readonly shared: Shared,
  ) {
    const reduce = reduceOf(matrix, view.peek().reduce);
    const asked = { matrix: matrix.name, reduce, pyramid: matrix.pyramid };
    const { transport } = shared.page;
    this.#extras = new Extras(matrix, transport, () => this.#frame.ask());
    this.source = new MatrixSource(
      asked,
      transport,
      () => this.#paintingNow(),
      () => this.#arrived(),
      (error) => notify(reasonOf(error), "error"),
    );
    this.zoomer = new Zoomer(places.map, this.source, () => view.peek().window, {
      moved: (sight, settled) => this.#moved(sight, settled),
      clicked: (x, y, twice) => this.#clicked(x, y, twice),
    });
    this.#stops.push(
      shared.join(this.#follower),
      effect(() => this.#recolour()),
      effect(() => this.#redraw()),
      effect(() => this.zoomer.follow(shared.following.value)),
      effect(() => this.#showView(view.value.window)),
    );
    this.#listen(places.map);
    // until it is laid out it hears neither wheel nor keys
    places.map.ariaBusy = "true";
  }

  readonly #selected = computed(() => `${view.value.row} ${view.value.col}`);
  readonly #follower = {
    show: (window: { readonly x: number; readonly y: number; readonly width: number }) => {
      this.#led = true;
      this.zoomer.show(window, true);
      this.#led = false;
      this.#frame.ask();
    },
  };

  destroy(): void {
    for (const stop of this.#stops) stop();
    this.#frame.stop();
    this.#listening.abort();
    this.#extras.destroy();
    this.#peak.stop();
    this.zoomer.destroy();
  }

  /** The cell under the pointer, as it is drawn now. */
  read(x: number, y: number): CellReading | null {
    const sight = this.zoomer.sight();
    return sight && cellAt(this.source, x, y, sight.perEntry * devicePixelRatio);
  }

  // ------------------------------------------------------------------------------------------------------- colours

  #paintingNow(): Painter {
    return (this.#painter ??= this.#makePainter());
  }

  #makePainter(): Painter {
    const [ramp, colours] = [rampOf(this.shared.range.value), this.shared.colours()];
    const { layer } = this.matrix;
    const { reduce } = this.source.asked;
    const firstCell = this.shared.sink.value ? 1 : 0;
    const paintingOf = (level: number, tileRow: number, tileCol: number) => ({
      ramp,
      colours,
      factor: levelFactor(reduce, level),
      drawn: (row: number) => {
        const [first, end] = visibleCells(layer, level, tileRow * TILE + row);
        return [Math.max(first, firstCell) - tileCol * TILE, end - tileCol * TILE] as const;
      },
    });
    return { version: ++this.#version, for: paintingOf };
  }

  #recolour(): void {
    this.#painter = this.#makePainter();
    this.zoomer.repaint();
  }

  // ------------------------------------------------------------------------------------------------------- drawing

  /** Whatever is read here and changes has everything around the map drawn again. */
  #redraw(): void {
    const { hovered, spans, following, page } = this.shared;
    // they are only read here, so that a change of any of them has this done again
    const tokens = page.tokens(this.matrix.capture);
    noted(this.#selected.value, hovered.value, spans.value, theme.value, following.value, tokens.value);
    if (this.shared.sink.value) this.#extras.needFirstColumn();
    this.#frame.ask();
  }

  #draw(): void {
    const sight = this.zoomer.sight();
    if (!sight) return;
    const { places, matrix, shared } = this;
    const { pyramid } = matrix;
    const { row, col } = view.peek();
    const hovered = shared.hovered.peek()?.extent ?? null;
    const ink = INK[theme.peek()];
    const spans = shared.spans.peek();
    const known = valueOf(shared.page.tokens(matrix.capture).peek());
    // a matrix between two texts has no tokens of the one for both of its sides
    const tokens = known?.length === pyramid.keys ? known : null;
    const shift = pyramid.keys - pyramid.queries;
    const overlay = cleared(places.overlay);
    if (overlay) {
      const diagonal = matrix.layer.causal || pyramid.keys === pyramid.queries;
      drawOverlay(overlay, sight, pyramid, { row, col, hovered, spans, diagonal, following: shared.following.peek() }, ink);
    }
    const common = { perEntry: sight.perEntry, tokens, spans };
    const [top, left] = [cleared(places.top), cleared(places.left)];
    const over = (from: number, end: number): number | null => (end - from === 1 ? from : null);
    if (top) {
      const at = hovered && over(hovered.col, hovered.colEnd);
      drawAxis(top, { ...common, side: "top", from: sight.x, count: pyramid.keys, shift: 0, selected: col, hovered: at }, ink);
    }
    if (left) {
      const at = hovered && over(hovered.row, hovered.rowEnd);
      drawAxis(left, { ...common, side: "left", from: sight.y, count: pyramid.queries, shift, selected: row, hovered: at }, ink);
    }
    this.#drawTracks(sight);
    const { firstColumn } = this.#extras;
    const strip = shared.sink.peek() && firstColumn ? cleared(places.sink) : null;
    if (strip && firstColumn) drawSink(strip, firstColumn, sight, coloursOf(shared.page.atlas, "weight"), ink);
  }

  #drawTracks(sight: Sight): void {
    const { row, col } = view.peek();
    const { places } = this;
    const ink = INK[theme.peek()];
    for (const name of ["received", "entropy", "distance"] as const) {
      const known = this.#extras.tracks?.[name];
      const pen = known && cleared(places[name]);
      if (!pen) continue;
      places.names[name].textContent = trackName(known.track, known.range);
      const [side, from, selected] = name === "received" ? (["top", sight.x, col] as const) : (["left", sight.y, row] as const);
      drawTrack(pen, side, known.track, known.range, from, sight.perEntry, selected, ink);
    }
  }

  // ------------------------------------------------------------------------------------------------------- moving

  #moved(sight: Sight, settled: boolean): void {
    this.places.map.ariaBusy = "false";
    this.#frame.ask();
    if (this.#pointer) this.#hover(this.#pointer.x, this.#pointer.y);
    if (this.#led) return;
    if (settled && view.peek().window === null && this.zoomer.isWhole()) return;
    this.shared.moved(this.#follower, sight, settled);
  }

  /** The view may have been changed by something else: by "back", by a search, by the text. */
  #showView(window: ReturnType<typeof windowOf> | null): void {
    const sight = this.zoomer.sight();
    if (!sight || sameWindow(window, windowOf(sight))) return;
    this.zoomer.show(window);
  }

  // ------------------------------------------------------------------------------------------------------- pointing

  #listen(map: HTMLElement): void {
    const { signal } = this.#listening;
    // the map's keys belong to the whole of it, so that is what has the focus
    map.addEventListener("pointerdown", () => map.closest<HTMLElement>(".matrix")?.focus({ preventScroll: true }), { signal });
    map.addEventListener("pointermove", (event) => {
      const box = map.getBoundingClientRect();
      this.#pointer = { x: event.clientX - box.left, y: event.clientY - box.top };
      this.#hover(this.#pointer.x, this.#pointer.y);
    }, { signal });
    map.addEventListener("pointerleave", () => {
      this.#pointer = null;
      this.shared.hovered.value = null;
    }, { signal });
  }

  /** What is under a resting pointer may be read only now, or in smaller cells than before. */
  #arrived(): void {
    if (this.#pointer) this.#hover(this.#pointer.x, this.#pointer.y);
    if (this.shared.hovered.peek()) this.shared.arrived.value += 1;
  }

  #hover(left: number, top: number): void {
    const sight = this.zoomer.sight();
    const reading = sight && this.read(sight.x + left / sight.perEntry, sight.y + top / sight.perEntry);
    const before = this.shared.hovered.peek();
    if (!reading) {
      if (before) this.shared.hovered.value = null;
      return;
    }
    const { extent } = reading;
    const same = before && before.over === this.matrix.name && before.extent.row === extent.row && before.extent.col === extent.col;
    if (same && before.extent.rowEnd === extent.rowEnd) return;
    this.shared.hovered.value = { extent, over: this.matrix.name };
  }

  #clicked(x: number, y: number, twice: boolean): void {
    const reading = this.read(x, y);
    if (!reading) return;
    const { extent } = reading;
    if (isEntry(extent)) {
      change(select(extent.row, extent.col));
      if (twice) this.zoomer.reveal(extent.row, extent.col, true);
      return;
    }
    peakOf(this.shared.page.transport, this.matrix.name, extent, this.#peak.next()).then(
      ({ row, col }) => {
        change(select(row, col));
        if (twice) this.zoomer.reveal(row, col, true);
      },
      (error: unknown) => {
        if (!isAbort(error)) notify(reasonOf(error), "error");
      },
    );
  }
}

const noted = (...values: readonly unknown[]): number => values.length;
