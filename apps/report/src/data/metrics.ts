// What the grid of layers and heads can show: one line for each metric.
import { explanationOf, type Document, type Profile, as } from "./documents";

export interface Metric {
  key: string;
  label: string;
  unit: "%" | "nats" | "";
  what: string;
  domain?: [number, number]; // otherwise that of the numbers
  signed?: boolean; // colours go both ways from 0
  cause?: boolean; // of an explanation
}

const HEAD_METRICS: Metric[] = [
  { key: "sink_rate_first", label: "Sink rate, first token", unit: "%", domain: [0, 100], what: "share of prompts in which the head's mean attention to the first token is above epsilon" },
  { key: "alpha_first", label: "Attention to the first token", unit: "", domain: [0, 1], what: "mean over the rows that see it, and over prompts" },
  { key: "first_share", label: "Share on the first key, last rows", unit: "", domain: [0, 1], what: "mean over the last 64 rows of each prompt" },
  { key: "strongest_is_first", label: "First token is strongest", unit: "%", domain: [0, 100], what: "share of rows whose strongest key is the first" },
  { key: "entropy", label: "Entropy of the rows", unit: "nats", what: "low: the head looks at few keys" },
  { key: "learned_sink_mass", label: "Mass on the learned sink", unit: "", domain: [0, 1], what: "mean over rows" },
];

const CAUSE_METRICS: Metric[] = ([
  { key: "sinks", label: "Prompts with a sink", unit: "", domain: [0, 1], what: "share of prompts in which the head has a sink, wherever it is" },
  { key: "gap", label: "Logit gap of sinks", unit: "", signed: true, what: "mean logit of sink keys less that of the others" },
  { key: "gap_by_angle", label: "Gap, by angle", unit: "", signed: true, what: "part of the gap that comes from cos(q, k)" },
  { key: "gap_by_norm", label: "Gap, by length", unit: "", signed: true, what: "part of the gap that comes from the keys' lengths" },
  { key: "cos", label: "cos(q, k) of sinks", unit: "", domain: [-1, 1], signed: true, what: "mean cosine of queries and sink keys" },
  { key: "cos_unrotated", label: "cos(q, k) before RoPE", unit: "", domain: [-1, 1], signed: true, what: "the same with the rotation taken back: content alone" },
  { key: "query_norm", label: "Length of queries", unit: "", what: "mean |q|" },
  { key: "key_norm", label: "Length of sink keys", unit: "", what: "mean |k| of sinks" },
  { key: "null_mass", label: "Mass on no key, off by one", unit: "", domain: [0, 1], what: "what softmax-off-by-one would leave on no key" },
  { key: "output_share", label: "Output from sinks", unit: "", domain: [0, 1], what: "share of attention times value length that comes from sinks" },
] satisfies Metric[]).map((m) => ({ ...m, cause: true }));

// Numbers [layer][head] of a document; null where there is none.
export type HeadNumbers = (number | null)[][];

export function metricsOf(document: Document): Metric[] {
  const has = (numbers: HeadNumbers | null) => numbers?.some((layer) => layer.some((x) => x !== null)) ?? false;
  return [...HEAD_METRICS, ...CAUSE_METRICS].filter(({ key }) => has(headNumbers(document, key)));
}

export function headNumbers(document: Document, key: string): HeadNumbers | null {
  const profile = as(document, "profile");
  if (profile && HEAD_METRICS.some((m) => m.key === key)) return byLayer(profile, profile.layers, key);
  const explanation = explanationOf(document);
  if (explanation && CAUSE_METRICS.some((m) => m.key === key)) return byLayer(explanation, explanation.layers, key);
  return null;
}

function byLayer({ model }: { model: Profile["model"] }, layers: { layer: number; heads?: object[] }[], key: string): HeadNumbers {
  const numbers: HeadNumbers = Array.from({ length: model.n_layer }, () => []);
  for (const { layer, heads } of layers)
    for (const head of (heads ?? []) as ({ head: number } & Record<string, unknown>)[]) {
      const value = head[key];
      if (layer >= 0) numbers[layer]![head.head] = typeof value === "number" ? value : null;
    }
  return numbers;
}

export function meanOf(numbers: (number | null | undefined)[]): number | null {
  const known = numbers.filter((x): x is number => typeof x === "number");
  return known.length === 0 ? null : known.reduce((a, b) => a + b, 0) / known.length;
}

// The domain that a metric's colours span, over one or several grids.
export function domainOf(metric: Metric, ...grids: HeadNumbers[]): [number, number] {
  if (metric.domain) return metric.domain;
  const all = grids.flat(2).filter((x): x is number => x !== null);
  const [low, high] = [Math.min(...all, 0), Math.max(...all, 0)];
  if (!metric.signed) return [low, high === low ? low + 1 : high];
  const limit = Math.max(-low, high) || 1;
  return [-limit, limit];
}
