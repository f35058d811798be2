// All heads of each document, and one head of each.
import { strongest } from "../../data/attention";
import type { Document } from "../../data/documents";
import { domainOf, headNumbers, metricsOf, type HeadNumbers, type Metric } from "../../data/metrics";
import { h } from "../../dom";
import { fixed, isNumber, signed } from "../../format";
import { tableOf } from "../../plot/csv";
import { fan, type FanView } from "../../plot/fan";
import { figure } from "../../plot/figure";
import { grid, gridRows, showMetric } from "../../plot/grid";
import { mapPlot } from "../../plot/map";
import { table } from "../../plot/table";
import { hideTip, showTip } from "../../plot/tip";
import { ALPHA_AXIS, alphaPoints, headOn, mapSize, named, pictureOf, promptsOf, scaleChoice, scaleOf, type HeadOn } from "../attention";
import { firstMeasured, range } from "../head";
import { choice, half, pairs, section, type Context } from "../view";
import { columnsOf, curves, difference, filesOf, lessFirst } from "./parts";

export const metricsOfAll = (all: Document[]) => metricsOf(all[0]!).filter(({ key }) => all.every((d) => headNumbers(d, key)?.some((l) => l.some(isNumber))));
export const metricOf = (metrics: Metric[], { state }: Context) => metrics.find((m) => m.key === state.text("metric", "")) ?? metrics[0]!;
export const likeGrids = (a: HeadNumbers, b: HeadNumbers) => a.length === b.length && a.every((l, i) => l.length === b[i]!.length);
export const changeOf = (a: HeadNumbers, b: HeadNumbers): HeadNumbers => a.map((l, i) => l.map((x, j) => difference(x, b[i]![j])));

// A grid of each document and of each difference; a cell chooses the head that is compared below.
export function grids(all: Document[], context: Context): Node[] {
  const { state, width } = context;
  const metrics = metricsOfAll(all);
  if (metrics.length === 0) return [];
  const metric = metricOf(metrics, context);
  const numbers = all.map((d) => headNumbers(d, metric.key)!);
  const { layer, head } = chosenHead(all, metric, context);
  const choose = (l: number, r: number) => {
    state.set({ layer: l, head: r });
    document.getElementById("head")?.closest("section")?.scrollIntoView();
  };
  const one = (id: string, title: string, cells: HeadNumbers, shown: Metric, domain: [number, number], w: number, file: string, label: string) => {
    const { plot, over } = grid({ id, numbers: cells, metric: shown, domain, width: w, at: { layer, head }, choose });
    return figure({ id, title, note: `${shown.label}.`, hint: "A cell chooses the head below.", plot, over, file, numbers: () => tableOf({ caption: shown.label, columns: [{ label: "layer", value: (r) => r.layer }, { label: "head", value: (r) => r.head }, { label, value: (r) => r.value }], rows: gridRows(cells) }) });
  };
  const domain = domainOf(metric, ...numbers);
  const like = all.map((_, i) => i).filter((i) => i > 0 && likeGrids(numbers[0]!, numbers[i]!));
  const changes = like.map((i) => changeOf(numbers[0]!, numbers[i]!));
  const change: Metric = { key: `difference-${metric.key}`, label: `${metric.label}, difference`, unit: metric.unit, signed: true, what: "" };
  const changed = like.map((i, j) => one(all.length === 2 ? "difference" : `difference-${all[i]!.index}`, lessFirst(all, i), changes[j]!, change, domainOf(change, ...changes), like.length === 1 ? width : half(width), filesOf(all), "difference"));
  return [section("Layers and heads",
    choice("Colour by", "metric", metrics.map((m) => [m.key, m.label] as const), metric.key, context),
    ...pairs(all.map((d, i) => one(`heads-${d.index}`, d.name, numbers[i]!, metric, domain, half(width), d.name, metric.key))),
    ...(changed.length === 1 ? changed : pairs(changed)),
    like.length < all.length - 1 && h("p", { class: "note" }, "Where two have unlike layers or heads, there is no difference of cells."))];
}

// What the address says, or else the head that differs most between the first two.
export function chosenHead(all: Document[], metric: Metric, { state }: Context): { layer: number; head: number } {
  const [a, b] = [headNumbers(all[0]!, metric.key)!, headNumbers(all[1]!, metric.key)!];
  const cells = likeGrids(a, b) ? gridRows(changeOf(a, b)).filter((c) => isNumber(c.value)) : [];
  const most = cells.reduce((m, c) => (Math.abs(c.value!) > Math.abs(m.value!) ? c : m), cells[0] ?? { layer: firstMeasured(a), head: 0, value: 0 });
  const layer = state.index("layer", a.length, most.layer);
  return { layer, head: state.index("head", Math.max(1, a[layer]!.length), most.head) };
}

export const promptOf = (all: Document[], { state }: Context) => state.index("prompt", Math.max(1, Math.min(...all.map((d) => d.attention?.nPrompt ?? 0))));

// One head: its numbers, maps, fans and key profiles.
export function oneHead(all: Document[], context: Context): Node[] {
  const metrics = metricsOfAll(all);
  if (metrics.length === 0) return [];
  const { state } = context;
  const { layer, head } = chosenHead(all, metricOf(metrics, context), context);
  const numbers = (m: Metric, i: number) => headNumbers(all[i]!, m.key)![layer]?.[head];
  const nLayer = headNumbers(all[0]!, metrics[0]!.key)!.length, nHead = Math.max(1, headNumbers(all[0]!, metrics[0]!.key)![layer]!.length);
  const ons = all.every((d) => d.attention) ? all.map((d) => headOn(d, layer, head, promptOf(all, context))) : [];
  const prompts = all[0]!.attention?.prompts.slice(0, Math.min(...all.map((d) => d.attention?.nPrompt ?? 0))) ?? [];
  return [section(`Layer ${layer}, head ${head}`,
    h("div", { id: "head", class: "controls" },
      choice("Layer", "layer", range(nLayer, String), String(layer), context),
      choice("Head", "head", range(nHead, String), String(head), context),
      prompts.length > 1 && choice("Prompt", "prompt", promptsOf(prompts), String(promptOf(all, context)), context),
      h("span", { class: "note" }, "By itself: ", all.map((d, i) => [i > 0 && ", ", h("a", { href: state.link({ doc: d.index, view: "head", layer, head }), "data-focus": `open-${d.index}` }, h("bdi", {}, d.name))]))),
    table({ caption: `Layer ${layer}, head ${head}`, file: `${filesOf(all)}-l${layer}h${head}`, columns: [{ label: "", value: (m) => m.label, text: true }, ...columnsOf<Metric>(all, numbers, (x, m) => showMetric(m, x))], rows: metrics }),
    ...maps(ons, all, context),
    ...(ons.length > 0 && ons.every((on) => on.alpha) ? [curves(all, { id: "keys", title: "Key profile", note: "Mean attention to each key from the rows that see it; square-root scale.", x: "position", y: ALPHA_AXIS }, (_, i) => alphaPoints(ons[i]!.alpha!), context)] : []))];
}

// Maps, or bands where not all have one; of whole ones the fans too. All show the same query: that under the pointer, or else the chosen one.
function maps(ons: HeadOn[], all: Document[], context: Context): HTMLElement[] {
  const { state, width } = context;
  const w = half(width), size = mapSize(w);
  const whole = ons.every((on) => on.map);
  const pictures = ons.map((on) => pictureOf(whole ? on : { ...on, map: null }, size)).filter((p) => p !== null);
  if (pictures.length < all.length) return [];
  const n = Math.max(...pictures.map((p) => p.n));
  const scale = scaleOf(context, n);
  const where = `${filesOf(all)}-l${ons[0]!.layer}h${ons[0]!.head}`;
  const like = (i: number) => pictures[i]!.n === pictures[0]!.n && (whole || ons[i]!.profile.run.length === ons[0]!.profile.run.length);
  let chosen = state.index("query", n, n - 1);
  const crosses: ((row: number | null) => void)[] = [], fans: FanView[] = [];
  const show = (query: number, from?: FanView) => {
    crosses.forEach((cross) => cross(query < n ? query : null));
    for (const view of fans) if (view !== from) view.show(query);
  };
  const back = () => show(chosen);
  const choose = (query: number) => { chosen = query; state.remember({ query }); show(query); };
  const hover = (i: number) => (row: number | null, column: number, event: PointerEvent) => {
    if (row === null) {
      hideTip();
      if (whole) back();
      return;
    }
    const values = all.map((d, j) => (pictures[j]!.n > Math.max(row, column) ? `${d.name}: ${pictures[j]!.says(row, column)}` : null)).filter((x) => x !== null);
    const changes = all.map((_, j) => (j > 0 && like(j) ? `${lessFirst(all, j)}: ${signed(pictures[j]!.weight(row, column) - pictures[0]!.weight(row, column), 4)}` : null)).filter((x) => x !== null);
    showTip(event.clientX, event.clientY, [pictures[i]!.query(row), pictures[i]!.key(column), ...values, ...changes]);
    if (whole) show(row);
  };
  const draw = (id: string, title: string, i: number, note: string | undefined, at: (row: number, column: number) => number, signedMap: boolean) => {
    const { cells, n, of, numbers } = pictures[i]!;
    const drawn = mapPlot({ at, cells, n, of, size, scale, signed: signedMap, hover: hover(i), choose: whole ? choose : undefined });
    if (whole) crosses.push(drawn.cross);
    return figure({ id, title, note, hint: whole ? "A click chooses the query." : undefined, plot: drawn.plot, over: drawn.over, file: signedMap ? where : `${all[i]!.name}-l${ons[i]!.layer}h${ons[i]!.head}`, numbers: signedMap ? undefined : numbers });
  };
  const each = pictures.map((p, i) => draw(`map-${all[i]!.index}`, `${p.title}: ${all[i]!.name}`, i, p.note, p.at, false));
  const changes = pictures.map((p, i) => (i > 0 && like(i) ? draw(`map-difference-${all[i]!.index}`, `${p.title}: ${lessFirst(all, i)}`, i, p.whole ? p.note : undefined, (row, column) => p.at(row, column) - pictures[0]!.at(row, column), true) : null)).filter((f) => f !== null);
  const fanFigures = whole ? ons.map((on, i) => {
    const view: FanView = fan({ id: `query-${i}`, map: on.map!, texts: on.texts, width: w, query: Math.min(chosen, on.n - 1), hover: (q) => show(q, view), leave: back, choose });
    fans.push(view);
    return h("div", { class: "beside" }, figure({ id: `fan-${all[i]!.index}`, title: `Whom a query looks at: ${all[i]!.name}`, plot: view.plot, over: view.element, file: where, numbers: () => queryTable(ons, all, chosen) }));
  }) : [];
  if (whole) queueMicrotask(back);
  return [scaleChoice(context, scale), ...pairs(each), ...pairs(changes), ...pairs(fanFigures)];
}

function queryTable(ons: HeadOn[], all: Document[], query: number) {
  const rows = ons.map((on) => (query < on.n ? on.map!.row(query) : new Float32Array(0)));
  const keys = [...new Set(rows.flatMap((row) => strongest(row, 32, 0)))].sort((a, b) => a - b);
  return tableOf({ caption: `Whom query ${query} looks at`, columns: [{ label: "key", value: (k) => k }, { label: "token", value: (k) => named(ons[0]!.texts, k), text: true }, ...columnsOf<number>(all, (k, i) => rows[i]![k], (x) => fixed(x, 4))], rows: keys });
}
