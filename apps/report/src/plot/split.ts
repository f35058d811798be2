// The gap of logits by layer, as a sum of signed parts.
import * as Plot from "@observablehq/plot";
import { fixed, tick } from "../format";
import { colours, muted } from "../theme";
import { plotStyle } from "./lines";

export interface GapRow {
  layer: number;
  gap: number | null;
  angle: number | null;
  norm: number | null;
  rest: number | null;
}

export function split(rows: GapRow[], width: number): SVGSVGElement {
  const parts = (["angle", "norm", "rest"] as const).map((key) => ({ key, name: { angle: "angle", norm: "key length", rest: "the rest" }[key], colour: { angle: colours().series[0]!, norm: colours().series[4]!, rest: muted() }[key] }));
  const bars = rows.flatMap((r) => parts.map((p) => ({ layer: r.layer, name: p.name, value: r[p.key] ?? 0 })));
  const says = (r: GapRow) => `layer ${r.layer}\ngap ${fixed(r.gap, 2)}\nangle ${fixed(r.angle, 2)}\nkey length ${fixed(r.norm, 2)}\nthe rest ${fixed(r.rest, 2)}`;
  const plot = Plot.plot({
    width, height: 290, marginTop: 46, marginLeft: 52, marginBottom: 38, marginRight: 16, style: plotStyle(),
    x: { label: "layer", labelAnchor: "center", type: "band", padding: 0.35, tickSize: 0, domain: Array.from({ length: Math.max(...rows.map((r) => r.layer)) + 1 }, (_, i) => i) },
    y: { label: "logit", nice: true, tickFormat: tick, tickSize: 0, ticks: 6 },
    color: { domain: parts.map((p) => p.name), range: parts.map((p) => p.colour) },
    marks: [
      Plot.gridY({ stroke: colours().grid, strokeOpacity: 1 }),
      Plot.barY(bars, { x: "layer", y: "value", fill: "name" }),
      Plot.ruleY([0], { stroke: muted() }),
      Plot.dot(rows, { x: "layer", y: "gap", r: 4, fill: colours().ink, stroke: colours().paper, strokeWidth: 1.5 }),
      Plot.tip(rows, Plot.pointerX({ x: "layer", y: "gap", title: says, fill: colours().paper, stroke: colours().grid })),
    ],
  }) as SVGSVGElement;
  legend(plot, [...parts.map((p) => ({ name: p.name, colour: p.colour })), { name: "gap", colour: colours().ink, dot: true }], width - 16);
  return plot;
}

// Names with their colours in a line at the top right, part of the plot so that exports have them.
export function legend(plot: SVGSVGElement, entries: { name: string; colour: string; dot?: boolean; hollow?: boolean }[], right: number, y = 14): void {
  const make = (tag: string, attributes: Record<string, string | number>, text = "") => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, String(v));
    e.textContent = text;
    plot.append(e);
  };
  let x = right;
  for (const { name, colour, dot, hollow } of [...entries].reverse()) {
    x -= 6.3 * name.length;
    make("text", { x, y, "text-anchor": "start", fill: colours().ink, "dominant-baseline": "middle" }, name);
    x -= 14;
    if (dot) make("circle", { cx: x + 4, cy: y, r: 4, fill: hollow ? colours().paper : colour, stroke: colour, "stroke-width": 1.5 });
    else make("rect", { x: x - 1, y: y - 5, width: 10, height: 10, rx: 2, fill: colour });
    x -= 20;
  }
}
