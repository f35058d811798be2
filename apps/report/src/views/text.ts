// Which tokens collect attention, over all heads or those of one layer.
import { as } from "../data/documents";
import { h } from "../dom";
import { fixed, percent, quoted } from "../format";
import { table } from "../plot/table";
import { tokenText } from "../plot/text";
import { colourKeyFigure } from "../plot/key";
import { headsOf, layersOf, promptsOf, seen } from "./attention";
import { choice, section, type View } from "./view";

export const text: View = {
  key: "text",
  label: "Text",
  shows: (document) => (document.attention?.nPrompt ?? 0) > 0 && (document.attention?.prompts.length ?? 0) > 0,
  draw(context) {
    const { document, state } = context;
    const profile = as(document, "profile")!;
    const attention = document.attention!;
    const prompt = state.index("prompt", attention.nPrompt);
    const chosen = layersOf(profile).find(([layer]) => layer === state.text("of", "all"))?.[0] ?? "all";
    const heads = headsOf(profile, chosen);
    const epsilon = profile.run.epsilon ?? 0.3;
    const alpha = attention.meanAlpha(prompt, heads) ?? new Float32Array(0);
    const rate = attention.sinkRate(prompt, heads, epsilon) ?? new Float32Array(0);
    const { texts, special } = attention.prompts[prompt]!;
    const isSink = (k: number) => (rate[k] ?? 0) > 0.25 && seen(profile, texts.length, k);
    const of = chosen === "all" ? "all heads" : `the heads of layer ${chosen}`;
    const shown = tokenText({
      label: `Prompt ${prompt}, shaded by the attention that each token receives from ${of}`,
      texts, special,
      shade: (i) => Math.sqrt(alpha[i] ?? 0),
      mark: isSink,
      tip: (i) => [`${i} ${quoted(texts[i]!)}`, `mean attention ${fixed(alpha[i], 4)}`, `${percent((rate[i] ?? 0) * 100, 0)} of the heads sink on it`, ...(seen(profile, texts.length, i) ? [] : [`fewer than ${profile.run.min_rows} rows see it`])],
    });
    const top = [...alpha.keys()].filter((k) => seen(profile, texts.length, k)).sort((a, b) => alpha[b]! - alpha[a]!).slice(0, 20);
    return [
      h("header", { class: "title" },
        h("h1", {}, "Which tokens collect attention"),
        h("div", { class: "controls" },
          choice("Heads", "of", [["all", "all layers"], ...layersOf(profile)], chosen, context),
          choice("Prompt", "prompt", promptsOf(attention.prompts.slice(0, attention.nPrompt)), String(prompt), context))),
      h("p", { class: "note" }, `Mean over ${of} of the attention that a token receives from the rows that see it. Underlined: tokens on which more than a quarter of these heads sink.`),
      colourKeyFigure("mean attention, square-root scale", (t) => fixed(t * t, 2)),
      shown.element,
      section("The first twenty", table({
        caption: `Tokens of prompt ${prompt} by mean attention received from ${of}, where at least ${profile.run.min_rows} rows see them`,
        file: `${document.name}-prompt-${prompt}-text`,
        columns: [
          { label: "position", value: (k) => k },
          { label: "token", value: (k) => texts[k] ?? "", show: (k) => h("bdi", { class: "word" }, quoted(texts[k] ?? "")), text: true },
          { label: "mean attention", value: (k) => Number(alpha[k]!.toPrecision(4)), show: (k) => fixed(alpha[k], 4) },
          { label: "heads that sink on it", value: (k) => Number((rate[k]! * 100).toPrecision(4)), show: (k) => percent(rate[k]! * 100, 1) },
        ],
        rows: top,
      })),
    ];
  },
};
