// Runs of the trainer, by what they differ in.
import type { Line, Run, Training } from "./documents";
import { isNumber } from "../format";

export interface TrainingMetric {
  key: string;
  label: string;
  what: string;
  of: (line: Line) => number | null;
  log?: boolean;
  quiet?: { name: string; of: (line: Line) => number | null }; // what uniform attention gives
}

const largest = (values: (number | null)[]): number | null => { const known = values.filter(isNumber); return known.length ? Math.max(...known) : null; };
const smallest = (values: (number | null)[]): number | null => { const known = values.filter(isNumber); return known.length ? Math.min(...known) : null; };

// Where rows sum to 1, it is alpha: older runs did not write it down.
const shareOf = (l: Line): number | null => l.share ?? (isNumber(l.mass) && Math.abs(l.mass - 1) < 1e-5 ? l.alpha : null);

export const TRAINING_METRICS: TrainingMetric[] = [
  { key: "alpha", label: "Attention to the first token", what: "Mean over heads and rows, logarithmic.", of: (l) => l.alpha, log: true, quiet: { name: "uniform", of: (l) => l.alpha_null } },
  { key: "sink_rate", label: "Sink rate, %", what: "Per cent of heads that sink on the first token.", of: (l) => l.sink_rate, quiet: { name: "uniform", of: (l) => l.sink_null } },
  { key: "validation", label: "Validation loss", what: "Nats per token, of the probe.", of: (l) => l.validation },
  { key: "norm_ratio", label: "Residual peak", what: "Length of the first token's hidden state against the others' median, in the layer where it is largest.", of: (l) => largest(l.norm_ratio), log: true },
  { key: "strongest", label: "Strongest head", what: "Attention to the first token of the head that gives it most, logarithmic.", of: (l) => l.strongest, log: true },
  { key: "top_ratio", label: "Massive activations", what: "Largest number of a hidden state against the median, in the layer where it is largest.", of: (l) => largest(l.top_ratio), log: true },
  { key: "value_ratio", label: "Value drain", what: "Length of the first token's value against the others' median, in the layer where it is smallest.", of: (l) => smallest(l.value_ratio) },
  { key: "share", label: "Share of a row", what: "Attention to the first token of weights divided by their row's sum: compares variants whose rows do not sum to 1. Logarithmic.", of: shareOf, log: true, quiet: { name: "uniform", of: (l) => l.alpha_null } },
  { key: "gated_alpha", label: "Attention behind gates", what: "Attention to the first token, each row times its gate, logarithmic.", of: (l) => l.gated_alpha, log: true },
  { key: "place_alpha", label: "Strongest position", what: "Attention to the position that most heads sink on, logarithmic.", of: (l) => l.place_alpha, log: true },
  { key: "mass", label: "Sum of a row", what: "1 where weights are normalised.", of: (l) => l.mass },
  { key: "loss", label: "Training loss", what: "Nats per token, since the measurement before.", of: (l) => l.loss },
];

export interface Variant {
  name: string;
  label: string; // what others differ in
  runs: Run[];
}

export function variantsOf(training: Training): Variant[] {
  const variants = new Map<string, Run[]>();
  for (const run of training.runs) variants.set(run.variant, [...(variants.get(run.variant) ?? []), run]);
  const labels = variantLabels([...variants.keys()]);
  return [...variants].map(([name, runs], i) => ({ name, label: labels[i]!, runs }));
}

// A curve's value at x, between the measurements beside it in proportion; null: it does not go there.
export function valueAt(curve: { x: number; y: number }[], x: number): number | null {
  const next = curve.findIndex((p) => p.x >= x);
  if (next < 0) return null;
  const b = curve[next]!, a = curve[next - 1];
  if (b.x === x) return b.y;
  return a ? a.y + ((b.y - a.y) * (x - a.x)) / (b.x - a.x) : null;
}

// At each step that some run of the variant measured: mean, least and most over the seeds that go there. Runs of unlike lengths measure at unlike steps.
export function curveOf({ runs }: Pick<Variant, "runs">, axis: "step" | "tokens", of: (line: Line) => number | null): { x: number; y: number; low: number; high: number; n: number }[] {
  const curves = runs.map((run) => run.lines.flatMap((line) => {
    const x = line[axis], y = of(line);
    return isNumber(x) && isNumber(y) ? [{ x, y }] : [];
  }));
  const places = [...new Set(curves.flat().map((p) => p.x))].sort((a, b) => a - b);
  return places.map((x) => {
    const ys = curves.map((curve) => valueAt(curve, x)).filter(isNumber);
    return { x, y: ys.reduce((a, b) => a + b, 0) / ys.length, low: Math.min(...ys), high: Math.max(...ys), n: ys.length };
  });
}

const ABOVE_NULL = 1.5; // as in train/training/telemetry.cpp

// The first measurement from which on alpha stays above what the untrained model and uniform attention give by half; null: never.
export function onsetOf(lines: readonly Line[]): Line | null {
  let from: Line | null = null;
  for (const line of lines.slice(1)) {
    const above = (line.alpha ?? 0) > ABOVE_NULL * Math.max(lines[0]!.alpha ?? 0, line.alpha_null ?? 0);
    if (!above) from = null;
    else from ??= line;
  }
  return from;
}

// What a variant is called: "model.attention=softmax, training.weight_decay=0.1" -> "attention softmax". What more than half of the variants have alike goes without saying, where something else is left to say.
export function variantLabels(variants: readonly string[]): string[] {
  const all = variants.map((v) => v.split(/[,;]\s*/).filter(Boolean));
  const having = (key: string) => all.filter((keys) => keys.includes(key)).length;
  const said = (keys: string[]) => keys.map((key) => key.replace(/^[\w-]+\./, "").replace("=", " ")).join(" + ");
  return all.map((keys) => said(keys.filter((key) => having(key) <= all.length / 2)) || said(keys.filter((key) => having(key) < all.length)) || "all alike");
}
