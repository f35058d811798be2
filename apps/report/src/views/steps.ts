// Diffusion models: where sinks are, step by step of denoising.
import { as, type Denoising } from "../data/documents";
import { h } from "../dom";
import { fixed, percent, quoted, visible } from "../format";
import { figure } from "../plot/figure";
import { grid } from "../plot/grid";
import { lines } from "../plot/lines";
import { tableOf } from "../plot/csv";
import type { HeadNumbers, Metric } from "../data/metrics";
import { answer } from "./answer";
import { choice, half, notesOf, pair, section, type View } from "./view";

type Sink = Denoising["steps"][number]["sinks"][number];

export const STEP_METRICS: (Metric & { of: (s: Sink) => number | null })[] = [
  { key: "sink_rate", label: "Heads that sink", unit: "%", what: "share of heads whose column sum at the position exceeds the mean of the others by epsilon", of: (x) => x.sink_rate },
  { key: "column_sum", label: "Column sum", unit: "", what: "attention received, mean over heads; 1 is uniform", of: (x) => x.column_sum },
];

export function stepNumbers(d: Denoising, of: (s: Sink) => number | null): HeadNumbers {
  const nPosition = Math.max(d.run.n_prompt + d.run.length, ...d.steps.flatMap((s) => s.sinks.map((x) => x.position + 1)));
  return d.steps.map((step) => { const row: (number | null)[] = Array.from({ length: nPosition }, () => 0); for (const x of step.sinks) row[x.position] = of(x); return row; });
}

export const steps: View = {
  key: "steps",
  label: "Steps",
  shows: (document) => document.kind === "denoise",
  draw(context) {
    const d = as(context.document, "denoise")!;
    const { document, width, state } = context;
    const metric = STEP_METRICS.find((m) => m.key === state.text("metric", "")) ?? STEP_METRICS[0]!;
    const numbers = stepNumbers(d, metric.of);
    const { plot, over } = grid({ numbers, metric, domain: [0, Math.max(1, ...numbers.flat().map((x) => x ?? 0))], width, columns: "step", rows: "position", means: false });
    const w = half(width);
    return [
      answer(document),
      section("Positions against steps", figure({
        id: "steps", title: "Sinks while the text is written", note: `${metric.what[0]!.toUpperCase()}${metric.what.slice(1)}. Steps go to the right, positions down.`,
        controls: choice("Colour by", "metric", STEP_METRICS.map((m) => [m.key, m.label] as const), metric.key, context), plot, over, file: document.name,
        numbers: () => sinkTable(d),
      })),
      section("How they move", pair(
        figure({ id: "centre", title: "Centre of the sinks", note: "Mean position of all sinks of all heads.", plot: lines({ series: [{ name: "centre", points: d.steps.map((x) => ({ x: x.step, y: x.centre })) }], width: w, x: { label: "step" }, y: { label: "position" } }), file: document.name, numbers: () => stepTable(d) }),
        figure({ id: "masked", title: "Heads with a sink, tokens still masked", plot: lines({ series: [{ name: "heads", points: d.steps.map((x) => ({ x: x.step, y: x.n_sink_head })) }, { name: "masked", points: d.steps.map((x) => ({ x: x.step, y: x.n_masked })), quiet: true }], width: w, x: { label: "step" }, y: { label: "number", zero: true } }), file: document.name, numbers: () => stepTable(d) }))),
      section("The text", h("p", { class: "tokens" }, visible(d.text))),
      ...notesOf(d.notes),
    ];
  },
};

const stepTable = (d: Denoising) => tableOf({ caption: "Steps", columns: [{ label: "step", value: (x) => x.step }, { label: "masked tokens", value: (x) => x.n_masked }, { label: "heads with a sink", value: (x) => x.n_sink_head }, { label: "centre", value: (x) => x.centre, show: (x) => fixed(x.centre, 2) }], rows: d.steps });

export const sinkTable = (d: Denoising) => tableOf({
  caption: "Sinks by step",
  columns: [{ label: "step", value: (x) => x.step }, { label: "position", value: (x) => x.position }, { label: "token", value: (x) => x.text, show: (x) => h("bdi", { class: "word" }, quoted(x.text)), text: true }, { label: "sink rate", value: (x) => x.sink_rate, show: (x) => percent(x.sink_rate) }, { label: "column sum", value: (x) => x.column_sum, show: (x) => fixed(x.column_sum, 2) }],
  rows: d.steps.flatMap((step) => step.sinks.map((x) => ({ step: step.step, ...x }))),
});
