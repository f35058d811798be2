// Why it is a sink: lengths, angles, values and hidden states over depth; experts; heads that rest.
import { explanationOf, type ExplainedLayer, type Explanation } from "../data/documents";
import { meanOf, type HeadNumbers, type Metric } from "../data/metrics";
import { h } from "../dom";
import { fixed, isNumber, percent, quoted, short } from "../format";
import { figure } from "../plot/figure";
import { grid, gridRows } from "../plot/grid";
import { lines, type Series } from "../plot/lines";
import { split } from "../plot/split";
import { tableOf } from "../plot/csv";
import { table } from "../plot/table";
import { half, notesOf, pair, section, type Context, type View } from "./view";

type Head = NonNullable<ExplainedLayer["heads"]>[number];

export const why: View = {
  key: "why",
  label: "Why",
  shows: (document) => explanationOf(document) !== null,
  draw(context) {
    const { document } = context;
    const e = explanationOf(document)!;
    return [
      h("header", { class: "title" }, h("h1", {}, "Why there are sinks"), h("p", { class: "note" }, "Means over prompts; formulas are in docs/metrics.md.")),
      ...hidden(e, context),
      ...geometry(e, context),
      ...values(e, context),
      ...outliers(e, context),
      ...experts(e, context),
      ...dormant(e, context),
      ...notesOf(e.missing, "What this architecture does not tell"),
    ];
  },
};

type Curve = { name: string; dash?: string; of: (layer: ExplainedLayer) => number | null | undefined };

const seriesOf = (e: Explanation, curves: Curve[]): Series[] => curves.map(({ name, dash, of }): Series => ({ name, ...(dash ? { dash } : {}), points: e.layers.map((l) => ({ x: l.layer, y: of(l) ?? null })) })).filter((line) => line.points.some((p) => isNumber(p.y)));

// A plot of curves over layers, with its numbers.
function overLayers(e: Explanation, { document }: Context, id: string, title: string, note: string, width: number, label: string, curves: Curve[], options: { log?: boolean; onset?: boolean } = {}): HTMLElement | null {
  const series = seriesOf(e, curves);
  if (series.length === 0) return null;
  const positive = series.every((line) => line.points.every((p) => !isNumber(p.y) || p.y > 0));
  return figure({
    id, title, note,
    plot: lines({ series, width, height: 270, x: { label: "layer" }, y: { label, ...(options.log && positive ? { type: "log" } : {}) }, rules: options.onset && e.onset >= 0 ? [{ x: e.onset, text: `onset, layer ${e.onset}` }] : [] }),
    numbers: () => tableOf({ caption: title, columns: [{ label: "layer", value: (l: ExplainedLayer) => l.layer }, ...curves.map(({ name, of }) => ({ label: name, value: of, show: (l: ExplainedLayer) => short(of(l)) }))], rows: e.layers }),
    file: document.name,
  });
}

function hidden(e: Explanation, context: Context): Node[] {
  const w = half(context.width);
  const norms = overLayers(e, context, "norms", "Length of hidden states", "Behind each layer; −1 is before the first. Logarithmic.", w, "length", [
    { name: "first token", of: (l) => l.hidden?.norm_first },
    { name: "sink tokens", dash: "7 5", of: (l) => l.hidden?.norm_sinks },
    { name: "median of others", of: (l) => l.hidden?.norm_median },
  ], { log: true, onset: true });
  const tops = overLayers(e, context, "tops", "Largest numbers against the median", "The largest magnitude of a hidden state against the median one. Logarithmic.", w, "times the median", [
    { name: "largest of all", of: (l) => l.hidden?.largest.over_median },
    { name: "a token's, mean", of: (l) => l.hidden?.top_over_median },
  ], { log: true, onset: true });
  if (!norms && !tops) return [];
  const mixing = overLayers(e, context, "spread", "How different tokens are", "|H − mean row| / |H|: 0 when all tokens are alike.", w, "spread", [{ name: "spread", of: (l) => l.hidden?.spread }]);
  const moved = overLayers(e, context, "moved", "What one changed token moves", "Mean change of the tokens behind it, as a share of their length: as the model is, and when nobody can look at the first token.", w, "share", [
    { name: "as it is", of: (l) => l.hidden?.moved },
    { name: "first unseen", of: (l) => l.hidden?.moved_without_first },
  ]);
  return [section("Hidden states", pair(norms, tops), pair(mixing, moved))];
}

// Means over heads that sink in at least half of the prompts; over all heads where none does.
const sinking = (layer: ExplainedLayer): Head[] => (layer.heads ?? []).filter((x) => (x.sinks ?? 0) >= 0.5);
const overSinking = (key: { [K in keyof Head]: Head[K] extends number | null ? K : never }[keyof Head]) => (layer: ExplainedLayer) => meanOf(sinking(layer).map((x) => x[key] as number | null));

function geometry(e: Explanation, context: Context): Node[] {
  if (!e.layers.some((l) => sinking(l).length > 0)) return [];
  const w = half(context.width);
  const both = (key: "key_norm" | "cos" | "logit"): Curve[] => [{ name: "sink keys", of: overSinking(key) }, { name: "other keys", of: overSinking(`other_${key}`) }];
  const rows = e.layers.filter((l) => sinking(l).length > 0).map((l) => {
    const [gap, norm, angle] = [overSinking("gap")(l), overSinking("gap_by_norm")(l), overSinking("gap_by_angle")(l)];
    return { layer: l.layer, heads: sinking(l).length, gap, norm, angle, rest: isNumber(gap) && isNumber(norm) && isNumber(angle) ? gap - norm - angle : null };
  });
  return [section("The logit is |q| · |k| · cos(q, k)",
    h("p", { class: "note" }, "Means over the heads that sink in at least half of the prompts, by layer: their sink keys against all other keys."),
    figure({
      id: "split",
      title: "Where the gap of logits comes from",
      note: "Logit of sink keys less that of the others (dot), as a sum of what the angle, the keys' lengths and the rest give.",
      plot: split(rows, context.width),
      numbers: () => tableOf({ caption: "Gap of logits by layer", columns: [{ label: "layer", value: (r) => r.layer }, { label: "heads", value: (r) => r.heads }, { label: "gap", value: (r) => r.gap, show: (r) => fixed(r.gap, 3) }, { label: "by angle", value: (r) => r.angle, show: (r) => fixed(r.angle, 3) }, { label: "by length", value: (r) => r.norm, show: (r) => fixed(r.norm, 3) }, { label: "rest", value: (r) => r.rest, show: (r) => fixed(r.rest, 3) }], rows }),
      file: context.document.name,
    }),
    pair(
      overLayers(e, context, "logit", "Logit", "Mean scale · q·k, before masks.", w, "logit", both("logit")),
      overLayers(e, context, "cos", "Angle", "Mean cosine of queries and keys.", w, "cos(q, k)", both("cos"))),
    pair(
      overLayers(e, context, "keys", "Length of keys", "RoPE changes no length.", w, "|k|", both("key_norm")),
      overLayers(e, context, "queries", "Length of queries", "Of all queries.", w, "|q|", [{ name: "queries", of: overSinking("query_norm") }])))];
}

function values(e: Explanation, context: Context): Node[] {
  const w = half(context.width);
  const drain = overLayers(e, context, "drain", "Value drain", "Length of the first token's value against the median: below 1, it is drained.", w, "ratio", [
    { name: "values", of: (l) => ratio(l.value_norm_first, l.value_norm_median) },
    { name: "keys", of: (l) => ratio(l.key_norm_first, l.key_norm_median) },
  ]);
  const output = overLayers(e, context, "output", "What sinks give to the output", "Share of attention × value length; and the mass that softmax-off-by-one would leave on no key.", w, "share", [
    { name: "output from sinks", of: (l) => meanOf((l.heads ?? []).map((x) => x.output_share)) },
    { name: "mass on no key", of: (l) => meanOf((l.heads ?? []).map((x) => x.null_mass)) },
  ]);
  return drain || output ? [section("Values", pair(drain, output))] : [];
}

const ratio = (a: number | null | undefined, b: number | null | undefined) => (isNumber(a) && isNumber(b) && b !== 0 ? a / b : null);
const word = (text: string) => h("bdi", { class: "word" }, quoted(text));

function outliers(e: Explanation, { document }: Context): Node[] {
  if (e.outliers.length === 0 && e.secondary.length === 0) return [];
  return [section("Numbers and tokens that stand out",
    e.outliers.length > 0 && table({
      caption: "Dimensions of the hidden state with outliers",
      brief: true,
      file: `${document.name}-outliers`,
      columns: [
        { label: "dimension", value: (o) => o.dim },
        { label: "position", value: (o) => o.position },
        { label: "token", value: (o) => o.text, show: (o) => word(o.text), text: true },
        { label: "value", value: (o) => o.value, show: (o) => short(o.value) },
        { label: "times the median", value: (o) => o.over_median, show: (o) => short(o.over_median) },
        { label: "kind", value: (o) => [o.massive && "massive", o.sink_dimension && "sink dimension"].filter(Boolean).join(", "), text: true },
        { label: "behind layers", value: (o) => `${o.first_layer} to ${o.last_layer}` },
        { label: "rises in", value: (o) => `${o.rises_in}, ${o.rises_by}`, text: true },
        { label: "falls in", value: (o) => (o.falls_in < 0 ? "" : `${o.falls_in}, ${o.falls_by}`), text: true },
      ],
      rows: e.outliers,
    }),
    e.secondary.length > 0 && table({
      caption: "Tokens that become like the first one",
      brief: true,
      file: `${document.name}-secondary`,
      columns: [
        { label: "prompt", value: (x) => x.prompt },
        { label: "position", value: (x) => x.position },
        { label: "token", value: (x) => x.text, show: (x) => word(x.text), text: true },
        { label: "layers", value: (x) => `${x.first_layer} to ${x.last_layer}` },
        { label: "kind", value: (x) => x.kind, text: true },
      ],
      rows: e.secondary,
    }))];
}

const EXPERT_METRIC: Metric = { key: "lift", label: "Sink tokens less others", unit: "", signed: true, what: "share of sink tokens sent to the expert less that of other tokens" };

function experts(e: Explanation, { document, width }: Context): Node[] {
  if (e.experts.length === 0) return [];
  const numbers: HeadNumbers = Array.from({ length: e.model.n_layer }, () => []);
  for (const x of e.experts) numbers[x.layer]![x.expert] = isNumber(x.sink_share) && isNumber(x.other_share) ? x.sink_share - x.other_share : null;
  const nExpert = Math.max(e.model.n_expert, ...numbers.map((row) => row.length));
  for (const row of numbers) for (let i = 0; i < nExpert; ++i) row[i] ??= null;
  const isSuper = (layer: number, expert: number) => e.experts.some((x) => x.super && x.layer === layer && x.expert === expert);
  const { plot, over } = grid({ numbers, metric: EXPERT_METRIC, domain: [-1, 1], width, rows: "expert", means: false, marked: isSuper, markedNote: "super expert" });
  return [section("Experts",
    h("p", { class: "note" }, isNumber(e.d_sink) ? `With the super experts silent, attention to sink tokens falls by ${percent(e.d_sink * 100)}.` : "No super expert was found."),
    figure({
      id: "experts", title: "Experts that sink tokens are sent to", note: "Share of sink tokens sent to the expert less the share of other tokens. Experts without a number are not in the document.", plot, over, file: document.name,
      numbers: () => tableOf({ caption: "Experts", columns: [{ label: "layer", value: (r) => r.layer }, { label: "expert", value: (r) => r.head }, { label: "difference of shares", value: (r) => r.value }], rows: gridRows(numbers) }),
    }),
    table({
      caption: "Experts with most sink tokens",
      file: `${document.name}-experts`,
      columns: [
        { label: "layer", value: (x) => x.layer }, { label: "expert", value: (x) => x.expert },
        { label: "of sink tokens", value: (x) => x.sink_share, show: (x) => fixed(x.sink_share, 3) }, { label: "of others", value: (x) => x.other_share, show: (x) => fixed(x.other_share, 3) },
        { label: "router weight, sinks", value: (x) => x.sink_weight, show: (x) => short(x.sink_weight) }, { label: "others", value: (x) => x.other_weight, show: (x) => short(x.other_weight) },
        { label: "largest output", value: (x) => x.largest_output, show: (x) => short(x.largest_output) }, { label: "", value: (x) => (x.super ? "super" : ""), text: true },
      ],
      rows: [...e.experts].sort((a, b) => Number(b.super) - Number(a.super) || (b.sink_share ?? 0) - (a.sink_share ?? 0)).slice(0, 40),
    }))];
}

function dormant(e: Explanation, { document, state }: Context): Node[] {
  if (e.dormant.length === 0) return [];
  return [section("Heads that rest on some prompts", table({
    caption: "Sinking on one prompt, at work on another: what silencing the head costs there, in nats per token",
    file: `${document.name}-dormant`,
    columns: [
      { label: "head", value: (d) => `${d.layer}:${d.head}`, show: (d) => h("a", { href: state.link({ view: "head", layer: d.layer, head: d.head }) }, `${d.layer}:${d.head}`), text: true },
      { label: "prompt where it sinks", value: (d) => d.sinking_prompt }, { label: "alpha", value: (d) => d.alpha_sinking, show: (d) => fixed(d.alpha_sinking, 3) }, { label: "loss", value: (d) => d.loss_sinking, show: (d) => fixed(d.loss_sinking, 4) },
      { label: "prompt where it works", value: (d) => d.working_prompt }, { label: "alpha", value: (d) => d.alpha_working, show: (d) => fixed(d.alpha_working, 3) }, { label: "loss", value: (d) => d.loss_working, show: (d) => fixed(d.loss_working, 4) },
    ],
    rows: e.dormant,
  }))];
}
