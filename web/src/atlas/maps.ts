/**
 * The small maps of the atlas: fetches the level-0 tiles of the heads in sight, keeps them small, and paints them.
 *
 * Layers that the server has measured are asked for first, since their tiles are there; others only when it has been
 * silent for a while, for each then costs it a computation. Painting is spread over frames.
 */

import type { LayerInfo, Reduce, Tile } from "../protocol";
import { parseTile, paths } from "../protocol";
import type { Ramp } from "../matrix/scales";
import { reasonOf } from "../state/loaded";
import { notify } from "../state/notices";
import { termOf } from "../state/view";
import type { Transport } from "../transport/transport";
import { isAbort } from "../transport/transport";
import { evenSpread, factorFor, pooled } from "./pooling";

export interface Look {
  readonly capture: string;
  readonly reduce: Reduce;
  readonly ramp: Ramp;
  readonly colours: Uint32Array;
  /** Side of a map in device pixels. */
  readonly pixels: number;
  /** Whether the server has measured a layer. */
  readonly measured: (layer: number) => boolean;
}

interface Place {
  readonly layer: LayerInfo;
  readonly head: number;
  seen: boolean;
}

/** Maps are kept no finer than this: larger pictures are the matrix' own view. */
const KEPT = 128;
const [AT_ONCE, MOST_KEPT, PATIENCE, FRAME] = [6, 1500, 2500, 7];

/** What was fetched stays when the atlas is left, and is there when somebody comes back or picks a head to compare with. */
const kept = new WeakMap<Transport, Map<string, Tile>>();

export class Maps {
  readonly #places = new Map<HTMLCanvasElement, Place>();
  readonly #tiles: Map<string, Tile>;
  readonly #evens = new Map<string, Tile>();
  readonly #stale = new Set<HTMLCanvasElement>();
  readonly #running = new Map<string, AbortController>();
  readonly #failed = new Set<string>();
  readonly #watcher: IntersectionObserver;
  #look: Look | null = null;
  #progress = performance.now();
  #frame = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly transport: Transport,
    scroller: Element | null,
  ) {
    this.#tiles = kept.get(transport) ?? new Map<string, Tile>();
    kept.set(transport, this.#tiles);
    this.#watcher = new IntersectionObserver((entries) => this.#seen(entries), { root: scroller, rootMargin: "200px" });
  }

  attach(canvas: HTMLCanvasElement, layer: LayerInfo, head: number): () => void {
    this.#places.set(canvas, { layer, head, seen: false });
    this.#watcher.observe(canvas);
    return () => {
      this.#watcher.unobserve(canvas);
      this.#places.delete(canvas);
      this.#stale.delete(canvas);
    };
  }

  /** Show everything so from now on; what was fetched for another reducer is stopped. */
  show(look: Look): void {
    const other = this.#look?.reduce !== look.reduce || this.#look.capture !== look.capture;
    this.#look = look;
    this.#progress = performance.now();
    if (other) {
      for (const controller of this.#running.values()) controller.abort();
      this.#running.clear();
      this.#failed.clear();
    }
    for (const [canvas, place] of this.#places) if (place.seen) this.#stale.add(canvas);
    this.#soon();
  }

  stop(): void {
    this.#watcher.disconnect();
    for (const controller of this.#running.values()) controller.abort();
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
  }

  /** The map of a head if it is here, and what an even spread gives its cells. */
  mapOf(layer: LayerInfo, head: number): Tile | null {
    return this.#tiles.get(this.#key(layer.layer, head)) ?? null;
  }

  /** Paint a map into any canvas with so many device pixels; false while it is not here. */
  paint(canvas: HTMLCanvasElement, layer: LayerInfo, head: number, pixels: number): boolean {
    const tile = this.mapOf(layer, head);
    if (!tile || !this.#look) return false;
    const { ramp, colours, reduce } = this.#look;
    const factor = factorFor(Math.max(tile.rows, tile.cols), pixels);
    const small = factor === 1 ? tile : pooled(tile, this.#even(layer, tile), factor, reduce);
    canvas.width = small.cols;
    canvas.height = small.rows;
    const context = canvas.getContext("2d");
    if (!context) return false;
    const image = context.createImageData(small.cols, small.rows);
    const target = new Uint32Array(image.data.buffer);
    for (let i = 0; i < target.length; i++) {
      const value = small.values[i] ?? NaN;
      // where nothing can be seen the page shows through
      target[i] = value !== value ? 0 : (colours[(ramp(value) * 255 + 0.5) | 0] ?? 0);
    }
    context.putImageData(image, 0, 0);
    canvas.classList.toggle("coarse", Math.max(small.rows, small.cols) * 2 < pixels);
    return true;
  }

  #key(layer: number, head: number): string {
    return `${this.#look?.capture ?? ""}.${layer}.${head} ${this.#look?.reduce ?? ""}`;
  }

  /** What an even spread gives the cells of a layer's maps, or of maps joined to the size of `like`. */
  #even(layer: LayerInfo, like: Tile): Tile {
    const key = [layer.queries, layer.keys, layer.causal, layer.window, like.rows, like.cols].join(" ");
    const known = this.#evens.get(key);
    if (known) return known;
    const full = evenSpread(layer);
    const factor = Math.ceil(full.rows / like.rows);
    const even = factor === 1 ? full : pooled(full, full, factor, "mass");
    this.#evens.set(key, even);
    return even;
  }

  #seen(entries: readonly IntersectionObserverEntry[]): void {
    for (const entry of entries) {
      const canvas = entry.target as HTMLCanvasElement;
      const place = this.#places.get(canvas);
      if (!place) continue;
      place.seen = entry.isIntersecting;
      if (place.seen) this.#stale.add(canvas);
    }
    this.#soon();
  }

  #soon(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#fetchSome();
      this.#paintSome();
    });
  }

  #paintSome(): void {
    const until = performance.now() + FRAME;
    for (const canvas of this.#stale) {
      const place = this.#places.get(canvas);
      const done = !place || this.paint(canvas, place.layer, place.head, this.#look?.pixels ?? 1);
      if (done) {
        this.#stale.delete(canvas);
        canvas.classList.add("painted");
      }
      if (performance.now() > until) {
        this.#soon();
        return;
      }
    }
  }

  #fetchSome(): void {
    clearTimeout(this.#timer);
    const look = this.#look;
    if (!look) return;
    const waiting = [...this.#places.values()].filter((place) => {
      const key = this.#key(place.layer.layer, place.head);
      return place.seen && !this.#tiles.has(key) && !this.#running.has(key) && !this.#failed.has(key);
    });
    const ready = waiting.filter((place) => look.measured(place.layer.layer));
    for (const place of ready.slice(0, Math.max(0, AT_ONCE - this.#running.size))) void this.#fetch(place, look);
    if (this.#running.size > 0 || waiting.length === 0) return;
    const silent = performance.now() - this.#progress;
    const [first] = waiting;
    if (first && silent > PATIENCE) void this.#fetch(first, look);
    else this.#timer = setTimeout(() => this.#fetchSome(), PATIENCE - silent + 1);
  }

  async #fetch(place: Place, look: Look): Promise<void> {
    const { layer, head } = place;
    const key = this.#key(layer.layer, head);
    const controller = new AbortController();
    this.#running.set(key, controller);
    try {
      const path = paths.tile(termOf(look.capture, layer.layer, head), 0, 0, 0, look.reduce, "f16");
      const tile = parseTile(await this.transport.bytes(path, controller.signal));
      const factor = Math.ceil(Math.max(tile.rows, tile.cols) / KEPT);
      this.#keep(key, pooled(tile, this.#even(layer, tile), factor, look.reduce));
    } catch (error) {
      if (isAbort(error)) return;
      this.#failed.add(key);
      notify(`Some maps cannot be drawn: ${reasonOf(error)}`, "error");
    } finally {
      if (this.#running.get(key) === controller) this.#running.delete(key);
    }
    // the next is asked for at once, for frames may be slow to come
    this.#fetchSome();
    this.#soon();
  }

  #keep(key: string, tile: Tile): void {
    this.#tiles.set(key, tile);
    if (this.#tiles.size <= MOST_KEPT) return;
    const oldest = this.#tiles.keys().next().value;
    if (oldest !== undefined) this.#tiles.delete(oldest);
  }
}
