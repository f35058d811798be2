// An attention map: rows are queries, columns are keys.
import { h, s } from "../dom";
import { tick } from "../format";
import { colours, diverging, muted, sequential } from "../theme";
import { raster } from "./raster";
import { colourKey, drawing, label, places } from "./scale";

export const SCALES = {
  sqrt: { name: "square root", to: (w: number) => Math.sqrt(w), from: (t: number) => t * t },
  log: { name: "logarithm", to: (w: number) => (w <= 0 ? -1 : 1 + Math.log2(w) / 10), from: (t: number) => 2 ** (10 * (t - 1)) },
  linear: { name: "linear", to: (w: number) => w, from: (t: number) => t },
} as const;
export type ScaleName = keyof typeof SCALES;

export interface MapPlot {
  at: (row: number, column: number) => number; // weight, of `cells` x `cells`
  cells: number; // of the picture
  n: number; // of the axes
  size: number; // pixels
  scale: ScaleName;
  signed?: boolean; // a difference of weights: colours go both ways from 0
  of?: string; // what a cell is, where it is more than one position
  hover?: (row: number | null, column: number, event: PointerEvent) => void;
  choose?: ((row: number) => void) | undefined;
}

const LEFT = 54, TOP = 12, BOTTOM = 66;

export function mapPlot({ at, cells, n, size, scale, signed = false, of = "", hover, choose }: MapPlot): { plot: SVGSVGElement; over: HTMLElement; cross: (row: number | null) => void } {
  const { to, from } = SCALES[scale];
  const colour = signed ? diverging() : sequential();
  const shade = (w: number) => Math.max(0.02, to(Math.abs(w))); // what is not nothing is seen
  const picture = raster(cells, cells, (column, row) => { const w = at(row, column); return w === 0 ? null : signed ? (1 + Math.sign(w) * shade(w)) / 2 : shade(w); }, colour, { x: LEFT, y: TOP, width: size, height: size });
  const thin = size / n < 4;
  const line = s("rect", { x: LEFT - 4, width: size + 8, height: thin ? 1 : size / n, fill: thin ? colours().accent : "none", stroke: thin ? "none" : colours().accent, "stroke-width": 1.25, visibility: "hidden", "data-page-only": "" });
  const unit = size / n;
  const ticks = places(n, Math.min(n, size / 60));
  const half = Number(from(0.5).toPrecision(2));
  const key: [t: number, text: string][] = signed ? [[0, tick(-1)], [0.25, tick(-half)], [0.5, "0"], [0.75, tick(half)], [1, "1"]] : [[0, scale === "log" ? "0.001" : "0"], [0.5, tick(half)], [1, "1"]];
  const plot = drawing(LEFT + size + 8, TOP + size + BOTTOM,
    s("rect", { x: LEFT, y: TOP, width: size, height: size, fill: "none", stroke: colours().grid }),
    picture,
    ...ticks.flatMap((p) => [label(LEFT + (p + 0.5) * unit, TOP + size + 14, String(p), { "text-anchor": "middle" }), label(LEFT - 6, TOP + (p + 0.5) * unit + 3.5, String(p), { "text-anchor": "end" })]),
    label(LEFT, TOP + size + 32, `key${of} →`),
    s("text", { x: 0, y: 0, transform: `translate(11,${TOP + size}) rotate(-90)`, fill: muted() }, `← query${of}`),
    colourKey(LEFT + size - 176, TOP + size + 38, colour, signed ? "difference of weights" : "weight", key, 176),
    line);
  const over = h("div", { class: "cells", "aria-hidden": "true" });
  const cell = (event: PointerEvent | MouseEvent): [number, number] | null => {
    const box = over.getBoundingClientRect();
    const [column, row] = [Math.floor((event.clientX - box.left - LEFT) / unit), Math.floor((event.clientY - box.top - TOP) / unit)];
    return row >= 0 && row < n && column >= 0 && column < n ? [row, column] : null;
  };
  const cross = (row: number | null) => {
    line.setAttribute("visibility", row === null ? "hidden" : "visible");
    if (row !== null) line.setAttribute("y", String(TOP + row * unit));
  };
  over.addEventListener("pointermove", (event) => { const place = cell(event); hover?.(place?.[0] ?? null, place?.[1] ?? 0, event); over.style.cursor = place && choose ? "crosshair" : "default"; });
  over.addEventListener("pointerleave", (event) => hover?.(null, 0, event));
  over.addEventListener("click", (event) => { const place = cell(event); if (place) choose?.(place[0]); });
  return { plot, over, cross };
}
