// Lines over an axis, named at their ends.
import * as Plot from "@observablehq/plot";
import { format } from "d3";
import { s } from "../dom";
import { SANS } from "../fonts";
import { isNumber, quoted, short, tick } from "../format";
import { colours, muted, seriesColour, seriesDash } from "../theme";
import { legend, textWidth } from "./scale";

export interface Point {
  x: number;
  y: number | null;
  low?: number | null;
  high?: number | null;
  tip?: string;
}

export interface Series {
  name: string;
  points: Point[];
  colour?: string;
  dash?: string;
  quiet?: boolean; // a line to compare with: thin, grey, dashed
  unnamed?: boolean; // no name at its end: one of several of a kind
  thin?: boolean;
  dots?: boolean;
}

export interface Lines {
  series: Series[];
  width: number;
  height?: number;
  x: Plot.ScaleOptions & { label: string };
  y: Plot.ScaleOptions & { label: string };
  rules?: { x: number; text: string }[];
  marks?: Plot.Markish[];
  show?: (y: number) => string;
}

export const plotStyle = () => ({ fontFamily: SANS, fontSize: "11px", color: colours().ink, background: "transparent", overflow: "visible" });

export function lines({ series, width, height = 260, x, y, rules = [], marks = [], show = short }: Lines): SVGSVGElement {
  const colour = (line: Series, i: number) => line.colour ?? (line.quiet ? muted() : seriesColour(i));
  const log = y.type === "log";
  const named = series.filter((line) => !line.unnamed && endOf(line, log));
  const all = series.flatMap((line, i) => line.points.filter((p) => isNumber(p.y)).map((p) => ({ ...p, name: line.name, colour: colour(line, i) })));
  // Names stand at the ends of lines where all end near the right and the names are short; otherwise above the plot.
  const lastX = Math.max(...all.map((p) => p.x));
  const widest = Math.max(0, ...named.map((line) => textWidth(quoted(line.name))));
  const [oneAlone, atEnds] = [series.length < 2, widest <= width * 0.26 && named.length * 14 <= height - 60 && named.every((line) => endOf(line, log)!.x > lastX * 0.96)];
  const above = oneAlone || atEnds ? null : legend(named.map((line) => ({ name: quoted(line.name), colour: colour(line, series.indexOf(line)), shape: "line", dash: dashOf(line, series.indexOf(line)) })), 52, width - 60, 32);
  const [marginTop, marginRight] = [28 + (above ? above.height + (rules.length > 0 ? 22 : 10) : 0), oneAlone || above ? 16 : 22 + widest];
  const yTicks = log ? logTicks(all.flatMap((p) => [p.y, p.low, p.high]).filter((v): v is number => isNumber(v) && v > 0)) : null;
  const yScale: Plot.ScaleOptions = yTicks ? { type: "log", axis: null } : { ticks: 5, nice: !y.domain, ...y };
  const plot = Plot.plot({
    width,
    height,
    marginTop,
    marginLeft: Math.max(52, 16 + Math.max(0, ...(yTicks ?? []).map((v) => textWidth(tick(v))))),
    marginBottom: 38,
    marginRight,
    style: plotStyle(),
    x: { tickSize: 0, labelAnchor: "center", labelArrow: "none", ...(x.type === "log" ? { axis: null } : { ticks: Math.max(3, Math.floor((width - marginRight) / 80)), tickFormat: tick }), ...x },
    y: { tickFormat: tick, tickSize: 0, label: y.label, ...yScale },
    marks: [
      yTicks ? [Plot.gridY(yTicks, { stroke: colours().grid, strokeOpacity: 1 }), logAxisY(yTicks, y.label)] : Array.isArray(y.ticks) ? Plot.gridY(y.ticks as number[], { stroke: colours().grid, strokeOpacity: 1 }) : Plot.gridY({ stroke: colours().grid, strokeOpacity: 1, ticks: 5 }),
      x.type === "log" ? logAxisX(logTicks(all.map((p) => p.x).filter((v) => v > 0)).filter((v) => v <= Math.max(...all.map((p) => p.x))), x.label, (v) => format("~s")(v)) : null,
      Plot.ruleX(rules, { x: "x", stroke: colours().accent, strokeDasharray: "2 3" }),
      Plot.text(rules, { x: "x", text: "text", frameAnchor: "top", dy: -14, dx: 4, textAnchor: "start", fill: colours().accent }),
      ...series.map((line, i) => (line.points.some((p) => isNumber(p.low)) ? Plot.areaY(line.points, { x: "x", y1: (p: Point) => p.low ?? p.y, y2: (p: Point) => p.high ?? p.y, fill: colour(line, i), fillOpacity: 0.14 }) : null)),
      ...series.map((line, i) => Plot.lineY(line.points, { x: "x", y: (p: Point) => p.y ?? NaN, stroke: colour(line, i), strokeWidth: line.quiet ? 1.2 : line.thin ? 1 : 2, strokeOpacity: line.thin ? 0.55 : 1, strokeDasharray: dashOf(line, i) })),
      ...series.map((line, i) => (line.dots ? Plot.dot(line.points.filter((p) => isNumber(p.y)), { x: "x", y: "y", r: 2.8, fill: colour(line, i) }) : null)),
      ...marks,
      Plot.tip(all, Plot.pointer({ x: "x", y: "y", fill: colours().paper, stroke: colours().grid, title: (p: (typeof all)[number]) => `${p.name}\n${x.label} ${short(p.x)}: ${show(p.y!)}${p.tip ? `\n${p.tip}` : ""}` })),
    ],
  }) as SVGSVGElement & Plot.Plot;

  if (above) plot.append(above.element);
  else if (!oneAlone) {
    const [toX, toY] = [plot.scale("x")!, plot.scale("y")!];
    const ends = named.map((line) => {
      const last = endOf(line, log)!;
      return { line, i: series.indexOf(line), x: toX.apply(last.x) as number, at: toY.apply(last.y) as number, y: toY.apply(last.y) as number };
    }).filter((end) => Number.isFinite(end.y)).sort((a, b) => a.y - b.y);
    spread(ends, 14, 26, height - 34);
    for (const end of ends)
      plot.append(s("g", {},
        s("path", { d: `M${end.x + 4},${end.at}L${end.x + 11},${end.y}`, stroke: colour(end.line, end.i), fill: "none" }),
        s("text", { x: end.x + 14, y: end.y, dy: "0.35em", fill: colours().ink, "text-anchor": "start" }, quoted(end.line.name))));
  }
  return plot;
}

const dashOf = (line: Series, i: number): string => line.dash ?? (line.quiet ? "4 3" : seriesDash(i));
const endOf = (line: Series, log: boolean): Point | undefined => line.points.filter((p) => isNumber(p.y) && (!log || p.y > 0)).sort((a, b) => a.x - b.x).at(-1);

// Decades, with 2 and 5 between where there are few.
export function logTicks(values: number[]): number[] {
  const [low, high] = [Math.min(...values, 1e300), Math.max(...values, 1e-300)];
  const from = Math.floor(Math.log10(low)), to = Math.ceil(Math.log10(high));
  const within = (steps: number[]) => Array.from({ length: to - from + 1 }, (_, i) => steps.map((m) => m * 10 ** (from + i))).flat().filter((v) => v >= low / 1.6 && v <= high * 1.6);
  return [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8]].map(within).find((ticks) => ticks.length >= 3) ?? [low, high];
}

// Axes of logarithmic scales with every tick named: by themselves they leave names out.
export const logAxisX = (ticks: number[], label: string, show: (x: number) => string = tick): Plot.Markish => Plot.axisX(ticks, { text: show, tickSize: 0, label, labelAnchor: "center", labelArrow: "none" });
export const logAxisY = (ticks: number[], label: string): Plot.Markish => Plot.axisY(ticks, { text: tick, tickSize: 0, label });

// Moves places that ascend in y so that they are `room` apart, within low to high.
export function spread(ends: { y: number }[], room: number, low: number, high: number): void {
  for (let pass = 0; pass < 60; ++pass)
    for (let i = 1; i < ends.length; ++i) {
      const overlap = room - (ends[i]!.y - ends[i - 1]!.y);
      if (overlap > 0) { ends[i - 1]!.y -= overlap / 2; ends[i]!.y += overlap / 2; }
    }
  const push = Math.max(0, (ends.at(-1)?.y ?? 0) - high) || -Math.max(0, low - (ends[0]?.y ?? low));
  for (const end of ends) end.y -= push;
}
