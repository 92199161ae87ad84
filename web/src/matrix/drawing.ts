/** Canvases that keep to the size of their element and to the screen's pixels, and are drawn once a frame. */

export interface Pen {
  readonly context: CanvasRenderingContext2D;
  /** In CSS pixels, which are the units to draw in. */
  readonly width: number;
  readonly height: number;
}

/** Make a canvas fit its element and return it cleared, or null while it has no size. */
export function cleared(canvas: HTMLCanvasElement): Pen | null {
  const { clientWidth: width, clientHeight: height } = canvas;
  const context = canvas.getContext("2d");
  if (!context || !width || !height) return null;
  const [wide, high] = [Math.round(width * devicePixelRatio), Math.round(height * devicePixelRatio)];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
  }
  context.setTransform(wide / width, 0, 0, high / height, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Returns a function that does `work` at the next frame, however often it is called before. */
export function oncePerFrame(work: () => void): { readonly ask: () => void; readonly stop: () => void } {
  let frame = 0;
  return {
    ask: () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        work();
      });
    },
    stop: () => {
      cancelAnimationFrame(frame);
      frame = 0;
    },
  };
}

export type Shade = "light" | "dark";

/** The colours of what is drawn around and over a map. */
export interface Ink {
  readonly text: string;
  readonly faint: string;
  readonly line: string;
  readonly accent: string;
  readonly accentSoft: string;
  readonly ground: string;
  readonly track: string;
}

export const INK: Readonly<Record<Shade, Ink>> = {
  light: {
    text: "#22242a",
    faint: "#6b6f78",
    line: "rgb(34 36 42 / 14%)",
    accent: "#0b6e4f",
    accentSoft: "rgb(11 110 79 / 16%)",
    ground: "#ffffff",
    track: "#5b6b8c",
  },
  dark: {
    text: "#e4e5e9",
    faint: "#9a9ea8",
    line: "rgb(228 229 233 / 16%)",
    accent: "#5fd7a7",
    accentSoft: "rgb(95 215 167 / 20%)",
    ground: "#16171b",
    track: "#93a5cc",
  },
};

export const SMALL = "11px system-ui, sans-serif";
export const TOKEN = "11px ui-monospace, 'DejaVu Sans Mono', monospace";
