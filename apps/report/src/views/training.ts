// How sinks emerge: curves over training, a line for each seed.
import { as, type Run, type Training } from "../data/documents";
import { curveOf, onsetOf, TRAINING_METRICS, variantsOf, type TrainingMetric, type Variant } from "../data/training";
import { count, fixed, percent, short } from "../format";
import { figure } from "../plot/figure";
import { grid } from "../plot/grid";
import { lines, type Series } from "../plot/lines";
import { tableOf } from "../plot/csv";
import { table } from "../plot/table";
import { seriesColour } from "../theme";
import type { Metric } from "../data/metrics";
import { answer } from "./answer";
import { choice, half, pairs, section, type Context, type View } from "./view";
import { h } from "../dom";

export type Axis = "step" | "tokens";
const BY_LAYER = ["norm_ratio", "top_ratio", "value_ratio"] as const;

export const trainingView: View = {
  key: "training",
  label: "Training",
  shows: (document) => document.kind === "training",
  draw(context) {
    const { document, state, width } = context;
    const t = as(document, "training")!;
    const variants = variantsOf(t);
    const axes = ([["step", "steps"], ["tokens", "tokens"]] as const).filter(([key]) => t.runs.some((r) => r.lines.some((l) => l[key] !== null)));
    const axis: Axis = axes.find(([key]) => key === state.text("axis", "step"))?.[0] ?? "step";
    const metrics = TRAINING_METRICS.filter((m) => t.runs.some((r) => r.lines.some((l) => m.of(l) !== null)));
    const chosen = metrics.find((m) => m.key === state.text("metric", "")) ?? (metrics.find((m) => m.key === "share" && t.runs.every((r) => r.lines.length > 0 && m.of(r.lines.at(-1)!) !== null)) ?? metrics[0]!);
    const rest = metrics.filter((m) => m !== chosen && ["alpha", "sink_rate", "validation", "norm_ratio", "strongest"].includes(m.key)).slice(0, 4);
    const w = half(width);
    const draw = (m: TrainingMetric, each: number, height: number, controls?: HTMLElement) => figure({
      id: m.key, title: m.label, note: m.what, controls,
      plot: emergence(variants, m, axis, each, height),
      numbers: () => curveTable(variants, m, axis),
      file: document.name,
    });
    return [
      answer(document),
      section("Emergence",
        h("p", { class: "note" }, "Thick: mean over seeds; thin: each seed; shaded: from the least to the most. Means of runs of unlike lengths end where not all seeds go on."),
        draw(chosen, width, 380, h("div", { class: "controls" },
          choice("Show", "metric", metrics.map((m) => [m.key, m.label] as const), chosen.key, context),
          choice("Over", "axis", axes, axis, context))),
        ...pairs(rest.map((m) => draw(m, w, 280)))),
      section("By layer", byLayer(t, context)),
      section("Runs", runTable(t, context)),
    ];
  },
};

export function emergence(variants: Variant[], m: TrainingMetric, axis: Axis, width: number, height: number): SVGSVGElement {
  const begun = <P extends { x: number | null }>(points: P[]) => points.filter((p): p is P & { x: number } => (p.x ?? 0) > 0); // step 0 has no place on a logarithmic axis
  const series: Series[] = variants.flatMap((variant, i): Series[] => [
    ...(variant.runs.length > 1 ? variant.runs.map((run): Series => ({ name: `${variant.label}, seed ${run.seed}`, colour: seriesColour(i), thin: true, unnamed: true, dash: "", points: begun(run.lines.map((l) => ({ x: l[axis], y: m.of(l) }))) })) : []),
    { name: variant.label, colour: seriesColour(i), dash: "", points: begun(curveOf(variant, axis, m.of).filter((p) => p.n === variant.runs.length)) },
  ]);
  if (m.quiet) series.push({ name: m.quiet.name, quiet: true, points: begun((variants[0]?.runs[0]?.lines ?? []).map((l) => ({ x: l[axis], y: m.quiet!.of(l) }))) });
  return lines({ series, width, height, x: { label: axis === "step" ? "training step" : "tokens trained on", type: "log" }, y: { label: m.label, ...(m.log ? { type: "log" } : {}) } });
}

export function curveTable(variants: Variant[], m: TrainingMetric, axis: Axis) {
  const rows = variants.flatMap((v) => v.runs.flatMap((run) => run.lines.map((line) => ({ variant: v.name, seed: run.seed, x: line[axis], y: m.of(line) }))));
  return tableOf({ caption: m.label, columns: [{ label: "variant", value: (r) => r.variant, text: true }, { label: "seed", value: (r) => r.seed }, { label: axis, value: (r) => r.x }, { label: m.key, value: (r) => r.y, show: (r) => short(r.y) }], rows });
}

function byLayer(t: Training, context: Context): HTMLElement {
  const { state, width, document } = context;
  const run = t.runs[state.index("run", t.runs.length)]!;
  const layered = BY_LAYER.filter((k) => run.lines.some((l) => l[k].length > 0));
  const key = layered.find((k) => k === state.text("layers", "")) ?? "norm_ratio";
  const titles = { norm_ratio: "Residual peak", top_ratio: "Massive activations", value_ratio: "Value drain" };
  const metric: Metric = { key, label: titles[key], unit: "", what: "" };
  const numbers = run.lines.map((l) => l[key]);
  const limit = Math.max(...numbers.flat().map((x) => x ?? 0), 1e-9);
  const { plot, over } = grid({ numbers, metric, domain: [0, limit], width, columns: "step", columnName: (i) => count(run.lines[i]!.step), rows: key === "value_ratio" ? "layer" : "depth" });
  const steps = run.lines.map((l) => l.step);
  return figure({
    id: "by-layer", title: `${titles[key]} of ${run.name}`,
    note: `The first token against the median of the others. Measurements go to the right, from step ${count(steps[0])} to ${count(steps.at(-1))}, even in their logarithm; ${key === "value_ratio" ? "layers" : "hidden states, 0 before the first layer,"} go down.`,
    controls: h("div", { class: "controls" },
      choice("Run", "run", t.runs.map((r, i) => [String(i), r.name] as const), String(t.runs.indexOf(run)), context),
      choice("Show", "layers", layered.map((k) => [k, titles[k]] as const), key, context)),
    plot, over, file: document.name,
    numbers: () => tableOf({ caption: titles[key], columns: [{ label: "step", value: (l) => l.step }, ...Array.from({ length: Math.max(...numbers.map((x) => x.length)) }, (_, i) => ({ label: `${i}`, value: (l: (typeof run.lines)[number]) => l[key][i], show: (l: (typeof run.lines)[number]) => short(l[key][i]) }))], rows: run.lines }),
  });
}

function runTable(t: Training, { document }: Context): HTMLElement {
  const labels = new Map(variantsOf(t).map((v) => [v.name, v.label]));
  return table({
    caption: "Sinks set in where attention to the first token stays 1.5 times above both the untrained model's and uniform attention's",
    file: `${document.name}-runs`,
    columns: [
      { label: "run", value: (r) => r.name, text: true },
      { label: "variant", value: (r) => r.variant, show: (r) => labels.get(r.variant)!, text: true },
      { label: "seed", value: (r) => r.seed },
      ...(t.runs.some((r) => r.parameters !== null) ? [{ label: "parameters", value: (r: Run) => r.parameters, show: (r: Run) => count(r.parameters) }] : []),
      { label: "steps", value: (r) => r.lines.at(-1)?.step, show: (r) => count(r.lines.at(-1)?.step) },
      { label: "sinks set in at step", value: (r) => onsetOf(r.lines)?.step, show: (r) => { const at = onsetOf(r.lines); return at ? count(at.step) : "never"; } },
      { label: "attention to the first", value: (r) => r.lines.at(-1)?.alpha, show: (r) => fixed(r.lines.at(-1)?.alpha, 3) },
      { label: "sink rate", value: (r) => r.lines.at(-1)?.sink_rate, show: (r) => percent(r.lines.at(-1)?.sink_rate) },
      { label: "validation loss", value: (r) => r.lines.at(-1)?.validation, show: (r) => fixed(r.lines.at(-1)?.validation, 3) },
    ],
    rows: t.runs,
  });
}
