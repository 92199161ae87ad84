/**
 * The small maps of the atlas: fetches those of a layer at a time, keeps them, and colours one when it is asked for.
 *
 * Layers that the server has measured are asked for first, since their maps are there; others only when it has been
 * silent for a while, for each then costs it a computation.
 */

import type { Cells } from "../exporting/scene";
import type { LayerInfo, Reduce, Tile } from "../protocol";
import { parseMaps, paths } from "../protocol";
import type { Ramp } from "../matrix/scales";
import { reasonOf } from "../state/loaded";
import { notify } from "../state/notices";
import type { Transport } from "../transport/transport";
import { isAbort } from "../transport/transport";
import type { HeadPlace } from "./order";
import type { Even } from "./pooling";
import { evenSpread, factorFor, pooled, sideOf } from "./pooling";

export interface Look {
  readonly capture: string;
  readonly reduce: Reduce;
  readonly ramp: Ramp;
  readonly colours: Uint32Array;
  /** Whether the server has measured a layer. */
  readonly measured: (layer: number) => boolean;
}

/** Of maps that are not in sight, at most so many are kept: each takes up to 64 kB. */
const MOST_KEPT = 1500;
const [AT_ONCE, PATIENCE] = [3, 2500];

/** What was fetched stays when the atlas is left, and is there when somebody comes back or picks a head to compare with. */
const kept = new WeakMap<Transport, Map<string, readonly Tile[]>>();

export class Maps {
  readonly #layers: Map<string, readonly Tile[]>;
  readonly #evens = new Map<string, Even>();
  readonly #running = new Map<number, AbortController>();
  readonly #failed = new Set<number>();
  #wanted: readonly LayerInfo[] = [];
  #look: Look | null = null;
  #version = 0;
  #progress = performance.now();
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Called when maps have come. */
  onArrival: () => void = () => undefined;

  constructor(readonly transport: Transport) {
    this.#layers = kept.get(transport) ?? new Map<string, readonly Tile[]>();
    kept.set(transport, this.#layers);
  }

  /** Show the maps of these layers so from now on; what is fetched for another reducer is stopped. */
  show(look: Look, wanted: readonly LayerInfo[]): void {
    const last = this.#look;
    const other = last?.reduce !== look.reduce || last.capture !== look.capture;
    if (other || last.ramp !== look.ramp || last.colours !== look.colours) this.#version++;
    this.#look = look;
    this.#wanted = wanted;
    this.#progress = performance.now();
    if (other) {
      for (const controller of this.#running.values()) controller.abort();
      this.#running.clear();
      this.#failed.clear();
    }
    this.#fetchSome();
  }

  stop(): void {
    for (const controller of this.#running.values()) controller.abort();
    clearTimeout(this.#timer);
  }

  /** Counts up whenever maps have other colours. */
  get version(): number {
    return this.#version;
  }

  /** Whether the map of a head is here. */
  has({ layer }: HeadPlace): boolean {
    return this.#layers.has(this.#key(layer.layer));
  }

  /** The map of a head in colours, no finer than so many pixels; null while it is not here. */
  picture({ layer, index }: HeadPlace, pixels: number): Cells | null {
    const map = this.#layers.get(this.#key(layer.layer))?.[index];
    if (!map || !this.#look) return null;
    const { ramp, colours, reduce } = this.#look;
    return coloured(map, this.#even(layer, map), reduce, pixels, (value) => colours[(ramp(value) * 255 + 0.5) | 0] ?? 0);
  }

  #key(layer: number): string {
    return `${this.#look?.capture ?? ""}.${layer} ${this.#look?.reduce ?? ""}`;
  }

  #even(layer: LayerInfo, map: Tile): Even {
    const side = sideOf(layer, map);
    const key = [layer.queries, layer.keys, layer.causal, layer.window, side].join(" ");
    let known = this.#evens.get(key);
    if (!known) this.#evens.set(key, (known = evenSpread(layer, side)));
    return known;
  }

  #fetchSome(): void {
    clearTimeout(this.#timer);
    const look = this.#look;
    if (!look) return;
    const waiting = this.#wanted.filter(
      ({ layer }) => !this.#layers.has(this.#key(layer)) && !this.#running.has(layer) && !this.#failed.has(layer),
    );
    const ready = waiting.filter(({ layer }) => look.measured(layer));
    for (const { layer } of ready.slice(0, Math.max(0, AT_ONCE - this.#running.size))) void this.#fetch(layer, look);
    if (this.#running.size > 0 || waiting.length === 0) return;
    const silent = performance.now() - this.#progress;
    const [first] = waiting;
    // somebody who sees nothing yet does not wait until a layer has been measured in full
    if (first && (silent > PATIENCE || this.#layers.size === 0)) void this.#fetch(first.layer, look);
    else this.#timer = setTimeout(() => this.#fetchSome(), PATIENCE - silent + 1);
  }

  async #fetch(layer: number, look: Look): Promise<void> {
    const controller = new AbortController();
    this.#running.set(layer, controller);
    try {
      const bytes = await this.transport.bytes(paths.maps(look.capture, layer, look.reduce), controller.signal);
      this.#keep(`${look.capture}.${layer} ${look.reduce}`, parseMaps(bytes));
      this.onArrival();
    } catch (error) {
      if (isAbort(error)) return;
      this.#failed.add(layer);
      notify(`Some maps cannot be drawn: ${reasonOf(error)}`, "error");
    } finally {
      if (this.#running.get(layer) === controller) this.#running.delete(layer);
    }
    this.#fetchSome();
  }

  #keep(key: string, maps: readonly Tile[]): void {
    this.#layers.set(key, maps);
    const needed = new Set(this.#wanted.map(({ layer }) => this.#key(layer)));
    let others = 0;
    for (const [known, { length }] of [...this.#layers].reverse()) {
      if (needed.has(known)) continue;
      others += length;
      if (others > MOST_KEPT) this.#layers.delete(known);
    }
  }
}

/** A map in colours, no finer than so many pixels; where nothing can be seen it is transparent. */
export function coloured(map: Tile, even: Even, reduce: Reduce, pixels: number, colour: (value: number) => number): Cells {
  const { rows, cols, values } = pooled(map, even, factorFor(Math.max(map.rows, map.cols), pixels), reduce);
  const painted = new Uint32Array(values.length);
  for (let i = 0; i < painted.length; i++) {
    const value = values[i] ?? NaN;
    if (value === value) painted[i] = colour(value);
  }
  return { columns: cols, rows, pixels: painted };
}
