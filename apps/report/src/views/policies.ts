// Which rows of the cache stay, and what that costs: over the text, and against memory.
import * as Plot from "@observablehq/plot";
import { mean as meanOf } from "d3";
import { as, type Evaluation } from "../data/documents";
import { resultName, type Result } from "../data/evaluation";
import { bytes, count, fixed, isNumber, percent, short, tick } from "../format";
import { figure } from "../plot/figure";
import { lines, logAxisX, logAxisY, logTicks, plotStyle, spread, type Series } from "../plot/lines";
import { tableOf } from "../plot/csv";
import { table } from "../plot/table";
import { colours, muted, seriesColour } from "../theme";
import { s } from "../dom";
import { answer } from "./answer";
import { choice, half, notesOf, pairs, section, type Context, type View } from "./view";
import { depths } from "../plot/depths";
import { fitted, textWidth } from "../plot/scale";

export const policies: View = {
  key: "policies",
  label: "Policies",
  shows: (document) => document.kind === "eval",
  draw(context) {
    const e = as(context.document, "eval")!;
    return [answer(context.document), ...(e.run.task === "text" ? ofText(e, context) : ofAnswers(e, context)), section("In numbers", numbersOf(e, context)), ...notesOf(e.notes)];
  },
};

type Over = { key: "ppl_by_1024" | "tokens_per_second_by_1024"; title: string; note: string; label: string; log?: boolean };
const OVER: Over[] = [
  { key: "ppl_by_1024", title: "Perplexity over position", note: "Of each 1,024 tokens of the text.", label: "perplexity", log: true },
  { key: "tokens_per_second_by_1024", title: "Speed over position", note: "Tokens per second of the same tokens.", label: "tokens/s" },
];

// Policies keep their colours in all plots; budgets of a policy differ in their dashes.
export const policyColour = (results: readonly Result[], r: Result): string => seriesColour([...new Set(results.map((x) => x.policy))].indexOf(r.policy));
const dashOf = (results: readonly Result[], r: Result) => ["", "6 3", "2 3", "10 3 2 3"][results.filter((x) => x.policy === r.policy).indexOf(r) % 4]!;

// The tokens that number `i` of "by 1,024" is of: spans of 1,024, of which the first and the last may be cut.
function spanOf({ skip, n_token }: Evaluation["run"], i: number): readonly [number, number] {
  const from = (Math.floor((skip + 1) / 1024) + i) * 1024;
  return [Math.max(from, skip), Math.min(from + 1024, n_token)];
}
const overSeries = (results: readonly Result[], key: Over["key"], run: Evaluation["run"]): Series[] => results.filter((r) => r[key]).map((r) => ({ name: resultName(r), colour: policyColour(results, r), dash: dashOf(results, r), dots: true, points: r[key]!.map((y, i) => ({ x: meanOf(spanOf(run, i))!, y })) }));

function ofText(e: Evaluation, context: Context): Node[] {
  const { document, width, state } = context;
  const budgets = [...new Set(e.results.map((r) => r.budget_rows))].filter((b) => b > 0);
  const shownBudget = state.text("budget", budgets.length > 1 ? String(budgets[Math.floor(budgets.length / 2)]) : "all");
  const shown = e.results.filter((r) => shownBudget === "all" || r.budget_rows === 0 || String(r.budget_rows) === shownBudget);
  const w = half(width);
  const over = OVER.map(({ key, title, note, label, log }, i) => figure({
    id: key, title, note,
    controls: i === 0 && budgets.length > 1 ? choice("Rows kept", "budget", [...budgets.map((b) => [String(b), count(b)] as const), ["all", "all budgets"]], shownBudget, context) : undefined,
    plot: lines({ series: overSeries(shown, key, e.run), width, height: 320, x: { label: "position in the text", domain: [0, e.run.n_token] }, y: { label, ...(log ? { type: "log" } : { zero: true }) } }),
    numbers: () => tableOf({ caption: title, columns: [{ label: "tokens", value: (i: number) => { const [from, end] = spanOf(e.run, i); return `${from} to ${end - 1}`; }, text: true }, ...e.results.map((r) => ({ label: resultName(r), value: (i: number) => r[key]?.[i], show: (i: number) => fixed(r[key]?.[i], 2) }))], rows: Array.from({ length: Math.max(...e.results.map((r) => r[key]?.length ?? 0)) }, (_, i) => i) }),
    file: document.name,
  }));
  const quality = (["ppl", "kl", "same_top"] as const).filter((key) => e.results.some((r) => isNumber(r[key])));
  const titles = { ppl: ["Perplexity over bytes", "perplexity"], kl: ["Divergence over bytes", "KL from the full cache, nats"], same_top: ["Same top token over bytes", "same top, %"] } as const;
  const plots = quality.map((key) => figure({ id: `${key}-bytes`, title: titles[key][0], note: `Memory of keys and values; ${key === "same_top" ? "upper" : "lower"} left is better.`, plot: overBytes(e.results, (r) => r[key], titles[key][1], w, key === "ppl"), file: document.name, numbers: () => bytesTable(e, titles[key][0], key) }));
  return [section("Over the text", over[0]!), section("Against memory", ...pairs(plots)), section("Speed", over[1]!)];
}

const bytesTable = (e: Evaluation, caption: string, key: "ppl" | "kl" | "same_top" | "accuracy") => tableOf({ caption, columns: [{ label: "policy", value: resultName, text: true }, { label: "kv_bytes", value: (r) => r.kv_bytes }, { label: key, value: (r) => r[key] }], rows: e.results });

export function overBytes(results: readonly Result[], of: (r: Result) => number | null | undefined, label: string, width: number, log: boolean): SVGSVGElement {
  const points = results.filter((r) => isNumber(of(r))).map((r) => ({ x: r.kv_bytes, y: of(r)!, policy: r.policy, name: resultName(r), colour: policyColour(results, r) }));
  const names = [...new Set(points.map((p) => p.policy))];
  const ticks = log ? logTicks(points.map((p) => p.y)) : [];
  const [widest, marginRight] = [width * 0.25, 30 + Math.min(width * 0.25, Math.max(...names.map((n) => textWidth(n))))];
  const plot = Plot.plot({
    width, height: 300, marginTop: 28, marginLeft: 56, marginBottom: 40, marginRight, style: plotStyle(),
    x: { type: "log", axis: null, inset: 6 },
    y: { label, tickSize: 0, tickFormat: tick, inset: 4, ...(log ? { type: "log", axis: null } : { nice: true, ticks: 5 }) },
    marks: [
      Plot.gridY(log ? ticks : undefined, { stroke: colours().grid, strokeOpacity: 1, ...(log ? {} : { ticks: 5 }) }),
      logAxisX(doublings(points.map((p) => p.x)), "bytes of keys and values", bytes),
      log ? logAxisY(ticks, label) : null,
      Plot.line(points, { x: "x", y: "y", z: "policy", sort: "x", stroke: "colour", strokeOpacity: 0.6 }),
      Plot.dot(points, { x: "x", y: "y", r: 4.5, fill: "colour", stroke: colours().paper }),
      Plot.tip(points, Plot.pointer({ x: "x", y: "y", fill: colours().paper, stroke: colours().grid, title: (p: (typeof points)[number]) => `${p.name}\n${bytes(p.x)}\n${label} ${short(p.y)}` })),
    ],
  }) as SVGSVGElement & Plot.Plot;
  const [toX, toY] = [plot.scale("x")!, plot.scale("y")!];
  const ends = names.map((name) => { const p = points.filter((q) => q.policy === name).sort((a, b) => a.x - b.x).at(-1)!; return { name, colour: p.colour, x: toX.apply(p.x) as number, at: toY.apply(p.y) as number, y: toY.apply(p.y) as number }; }).sort((a, b) => a.y - b.y);
  spread(ends, 14, 24, 262);
  for (const end of ends) plot.append(s("path", { d: `M${end.x + 6},${end.at}L${end.x + 13},${end.y}`, stroke: muted(), fill: "none" }), s("text", { x: end.x + 16, y: end.y, dy: "0.35em", fill: colours().ink, "text-anchor": "start" }, fitted(end.name, widest)));
  return plot;
}

function doublings(values: number[]): number[] {
  const [low, high] = [Math.log2(Math.min(...values)), Math.log2(Math.max(...values))];
  const step = Math.max(1, Math.ceil((high - low) / 4));
  return Array.from({ length: 12 }, (_, i) => 2 ** (Math.ceil(low) + i * step)).filter((x) => x <= 2 ** high);
}

function ofAnswers(e: Evaluation, { document, width }: Context): Node[] {
  const w = half(width);
  return [
    section("Answers", ...pairs(e.results.map((r, i) => figure({ id: `answers-${i}`, title: resultName(r), note: `${percent(r.accuracy)} of ${count(r.answers?.length)} right.`, plot: depths(r.answers ?? [], e.run.task, w), file: document.name, numbers: () => tableOf({ caption: `Answers of ${resultName(r)}`, columns: [{ label: "length", value: (a) => a.length }, { label: "depth", value: (a) => a.depth }, { label: "line", value: (a) => a.line }, { label: "expected", value: (a) => a.expected, text: true }, { label: "found", value: (a) => a.found, text: true }], rows: r.answers ?? [] }) })))),
    section("Against memory", figure({ id: "accuracy-bytes", title: "Right answers over bytes", plot: overBytes(e.results, (r) => r.accuracy, "right answers, %", width, false), file: document.name, numbers: () => bytesTable(e, "Right answers over bytes", "accuracy") })),
  ];
}

function numbersOf(e: Evaluation, { document }: Context): HTMLElement {
  const text = e.run.task === "text";
  return table({
    caption: "Policies",
    file: `${document.name}-policies`,
    columns: [
      { label: "policy", value: (r: Result) => r.policy, text: true },
      { label: "type", value: (r) => r.kv_type, text: true },
      { label: "sinks", value: (r) => r.sinks },
      { label: "rows kept", value: (r) => r.budget_rows, show: (r) => (r.budget_rows === 0 ? "all" : count(r.budget_rows)) },
      { label: "bytes", value: (r) => r.kv_bytes, show: (r) => bytes(r.kv_bytes) },
      { label: "mean rows", value: (r) => r.mean_rows, show: (r) => fixed(r.mean_rows, 0) },
      ...(text ? [
        { label: "perplexity", value: (r: Result) => r.ppl, show: (r: Result) => fixed(r.ppl, 2) },
        { label: "KL", value: (r: Result) => r.kl, show: (r: Result) => fixed(r.kl, 4) },
        { label: "same top", value: (r: Result) => r.same_top, show: (r: Result) => percent(r.same_top) },
      ] : [{ label: "right answers", value: (r: Result) => r.accuracy, show: (r: Result) => percent(r.accuracy) }]),
      { label: "tokens/s", value: (r) => r.tokens_per_second, show: (r) => fixed(r.tokens_per_second, 0) },
    ],
    rows: e.results,
  });
}
