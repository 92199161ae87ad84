/** Saves what is shown as a file: a picture, or a page that needs no server. One at a time; it can be stopped. */

import { signal } from "@preact/signals";

import { paths } from "../protocol";
import { reasonOf } from "../state/loaded";
import { notify } from "../state/notices";
import type { Page } from "../state/page";
import type { View } from "../state/view";
import { view } from "../state/view";
import { write } from "../state/address";
import { reduceOf } from "../matrix/shown";
import { isAbort } from "../transport/transport";
import { atlasScene, roomOnScreen } from "./atlas_scene";
import { measuring, picture } from "./canvas";
import { explanationsFor, onlyKept } from "./explained";
import { matrixScene, shownBy } from "./matrix_scene";
import type { Scene } from "./scene";
import { partInSight, sizeOnScreen } from "./sight";
import { svg } from "./svg";
import { fileName } from "./words";

export type Kind = "png" | "png2" | "svg" | "html";

export interface Saving {
  readonly kind: Kind;
  /** How much is done, from 0 to 1; null where nobody knows. */
  readonly share: number | null;
  readonly stop: () => void;
}

/** What is being saved now. */
export const saving = signal<Saving | null>(null);

/** Entries of a side up to which all of what is in sight goes into a page exactly. */
const EXACT = 1024;

export async function save(page: Page, kind: Kind): Promise<void> {
  if (saving.peek()) return;
  const stopper = new AbortController();
  const stop = (): void => stopper.abort();
  saving.value = { kind, share: null, stop };
  const progress = (done: number, of: number): void => void (saving.value = { kind, share: done / of, stop });
  try {
    const from = view.peek();
    const [blob, ending] = await made(page, from, kind, stopper.signal, progress);
    if (stopper.signal.aborted) return;
    handOver(blob, fileName(from, page.atlas, shownBy(from, page), ending));
  } catch (error) {
    if (!isAbort(error)) notify(`Nothing was saved: ${reasonOf(error)}`, "error");
  } finally {
    saving.value = null;
  }
}

async function made(
  page: Page,
  from: View,
  kind: Kind,
  stopped: AbortSignal,
  progress: (done: number, of: number) => void,
): Promise<readonly [Blob, string]> {
  if (kind === "html") {
    const bytes = await page.transport.bytes(pathOfPage(page, from), stopped);
    return [new Blob([bytes], { type: "text/html" }), "html"];
  }
  const scale = kind === "png" ? 1 : 2;
  const scene = await sceneOf(page, from, scale, stopped, progress);
  if (kind === "svg") return [new Blob([await svg(scene)], { type: "image/svg+xml" }), "svg"];
  return [await picture(scene, scale), kind === "png" ? "png" : "2x.png"];
}

function sceneOf(page: Page, from: View, scale: number, stopped: AbortSignal, progress: (done: number, of: number) => void): Promise<Scene> {
  if (from.layer === null) return atlasScene(page, from, roomOnScreen(), scale, measuring(), stopped, progress);
  return matrixScene(page, from, sizeOnScreen(), scale, measuring(), stopped);
}

/** The path of a page that holds what is shown: all heads, or matrices, and exactly so what is in sight if that is not too much. */
export function pathOfPage(page: Page, from: View): string {
  const matrices = shownBy(from, page);
  const [first] = matrices;
  if (!first) return paths.atlasPage(write(from, page.atlas), from.capture, from.reduce);
  // a difference can be taken apart again on the page
  const names = [...new Set([...matrices.map(({ name }) => name), ...matrices.flatMap(({ name }) => name.split("~"))])];
  const { x, y, right, bottom } = partInSight(first.pyramid, from.window, sizeOnScreen());
  const few = right - x <= EXACT && bottom - y <= EXACT;
  const part = few ? { rows: [Math.floor(y), Math.ceil(bottom)] as const, cols: [Math.floor(x), Math.ceil(right)] as const } : null;
  const kept = explanationsFor(from, names, page.explaining.jobs.peek());
  const numbers = kept.flatMap(({ number }) => number ?? []);
  return paths.page(write(onlyKept(from, kept), page.atlas), names, reduceOf(first, from.reduce), part, numbers);
}

/** Give a file to the person as a browser does. */
function handOver(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.hidden = true;
  document.body.append(link);
  link.click();
  link.remove();
  // the browser reads it a little later
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
