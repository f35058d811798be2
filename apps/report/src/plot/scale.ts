// Pieces that hand-made plots share: an SVG with the page's type, text, and the key of a colour scale.
import { s } from "../dom";
import { SANS } from "../fonts";
import { colours, muted } from "../theme";

export function drawing(width: number, height: number, ...children: Element[]): SVGSVGElement {
  return s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "font-family": SANS, "font-size": 11, fill: colours().ink }, children);
}

export const label = (x: number, y: number, text: string, attributes: Record<string, string | number> = {}): SVGTextElement => s("text", { x, y, fill: muted(), ...attributes }, text);

// A ramp with numbers at its ends and at `middle`.
export function colourKey(x: number, y: number, colour: (t: number) => string, title: string, ticks: [t: number, text: string][], width = 160): SVGGElement {
  const n = 48;
  return s("g", { transform: `translate(${x},${y})` },
    Array.from({ length: n }, (_, i) => s("rect", { x: (i * width) / n, y: 0, width: width / n + 0.6, height: 8, fill: colour((i + 0.5) / n) })),
    s("rect", { x: 0, y: 0, width: width + 0.6, height: 8, fill: "none", stroke: colours().grid }),
    label(0, -6, title),
    ticks.map(([t, text]) => label(t * width, 20, text, { "text-anchor": t === 0 ? "start" : t === 1 ? "end" : "middle" })));
}

// About `n` round places of 0 to count - 1.
export function places(count: number, n: number): number[] {
  const raw = Math.max(1, count / n);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((x) => x >= raw)!;
  return Array.from({ length: Math.ceil(count / step) }, (_, i) => i * step);
}
