// Two documents of one kind: side by side, and as differences.
import { as, explanationOf, KIND_NAMES, type Document, type Explanation, type Profile, type Report } from "../data/documents";
import { domainOf, headNumbers, meanOf, metricsOf, type HeadNumbers, type Metric } from "../data/metrics";
import { resultName, type Result } from "../data/evaluation";
import { TRAINING_METRICS, variantLabels, variantsOf } from "../data/training";
import { h } from "../dom";
import { bytes, fixed, isNumber, short, signed } from "../format";
import { dots } from "../plot/dots";
import { figure } from "../plot/figure";
import { grid, gridRows } from "../plot/grid";
import { lines, type Series } from "../plot/lines";
import { tableOf } from "../plot/csv";
import { table } from "../plot/table";
import { EFFECTS, effectOf, uneven } from "./edits";
import { pairs } from "./policies";
import { sinkTable, stepNumbers, STEP_METRICS } from "./steps";
import { curveTable, emergence, type Axis } from "./training";
import { choice, half, pair, section, type Context, type View } from "./view";

const mates = (document: Document, report: Report) => report.documents.filter((d) => d !== document && d.kind === document.kind);

export const compare: View = {
  key: "compare",
  label: "Compare",
  shows: (document, report) => mates(document, report).length > 0,
  draw(context) {
    const { document: a, report, state } = context;
    const others = mates(a, report);
    const b = others.find((d) => String(d.index) === state.text("with", "")) ?? others[0]!;
    return [
      h("header", { class: "title" },
        h("h1", {}, h("bdi", {}, a.name), " and ", h("bdi", {}, b.name)),
        h("p", { class: "note" }, `Two documents of one kind: ${KIND_NAMES[a.kind]}. ${JSON.stringify(a.content) === JSON.stringify(b.content) ? "They are alike: there is no difference." : "Differences are the second less the first."}`),
        h("div", { class: "controls" }, choice("With", "with", others.map((d) => [String(d.index), d.name] as const), String(b.index), context),
          h("a", { href: state.link({ doc: b.index, with: a.index }), "data-focus": "swap" }, "Swap"))),
      ...COMPARED[a.kind](a, b, context),
    ];
  },
};

type Compared = (a: Document, b: Document, context: Context) => Node[];

const COMPARED: Record<Document["kind"], Compared> = {
  profile: (a, b, context) => [...numbers(a, b, profileRows), ...grids(a, b, context), ...positions(a, b, context), ...depths(a, b, context)],
  explain: (a, b, context) => [...numbers(a, b, explanationRows), ...grids(a, b, context), ...depths(a, b, context)],
  ablate: edits,
  eval: policies,
  denoise: denoising,
  training,
};

interface Row {
  what: string;
  a: number | null | undefined;
  b: number | null | undefined;
  digits: number;
}

const difference = (a: number | null | undefined, b: number | null | undefined) => (isNumber(a) && isNumber(b) ? b - a : null);

function numbers(a: Document, b: Document, rowsOf: (d: Document) => { what: string; value: number | null | undefined; digits: number }[]): Node[] {
  const [left, right] = [rowsOf(a), rowsOf(b)];
  const rows = left.map((r, i): Row => ({ what: r.what, digits: r.digits, a: r.value, b: right[i]?.value }));
  return [section("In numbers", table({
    caption: "Side by side",
    file: `${a.name}-and-${b.name}`,
    columns: [
      { label: "", value: (r) => r.what, text: true },
      { label: a.name, value: (r) => r.a, show: (r) => fixed(r.a, r.digits) },
      { label: b.name, value: (r) => r.b, show: (r) => fixed(r.b, r.digits) },
      { label: "difference", value: (r) => difference(r.a, r.b), show: (r) => signed(difference(r.a, r.b), r.digits) },
    ],
    rows,
  }))];
}

function profileRows(d: Document) {
  const p = as(d, "profile")!;
  return [
    { what: "sink rate of the first token, %", value: p.sink_rate.first, digits: 1 },
    { what: "mean attention to it", value: p.sink_rate.alpha_by_position[0], digits: 3 },
    { what: "the same if attention were uniform", value: p.sink_rate.uniform_alpha_by_position[0], digits: 3 },
    { what: "share on the first key, last rows", value: p.first.share[0], digits: 3 },
    { what: "rows whose strongest key it is, %", value: p.strongest_is_first, digits: 1 },
    { what: "positions that are sinks", value: p.sinks.length, digits: 0 },
    { what: "tokens in a prompt, at most", value: p.run.length, digits: 0 },
    { what: "prompts", value: p.run.n_prompt, digits: 0 },
    { what: "epsilon", value: p.run.epsilon, digits: 2 },
  ];
}

function explanationRows(d: Document) {
  const e = as(d, "explain")!;
  const heads = e.layers.flatMap((l) => l.heads ?? []);
  return [
    { what: "layer of onset", value: e.onset, digits: 0 },
    { what: "rise of the first token's length there", value: e.onset_rise, digits: 1 },
    { what: "mean gap of logits", value: meanOf(heads.map((x) => x.gap)), digits: 2 },
    { what: "outliers", value: e.outliers.length, digits: 0 },
  ];
}

// Grids of both, and of their difference where they have the same layers and heads.
function grids(a: Document, b: Document, context: Context): Node[] {
  const { state, width } = context;
  const metrics = metricsOf(a).filter((m) => headNumbers(b, m.key)?.some((l) => l.some(isNumber)));
  if (metrics.length === 0) return [];
  const metric = metrics.find((m) => m.key === state.text("metric", "")) ?? metrics[0]!;
  const [left, right] = [headNumbers(a, metric.key)!, headNumbers(b, metric.key)!];
  const same = left.length === right.length && left.every((l, i) => l.length === right[i]!.length);
  const domain = domainOf(metric, left, right);
  const w = half(width);
  const one = (d: Document, numbers: HeadNumbers) => {
    const { plot, over } = grid({ numbers, metric, domain, width: w, choose: (layer, head) => state.go({ doc: d.index, view: "head", layer, head }) });
    return figure({ id: `heads-${d.index}`, title: d.name, note: metric.label, plot, over, file: d.name, numbers: () => tableOf({ caption: metric.label, columns: [{ label: "layer", value: (r) => r.layer }, { label: "head", value: (r) => r.head }, { label: metric.key, value: (r) => r.value }], rows: gridRows(numbers) }) });
  };
  const controls = choice("Colour by", "metric", metrics.map((m) => [m.key, m.label] as const), metric.key, context);
  const children: Node[] = [controls, pair(one(a, left), one(b, right))];
  if (same) {
    const change: HeadNumbers = left.map((l, i) => l.map((x, j) => difference(x, right[i]![j])));
    const changeMetric: Metric = { key: `difference-${metric.key}`, label: `${metric.label}, difference`, unit: metric.unit, signed: true, what: "" };
    const { plot, over } = grid({ numbers: change, metric: changeMetric, domain: domainOf(changeMetric, change), width });
    children.push(figure({ id: "difference", title: `${b.name} less ${a.name}`, note: changeMetric.label, plot, over, file: `${a.name}-and-${b.name}`, numbers: () => tableOf({ caption: changeMetric.label, columns: [{ label: "layer", value: (r) => r.layer }, { label: "head", value: (r) => r.head }, { label: "difference", value: (r) => r.value }], rows: gridRows(change) }) }));
  } else children.push(h("p", { class: "note" }, "The two have unlike layers or heads: there is no difference of cells."));
  return [section("Layers and heads", ...children)];
}

// Curves of both, and their difference where it has a meaning.
function both(id: string, title: string, note: string, label: string, a: [name: string, points: Series["points"]], b: [name: string, points: Series["points"]], x: string, context: Context, options: { log?: boolean } = {}): HTMLElement[] {
  const w = half(context.width);
  const positive = [...a[1], ...b[1]].every((p) => !isNumber(p.y) || p.y > 0);
  const at = new Map(a[1].map((p) => [p.x, p.y]));
  const change = b[1].filter((p) => at.has(p.x)).map((p) => ({ x: p.x, y: difference(at.get(p.x), p.y) }));
  const file = `${a[0]}-and-${b[0]}`;
  const numbers = () => tableOf({ caption: title, columns: [{ label: x, value: (p: { x: number }) => p.x }, { label: a[0], value: (p) => at.get(p.x), show: (p) => short(at.get(p.x)) }, { label: b[0], value: (p) => b[1].find((q) => q.x === p.x)?.y, show: (p) => short(b[1].find((q) => q.x === p.x)?.y) }, { label: "difference", value: (p) => change.find((q) => q.x === p.x)?.y, show: (p) => short(change.find((q) => q.x === p.x)?.y) }], rows: [...new Set([...a[1], ...b[1]].map((p) => p.x))].sort((p, q) => p - q).map((at) => ({ x: at })) });
  return [
    figure({ id, title, note, plot: lines({ series: [{ name: a[0], points: a[1] }, { name: b[0], points: b[1] }], width: w, x: { label: x }, y: { label, ...(options.log && positive ? { type: "log" } : {}) } }), numbers, file }),
    figure({ id: `${id}-difference`, title: `${title}: difference`, note: `${b[0]} less ${a[0]}.`, plot: lines({ series: [{ name: "difference", points: change }, { name: "0", quiet: true, unnamed: true, points: change.map((p) => ({ x: p.x, y: 0 })) }], width: w, x: { label: x }, y: { label: `difference of ${label}` } }), numbers, file }),
  ];
}

function positions(a: Document, b: Document, context: Context): Node[] {
  const points = (d: Document, key: keyof Profile["sink_rate"]) => (as(d, "profile")!.sink_rate[key] as (number | null)[]).map((y, x) => ({ x, y }));
  return [section("By position",
    pair(...both("rate", "Heads that sink", "Per cent, by position.", "sink rate, %", [a.name, points(a, "by_position")], [b.name, points(b, "by_position")], "position", context)),
    pair(...both("share", "Share of all attention", "Of everything that goes to keys.", "share", [a.name, points(a, "share_by_position")], [b.name, points(b, "share_by_position")], "position", context)))];
}

function depths(a: Document, b: Document, context: Context): Node[] {
  const [left, right] = [explanationOf(a), explanationOf(b)];
  if (!left || !right) return [];
  const points = (e: Explanation, of: (l: Explanation["layers"][number]) => number | null | undefined) => e.layers.map((l) => ({ x: l.layer, y: of(l) ?? null }));
  const curve = (id: string, title: string, note: string, label: string, of: (l: Explanation["layers"][number]) => number | null | undefined, log = false) => {
    const [p, q] = [points(left, of), points(right, of)];
    return p.some((x) => isNumber(x.y)) && q.some((x) => isNumber(x.y)) ? [pair(...both(id, title, note, label, [a.name, p], [b.name, q], "layer", context, { log }))] : [];
  };
  return [section("Why",
    ...curve("norms", "Length of the first token's hidden state", "Behind each layer. Logarithmic.", "length", (l) => l.hidden?.norm_first, true),
    ...curve("gap", "Gap of logits", "Sink keys less the others, mean over heads.", "gap", (l) => meanOf((l.heads ?? []).map((x) => x.gap))),
    ...curve("drain", "Value drain", "Length of the first token's value against the median.", "ratio", (l) => (isNumber(l.value_norm_first) && l.value_norm_median ? l.value_norm_first / l.value_norm_median : null)))];
}

function edits(a: Document, b: Document, context: Context): Node[] {
  const [left, right] = [as(a, "ablate")!, as(b, "ablate")!];
  const names = [...new Set([...left.edits, ...right.edits].map((e) => e.edit))];
  const pairsOf = names.map((name) => ({ name, a: left.edits.find((e) => e.edit === name) ?? null, b: right.edits.find((e) => e.edit === name) ?? null }));
  return [section("Effects", ...EFFECTS.map(({ key, title, note, axis, show }, i) => figure({
    id: key, title, note: note.replace(" Hollow: the control.", "").replace(" The line: no edit.", ""),
    plot: dots({ rows: pairsOf.map((p) => ({ name: p.name, effects: [effectOf(p.a, key, show), effectOf(p.b, key, show)] })), kinds: [{ name: a.name }, { name: b.name }], width: context.width, axis, zero: i < 2 ? 0 : null, signed: key === "loss_change", symmetricLog: i < 2 && uneven(pairsOf.flatMap((p) => [p.a?.[key] ?? null, p.b?.[key] ?? null])) }),
    file: `${a.name}-and-${b.name}`,
    numbers: () => tableOf({ caption: title, columns: [{ label: "edit", value: (p) => p.name, text: true }, { label: a.name, value: (p) => p.a?.[key], show: (p) => show(p.a?.[key] ?? null) }, { label: b.name, value: (p) => p.b?.[key], show: (p) => show(p.b?.[key] ?? null) }, { label: "difference", value: (p) => difference(p.a?.[key], p.b?.[key]), show: (p) => signed(difference(p.a?.[key], p.b?.[key]), 3) }], rows: pairsOf }),
  })))];
}

function policies(a: Document, b: Document, { width }: Context): Node[] {
  const [left, right] = [as(a, "eval")!.results, as(b, "eval")!.results];
  const names = [...new Set([...left, ...right].map(resultName))];
  const of = (results: Result[], name: string) => results.find((r) => resultName(r) === name);
  const measures = ([["ppl", "Perplexity", 2], ["kl", "Divergence, nats", 4], ["same_top", "Same top token, %", 1], ["accuracy", "Right answers, %", 0], ["tokens_per_second", "Tokens per second", 0]] as const).filter(([key]) => [...left, ...right].some((r) => isNumber(r[key])));
  return measures.map(([key, title, digits]) => section(title, figure({
    id: key, title: `${title}, by policy`,
    plot: dots({ rows: names.map((name) => ({ name, effects: [left, right].map((results) => { const r = of(results, name); return r && isNumber(r[key]) ? { value: r[key], interval: null, show: fixed(r[key], digits) } : null; }) })), kinds: [{ name: a.name }, { name: b.name }], width, axis: title, zero: null }),
    file: `${a.name}-and-${b.name}`,
    numbers: () => tableOf({ caption: title, columns: [{ label: "policy", value: (n: string) => n, text: true }, { label: a.name, value: (n) => of(left, n)?.[key] }, { label: b.name, value: (n) => of(right, n)?.[key] }, { label: "difference", value: (n) => difference(of(left, n)?.[key], of(right, n)?.[key]) }, { label: "bytes", value: (n) => of(left, n)?.kv_bytes ?? of(right, n)?.kv_bytes, show: (n) => bytes(of(left, n)?.kv_bytes ?? of(right, n)?.kv_bytes) }], rows: names }),
  })));
}

function denoising(a: Document, b: Document, context: Context): Node[] {
  const [left, right] = [as(a, "denoise")!, as(b, "denoise")!];
  const metric = STEP_METRICS[0]!;
  const [p, q] = [stepNumbers(left, metric.of), stepNumbers(right, metric.of)];
  const domain: [number, number] = [0, Math.max(1, ...[...p, ...q].flat().map((x) => x ?? 0))];
  const w = half(context.width);
  const one = (d: Document, numbers: HeadNumbers) => { const { plot, over } = grid({ numbers, metric, domain, width: w, columns: "step", rows: "position", means: false }); return figure({ id: `steps-${d.index}`, title: d.name, note: metric.label, plot, over, file: d.name, numbers: () => sinkTable(as(d, "denoise")!) }); };
  return [
    section("Centre of the sinks", pair(...both("centre", "Centre", "Mean position of all sinks.", "position", [a.name, left.steps.map((s) => ({ x: s.step, y: s.centre }))], [b.name, right.steps.map((s) => ({ x: s.step, y: s.centre }))], "step", context))),
    section("Positions against steps", pair(one(a, p), one(b, q))),
  ];
}

function training(a: Document, b: Document, context: Context): Node[] {
  const each = [a, b].flatMap((d) => variantsOf(as(d, "training")!).map((v) => ({ ...v, document: d.name })));
  const labels = variantLabels(each.map((v) => v.name));
  const variants = each.map((v, i) => ({ ...v, name: `${v.document}, ${v.name}`, label: `${v.document}, ${labels[i]}` }));
  const axis: Axis = context.state.text("axis", "step") === "tokens" ? "tokens" : "step";
  return [section("Emergence", choice("Over", "axis", [["step", "steps"], ["tokens", "tokens"]], axis, context), ...pairs(TRAINING_METRICS.slice(0, 6).map((m) => figure({ id: m.key, title: m.label, note: m.what, plot: emergence(variants, m, axis, half(context.width), 290), numbers: () => curveTable(variants, m, axis), file: `${a.name}-and-${b.name}` }))))];
}
