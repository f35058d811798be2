// What profiles and explanations say as numbers, by position and by layer.
import { as, explanationOf, type Document, type Explanation, type Profile } from "../../data/documents";
import { meanOf } from "../../data/metrics";
import { fixed, isNumber, type Value } from "../../format";
import { table } from "../../plot/table";
import { section, type Context } from "../view";
import { columnsOf, curves, filesOf } from "./parts";

interface Line<T> {
  what: string;
  of: (t: T) => Value;
  digits: number;
}

const OF_PROFILES: Line<Profile>[] = [
  { what: "sink rate of the first token, %", of: (p) => p.sink_rate.first, digits: 1 },
  { what: "mean attention to it", of: (p) => p.sink_rate.alpha_by_position[0], digits: 3 },
  { what: "the same if attention were uniform", of: (p) => p.sink_rate.uniform_alpha_by_position[0], digits: 3 },
  { what: "share on the first key, last rows", of: (p) => p.first.share[0], digits: 3 },
  { what: "rows whose strongest key it is, %", of: (p) => p.strongest_is_first, digits: 1 },
  { what: "positions that are sinks", of: (p) => p.sinks.length, digits: 0 },
  { what: "tokens in a prompt, at most", of: (p) => p.run.length, digits: 0 },
  { what: "prompts", of: (p) => p.run.n_prompt, digits: 0 },
  { what: "epsilon", of: (p) => p.run.epsilon, digits: 2 },
];

const OF_EXPLANATIONS: Line<Explanation>[] = [
  { what: "layer of onset", of: (e) => e.onset, digits: 0 },
  { what: "rise of the first token's length there", of: (e) => e.onset_rise, digits: 1 },
  { what: "mean gap of logits", of: (e) => meanOf(e.layers.flatMap((l) => l.heads ?? []).map((x) => x.gap)), digits: 2 },
  { what: "outliers", of: (e) => e.outliers.length, digits: 0 },
];

const numbers = <T>(all: Document[], lines: Line<T>[], contents: T[]): Node[] => [section("In numbers", table({
  caption: "Side by side",
  file: filesOf(all),
  columns: [{ label: "", value: (r) => r.what, text: true }, ...columnsOf<Line<T>>(all, (r, i) => r.of(contents[i]!), (x, r) => fixed(x, r.digits))],
  rows: lines,
}))];

export const profileNumbers = (all: Document[]): Node[] => numbers(all, OF_PROFILES, all.map((d) => as(d, "profile")!));
export const explanationNumbers = (all: Document[]): Node[] => numbers(all, OF_EXPLANATIONS, all.map((d) => as(d, "explain")!));

export function positions(all: Document[], context: Context): Node[] {
  const points = (key: "by_position" | "share_by_position") => (d: Document) => as(d, "profile")!.sink_rate[key].map((y, x) => ({ x, y }));
  return [section("By position",
    curves(all, { id: "rate", title: "Heads that sink", note: "Per cent, by position.", x: "position", y: { label: "sink rate, %" } }, points("by_position"), context),
    curves(all, { id: "share", title: "Share of all attention", note: "Of everything that goes to keys.", x: "position", y: { label: "share" } }, points("share_by_position"), context))];
}

type Layer = Explanation["layers"][number];
const BY_LAYER: { id: string; title: string; note: string; label: string; of: (l: Layer) => Value; log?: boolean }[] = [
  { id: "norms", title: "Length of the first token's hidden state", note: "Behind each layer. Logarithmic.", label: "length", of: (l) => l.hidden?.norm_first, log: true },
  { id: "gap", title: "Gap of logits", note: "Sink keys less the others, mean over heads.", label: "gap", of: (l) => meanOf((l.heads ?? []).map((x) => x.gap)) },
  { id: "drain", title: "Value drain", note: "Length of the first token's value against the median.", label: "ratio", of: (l) => (isNumber(l.value_norm_first) && l.value_norm_median ? l.value_norm_first / l.value_norm_median : null) },
];

export function depths(all: Document[], context: Context): Node[] {
  const explanations = all.map(explanationOf);
  if (explanations.some((e) => !e)) return [];
  const shown = BY_LAYER.filter(({ of }) => explanations.every((e) => e!.layers.some((l) => isNumber(of(l)))));
  return shown.length === 0 ? [] : [section("Why", ...shown.map(({ id, title, note, label, of, log }) => curves(all, { id, title, note, x: "layer", y: { label, ...(log ? { type: "log" } : {}) } }, (_, i) => explanations[i]!.layers.map((l) => ({ x: l.layer, y: of(l) ?? null })), context)))];
}
