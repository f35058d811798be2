// Pieces that plots share: an SVG with the page's type, text and how wide it is, names with their colours, and the key of a colour scale.
import { h, s } from "../dom";
import { SANS } from "../fonts";
import { clipped } from "../format";
import { colours, muted } from "../theme";

export function drawing(width: number, height: number, ...children: Element[]): SVGSVGElement {
  return s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "font-family": SANS, "font-size": FONT_SIZE, fill: colours().ink }, children);
}

export const label = (x: number, y: number, text: string, attributes: Record<string, string | number> = {}): SVGTextElement => s("text", { x, y, fill: muted(), ...attributes }, text);

export const FONT_SIZE = 11;
const pen = h("canvas").getContext("2d")!;
export function textWidth(text: string, size = FONT_SIZE): number {
  pen.font = `${size}px ${SANS}`;
  return pen.measureText(text).width;
}

// With an ellipsis where it is wider than `width`.
export function fitted(text: string, width: number, size = FONT_SIZE): string {
  let letters = [...text].length;
  while (letters > 1 && textWidth(clipped(text, letters), size) > width) --letters;
  return clipped(text, letters);
}

export interface Entry {
  name: string;
  colour: string;
  shape?: "line" | "dot" | "hollow"; // otherwise a square
  dash?: string;
}

const LEGEND_ROW = 17;

// Names with their colours, in as many rows as they need; part of the plot so that exports have them.
export function legend(entries: Entry[], x: number, width: number, y = 14): { element: SVGGElement; height: number } {
  let [left, row] = [0, 0];
  const keys = entries.map(({ name, colour, shape, dash }) => {
    const mark = shape === "line" ? 24 : 14, shown = fitted(name, width - mark), own = mark + textWidth(shown);
    if (left > 0 && left + own > width) [left, row] = [0, row + 1];
    const [at, mid] = [x + left, y + row * LEGEND_ROW];
    left += own + 20;
    return s("g", {},
      shape === "line" ? s("line", { x1: at, x2: at + 18, y1: mid, y2: mid, stroke: colour, "stroke-width": 2, "stroke-dasharray": dash || null })
        : shape ? s("circle", { cx: at + 4, cy: mid, r: 4, fill: shape === "hollow" ? colours().paper : colour, stroke: colour, "stroke-width": 1.5 })
          : s("rect", { x: at - 1, y: mid - 5, width: 10, height: 10, rx: 2, fill: colour }),
      s("text", { x: at + mark, y: mid, dy: "0.35em", "text-anchor": "start", fill: colours().ink }, shown === name ? null : s("title", {}, name), shown));
  });
  return { element: s("g", {}, keys), height: (row + 1) * LEGEND_ROW };
}

// A ramp with numbers at its ends and at `middle`.
export function colourKey(x: number, y: number, colour: (t: number) => string, title: string, ticks: [t: number, text: string][], width = 160): SVGGElement {
  const n = 48;
  return s("g", { transform: `translate(${x},${y})` },
    Array.from({ length: n }, (_, i) => s("rect", { x: (i * width) / n, y: 0, width: width / n + 0.6, height: 8, fill: colour((i + 0.5) / n) })),
    s("rect", { x: 0, y: 0, width: width + 0.6, height: 8, fill: "none", stroke: colours().grid }),
    textWidth(title) > width ? label(width, -6, title, { "text-anchor": "end" }) : label(0, -6, title),
    ticks.map(([t, text]) => label(t * width, 20, text, { "text-anchor": t === 0 ? "start" : t === 1 ? "end" : "middle" })));
}

// About `n` round places of 0 to count - 1.
export function places(count: number, n: number): number[] {
  const raw = Math.max(1, count / n);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((x) => x >= raw)!;
  return Array.from({ length: Math.ceil(count / step) }, (_, i) => i * step);
}
