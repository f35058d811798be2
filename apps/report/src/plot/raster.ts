// Many cells as one picture: canvas where an SVG element for each would be too many.
import { rgb } from "d3";
import { h, s } from "../dom";

export const MANY_MARKS = 5000;

// columns x rows cells; `colour` of 0 to 1, or null for nothing.
export function raster(columns: number, rows: number, at: (column: number, row: number) => number | null, colour: (t: number) => string, box: { x: number; y: number; width: number; height: number }): SVGImageElement {
  const canvas = h("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(columns, rows);
  const steps = Array.from({ length: 256 }, (_, i) => rgb(colour(i / 255)));
  for (let row = 0, to = 0; row < rows; ++row)
    for (let column = 0; column < columns; ++column, to += 4) {
      const value = at(column, row);
      if (value === null) continue;
      const { r, g, b } = steps[Math.round(Math.min(1, Math.max(0, value)) * 255)]!;
      image.data[to] = r, image.data[to + 1] = g, image.data[to + 2] = b, image.data[to + 3] = 255;
    }
  context.putImageData(image, 0, 0);
  return s("image", { ...box, href: enlarged(canvas).toDataURL(), preserveAspectRatio: "none", style: "image-rendering: pixelated" });
}

// Printers and other programs blur a small picture that is drawn large: it has enough pixels of its own.
function enlarged(canvas: HTMLCanvasElement): HTMLCanvasElement {
  const times = Math.ceil(640 / Math.max(canvas.width, canvas.height));
  if (times <= 1) return canvas;
  const large = h("canvas", { width: canvas.width * times, height: canvas.height * times });
  const context = large.getContext("2d")!;
  context.imageSmoothingEnabled = false;
  context.drawImage(canvas, 0, 0, large.width, large.height);
  return large;
}
