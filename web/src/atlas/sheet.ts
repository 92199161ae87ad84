/**
 * The one canvas on which all maps in sight are drawn, with the bars below them. What has to be drawn anew is drawn a few
 * maps a frame, so that the page stays at hand however many there are; what lies there already moves along.
 */

import type { Cells } from "../exporting/scene";
import { oncePerFrame } from "../matrix/drawing";
import type { Layout } from "./layout";
import type { Maps } from "./maps";
import type { HeadPlace } from "./order";

/** A head's map, and what is drawn with it. */
export interface Drawn {
  readonly head: HeadPlace;
  readonly x: number;
  readonly y: number;
  /** How far along its range the statistic is, 0 to 1; null while it is not measured. */
  readonly share: number | null;
  readonly dimmed: boolean;
}

export interface Sight {
  readonly layout: Layout;
  /** What is in sight of the grid and a little around it, in its own pixels. */
  readonly from: number;
  readonly upTo: number;
  readonly drawn: readonly Drawn[];
}

/** Milliseconds of a frame that drawing may take. */
const FRAME = 7;
/** Pixels that the bar takes below a map, with what is between. */
export const BELOW = 4;
const BAR = 2;
const DIMMED = 0.35;

export class Sheet {
  readonly #frame = oncePerFrame(() => this.#draw());
  readonly #scratch = document.createElement("canvas");
  /** What was drawn last of each head, so that only what differs is drawn again. */
  readonly #before = new Map<string, string>();
  #stale: Drawn[] = [];
  #sight: Sight | null = null;
  #scale = 1;

  constructor(
    readonly canvas: HTMLCanvasElement,
    readonly maps: Maps,
  ) {}

  /** Draw what is in sight from now on. */
  show(sight: Sight): void {
    const last = this.#sight;
    this.#sight = sight;
    const { canvas } = this;
    const [top, bottom] = reachOf(sight);
    const width = canvas.parentElement?.clientWidth ?? 0;
    const [wide, high] = [width, bottom - top].map((size) => Math.round(size * devicePixelRatio)) as [number, number];
    if (last?.layout !== sight.layout || this.#scale !== devicePixelRatio || canvas.width !== wide) {
      this.#before.clear();
      [canvas.width, canvas.height] = [wide, high];
    } else if (last.from !== sight.from || last.upTo !== sight.upTo) this.#move(last, sight, high);
    this.#scale = devicePixelRatio;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${bottom - top}px`;
    canvas.style.top = `${top}px`;
    this.refresh();
  }

  /** Draw what has changed since it was drawn, such as maps that have come. */
  refresh(): void {
    this.#stale = (this.#sight?.drawn ?? []).filter((one) => this.#before.get(one.head.label) !== this.#told(one));
    if (this.#stale.length > 0) this.#frame.ask();
  }

  stop(): void {
    this.#frame.stop();
  }

  #told({ head, share, dimmed }: Drawn): string {
    return `${this.maps.version} ${this.maps.has(head)} ${share?.toFixed(3) ?? ""} ${dimmed}`;
  }

  /** Keep what is there, where the canvas reaches over another part of the grid; what it loses is forgotten. */
  #move(last: Sight, next: Sight, high: number): void {
    const { canvas } = this;
    const [[top, bottom], [nextTop, nextBottom]] = [reachOf(last), reachOf(next)];
    if (canvas.width > 0 && canvas.height > 0) {
      const copy = document.createElement("canvas");
      [copy.width, copy.height] = [canvas.width, canvas.height];
      copy.getContext("2d", { willReadFrequently: true })?.drawImage(canvas, 0, 0);
      canvas.height = high; // this clears it
      canvas.getContext("2d", { willReadFrequently: true })?.drawImage(copy, 0, Math.round((top - nextTop) * devicePixelRatio));
    } else canvas.height = high;
    const [from, upTo] = [Math.max(top, nextTop), Math.min(bottom, nextBottom) - next.layout.cell - BELOW];
    const staying = new Set(next.drawn.filter(({ y }) => y >= from && y <= upTo).map(({ head }) => head.label));
    for (const label of this.#before.keys()) if (!staying.has(label)) this.#before.delete(label);
  }

  #draw(): void {
    const pen = this.canvas.getContext("2d", { willReadFrequently: true });
    const sight = this.#sight;
    if (!pen || !sight) return;
    const until = performance.now() + FRAME;
    const style = getComputedStyle(this.canvas);
    const [ink, bar] = [style.getPropertyValue("--ink"), style.getPropertyValue("--bar")];
    pen.setTransform(this.#scale, 0, 0, this.#scale, 0, -reachOf(sight)[0] * this.#scale);
    let one: Drawn | undefined;
    while ((one = this.#stale.shift())) {
      this.#one(pen, one, sight.layout.cell, ink, bar);
      this.#before.set(one.head.label, this.#told(one));
      if (performance.now() > until) break;
    }
    if (this.#stale.length > 0) this.#frame.ask();
  }

  #one(pen: CanvasRenderingContext2D, { head, x, y, share, dimmed }: Drawn, cell: number, ink: string, bar: string): void {
    pen.clearRect(x, y, cell, cell + BELOW);
    pen.globalAlpha = dimmed ? DIMMED : 1;
    const picture = this.maps.picture(head, cell * this.#scale);
    if (picture) this.#paint(pen, picture, x, y, cell);
    else {
      // half of a square, as that of a map will be
      pen.globalAlpha *= 0.05;
      pen.fillStyle = ink;
      pen.beginPath();
      for (const [right, down] of [[0, 0], [0, 1], [1, 1]] as const) pen.lineTo(x + right * cell, y + down * cell);
      pen.fill();
    }
    pen.globalAlpha = (dimmed ? DIMMED : 1) * 0.07;
    pen.fillStyle = ink;
    pen.fillRect(x, y + cell + BELOW - BAR, cell, BAR);
    pen.globalAlpha = dimmed ? DIMMED : 1;
    pen.fillStyle = bar;
    if (share !== null) pen.fillRect(x, y + cell + BELOW - BAR, cell * share, BAR);
    pen.globalAlpha = 1;
  }

  #paint(pen: CanvasRenderingContext2D, picture: Cells, x: number, y: number, cell: number): void {
    put(this.#scratch, picture);
    pen.imageSmoothingEnabled = !isCoarse(picture, cell * this.#scale);
    pen.drawImage(this.#scratch, x, y, cell, cell);
  }
}

/** From where to where the canvas reaches, in the grid's own pixels. */
const reachOf = ({ from, upTo, layout }: Sight): readonly [top: number, bottom: number] => {
  const top = Math.max(0, from);
  return [top, Math.max(top, Math.min(layout.height, upTo))];
};

/** Make a canvas hold a picture, a pixel for each cell. */
export function put(canvas: HTMLCanvasElement, { columns, rows, pixels }: Cells): void {
  if (canvas.width !== columns || canvas.height !== rows) [canvas.width, canvas.height] = [columns, rows];
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen?.putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer as ArrayBuffer), columns, rows), 0, 0);
}

/** Whether cells are so large that each of them is seen: then they have sharp edges. */
const isCoarse = ({ columns, rows }: Cells, pixels: number): boolean => Math.max(columns, rows) * 2 < pixels;
