// The texts that documents read, shaded by what each token receives, and where prompts share tokens by how much more that is.
import { sharedTokens } from "../../data/attention";
import { as, type Document } from "../../data/documents";
import { h } from "../../dom";
import { fixed, plural, quoted, short, signed } from "../../format";
import { colourKeyFigure } from "../../plot/key";
import { table } from "../../plot/table";
import { tokenText } from "../../plot/text";
import { diverging } from "../../theme";
import { headsOf, layersOf, seen } from "../attention";
import { choice, pairs, section, type Context } from "../view";
import { chosenHead, metricOf, metricsOfAll, promptOf } from "./heads";
import { difference, filesOf, lessFirst } from "./parts";

export function texts(all: Document[], context: Context): Node[] {
  if (!all.every((d) => d.attention && d.attention.nPrompt > 0 && d.attention.prompts.length > 0)) return [];
  const { state } = context;
  const metrics = metricsOfAll(all);
  const { layer, head } = metrics.length > 0 ? chosenHead(all, metricOf(metrics, context), context) : { layer: 0, head: 0 };
  const own = `${layer}:${head}`;
  const options = [["all", "all layers"], [own, `layer ${layer}, head ${head}`], ...layersOf(as(all[0]!, "profile")!)] as const;
  const wanted = state.text("of", "all");
  const of = wanted.includes(":") ? own : (options.find(([key]) => key === wanted)?.[0] ?? "all");
  const at = promptOf(all, context);
  const sides = all.map((d) => {
    const attention = d.attention!, profile = as(d, "profile")!;
    const heads = headsOf(profile, of);
    return { name: d.name, index: d.index, profile, prompt: attention.prompts[at]!, alpha: attention.meanAlpha(at, heads) ?? new Float32Array(0), rate: attention.sinkRate(at, heads, profile.run.epsilon ?? 0.3) ?? new Float32Array(0) };
  });
  const note = `Prompt ${at}. Mean attention that a token receives from the rows that see it. Underlined: tokens on which more than a quarter of these heads sink.`;
  const shaded = sides.map(({ name, index, profile, prompt: { texts, special }, alpha, rate }) => h("div", { class: "side" }, h("h3", {}, h("bdi", {}, name)), tokenText({
    id: `token-${index}`, label: `${name}: the prompt, shaded by the attention that each token receives`, texts, special,
    shade: (i) => Math.sqrt(alpha[i] ?? 0),
    mark: (i) => (rate[i] ?? 0) > 0.25 && seen(profile, texts.length, i),
    tip: (i) => [`${i} ${quoted(texts[i]!)}`, `mean attention ${fixed(alpha[i], 4)}`, `${fixed((rate[i] ?? 0) * 100, 0)} % of these heads sink on it`],
  }).element));
  const changes = sides.slice(1).map((b, j) => {
    const a = sides[0]!;
    const shared = sharedTokens(a.prompt, b.prompt).map(([p, q]) => ({ text: a.prompt.texts[p]!, special: a.prompt.special[p]!, p, q, left: a.alpha[p], right: b.alpha[q] }));
    const change = shared.map((t) => difference(t.left, t.right) ?? 0);
    const place = (t: (typeof shared)[number]) => (t.p === t.q ? String(t.p) : `${t.p} and ${t.q}`);
    const most = [...shared.keys()].filter((i) => seen(a.profile, a.prompt.texts.length, shared[i]!.p) && seen(b.profile, b.prompt.texts.length, shared[i]!.q)).sort((x, y) => Math.abs(change[y]!) - Math.abs(change[x]!)).slice(0, 20);
    const title = lessFirst(all, j + 1);
    if (shared.length === 0) return h("p", { class: "note" }, `${title}: the prompts share no tokens, neither from their beginning nor behind their marks.`);
    return h("div", { class: "side" },
      h("h3", {}, h("bdi", {}, title)),
      h("p", { class: "note" }, `The ${plural(shared.length, "token")} that both begin with${shared[0]!.p === shared[0]!.q ? "" : ", behind the marks that one of them lacks"}.`),
      tokenText({
        id: `change-${b.index}`, label: `${title}: the shared tokens, shaded by how much more attention each receives`, texts: shared.map((t) => t.text), special: shared.map((t) => t.special), colour: diverging(),
        shade: (i) => (1 + Math.sign(change[i]!) * Math.sqrt(Math.abs(change[i]!))) / 2,
        tip: (i) => [`${place(shared[i]!)} ${quoted(shared[i]!.text)}`, `${a.name}: ${fixed(shared[i]!.left, 4)}`, `${b.name}: ${fixed(shared[i]!.right, 4)}`, `difference ${signed(change[i], 4)}`],
      }).element,
      table({
        caption: `Tokens that differ most: ${title}`,
        file: `${filesOf(all)}-text-${b.index}`,
        columns: [
          { label: "position", value: (i) => place(shared[i]!) },
          { label: "token", value: (i) => shared[i]!.text, show: (i) => h("bdi", { class: "word" }, quoted(shared[i]!.text)), text: true },
          { label: a.name, value: (i) => shared[i]!.left, show: (i) => fixed(shared[i]!.left, 4) },
          { label: b.name, value: (i) => shared[i]!.right, show: (i) => fixed(shared[i]!.right, 4) },
          { label: "difference", value: (i) => change[i], show: (i) => signed(change[i], 4) },
        ],
        rows: most,
      }));
  });
  return [section("The text",
    h("div", { class: "controls" }, choice("Heads", "of", options, of, context)),
    h("p", { class: "note" }, note),
    colourKeyFigure("mean attention, square-root scale", (t) => short(t * t)),
    ...pairs(shaded),
    colourKeyFigure("difference, square-root scale", (t) => signed(Math.sign(t - 0.5) * (2 * t - 1) ** 2, 0), diverging()),
    ...changes)];
}
