// All heads of each document, and one head of each.
import { strongest } from "../../data/attention";
import { as, type Document } from "../../data/documents";
import { domainOf, headNumbers, metricsOf, type HeadNumbers, type Metric } from "../../data/metrics";
import { announce, h } from "../../dom";
import { fixed, isNumber, signed } from "../../format";
import { tableOf, type Column } from "../../plot/csv";
import { fan, type FanView } from "../../plot/fan";
import { figure } from "../../plot/figure";
import { grid, gridRows, showMetric } from "../../plot/grid";
import { mapPlot } from "../../plot/map";
import { table } from "../../plot/table";
import { hideTip, showTip } from "../../plot/tip";
import { ALPHA_AXIS, alphaPoints, headOn, headsOf, mapSize, named, pictureOf, promptsOf, queryTable, scaleChoice, scaleOf, type HeadOn, type Picture } from "../attention";
import { firstMeasured, range } from "../head";
import { choice, half, pairs, section, type Context } from "../view";
import { columnsOf, curves, difference, filesOf, lessFirst } from "./parts";

// What the documents have of heads, the metric that is shown, and the head that is looked at.
export interface Heads {
  metrics: Metric[]; // that all have
  numbers: Map<string, HeadNumbers[]>; // by metric, of each document
  metric: Metric;
  nLayer: number; // of the largest
  nHead: number; // in the layer
  layer: number;
  head: number;
  prompt: number;
  nPrompt: number; // with arrays in all documents
}

export function headsOfAll(all: Document[], { state }: Context): Heads | null {
  const metrics = metricsOf(all[0]!).filter(({ key }) => all.every((d) => headNumbers(d, key)?.some((l) => l.some(isNumber))));
  if (metrics.length === 0) return null;
  const numbers = new Map(metrics.map(({ key }) => [key, all.map((d) => headNumbers(d, key)!)] as const));
  const metric = metrics.find((m) => m.key === state.text("metric", "")) ?? metrics[0]!;
  const shown = numbers.get(metric.key)!;
  const nLayer = Math.max(...shown.map((n) => n.length));
  const most = mostChanged(shown[0]!, shown[1]!);
  const layer = state.index("layer", nLayer, most.layer);
  const nHead = Math.max(1, ...shown.map((n) => n[layer]?.length ?? 0));
  const nPrompt = Math.min(...all.map((d) => d.attention?.nPrompt ?? 0));
  return { metrics, numbers, metric, nLayer, nHead, layer, head: state.index("head", nHead, most.head), prompt: state.index("prompt", Math.max(1, nPrompt)), nPrompt };
}

export const likeGrids = (a: HeadNumbers, b: HeadNumbers) => a.length === b.length && a.every((l, i) => l.length === b[i]!.length);
export const changeOf = (a: HeadNumbers, b: HeadNumbers): HeadNumbers => a.map((l, i) => l.map((x, j) => difference(x, b[i]![j])));

function mostChanged(a: HeadNumbers, b: HeadNumbers): { layer: number; head: number } {
  const cells = (likeGrids(a, b) ? gridRows(changeOf(a, b)) : gridRows(a)).filter((c) => isNumber(c.value));
  return cells.reduce((most, c) => (Math.abs(c.value!) > Math.abs(most.value!) ? c : most), { layer: firstMeasured(a), head: 0, value: 0 });
}

// A grid of each document and of each difference; a cell chooses the head that is compared below.
export function grids(all: Document[], { metrics, numbers: ofAll, metric, layer, head }: Heads, context: Context): Node[] {
  const { state, width } = context;
  const numbers = ofAll.get(metric.key)!;
  const choose = (l: number, r: number) => {
    state.set({ layer: l, head: r });
    document.getElementById("head")?.closest("section")?.scrollIntoView();
    hideTip();
    announce(`Layer ${l}, head ${r} is compared below`);
  };
  const one = (id: string, title: string, cells: HeadNumbers, shown: Metric, domain: [number, number], w: number, file: string, label: string) => {
    const { plot, over } = grid({ id, name: title, enter: "chooses", numbers: cells, metric: shown, domain, width: w, at: { layer, head }, choose });
    return figure({ id, title, note: `${shown.label}.`, hint: "A cell chooses the head below.", plot, over, file: `${file}-${metric.key}`, numbers: () => tableOf({ caption: shown.label, columns: [{ label: "layer", value: (r) => r.layer }, { label: "head", value: (r) => r.head }, { label, value: (r) => r.value }], rows: gridRows(cells) }) });
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

// One head: its numbers, maps, fans and key profiles.
export function oneHead(all: Document[], { metrics, numbers, nLayer, nHead, layer, head, prompt, nPrompt }: Heads, context: Context): Node[] {
  const { state } = context;
  const title = `Layer ${layer}, head ${head}`, file = `${filesOf(all)}-l${layer}h${head}`;
  const kept = all.every((d) => d.attention);
  const measured = all.every((d) => as(d, "profile") && headsOf(as(d, "profile")!, `${layer}:${head}`).length > 0);
  const ons = kept && measured ? all.map((d) => headOn(d, layer, head, prompt)) : [];
  const alphas = ons.map((on) => on.alpha).filter((alpha) => alpha !== null);
  return [section(title,
    h("div", { id: "head", class: "controls" },
      choice("Layer", "layer", range(nLayer, String), String(layer), context),
      choice("Head", "head", range(nHead, String), String(head), context),
      nPrompt > 1 && choice("Prompt", "prompt", promptsOf(all[0]!.attention!.prompts.slice(0, nPrompt)), String(prompt), context),
      h("span", { class: "note hint" }, "By itself: ", all.map((d, i) => [i > 0 && ", ", h("a", { href: state.link({ doc: d.index, view: "head", layer, head }), "data-focus": `open-${d.index}` }, h("bdi", {}, d.name))]))),
    table({ caption: title, file, columns: [{ label: "", value: (m) => m.label, text: true }, ...columnsOf<Metric>(all, (m, i) => numbers.get(m.key)![i]![layer]?.[head], (x, m) => showMetric(m, x))], rows: metrics }),
    kept && !measured && h("p", { class: "note" }, "Not every document has measured this head: there are no maps to compare."),
    ...(ons.length > 0 ? maps(ons, all, file, context) : []),
    alphas.length === all.length && curves(all, { id: "keys", title: "Key profile", note: "Mean attention to each key from the rows that see it; square-root scale.", x: "position", y: ALPHA_AXIS, file: `${file}-p${prompt}` }, (_, i) => alphaPoints(alphas[i]!), context))];
}

const sameTexts = (a: HeadOn, b: HeadOn) => a.texts.length === b.texts.length && a.texts.every((text, i) => text === b.texts[i]);

// Maps, or bands where not all have one; of whole ones the fans too. All show the same query: that under the pointer, or else the chosen one.
function maps(ons: HeadOn[], all: Document[], file: string, context: Context): HTMLElement[] {
  const { state, width } = context;
  const w = half(width), size = mapSize(w);
  const whole = ons.every((on) => on.map);
  const pictures = ons.map((on) => pictureOf(whole ? on : { ...on, map: null }, size)).filter((p) => p !== null);
  if (pictures.length < all.length) return [];
  const scale = scaleOf(context, Math.max(...ons.map((on) => on.n)));
  const shortest = Math.min(...pictures.map((p) => p.n));
  const like = (i: number, j: number) => pictures[i]!.n === pictures[j]!.n && (whole || ons[i]!.profile.run.length === ons[j]!.profile.run.length);

  let chosen = state.index("query", shortest, shortest - 1), now = -1;
  const crosses: ((row: number) => void)[] = [], fans: FanView[] = [];
  const show = (query: number, from?: FanView) => {
    if (query === now && !from) return;
    now = query;
    for (const cross of crosses) cross(query);
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
    const alike = all.map((_, j) => j).filter((j) => like(i, j));
    const values = alike.map((j) => `${all[j]!.name}: ${pictures[j]!.says(row, column)}`);
    const changes = alike.filter((j) => j > 0 && alike.includes(0)).map((j) => `${lessFirst(all, j)}: ${signed(pictures[j]!.weight(row, column) - pictures[0]!.weight(row, column), 4)}`);
    showTip(event.clientX, event.clientY, [pictures[i]!.query(row), pictures[i]!.key(column), ...values, ...changes]);
    if (whole) show(row);
  };
  const draw = (id: string, i: number, drawing: Pick<Picture, "title" | "at" | "numbers"> & { note: string | undefined }, isChange: boolean) => {
    const { cells, n, of } = pictures[i]!;
    const { plot, over, cross } = mapPlot({ at: drawing.at, cells, n, of, size, scale, signed: isChange, hover: hover(i), choose: whole ? choose : undefined });
    if (whole) crosses.push((row) => cross(row < n ? row : null));
    return figure({ id, title: drawing.title, note: drawing.note, hint: whole ? "A click chooses the query." : undefined, plot, over, file, numbers: drawing.numbers });
  };
  const each = pictures.map((p, i) => draw(`map-${all[i]!.index}`, i, { ...p, title: `${p.title}: ${all[i]!.name}` }, false));
  const changes = pictures.map((p, i) => ({ p, i })).filter(({ i }) => i > 0 && like(0, i)).map(({ p, i }) => draw(`map-difference-${all[i]!.index}`, i, {
    title: `${p.title}: ${lessFirst(all, i)}`,
    note: [whole && p.cells < p.n && "Differences of the largest weights in each pixel.", whole && !sameTexts(ons[0]!, ons[i]!) && "By position: the tokens are not the same."].filter(Boolean).join(" ") || undefined,
    at: (row, column) => p.at(row, column) - pictures[0]!.at(row, column),
    numbers: () => (whole ? queryChanges(ons, all, chosen) : bandChanges(pictures, all, i)),
  }, true));
  const fanFigures = whole ? ons.map((on, i) => {
    const { name, index } = all[i]!;
    const view: FanView = fan({ id: `query-${i}`, name, map: on.map!, texts: on.texts, width: w, query: Math.min(chosen, on.n - 1), hover: (q) => show(q, view), leave: back, choose });
    fans.push(view);
    return h("div", { class: "beside" }, figure({ id: `fan-${index}`, title: `Whom a query looks at: ${name}`, plot: view.plot, over: view.element, file, numbers: () => queryTable(on.map!, on.texts, Math.min(chosen, on.n - 1)) }));
  }) : [];
  if (whole) queueMicrotask(back);
  return [scaleChoice(context, scale), ...pairs(each), ...pairs(changes), ...pairs(fanFigures)];
}

function queryChanges(ons: HeadOn[], all: Document[], query: number) {
  const rows = ons.map((on) => (query < on.n ? on.map!.row(query) : new Float32Array(0)));
  const keys = [...new Set(rows.flatMap((row) => strongest(row, 32, 0)))].sort((a, b) => a - b);
  const alike = ons.every((on) => sameTexts(ons[0]!, on));
  const tokens = (alike ? ons.slice(0, 1) : ons).map((on, i): Column<number> => ({ label: alike ? "token" : `token of ${all[i]!.name}`, value: (k) => named(on.texts, k), text: true }));
  return tableOf({ caption: `Whom query ${query} looks at`, columns: [{ label: "key", value: (k) => k }, ...tokens, ...columnsOf<number>(all, (k, i) => rows[i]![k], (x) => fixed(x, 4))], rows: keys });
}

function bandChanges(pictures: Picture[], all: Document[], i: number) {
  const [a, b] = [pictures[0]!, pictures[i]!];
  const cells = Array.from({ length: b.n * b.n }, (_, at) => ({ row: Math.floor(at / b.n), column: at % b.n })).filter(({ row, column }) => a.weight(row, column) > 0 || b.weight(row, column) > 0);
  return tableOf({ caption: "Mean weight between bands", columns: [{ label: "queries", value: (c) => b.query(c.row), text: true }, { label: "keys", value: (c) => b.key(c.column), text: true }, ...columnsOf<(typeof cells)[number]>([all[0]!, all[i]!], (c, which) => (which === 0 ? a : b).weight(c.row, c.column), (x) => fixed(x, 4))], rows: cells });
}
