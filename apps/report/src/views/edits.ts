// What happens when a cause is changed: each edit beside the same change at places drawn at random.
import { as, type Ablation } from "../data/documents";
import { h } from "../dom";
import { fixed, interval, isNumber, percent, plural, signed } from "../format";
import { dots, type DotRow } from "../plot/dots";
import { figure } from "../plot/figure";
import { tableOf } from "../plot/csv";
import { table } from "../plot/table";
import { answer } from "./answer";
import { half, notesOf, pair, section, type View } from "./view";

type Edit = Ablation["edits"][number];
export type Key = "loss_change" | "kl" | "same_top" | "sink_rate";

export const EFFECTS: { key: Key; title: string; note: string; axis: string; show: (x: number | null) => string }[] = [
  { key: "loss_change", title: "Change of the loss", note: "Nats per token, with 95 % intervals over prompts. Hollow: the control.", axis: "change of the loss", show: (x) => signed(x, 3) },
  { key: "kl", title: "Divergence", note: "KL from what the unchanged model predicts, nats.", axis: "KL", show: (x) => fixed(x, 3) },
  { key: "same_top", title: "Same top token", note: "Per cent of predictions whose likeliest token stays.", axis: "same top, %", show: (x) => fixed(x, 1) },
  { key: "sink_rate", title: "Sink rate", note: "Per cent of heads that sink on the first position. The line: no edit.", axis: "sink rate, %", show: (x) => fixed(x, 1) },
];

export const effectOf = (edit: Omit<Edit, "edit" | "control" | "control_of"> | null, key: Key, show: (x: number | null) => string) =>
  edit && { value: edit[key], interval: key === "loss_change" ? edit.loss_change_ci95 : null, show: show(edit[key]) };

// Where the largest effect would press all others onto the line.
export const uneven = (values: (number | null)[]): boolean => {
  const sizes = values.filter(isNumber).map(Math.abs).sort((a, b) => a - b);
  return sizes.length > 2 && sizes.at(-1)! > 8 * Math.max(0.02, sizes[Math.floor(sizes.length / 2)]!);
};

export const edits: View = {
  key: "edits",
  label: "Edits",
  shows: (document) => document.kind === "ablate",
  draw({ document, width }) {
    const a = as(document, "ablate")!;
    const w = half(width);
    const plotted = EFFECTS.map(({ key, title, note, axis, show }, i) => {
      const rows: DotRow[] = a.edits.map((e) => ({ name: e.edit, effects: [effectOf(e, key, show), effectOf(e.control, key, show)] }));
      const log = key !== "same_top" && key !== "sink_rate" && uneven(a.edits.map((e) => e[key]));
      return figure({ id: key, title, note: log ? `${note} The scale is logarithmic away from 0.` : note, plot: dots({ rows, kinds: [{ name: "edit" }, { name: "control", hollow: true }], width: [0, 3].includes(i) ? width : w, axis, zero: key === "sink_rate" ? a.sink_rate : key === "same_top" ? 100 : 0, signed: key === "loss_change", symmetricLog: log }), file: document.name, numbers: () => tableOf({ caption: title, columns: [
        { label: "edit", value: (e) => e.edit, show: (e) => h("code", {}, e.edit), text: true },
        { label: key, value: (e) => e[key], show: (e) => show(e[key]) },
        { label: "control", value: (e) => e.control?.[key], show: (e) => show(e.control?.[key] ?? null) },
      ], rows: a.edits }) });
    });
    return [
      answer(document),
      section("Effects", plotted[0]!, h("p", { class: "note" }, `An edit means something only where it does more than its control: the same change at places drawn at random, ${plural(a.controls, "draw")}. Without any edit the loss is ${fixed(a.loss, 3)} and the sink rate ${percent(a.sink_rate)}.`)),
      section("What else changes", pair(plotted[1]!, plotted[2]!), plotted[3]!),
      section("In numbers", table({
        caption: "Edits and their controls",
        file: `${document.name}-edits`,
        columns: [
          { label: "edit", value: (e) => e.edit, show: (e) => h("code", {}, e.edit), text: true },
          { label: "loss", fileOnly: true, value: (e) => e.loss, show: (e) => fixed(e.loss, 3) },
          { label: "change", value: (e) => e.loss_change, show: (e) => signed(e.loss_change, 3) },
          { label: "95 % interval", value: (e) => interval(e.loss_change_ci95, 3) },
          { label: "KL", value: (e) => e.kl, show: (e) => fixed(e.kl, 3) },
          { label: "same top", value: (e) => e.same_top, show: (e) => percent(e.same_top) },
          { label: "sink rate", value: (e) => e.sink_rate, show: (e) => percent(e.sink_rate) },
          { label: "control: change", value: (e) => e.control?.loss_change, show: (e) => signed(e.control?.loss_change, 3) },
          { label: "control: interval", value: (e) => interval(e.control?.loss_change_ci95, 3) },
          { label: "control: KL", value: (e) => e.control?.kl, show: (e) => fixed(e.control?.kl, 3) },
          { label: "control: same top", fileOnly: true, value: (e) => e.control?.same_top },
          { label: "control: sink rate", value: (e) => e.control?.sink_rate, show: (e) => percent(e.control?.sink_rate) },
          { label: "drawn", value: (e) => e.control_of || "none", text: true },
        ],
        rows: a.edits,
      })),
      ...notesOf(a.notes),
    ];
  },
};
