/** Draws a scene on a canvas, and makes a PNG file of it. */

import type { Cells, Font, Mark, Measure, Scene, TextMark } from "./scene";
import { fontOf } from "./scene";

/** The scene as a PNG file with so many pixels for each of its own. */
export async function picture(scene: Scene, scale: number): Promise<Blob> {
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(scene.width * scale);
  canvas.height = Math.round(scene.height * scale);
  const context = contextOf(canvas);
  context.scale(scale, scale);
  draw(context, scene, imageOf);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("this picture is too large for the browser"))), "image/png");
  });
}

/** Draw a scene; `image` gives cells as something that a canvas can draw. */
export function draw(context: CanvasRenderingContext2D, scene: Scene, image: (cells: Cells) => CanvasImageSource): void {
  context.imageSmoothingEnabled = false;
  context.direction = "ltr";
  context.textBaseline = "alphabetic";
  context.fillStyle = scene.ground;
  context.fillRect(0, 0, scene.width, scene.height);
  const one = (mark: Mark): void => {
    switch (mark.kind) {
      case "rect":
        if (mark.fill) {
          context.fillStyle = mark.fill;
          context.fillRect(mark.x, mark.y, mark.width, mark.height);
        }
        if (mark.stroke) {
          context.strokeStyle = mark.stroke;
          context.lineWidth = mark.thick ?? 1;
          context.strokeRect(mark.x, mark.y, mark.width, mark.height);
        }
        break;
      case "line":
        context.strokeStyle = mark.stroke;
        context.lineWidth = 1;
        context.setLineDash(mark.dashed ? [4, 4] : []);
        context.beginPath();
        context.moveTo(...mark.from);
        context.lineTo(...mark.to);
        context.stroke();
        context.setLineDash([]);
        break;
      case "area":
        context.fillStyle = mark.fill;
        context.beginPath();
        for (let i = 0; i + 1 < mark.points.length; i += 2) context.lineTo(mark.points[i] ?? 0, mark.points[i + 1] ?? 0);
        context.fill();
        break;
      case "text":
        drawText(context, mark);
        break;
      case "image":
        context.drawImage(image(mark.cells), mark.x, mark.y, mark.width, mark.height);
        break;
      case "clipped":
        context.save();
        context.beginPath();
        context.rect(mark.box.x, mark.box.y, mark.box.width, mark.box.height);
        context.clip();
        for (const inner of mark.marks) one(inner);
        context.restore();
        break;
    }
  };
  for (const mark of scene.marks) one(mark);
}

function drawText(context: CanvasRenderingContext2D, { x, y, text, font, fill, anchor, upward, rim }: TextMark): void {
  context.save();
  context.translate(x, y);
  if (upward) context.rotate(-Math.PI / 2);
  context.font = fontOf(font);
  context.textAlign = anchor === "middle" ? "center" : anchor === "end" ? "right" : "left";
  if (rim) {
    context.strokeStyle = rim;
    context.lineWidth = 3;
    context.lineJoin = "round";
    context.strokeText(text, 0, 0);
  }
  context.fillStyle = fill;
  context.fillText(text, 0, 0);
  context.restore();
}

function imageOf({ columns, rows, pixels }: Cells): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const image = new ImageData(columns, rows);
  new Uint32Array(image.data.buffer).set(pixels);
  contextOf(canvas).putImageData(image, 0, 0);
  return canvas;
}

/** Measures texts as a canvas draws them. */
export function measuring(): Measure {
  const context = contextOf(document.createElement("canvas"));
  return (text: string, font: Font) => {
    context.font = fontOf(font);
    return context.measureText(text).width;
  };
}

function contextOf(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const context = canvas.getContext("2d");
  if (!context) throw new Error("this browser draws no canvas");
  return context;
}
