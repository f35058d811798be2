// One head: its map, who gets its attention, the text shaded by it, and the fan of a query.
import { strongest, type AttentionMap } from "../data/attention";
import { as, explanationOf } from "../data/documents";
import { headNumbers, meanOf, metricsOf } from "../data/metrics";
import { h } from "../dom";
import { clipped, fixed, isNumber, isolated, plural, quoted } from "../format";
import { fan, type FanView } from "../plot/fan";
import { figure } from "../plot/figure";
import { showMetric } from "../plot/grid";
import { lines, type Series } from "../plot/lines";
import { mapPlot } from "../plot/map";
import { tableOf } from "../plot/csv";
import { table } from "../plot/table";
import { tokenText } from "../plot/text";
import { hideTip, showTip } from "../plot/tip";
import { ALPHA_AXIS, alphaPoints, headOn, mapSize, named, pictureOf, promptsOf, queryTable, scaleChoice, scaleOf, seen, type HeadOn } from "./attention";
import { choice, facts, half, pair, section, type Context, type View } from "./view";

export const head: View = {
  key: "head",
  label: "Head",
  shows: (document) => metricsOf(document).length > 0,
  draw(context) {
    const { document, state } = context;
    const nLayer = (as(document, "profile") ?? explanationOf(document)!).model.n_layer;
    const metrics = metricsOf(document);
    const own = metrics.filter((m) => !m.cause); // an explanation alone has causes only; with a profile they stand below
    const layer = state.index("layer", nLayer, firstMeasured(headNumbers(document, metrics[0]!.key)!));
    const nHead = Math.max(...metrics.map((m) => headNumbers(document, m.key)![layer]!.length));
    if (nHead === 0) return [title(context, nLayer, layer, 1, 0), h("p", {}, `Layer ${layer} was not measured: it has no attention that could be taken.`)];
    const at = state.index("head", nHead);
    const attention = document.attention;
    const prompt = state.index("prompt", Math.max(1, attention?.prompts.length ?? 1));
    return [
      title(context, nLayer, layer, nHead, at),
      facts((own.length > 0 ? own : metrics).map((m): [string, string] => [m.label, showMetric(m, headNumbers(document, m.key)![layer]![at])])),
      ...(attention ? arrays(context, headOn(document, layer, at, prompt)) : [h("p", { class: "note" }, "The report holds no attention by token. ", h("code", {}, "sinkscope profile --report"), " keeps it; ", h("code", {}, "sinkscope view"), " takes it from the file that ", h("code", {}, "--arrays"), " wrote.")]),
      ...causes(context, layer, at),
    ];
  },
};

export const firstMeasured = (numbers: (number | null)[][]) => Math.max(0, numbers.findIndex((heads) => heads.length > 0));
export const range = (n: number, name: (i: number) => string) => Array.from({ length: n }, (_, i) => [String(i), name(i)] as const);

function title(context: Context, nLayer: number, layer: number, nHead: number, at: number): HTMLElement {
  const { state, document } = context;
  const mapped = document.attention?.mapped ?? [];
  const step = (label: string, l: number, r: number, text: string) => h("a", { class: "step", href: state.link({ view: "head", layer: l, head: r }), "aria-label": label, "data-focus": `step-${text}` }, text);
  const prompts = document.attention?.prompts ?? [];
  return h("header", { class: "title" },
    h("h1", {}, `Layer ${layer}, head ${at}`),
    h("div", { class: "controls" },
      choice("Layer", "layer", range(nLayer, String), String(layer), context),
      choice("Head", "head", range(nHead, String), String(at), context),
      prompts.length > 1 && choice("Prompt", "prompt", promptsOf(prompts), String(state.index("prompt", prompts.length)), context),
      h("nav", { class: "steps", "aria-label": "Neighbours of this head" },
        layer > 0 && step("The same head, one layer before", layer - 1, at, "← layer"),
        layer < nLayer - 1 && step("The same head, one layer behind", layer + 1, at, "layer →"),
        at > 0 && step("The head before in this layer", layer, at - 1, "↑ head"),
        at < nHead - 1 && step("The head behind in this layer", layer, at + 1, "head ↓"))),
    mapped.length > 0 && h("p", { class: "note" }, "Whole maps (layer:head) were kept of ", mapped.flatMap(([l, r], i) => [i > 0 ? ", " : "", h("a", { href: state.link({ view: "head", layer: l, head: r }), "aria-current": l === layer && r === at ? "true" : null }, `${l}:${r}`)]), "."));
}

function arrays(context: Context, on: HeadOn): Node[] {
  const { state, width } = context;
  const { document, profile, attention, layer, head: at, prompt, texts, special, alpha, map, n } = on;
  const query = map ? state.index("query", n, n - 1) : null;
  const w = half(width);
  const epsilon = profile.run.epsilon ?? 0.3;
  const isSink = (k: number) => (alpha?.[k] ?? 0) > epsilon && seen(profile, n, k);
  const where = `${document.name}-l${layer}h${at}`;

  // All three show the same query: that under the pointer, or else the chosen one.
  let fanView: FanView | null = null;
  let cross: (row: number | null) => void = () => {};
  const text = texts.length > 0 && (alpha || map) ? tokenText({
    label: `Prompt ${prompt}, shaded by the attention that each token receives`,
    texts, special,
    shade: (i) => (alpha ? Math.sqrt(alpha[i] ?? 0) : null),
    mark: isSink,
    tip: (i) => [`${i} ${quoted(texts[i]!)}`, ...(alpha ? [`receives ${fixed(alpha[i], 4)}${isSink(i) ? ", a sink" : ""}${seen(profile, n, i) ? "" : `; few rows see it`}`] : []), ...(map ? topKeys(map, texts, i) : [])],
    current: query,
    hover: map ? (i) => (i === null ? back() : showQuery(i, "text")) : undefined,
    choose: map ? (i) => choose(i) : undefined,
  }) : null;
  const showQuery = (q: number, from: "map" | "text" | "fan") => {
    if (!map) return;
    if (from !== "fan") fanView?.show(q);
    cross(q);
    text?.highlight(q, strongest(map.row(q), 12, 0.01));
  };
  let chosen = query;
  const choose = (q: number) => {
    chosen = q;
    state.remember({ query: q });
    showQuery(q, "map");
  };
  const back = () => { if (chosen !== null) showQuery(chosen, "map"); };

  const size = mapSize(w);
  const pictures: HTMLElement[] = [];
  const picture = pictureOf(on, size);
  if (picture) {
    const scale = scaleOf(context, n);
    const drawn = mapPlot({
      ...picture, size, scale,
      hover: (row, column, event) => {
        if (row === null) { hideTip(); return back(); }
        showTip(event.clientX, event.clientY, [picture.query(row), picture.key(column), picture.says(row, column)]);
        showQuery(row, "map");
      },
      choose: map ? choose : undefined,
    });
    cross = map ? drawn.cross : cross;
    pictures.push(figure({ id: "map", title: picture.title, note: picture.note, hint: map ? "A click chooses the query." : undefined, controls: scaleChoice(context, scale), plot: drawn.plot, over: drawn.over, file: where, numbers: picture.numbers }));
  }
  if (map) {
    fanView = fan({ map, texts, width: w, query: query!, hover: (q) => showQuery(q, "fan"), leave: back, choose });
    pictures.push(h("div", { class: "beside" }, figure({ id: "fan", title: "Whom a query looks at", note: "Queries on the left, the strongest keys of the chosen one on the right.", plot: fanView.plot, over: fanView.element, file: where, numbers: () => queryTable(map, texts, chosen ?? 0) })));
  }
  if (alpha) {
    const beside = pictures.length === 1;
    const all = attention.nPrompt > 1 ? [{ name: "all prompts", points: alphaPoints(alphaOfAll(on)), quiet: true }] : [];
    pictures.push(figure({
      id: "keys",
      title: "Key profile",
      note: `Mean attention to each key from the rows that see it; square-root scale. Keys above ${epsilon} are sinks of this head${attention.nPrompt > 1 ? "." : ", where enough rows see them."}`,
      plot: keyProfile([{ name: "this prompt", points: alphaPoints(alpha) }, ...all], beside ? w : width, beside ? 380 : 240),
      numbers: () => tableOf({ caption: `Attention received in layer ${layer}, head ${at}`, columns: [{ label: "position", value: (k) => k }, { label: "token", value: (k) => named(texts, k), text: true }, { label: "alpha", value: (k) => Number(alpha[k]!.toPrecision(4)) }], rows: [...alpha.keys()] }),
      file: where,
    }));
  }
  const paired = pictures.length >= 2 ? [pair(...pictures.slice(0, 2)), ...pictures.slice(2)] : pictures;
  queueMicrotask(() => { if (query !== null) showQuery(query, "map"); });
  if (attention.nPrompt > 0 && prompt >= attention.nPrompt) paired.unshift(h("p", { class: "note" }, `The report holds attention by token of the first ${plural(attention.nPrompt, "prompt")} alone; this is prompt ${prompt}.`));
  return [
    section("Attention", ...(map ? [paired[0]!] : paired)),
    ...(text ? [section("The text", h("p", { class: "note" }, `The colour is the attention that a token receives in this head, on a square-root scale. Underlined: sinks, above ${epsilon}.`, map && h("span", { class: "hint" }, " A token under the pointer becomes the query; the keys that it looks at are framed.")), text.element)] : []),
    ...(map && paired.length > 1 ? [section("Keys", ...paired.slice(1))] : []),
  ];
}

function topKeys(map: AttentionMap, texts: string[], query: number): string[] {
  const row = map.row(query);
  const top = strongest(row, 3, 0);
  return top.length === 0 ? [] : [`looks at ${top.map((k) => `${k} ${isolated(clipped(named(texts, k), 12))} ${fixed(row[k], 3)}`).join(", ")}`];
}

// Mean attention to each key over all prompts that have it.
function alphaOfAll({ attention, layer, head, alpha }: HeadOn): Float32Array {
  return Float32Array.from(alpha ?? [], (_, k) => meanOf(Array.from({ length: attention.nPrompt }, (_, p) => (k < attention.length(p) ? attention.alpha(p, layer, head)![k] : null))) ?? 0);
}

const keyProfile = (series: Series[], width: number, height: number): SVGSVGElement => lines({
  series, width, height,
  x: { label: "position" },
  y: ALPHA_AXIS,
  show: (y) => fixed(y, 4),
});

function causes(context: Context, layer: number, at: number): Node[] {
  const found = explanationOf(context.document)?.layers.find((l) => l.layer === layer)?.heads?.find((x) => x.head === at);
  if (!found) return [];
  const rows = [
    { what: "length of keys", sink: found.key_norm, other: found.other_key_norm },
    { what: "cos(q, k)", sink: found.cos, other: found.other_cos },
    { what: "cos(q, k) before RoPE", sink: found.cos_unrotated, other: found.other_cos_unrotated },
    { what: "logit", sink: found.logit, other: found.other_logit },
  ];
  const gap = isNumber(found.gap) ? `The gap of ${fixed(found.gap, 2)} comes from the keys' lengths by ${fixed(found.gap_by_norm, 2)} and from angles by ${fixed(found.gap_by_angle, 2)}; queries are ${fixed(found.query_norm, 1)} long.` : "";
  return [section("Why", h("p", {}, gap), pair(
    table({
      caption: "Sink keys against all others",
      file: `${context.document.name}-l${layer}h${at}-why`,
      columns: [{ label: "mean", value: (r) => r.what, text: true }, { label: "sinks", value: (r) => r.sink, show: (r) => fixed(r.sink, 3) }, { label: "other keys", value: (r) => r.other, show: (r) => fixed(r.other, 3) }, { label: "difference", value: (r) => (isNumber(r.sink) && isNumber(r.other) ? r.sink - r.other : null), show: (r) => (isNumber(r.sink) && isNumber(r.other) ? fixed(r.sink - r.other, 3) : "–") }],
      rows,
    }),
    found.where.length > 0 && table({
      caption: "Where this head sinks",
      file: `${context.document.name}-l${layer}h${at}-where`,
      columns: [{ label: "position", value: (r) => r.position }, { label: "token", value: (r) => r.text, show: (r) => h("bdi", { class: "word" }, quoted(r.text)), text: true }, { label: "share of prompts", value: (r) => r.share, show: (r) => fixed(r.share, 2) }],
      rows: found.where,
    })))];
}
