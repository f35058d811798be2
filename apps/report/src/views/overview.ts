// Answer first: the sentence, the model, what the numbers depend on; then all heads at once.
import { as, explanationOf, type Content, type Profile } from "../data/documents";
import { domainOf, headNumbers, metricsOf } from "../data/metrics";
import { h } from "../dom";
import { fixed, interval, percent, quoted } from "../format";
import { figure } from "../plot/figure";
import { grid, gridRows } from "../plot/grid";
import { lines } from "../plot/lines";
import { tableOf } from "../plot/csv";
import { table } from "../plot/table";
import { answer } from "./answer";
import { choice, half, notesOf, pair, section, type Context, type View } from "./view";

export const overview: View = {
  key: "overview",
  label: "Overview",
  shows: (document) => document.kind === "profile" || document.kind === "explain",
  draw(context) {
    const { document } = context;
    const profile = as(document, "profile");
    const headGrid = metricsOf(document).length > 0 ? gridFigure(context) : null;
    return [answer(document), ...(headGrid ? [section("Layers and heads", headGrid)] : []), ...(profile ? ofProfile(profile, context) : []), ...notesOf(notes(document.content))];
  },
};

function notes(content: Content): string[] {
  const own = "notes" in content ? content.notes : [];
  const explained = content.schema === "sinkscope.profile/1" ? (content.explain?.notes ?? []) : [];
  return [...new Set([...own, ...explained])];
}

function gridFigure(context: Context): HTMLElement {
  const { document, state, width } = context;
  const metrics = metricsOf(document);
  const metric = metrics.find((m) => m.key === state.text("metric", "")) ?? metrics[0]!;
  const numbers = headNumbers(document, metric.key)!;
  const mapped = document.attention?.mapped ?? [];
  const marked = mapped.length > 0 ? (layer: number, head: number) => mapped.some(([l, r]) => l === layer && r === head) : undefined;
  const canOpen = as(document, "profile") !== null || explanationOf(document) !== null;
  const { plot, over } = grid({
    numbers,
    metric,
    domain: domainOf(metric, numbers),
    width,
    at: { layer: state.index("layer", numbers.length), head: state.index("head", 4096) },
    marked,
    markedNote: marked && "whole map kept",
    choose: canOpen ? (layer, head) => state.go({ view: "head", layer, head }) : undefined,
  });
  return figure({
    id: "heads",
    title: metric.label,
    note: `${metric.what[0]!.toUpperCase()}${metric.what.slice(1)}. Above: means of layers.`,
    hint: canOpen ? "Choose a cell to see that head." : undefined,
    controls: choice("Colour by", "metric", metrics.map((m) => [m.key, m.label] as const), metric.key, context),
    plot,
    over,
    file: document.name,
    numbers: () => tableOf({
      caption: metric.label,
      columns: [{ label: "layer", value: (r) => r.layer }, { label: "head", value: (r) => r.head }, { label: metric.key, value: (r) => r.value }],
      rows: gridRows(numbers),
    }),
  });
}

function ofProfile(profile: Profile, { document, width }: Context): Node[] {
  const { sink_rate: rate, first } = profile;
  const file = document.name;
  const points = (values: readonly (number | null)[]) => values.map((y, x) => ({ x, y }));
  const positions = rate.by_position.map((_, position) => position);
  const series = [{ name: "measured", points: points(rate.by_position) }, ...profile.baselines.map((b) => ({ name: b.kind === "random" ? "random tokens" : "one token repeated", points: points(b.by_position) })), { name: "uniform attention", points: points(rate.null_by_position), quiet: true }];
  const alphas = [{ name: "measured", points: points(rate.alpha_by_position) }, ...profile.baselines.map((b) => ({ name: b.kind === "random" ? "random tokens" : "one token repeated", points: points(b.alpha_by_position) })), { name: "uniform attention", points: points(rate.uniform_alpha_by_position), quiet: true }];
  const numbers = () => tableOf({
    caption: "By position",
    columns: [{ label: "position", value: (p: number) => p }, ...(["by_position", "null_by_position", "alpha_by_position", "uniform_alpha_by_position", "sum_by_position", "share_by_position"] as const).map((key) => ({ label: key, value: (p: number) => rate[key][p] }))],
    rows: positions,
  });
  const w = half(width);
  return [
    section("By position", pair(
      figure({ id: "rate", title: "Heads that sink, by position", note: "Per cent of heads whose mean attention to the position is above epsilon.", plot: lines({ series, width: w, x: { label: "position" }, y: { label: "sink rate, %", domain: [0, 100] } }), numbers, file }),
      figure({ id: "alpha", title: "Mean attention received", note: "Over the rows that see the position, all heads and prompts; square-root scale.", plot: lines({ series: alphas, width: w, x: { label: "position" }, y: { label: "alpha", type: "sqrt", domain: [0, Math.max(...rate.alpha_by_position.map((x) => x ?? 0)) * 1.05], ticks: 5 } }), numbers, file }))),
    section("In numbers",
      table({
        caption: "Attention to the first token",
        file: `${file}-first`,
        columns: [{ label: "what", value: (r) => r.what, text: true }, { label: "measured", value: (r) => r.value, show: (r) => r.show }, { label: "95 % interval", value: (r) => r.interval }, { label: "uniform attention", value: (r) => r.uniform, show: (r) => r.uniformShown }],
        rows: [
          { what: "heads that sink on it", value: rate.first, show: percent(rate.first), interval: interval(rate.first_ci95, 1), uniform: rate.null, uniformShown: percent(rate.null) },
          { what: "mean attention to it", value: rate.alpha_by_position[0], show: fixed(rate.alpha_by_position[0], 3), interval: "", uniform: rate.uniform_alpha_by_position[0], uniformShown: fixed(rate.uniform_alpha_by_position[0], 3) },
          ...first.n.map((n, i) => ({ what: n === 1 ? `share on the first key, last ${first.last_rows} rows` : `share on the first ${n} keys, last ${first.last_rows} rows`, value: first.share[i], show: fixed(first.share[i], 3), interval: interval(first.share_ci95[i], 3), uniform: first.uniform[i], uniformShown: fixed(first.uniform[i], 3) })),
          { what: "rows whose strongest key it is", value: profile.strongest_is_first, show: percent(profile.strongest_is_first), interval: interval(profile.strongest_is_first_ci95, 1), uniform: null, uniformShown: "–" },
          ...(profile.learned_sink ? [{ what: "mean mass on learned sinks", value: profile.learned_sink.alpha, show: fixed(profile.learned_sink.alpha, 3), interval: "", uniform: null, uniformShown: "–" }] : []),
        ],
      })),
    section("Sinks",
      profile.sinks.length === 0 ? h("p", {}, "No position is a sink: on none do more than 25 % of the heads sink, at twice the rate of uniform attention.") : table({
        caption: "Positions on which more than 25 % of the heads sink",
        file: `${file}-sinks`,
        columns: [
          { label: "position", value: (r) => r.position },
          { label: "token", value: (r) => r.text, show: (r) => h("span", {}, h("bdi", { class: "word" }, quoted(r.text)), r.special ? " mark" : ""), text: true },
          { label: "prompts with it", value: (r) => r.token_share, show: (r) => percent(r.token_share === null ? null : r.token_share * 100, 0) },
          { label: "sink rate", value: (r) => r.sink_rate, show: (r) => percent(r.sink_rate) },
          { label: "95 % interval", value: (r) => interval(r.sink_rate_ci95, 1) },
          { label: "mean attention", value: (r) => r.alpha, show: (r) => fixed(r.alpha, 3) },
          { label: "heads", value: (r) => r.heads.length },
        ],
        rows: profile.sinks,
      }),
      profile.tokens.length > 0 && table({
        caption: "Tokens on which more than 25 % of the heads sink wherever they stand behind the first position",
        file: `${file}-tokens`,
        columns: [
          { label: "token", value: (r) => r.text, show: (r) => h("bdi", { class: "word" }, quoted(r.text)), text: true },
          { label: "id", value: (r) => r.token },
          { label: "occurrences", value: (r) => r.n },
          { label: "sink rate", value: (r) => r.sink_rate, show: (r) => percent(r.sink_rate) },
        ],
        rows: profile.tokens,
      })),
  ];
}
