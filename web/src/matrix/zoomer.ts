/** One zoomable map: an OpenSeadragon viewer that speaks in entries of the matrix instead of its own coordinates. */

import OpenSeadragon from "openseadragon";

import type { Window } from "../state/view";
import type { Extent, Pyramid } from "./pyramid";
import { laidOut, levelFor, onDiagonal } from "./pyramid";
import type { MatrixSource } from "./tileSource";

/** Pixels of an entry where zooming ends. */
export const LARGEST = 64;
/** Pixels around the whole matrix. */
const EDGE = 3;
/** Pixels of an entry at which its token's label can be read. */
export const READABLE = 24;

/** What is in sight: the entry at the upper left corner (fractions too), and the pixels of an entry. */
export interface Sight {
  readonly x: number;
  readonly y: number;
  readonly perEntry: number;
  /** Pixels of the map. */
  readonly width: number;
  readonly height: number;
}

export interface ZoomerEvents {
  /** What is in sight has changed; `settled` when it will not go on changing by itself. */
  readonly moved: (sight: Sight, settled: boolean) => void;
  readonly clicked: (x: number, y: number, twice: boolean) => void;
}

export class Zoomer {
  readonly #viewer: OpenSeadragon.Viewer;
  #following = false;
  /** While a part is being brought into sight, the diagonal does not pull. */
  #showing = false;
  #sight = "";
  /** Whether the whole matrix is in sight, or will be when the movement ends; it stays so when the room changes. */
  #whole = true;
  #resized = false;
  /** What is to be shown as soon as there is room for it. */
  #late: Window | null | undefined = undefined;

  constructor(
    element: HTMLElement,
    readonly source: MatrixSource,
    start: () => Window | null,
    events: ZoomerEvents,
  ) {
    const settled = (): void => this.#tell(events, true);
    keepStylesInFiles();
    keepAbortsQuiet();
    this.#viewer = new OpenSeadragon.Viewer({
      element,
      tileSources: [source],
      drawer: "canvas",
      showNavigationControl: false,
      // keys are the page's business: they move what is selected as well
      keyboardNavEnabled: false,
      tabIndex: "",
      imageSmoothingEnabled: false,
      smoothTileEdgesMinZoom: Infinity,
      subPixelRoundingForTransparency: OpenSeadragon.SUBPIXEL_ROUNDING_OCCURRENCES.ALWAYS,
      // never fewer pixels than cells, for a peak between two pixels would be lost
      minPixelRatio: 1,
      maxZoomPixelRatio: LARGEST,
      minZoomImageRatio: 0.8,
      visibilityRatio: 0.4,
      homeFillsViewer: false,
      animationTime: reducedMotion() ? 0 : 0.35,
      springStiffness: 9,
      zoomPerScroll: 1.25,
      blendTime: 0,
      imageLoaderLimit: 4,
      maxImageCacheCount: 240,
      timeout: 120_000,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false, flickEnabled: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: false, pinchRotate: false },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: false },
      crossOriginPolicy: false,
    } as unknown as OpenSeadragon.Options);
    const viewer = this.#viewer;
    viewer.addOnceHandler("open", () => {
      // opening takes a moment, in which somebody may have gone elsewhere
      this.show(start(), true);
      settled();
    });
    viewer.addHandler("update-viewport", () => this.#tell(events, false));
    viewer.addHandler("animation-finish", settled);
    viewer.addHandler("tile-drawing", (event) => source.freshen(event.rendered.canvas));
    viewer.addHandler("tile-unloaded", (event) => source.forget(event.tile.getUrl()));
    viewer.addHandler("canvas-drag", (event) => this.#dragged(event));
    viewer.addHandler("zoom", () => this.#followed());
    viewer.addHandler("canvas-click", (event) => {
      if (event.quick) this.#at(event.position, (x, y) => events.clicked(x, y, false));
    });
    viewer.addHandler("canvas-double-click", (event) => this.#at(event.position, (x, y) => events.clicked(x, y, true)));
    viewer.addHandler("resize", () => (this.#resized = true));
    // the first moment at which the viewer has laid itself out in the new room
    viewer.addHandler("viewport-change", () => {
      if (!this.#resized) return;
      this.#resized = false;
      // it keeps its middle, and would cut off what no longer fits
      if (this.#late !== undefined) this.show(this.#late, true);
      else if (this.#whole) this.show(null, true);
      settled();
    });
  }

  get #pyramid(): Pyramid {
    return this.source.asked.pyramid;
  }

  /** What is in sight now. */
  sight(): Sight | null {
    if (!this.#viewer.isOpen()) return null;
    const bounds = this.#viewer.viewport.getBounds(true);
    const { width } = laidOut(this.#pyramid);
    const size = this.#viewer.viewport.getContainerSize();
    if (isTiny(size)) return null;
    return { x: bounds.x * width, y: bounds.y * width, perEntry: size.x / (bounds.width * width), width: size.x, height: size.y };
  }

  /** Bring a part into sight; null is the whole matrix. */
  show(window: Window | null, atOnce = false): void {
    if (!this.#viewer.isOpen()) return;
    const { width } = laidOut(this.#pyramid);
    const { viewport } = this.#viewer;
    const ratio = viewport.getContainerSize();
    this.#late = isTiny(ratio) ? window : undefined;
    if (isTiny(ratio)) return;
    const wanted = window ?? this.#wholeIn(ratio);
    this.#whole = window === null;
    this.#showing = true;
    viewport.fitBounds(
      new OpenSeadragon.Rect(
        wanted.x / width,
        wanted.y / width,
        wanted.width / width,
        (wanted.width / width) * (ratio.y / ratio.x),
      ),
      atOnce,
    );
    this.#showing = false;
  }

  /** The whole matrix, at the axes: what room is left over lies on the far sides. */
  #wholeIn(size: OpenSeadragon.Point): Window {
    const { keys, queries } = this.#pyramid;
    const perEntry = Math.min((size.x - 2 * EDGE) / keys, (size.y - 2 * EDGE) / queries, LARGEST);
    return { x: -EDGE / perEntry, y: -EDGE / perEntry, width: size.x / perEntry };
  }

  /** Whether the whole matrix is in sight, or will be when the movement ends. */
  isWhole(): boolean {
    return this.#whole;
  }

  #isNearWhole(): boolean {
    const bounds = this.#viewer.viewport.getBounds(false);
    const { width } = laidOut(this.#pyramid);
    const whole = this.#wholeIn(this.#viewer.viewport.getContainerSize());
    const near = (one: number, other: number): boolean => Math.abs(one - other) < whole.width / 1000;
    return near(bounds.width * width, whole.width) && near(bounds.x * width, whole.x) && near(bounds.y * width, whole.y);
  }

  /** Zoom about the middle of what part of the matrix is in sight. */
  zoomBy(factor: number): void {
    const { viewport } = this.#viewer;
    const bounds = viewport.getBounds(false);
    const { keys, queries } = this.#pyramid;
    const { width } = laidOut(this.#pyramid);
    viewport.zoomBy(
      factor,
      new OpenSeadragon.Point(middle(bounds.x, bounds.width, keys / width), middle(bounds.y, bounds.height, queries / width)),
    );
    viewport.applyConstraints();
  }

  /** Move by shares of what is in sight. */
  panBy(across: number, down: number): void {
    const { viewport } = this.#viewer;
    const bounds = viewport.getBounds(false);
    this.#moveBy(bounds.width * across, bounds.height * down);
    viewport.applyConstraints();
  }

  /** Bring an entry to the middle, at least so large that it can be read if `near`; otherwise only if it is out of sight. */
  reveal(row: number, col: number, near: boolean): void {
    const sight = this.sight();
    if (!sight) return;
    const inside =
      col >= sight.x &&
      row >= sight.y &&
      col + 1 <= sight.x + sight.width / sight.perEntry &&
      row + 1 <= sight.y + sight.height / sight.perEntry;
    if (!near && inside) return;
    const perEntry = near ? Math.max(sight.perEntry, READABLE) : sight.perEntry;
    const [width, height] = [sight.width / perEntry, sight.height / perEntry];
    this.show({ x: col + 0.5 - width / 2, y: row + 0.5 - height / 2, width });
  }

  /** Keep the middle on the diagonal from now on, or let it go. */
  follow(on: boolean): void {
    this.#following = on;
    this.#followed();
  }

  /** Draw again with the colours of now. */
  repaint(): void {
    if (this.#viewer.isOpen()) this.#viewer.forceRedraw();
  }

  /** Give up the tiles that are on their way and no longer wanted. */
  abortUnseen(): void {
    const sight = this.sight();
    if (!sight) return;
    const deepest = levelFor(this.#pyramid, sight.perEntry * devicePixelRatio);
    const [right, bottom] = [sight.x + sight.width / sight.perEntry, sight.y + sight.height / sight.perEntry];
    this.source.abortUnless(
      (level, extent: Extent) =>
        level <= deepest && extent.colEnd > sight.x && extent.col < right && extent.rowEnd > sight.y && extent.row < bottom,
    );
  }

  destroy(): void {
    this.source.abortUnless(() => false);
    this.#viewer.destroy();
  }

  #tell(events: ZoomerEvents, settled: boolean): void {
    const sight = this.sight();
    if (!sight) return;
    const said = `${sight.x} ${sight.y} ${sight.perEntry} ${sight.width} ${sight.height}`;
    if (!settled && said === this.#sight) return;
    this.#sight = said;
    if (settled) {
      this.#whole = this.#isNearWhole();
      this.abortUnseen();
    }
    events.moved(sight, settled);
  }

  #at(position: OpenSeadragon.Point, tell: (x: number, y: number) => void): void {
    const sight = this.sight();
    if (sight) tell(sight.x + position.x / sight.perEntry, sight.y + position.y / sight.perEntry);
  }

  #dragged(event: OpenSeadragon.CanvasDragEvent): void {
    if (!this.#following) return;
    event.preventDefaultAction = true;
    const delta = this.#viewer.viewport.deltaPointsFromPixels(event.delta.negate());
    this.#moveBy(delta.x, delta.y);
  }

  /** Move, along the diagonal alone while that is followed. */
  #moveBy(across: number, down: number): void {
    const along = this.#following ? (across === 0 || down === 0 ? across + down : (across + down) / 2) : 0;
    this.#viewer.viewport.panBy(new OpenSeadragon.Point(this.#following ? along : across, this.#following ? along : down));
  }

  #followed(): void {
    if (!this.#following || this.#showing || !this.#viewer.isOpen()) return;
    const { viewport } = this.#viewer;
    const { width } = laidOut(this.#pyramid);
    const centre = viewport.getCenter(false);
    const on = onDiagonal(this.#pyramid, centre.x * width, centre.y * width);
    viewport.panTo(new OpenSeadragon.Point(on.x / width, on.y / width));
  }
}

/** The middle of what a stretch has in common with the one from 0 to `end`; its own if that is nothing. */
function middle(from: number, length: number, end: number): number {
  const [low, high] = [Math.max(from, 0), Math.min(from + length, end)];
  return low < high ? (low + high) / 2 : from + length / 2;
}

/** Whether there is no room for a map: the viewer calls a place that is not laid out yet one pixel wide. */
const isTiny = (size: OpenSeadragon.Point): boolean => Math.min(size.x, size.y) <= 2 * EDGE;

const reducedMotion = (): boolean => matchMedia("(prefers-reduced-motion: reduce)").matches;

/**
 * The viewer would add a style element, for phones, which the content security policy forbids, unless it finds one of its
 * own there. This one has the name and no meaning: it belongs to no namespace. matrix.css has the rule.
 */
function keepStylesInFiles(): void {
  const mark = "data-openseadragon-mobile-css";
  if (document.querySelector(`style[${mark}]`)) return;
  const style = document.createElementNS(null, "style");
  style.setAttribute(mark, "");
  document.head.append(style);
}

/** A tile that was given up because nobody looks there any more is no error, though the viewer reports each as one. */
function keepAbortsQuiet(): void {
  const library = OpenSeadragon as unknown as { console: Console };
  if (library.console !== console) return;
  const error = (...said: readonly unknown[]): void => {
    // what really fails is said on the page, by whoever asked for it
    if (!String(said[0]).startsWith("Tile %s failed to load")) console.error(...said);
  };
  library.console = { ...console, error };
}
