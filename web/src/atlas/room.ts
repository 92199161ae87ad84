/** How much room the grid of the atlas has, and what part of it is in sight. */

import { useEffect, useLayoutEffect, useState } from "preact/hooks";

export interface Room {
  readonly width: number;
  readonly height: number;
}

/** The width that the grid has, and the height that is left below where it begins. */
export function useRoom(grid: { readonly current: HTMLElement | null }): Room | null {
  const [room, setRoom] = useState<Room | null>(null);
  useLayoutEffect(() => {
    const element = grid.current;
    if (!element) return;
    const measure = (): void => {
      const height = innerHeight - element.offsetTop - 24;
      const width = element.clientWidth;
      setRoom((before) => (before?.width === width && before.height === height ? before : { width, height }));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    addEventListener("resize", measure);
    return () => {
      observer.disconnect();
      removeEventListener("resize", measure);
    };
  }, [grid]);
  return room;
}

/** From where to where, in the grid's own pixels. */
export interface Band {
  readonly from: number;
  readonly upTo: number;
}

/** The band moves in steps this large, and reaches as far beyond what is in sight; scrolling within a step changes nothing. */
const STEP = 320;

/** Which part of the grid is in sight, whatever it is that scrolls. */
export function useBand(grid: { readonly current: HTMLElement | null }): Band {
  const [band, setBand] = useState<Band>({ from: -STEP, upTo: 3 * STEP });
  useEffect(() => {
    const measure = (): void => {
      const top = -(grid.current?.getBoundingClientRect().top ?? 0);
      const from = Math.floor(top / STEP - 1) * STEP;
      const upTo = Math.ceil((top + innerHeight) / STEP + 1) * STEP;
      setBand((before) => (before.from === from && before.upTo === upTo ? before : { from, upTo }));
    };
    measure();
    const quietly = { capture: true, passive: true } as const;
    document.addEventListener("scroll", measure, quietly);
    addEventListener("resize", measure);
    return () => {
      document.removeEventListener("scroll", measure, quietly);
      removeEventListener("resize", measure);
    };
  }, [grid]);
  return band;
}

/** So many items are put into the page in one go: as groups of cells, a task of some tens of milliseconds on a slow machine. */
const AT_ONCE = 6;

/** The first of the items, and more of them with each frame; from the first again when `anew` is another one. */
export function useGradually<T>(items: readonly T[], anew: unknown): readonly T[] {
  const [shown, setShown] = useState({ anew, count: AT_ONCE });
  const count = shown.anew === anew ? shown.count : AT_ONCE;
  const missing = count < items.length;
  useEffect(() => {
    if (!missing) return undefined;
    const frame = requestAnimationFrame(() => setShown({ anew, count: count + AT_ONCE }));
    return () => cancelAnimationFrame(frame);
  }, [missing, anew, count]);
  return missing ? items.slice(0, count) : items;
}
