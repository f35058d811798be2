// Two documents of one kind or more: side by side, and what each is more than the first.
import { KIND_NAMES, type Document, type Report } from "../../data/documents";
import { h } from "../../dom";
import { plural } from "../../format";
import { choice, type Context, type View } from "../view";
import { grids, headsOfAll, oneHead } from "./heads";
import { denoising, edits, policies, training } from "./others";
import { depths, explanationNumbers, positions, profileNumbers } from "./profiles";
import { texts } from "./texts";

const mates = (document: Document, report: Report) => report.documents.filter((d) => d !== document && d.kind === document.kind);
const MANY = 4; // documents; of more, two are shown until all are asked for

type Part = (all: Document[], context: Context) => Node[];

// All heads, one head, and what heads make of texts.
function heads(all: Document[], context: Context): Node[] {
  const found = headsOfAll(all, context);
  return found ? [...grids(all, found, context), ...oneHead(all, found, context), ...texts(all, found, context)] : [];
}

const PARTS: Record<Document["kind"], Part[]> = {
  profile: [profileNumbers, heads, positions, depths],
  explain: [explanationNumbers, heads, depths],
  ablate: [edits],
  eval: [policies],
  denoise: [denoising],
  training: [training],
};

export const compare: View = {
  key: "compare",
  label: "Compare",
  shows: (document, report) => mates(document, report).length > 0,
  draw(context) {
    const { document: first, report, state } = context;
    const others = mates(first, report);
    const usual = others.length > 1 && others.length < MANY ? "all" : String(others[0]!.index);
    const options = [...(others.length > 1 ? [["all", `all ${others.length} others`] as const] : []), ...others.map((d) => [String(d.index), d.name] as const)];
    const chosen = options.find(([key]) => key === state.text("with", usual))?.[0] ?? usual;
    const all = [first, ...others.filter((d) => chosen === "all" || chosen === String(d.index))];
    const content = JSON.stringify(first.content);
    const alike = all.slice(1).every((d) => JSON.stringify(d.content) === content);
    return [
      h("header", { class: "title" },
        h("h1", {}, all.map((d, i) => [i === 0 ? "" : i === all.length - 1 ? " and " : ", ", h("bdi", {}, d.name)])),
        h("p", { class: "note" }, `${plural(all.length, "document")} of one kind: ${KIND_NAMES[first.kind]}. ${alike ? "They are alike: there is no difference." : `Differences are ${all.length === 2 ? "the second" : "each"} less the first.`}`),
        h("div", { class: "controls" },
          choice("With", "with", options, chosen, context),
          all.length === 2 && h("a", { href: state.link({ doc: all[1]!.index, with: first.index }), "data-focus": "swap" }, "Swap"))),
      ...PARTS[first.kind].flatMap((part) => part(all, context)),
    ];
  },
};
