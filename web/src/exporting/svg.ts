/** Writes a scene as SVG: maps as lossless images of their cells, everything else as vectors and text. */

import { dataAddress, png } from "./png";
import type { Box, Mark, Scene, TextMark } from "./scene";
import { FAMILIES, opaque } from "./scene";

export async function svg(scene: Scene): Promise<string> {
  const { width, height, ground, title, marks } = scene;
  const writer = new Writer();
  const body = await writer.all(marks);
  const size = `width="${figure(width)}" height="${figure(height)}" viewBox="0 0 ${figure(width)} ${figure(height)}"`;
  return (
    `<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" ${size} role="img">\n` +
    `<title>${escaped(title)}</title>\n${rect({ x: 0, y: 0, width, height }, colours({ fill: ground }))}${body}</svg>\n`
  );
}

class Writer {
  #clips = 0;

  async all(marks: readonly Mark[]): Promise<string> {
    let text = "";
    for (const mark of marks) text += await this.#one(mark);
    return text;
  }

  async #one(mark: Mark): Promise<string> {
    switch (mark.kind) {
      case "rect":
        return rect(mark, colours({ fill: mark.fill ?? "none", ...(mark.stroke && { stroke: mark.stroke, thick: mark.thick ?? 1 }) }));
      case "line": {
        const [[x1, y1], [x2, y2]] = [mark.from, mark.to];
        const places = attributes({ x1, y1, x2, y2, ...(mark.dashed && { "stroke-dasharray": "4 4" }) });
        return `<line${places}${colours({ stroke: mark.stroke, thick: 1 })}/>\n`;
      }
      case "area": {
        const pairs = [];
        for (let i = 0; i + 1 < mark.points.length; i += 2) pairs.push(`${figure(mark.points[i] ?? 0)},${figure(mark.points[i + 1] ?? 0)}`);
        return `<polygon points="${pairs.join(" ")}"${colours({ fill: mark.fill })}/>\n`;
      }
      case "text":
        return written(mark);
      case "image": {
        const address = dataAddress(await png(mark.cells));
        const { x, y, width, height } = mark;
        // the attribute is of SVG 1.1, the style of CSS: programs know the one or the other
        const sharp = `preserveAspectRatio="none" image-rendering="optimizeSpeed" style="image-rendering: pixelated"`;
        return `<image${attributes({ x, y, width, height })} ${sharp} href="${address}"/>\n`;
      }
      case "clipped": {
        const name = `clip-${++this.#clips}`;
        const inside = await this.all(mark.marks);
        return `<clipPath id="${name}">${rect(mark.box, "")}</clipPath>\n<g clip-path="url(#${name})">\n${inside}</g>\n`;
      }
    }
  }
}

function written({ x, y, text, font, fill, anchor, upward, rim }: TextMark): string {
  const places = attributes({
    x,
    y,
    "font-family": FAMILIES[font.family],
    "font-size": font.size,
    ...(font.bold && { "font-weight": 600 }),
    ...(anchor !== "start" && { "text-anchor": anchor }),
    ...(upward && { transform: `rotate(-90 ${figure(x)} ${figure(y)})` }),
  });
  const words = escaped(text);
  // two texts, since an outline would otherwise be drawn over the letters by what does not know paint-order
  const below = rim ? `<text${places} aria-hidden="true" stroke-linejoin="round"${colours({ fill: rim, stroke: rim, thick: 3 })}>${words}</text>\n` : "";
  return `${below}<text${places}${colours({ fill })}>${words}</text>\n`;
}

const rect = ({ x, y, width, height }: Box, rest: string): string => `<rect${attributes({ x, y, width, height })}${rest}/>\n`;

function colours({ fill, stroke, thick }: { fill?: string; stroke?: string; thick?: number }): string {
  let text = "";
  for (const [name, value] of [["fill", fill], ["stroke", stroke]] as const) {
    if (value === undefined) continue;
    const { colour, opacity } = opaque(value);
    text += attributes({ [name]: colour, ...(opacity < 1 && { [`${name}-opacity`]: opacity }) });
  }
  return stroke === undefined ? text : text + attributes({ "stroke-width": thick ?? 1 });
}

function attributes(of: Readonly<Record<string, string | number>>): string {
  return Object.entries(of)
    .map(([name, value]) => ` ${name}="${typeof value === "number" ? figure(value) : escaped(value)}"`)
    .join("");
}

/** Hundredths of a pixel are enough. */
const figure = (value: number): string => String(Math.round(value * 100) / 100);

const ENTITIES: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;" };

/** Text for XML; characters that XML does not know at all are replaced. */
export const escaped = (text: string): string =>
  text
    .replace(/[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/gu, "\ufffd")
    .replace(/[&<>"']/g, (character) => ENTITIES[character] ?? "");
