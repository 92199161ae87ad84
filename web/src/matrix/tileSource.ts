/**
 * The source from which OpenSeadragon gets its tiles: our own numbers, fetched through the transport, each with a canvas
 * of its colours that can be painted anew at any time.
 */

import OpenSeadragon from "openseadragon";

import type { Reduce, Tile } from "../protocol";
import { TILE, parseTile, paths } from "../protocol";
import type { Transport } from "../transport/transport";
import { RequestError, isAbort } from "../transport/transport";
import type { Painter } from "./painter";
import { paint } from "./painter";
import type { Extent, Pyramid } from "./pyramid";
import { laidOut, tileCount, tileExtent } from "./pyramid";

/** A tile that is here: its numbers, and its colours as of some painting. */
export interface PaintedTile {
  readonly level: number;
  readonly row: number;
  readonly col: number;
  readonly tile: Tile;
  readonly context: CanvasRenderingContext2D;
  readonly image: ImageData;
  version: number;
}

export interface Asked {
  readonly matrix: string;
  readonly reduce: Reduce;
  readonly pyramid: Pyramid;
}

interface Job {
  readonly controller: AbortController;
  readonly job: OpenSeadragon.ImageJob;
  readonly level: number;
  readonly extent: Extent;
}

export class MatrixSource extends OpenSeadragon.TileSource {
  readonly #jobs = new Map<OpenSeadragon.ImageJob, Job>();
  readonly #painted = new Map<string, PaintedTile>();
  readonly #byCanvas = new WeakMap<HTMLCanvasElement, PaintedTile>();

  constructor(
    readonly asked: Asked,
    readonly transport: Transport,
    readonly painter: () => Painter,
    readonly arrived: () => void,
    readonly refused: (error: unknown) => void,
  ) {
    super({ ...laidOut(asked.pyramid), tileSize: TILE, tileOverlap: 0, minLevel: 0, maxLevel: asked.pyramid.levels });
  }

  // a tile's key is its path, for that names everything on which its numbers depend
  override getTileUrl(level: number, col: number, row: number): string {
    return paths.tile(this.asked.matrix, level, row, col, this.asked.reduce, level === 0 ? "f32" : "f16");
  }

  override tileExists(level: number, col: number, row: number): boolean {
    if (level < 0 || level > this.asked.pyramid.levels || col < 0 || row < 0) return false;
    const count = tileCount(this.asked.pyramid, level);
    return row < count.rows && col < count.cols;
  }

  // cells past the matrix' edge and those set aside are transparent
  override hasTransparency(): boolean {
    return true;
  }

  override downloadTileStart(job: OpenSeadragon.ImageJob): void {
    const { level, x: col, y: row } = job.tile as unknown as { level: number; x: number; y: number };
    const controller = new AbortController();
    this.#jobs.set(job, { controller, job, level, extent: tileExtent(this.asked.pyramid, level, row, col) });
    this.transport
      .bytes(job.src, controller.signal)
      .then((bytes) => this.#place(level, row, col, job.src, parseTile(bytes)))
      .then(
        (painted) => {
          job.finish(painted.context, null, "context2d");
          this.arrived();
        },
        (error: unknown) => {
          job.fail(error instanceof Error ? error.message : String(error), null);
          // a tile that nobody waited for, or that could not be had just now, may be asked for again; not one that is nowhere
          const nowhere = error instanceof RequestError && error.status === 404;
          if (!nowhere) queueMicrotask(() => (job.tile.exists = true));
          if (!isAbort(error)) this.refused(error);
        },
      )
      .finally(() => this.#jobs.delete(job));
  }

  override downloadTileAbort(job: OpenSeadragon.ImageJob): void {
    this.#jobs.get(job)?.controller.abort();
  }

  /** Give up what is on its way for places or levels that are no longer in sight. */
  abortUnless(wanted: (level: number, extent: Extent) => boolean): void {
    for (const { controller, level, extent } of this.#jobs.values()) {
      if (!wanted(level, extent)) controller.abort();
    }
  }

  /** The tile at a place, if it is here. */
  painted(level: number, row: number, col: number): PaintedTile | null {
    return this.#painted.get(this.getTileUrl(level, col, row)) ?? null;
  }

  /** Paint what is about to be drawn, if its colours are of an earlier painting. */
  freshen(canvas: HTMLCanvasElement): void {
    const known = this.#byCanvas.get(canvas);
    if (known && known.version !== this.painter().version) this.#paint(known);
  }

  forget(url: string): void {
    this.#painted.delete(url);
  }

  #place(level: number, row: number, col: number, url: string, tile: Tile): PaintedTile {
    const canvas = document.createElement("canvas");
    // laid out in whole cells of level 0, a tile may have a few more cells than the matrix
    const bounds = this.getTileBounds(level, col, row, true);
    canvas.width = Math.max(tile.cols, Math.round(bounds.width));
    canvas.height = Math.max(tile.rows, Math.round(bounds.height));
    const context = canvas.getContext("2d");
    if (!context) throw new Error("this browser draws no canvas");
    const image = new ImageData(tile.cols, tile.rows);
    const painted: PaintedTile = { level, row, col, tile, context, image, version: -1 };
    this.#paint(painted);
    this.#painted.set(url, painted);
    this.#byCanvas.set(canvas, painted);
    return painted;
  }

  #paint(one: PaintedTile): void {
    const painter = this.painter();
    paint(one.tile, painter.for(one.level, one.row, one.col), new Uint32Array(one.image.data.buffer));
    one.context.putImageData(one.image, 0, 0);
    one.version = painter.version;
  }
}
