// The texts that documents read, shaded by what each token receives, and where prompts share tokens by how much more that is.
import { sharedTokens, type Prompt } from "../../data/attention";
import { as, type Document } from "../../data/documents";
import { h } from "../../dom";
import { fixed, plural, quoted, short, signed } from "../../format";
import { colourKeyFigure } from "../../plot/key";
import { table } from "../../plot/table";
import { tokenText } from "../../plot/text";
import { diverging } from "../../theme";
import { headsOf, layersOf, seen } from "../attention";
import { choice, pairs, section, type Context } from "../view";
import type { Heads } from "./heads";
import { filesOf, lessFirst } from "./parts";

export function texts(all: Document[], { layer, head, prompt: at, nPrompt }: Heads, context: Context): Node[] {
  if (nPrompt === 0 || !all.every((d) => d.attention && d.attention.prompts.length > 0)) return [];
  const own = `${layer}:${head}`;
  const options = [["all", "all layers"], [own, `layer ${layer}, head ${head}`], ...layersOf(as(all[0]!, "profile")!)] as const;
  const wanted = context.state.text("of", "all");
  const of = wanted.includes(":") ? own : (options.find(([key]) => key === wanted)?.[0] ?? "all");
  const sides = all.map((d): Side => {
    const { name, index } = d, attention = d.attention!, profile = as(d, "profile")!;
    const heads = headsOf(profile, of);
    return { name, index, seen: (k) => seen(profile, attention.length(at), k), prompt: attention.prompts[at]!, alpha: attention.meanAlpha(at, heads), rate: attention.sinkRate(at, heads, profile.run.epsilon ?? 0.3) };
  });
  return [section("The text",
    h("div", { class: "controls" }, choice("Heads", "of", options, of, context)),
    h("p", { class: "note" }, `Prompt ${at}. Mean attention that a token receives from the rows that see it. Underlined: tokens on which more than a quarter of these heads sink.`),
    colourKeyFigure("mean attention, square-root scale", (t) => short(t * t)),
    ...pairs(sides.map(shaded)),
    colourKeyFigure("difference, square-root scale", (t) => signed(Math.sign(t - 0.5) * (2 * t - 1) ** 2, 0), diverging()),
    ...sides.slice(1).map((side, j) => change(sides[0]!, side, lessFirst(all, j + 1), filesOf(all))))];
}

interface Side {
  name: string;
  index: number;
  seen: (key: number) => boolean;
  prompt: Prompt;
  alpha: Float32Array | null; // null: these heads were not measured
  rate: Float32Array | null;
}

function shaded({ name, index, seen, prompt: { texts, special }, alpha, rate }: Side): HTMLElement {
  return h("div", { class: "side" },
    h("h3", {}, h("bdi", {}, name)),
    !alpha && h("p", { class: "note" }, "These heads were not measured here."),
    tokenText({
      id: `token-${index}`, label: `${name}: the prompt, shaded by the attention that each token receives`, texts, special,
      shade: (i) => (alpha ? Math.sqrt(alpha[i] ?? 0) : null),
      mark: (i) => (rate?.[i] ?? 0) > 0.25 && seen(i),
      tip: (i) => [`${i} ${quoted(texts[i]!)}`, ...(alpha && rate ? [`mean attention ${fixed(alpha[i], 4)}`, `${fixed((rate[i] ?? 0) * 100, 0)} % of these heads sink on it`] : [])],
    }).element);
}

function change(a: Side, b: Side, title: string, file: string): HTMLElement | null {
  if (!a.alpha || !b.alpha) return null;
  const { alpha: left } = a, { alpha: right } = b;
  const shared = sharedTokens(a.prompt, b.prompt).map(([p, q]) => ({ text: a.prompt.texts[p]!, special: a.prompt.special[p]!, p, q, left: left[p]!, right: right[q]!, change: right[q]! - left[p]! }));
  if (shared.length === 0) return h("p", { class: "note" }, `${title}: the prompts share no tokens, neither from their beginning nor behind their marks.`);
  const place = ({ p, q }: (typeof shared)[number]) => (p === q ? String(p) : `${p} and ${q}`);
  const most = shared.filter((t) => a.seen(t.p) && b.seen(t.q)).sort((x, y) => Math.abs(y.change) - Math.abs(x.change)).slice(0, 20);
  return h("div", { class: "side" },
    h("h3", {}, h("bdi", {}, title)),
    h("p", { class: "note" }, `Both begin with ${shared.length === 1 ? "this token" : `these ${plural(shared.length, "token")}`}${shared[0]!.p === 0 && shared[0]!.q === 0 ? "" : ", behind their marks"}.`),
    tokenText({
      id: `change-${b.index}`, label: `${title}: the shared tokens, shaded by how much more attention each receives`, texts: shared.map((t) => t.text), special: shared.map((t) => t.special), colour: diverging(),
      shade: (i) => (1 + Math.sign(shared[i]!.change) * Math.sqrt(Math.abs(shared[i]!.change))) / 2,
      tip: (i) => [`${place(shared[i]!)} ${quoted(shared[i]!.text)}`, `${a.name}: ${fixed(shared[i]!.left, 4)}`, `${b.name}: ${fixed(shared[i]!.right, 4)}`, `difference ${signed(shared[i]!.change, 4)}`],
    }).element,
    table({
      caption: `Tokens that differ most: ${title}`,
      file: `${file}-text-${b.index}`,
      columns: [
        { label: "position", value: place },
        { label: "token", value: (t) => t.text, show: (t) => h("bdi", { class: "word" }, quoted(t.text)), text: true },
        { label: a.name, value: (t) => t.left, show: (t) => fixed(t.left, 4) },
        { label: b.name, value: (t) => t.right, show: (t) => fixed(t.right, 4) },
        { label: "difference", value: (t) => t.change, show: (t) => signed(t.change, 4) },
      ],
      rows: most,
    }));
}
