// The gap of logits by layer, as a sum of signed parts.
import * as Plot from "@observablehq/plot";
import { fixed, tick } from "../format";
import { colours, muted } from "../theme";
import { plotStyle } from "./lines";
import { legend } from "./scale";

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
  plot.append(legend([...parts.map((p) => ({ name: p.name, colour: p.colour })), { name: "gap", colour: colours().ink, shape: "dot" }], 120, width - 136).element);
  return plot;
}
