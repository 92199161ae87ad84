/**
 * A picture as a list of marks, in CSS pixels from its upper left corner. Whoever describes a picture knows nothing of how
 * it is written, and whoever writes it knows nothing of matrices.
 */

/** A rectangle of opaque or transparent cells, drawn as squares with sharp edges. */
export interface Cells {
  readonly columns: number;
  readonly rows: number;
  /** Packed pixels (little-endian RGBA), row after row. */
  readonly pixels: Uint32Array;
}

export interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export interface Font {
  readonly size: number;
  readonly family: "sans" | "mono";
  readonly bold?: boolean;
}

export interface TextMark {
  readonly kind: "text";
  /** Where the line of the text begins, has its middle or ends, at its base line. */
  readonly x: number;
  readonly y: number;
  readonly text: string;
  readonly font: Font;
  readonly fill: string;
  readonly anchor: "start" | "middle" | "end";
  /** Whether it runs upwards. */
  readonly upward?: boolean;
  /** The colour of a rim around the letters, where they stand on something. */
  readonly rim?: string;
}

export interface RectMark extends Box {
  readonly kind: "rect";
  readonly fill?: string;
  readonly stroke?: string;
  readonly thick?: number;
}

export interface LineMark {
  readonly kind: "line";
  readonly from: readonly [x: number, y: number];
  readonly to: readonly [x: number, y: number];
  readonly stroke: string;
  readonly dashed?: boolean;
}

/** A filled polygon: x and y in turn. */
export interface AreaMark {
  readonly kind: "area";
  readonly points: readonly number[];
  readonly fill: string;
}

export interface ImageMark extends Box {
  readonly kind: "image";
  readonly cells: Cells;
}

/** Marks of which only what lies inside of a box is drawn. */
export interface ClippedMark {
  readonly kind: "clipped";
  readonly box: Box;
  readonly marks: readonly Mark[];
}

export type Mark = TextMark | RectMark | LineMark | AreaMark | ImageMark | ClippedMark;

export interface Scene {
  readonly width: number;
  readonly height: number;
  readonly ground: string;
  /** What the picture shows, in one line. */
  readonly title: string;
  readonly marks: readonly Mark[];
}

/** Says how wide a text is. */
export type Measure = (text: string, font: Font) => number;

export const FAMILIES: Readonly<Record<Font["family"], string>> = {
  sans: "system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif",
  mono: "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace",
};

export const fontOf = ({ size, family, bold }: Font): string => `${bold ? "600 " : ""}${size}px ${FAMILIES[family]}`;

/** How far below the middle of small letters their base line lies. */
export const baseline = (middle: number, { size }: Font): number => middle + 0.35 * size;

/** A colour without its opacity, and the opacity: "rgb(1 2 3 / 20%)" is new, and many programs read only the old ways. */
export function opaque(colour: string): { readonly colour: string; readonly opacity: number } {
  const found = /^rgb\((\d+) (\d+) (\d+) \/ (\d+)%\)$/.exec(colour);
  if (!found) return { colour, opacity: 1 };
  const [, red = "", green = "", blue = "", percent = ""] = found;
  return { colour: `#${[red, green, blue].map((part) => Number(part).toString(16).padStart(2, "0")).join("")}`, opacity: Number(percent) / 100 };
}
