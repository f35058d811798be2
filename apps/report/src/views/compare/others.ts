// Edits, policies, denoising and training of several documents.
import { as, type Document } from "../../data/documents";
import { resultName, type Result } from "../../data/evaluation";
import { domainOf, type Metric } from "../../data/metrics";
import { curveOf, TRAINING_METRICS, valueAt, variantLabels, variantsOf, type Variant } from "../../data/training";
import { h } from "../../dom";
import { bytes, fixed, isNumber, type Value } from "../../format";
import { tableOf, type Column } from "../../plot/csv";
import { dots, type DotRow, type Effect } from "../../plot/dots";
import { figure } from "../../plot/figure";
import { grid, gridRows } from "../../plot/grid";
import { seriesColour } from "../../theme";
import { EFFECTS, effectOf, uneven } from "../edits";
import { sinkTable, STEP_METRICS, stepNumbers } from "../steps";
import { curveTable, emergence, type Axis } from "../training";
import { choice, half, pairs, section, type Context } from "../view";
import { changeOf, likeGrids } from "./heads";
import { columnsOf, curves, difference, filesOf, lessFirst, signedBy } from "./parts";

interface Measure {
  key: string;
  title: string;
  note?: string;
  axis: string;
  show: (x: Value) => string;
  zero: number | null;
  signed?: boolean;
  log?: boolean;
}

// A measure of what has a name in each document, as dots; and dots of what each is more than the first.
function dotted(all: Document[], known: string[], { key, title, note, axis, show, zero, signed = false, log = false }: Measure, effectAt: (name: string, i: number) => Effect | null, more: Column<string>[], { width }: Context): HTMLElement[] {
  const at = (name: string, i: number) => effectAt(name, i)?.value;
  const names = known.filter((name) => all.some((_, i) => isNumber(at(name, i))));
  const changes = names.map((name): DotRow => ({ name, effects: all.slice(1).map((_, j) => { const value = difference(at(name, 0), at(name, j + 1)); return { value, interval: null, show: signedBy(value, show) }; }) })).filter((row) => row.effects.some((e) => isNumber(e?.value)));
  const kinds = all.map(({ name }) => ({ name }));
  const numbers = () => tableOf({ caption: title, columns: [{ label: "name", value: (n: string) => n, text: true }, ...columnsOf<string>(all, (n, i) => at(n, i), show), ...more], rows: names });
  return [
    figure({ id: key, title, note, plot: dots({ rows: names.map((name) => ({ name, effects: all.map((_, i) => effectAt(name, i)) })), kinds, width, axis, zero, signed, symmetricLog: log }), file: filesOf(all), numbers }),
    ...(changes.length > 0 ? [figure({ id: `${key}-difference`, title: `${title}: difference`, note: `Less ${all[0]!.name}.`, plot: dots({ rows: changes, kinds: all.slice(1).map((_, j) => ({ name: lessFirst(all, j + 1), colour: seriesColour(j + 1) })), width, axis: `${axis}, difference`, zero: 0, signed: true, symmetricLog: log && uneven(changes.flatMap((row) => row.effects.map((e) => e?.value ?? null))) }), file: filesOf(all), numbers })] : []),
  ];
}

export function edits(all: Document[], context: Context): Node[] {
  const each = all.map((d) => as(d, "ablate")!.edits);
  const names = [...new Set(each.flat().map((e) => e.edit))];
  const of = (name: string, i: number) => each[i]!.find((e) => e.edit === name) ?? null;
  return EFFECTS.map(({ key, title, note, axis, show }, i) => section(title, ...dotted(all, names, {
    key, title, note: note.replace(" Hollow: the control.", "").replace(" The line: no edit.", ""), axis, show: (x) => show(x ?? null), zero: i < 2 ? 0 : null, signed: key === "loss_change",
    log: i < 2 && uneven(names.flatMap((n) => all.map((_, d) => of(n, d)?.[key] ?? null))),
  }, (name, d) => effectOf(of(name, d), key, show), [], context)));
}

const MEASURES = [["ppl", "Perplexity", 2], ["kl", "Divergence, nats", 4], ["same_top", "Same top token, %", 1], ["accuracy", "Right answers, %", 0], ["tokens_per_second", "Tokens per second", 0]] as const;

export function policies(all: Document[], context: Context): Node[] {
  const each = all.map((d) => as(d, "eval")!.results);
  const names = [...new Set(each.flat().map(resultName))];
  const of = (name: string, i: number): Result | undefined => each[i]!.find((r) => resultName(r) === name);
  const memory = all.map(({ name }, i): Column<string> => ({ label: `${name}, bytes`, value: (n) => of(n, i)?.kv_bytes, show: (n) => bytes(of(n, i)?.kv_bytes) }));
  return MEASURES.filter(([key]) => each.flat().some((r) => isNumber(r[key]))).map(([key, title, digits]) => {
    const show = (x: Value) => fixed(x, digits);
    return section(title, ...dotted(all, names, { key, title: `${title}, by policy`, axis: title, show, zero: null }, (name, i) => { const value = of(name, i)?.[key]; return isNumber(value) ? { value, interval: null, show: show(value) } : null; }, memory, context));
  });
}

export function denoising(all: Document[], context: Context): Node[] {
  const metric = STEP_METRICS[0]!;
  const each = all.map((d) => stepNumbers(as(d, "denoise")!, metric.of));
  const domain: [number, number] = [0, Math.max(1, ...each.flat(2).map((x) => x ?? 0))];
  const grids = all.map((d, i) => {
    const { plot, over } = grid({ id: `steps-${d.index}`, name: d.name, numbers: each[i]!, metric, domain, width: half(context.width), columns: "step", rows: "position", means: false });
    return figure({ id: `steps-${d.index}`, title: d.name, note: metric.label, plot, over, file: d.name, numbers: () => sinkTable(as(d, "denoise")!) });
  });
  const change: Metric = { ...metric, key: "difference", label: `${metric.label}, difference`, signed: true };
  const like = all.map((_, i) => i).filter((i) => i > 0 && likeGrids(each[0]!, each[i]!));
  const cellsOf = like.map((i) => changeOf(each[0]!, each[i]!));
  const changes = like.map((i, j) => {
    const cells = cellsOf[j]!;
    const { plot, over } = grid({ id: `difference-${all[i]!.index}`, name: lessFirst(all, i), numbers: cells, metric: change, domain: domainOf(change, ...cellsOf), width: half(context.width), columns: "step", rows: "position", means: false });
    return figure({ id: `difference-${all[i]!.index}`, title: lessFirst(all, i), note: change.label, plot, over, file: filesOf(all), numbers: () => tableOf({ caption: change.label, columns: [{ label: "step", value: (r) => r.layer }, { label: "position", value: (r) => r.head }, { label: "difference", value: (r) => r.value }], rows: gridRows(cells).filter((r) => r.value !== 0) }) });
  });
  return [
    section("Centre of the sinks", curves(all, { id: "centre", title: "Centre", note: "Mean position of all sinks.", x: "step", y: { label: "position" } }, (d) => as(d, "denoise")!.steps.map((s) => ({ x: s.step, y: s.centre })), context)),
    section("Positions against steps", ...pairs([...grids, ...changes])),
  ];
}

export function training(all: Document[], context: Context): Node[] {
  const { state, width } = context;
  const contents = all.map((d) => as(d, "training")!);
  const variants = contents.map(variantsOf);
  const labels = variantLabels(variants.flat().map((v) => v.name));
  const each = variants.flatMap((list, i) => list.map((v) => ({ ...v, document: all[i]!.name }))).map((v, i) => ({ ...v, name: `${v.document}, ${v.name}`, label: `${v.document}, ${labels[i]}` }));
  const axis: Axis = state.text("axis", "step") === "tokens" ? "tokens" : "step";
  const metrics = TRAINING_METRICS.filter((m) => contents.every((t) => t.runs.some((r) => r.lines.some((l) => m.of(l) !== null))));
  const metric = metrics.find((m) => m.key === state.text("metric", "")) ?? metrics[0]!;
  const alone = variants.every((list) => list.length === 1); // then they are compared whatever their names
  const like = (v: Variant, i: number) => variants[i]!.find((o) => alone || o.name === v.name);
  const shared = variants[0]!.filter((v) => all.every((_, i) => like(v, i)));
  const whole = (v: Variant) => curveOf(v, axis, metric.of).filter((p) => p.n === v.runs.length && p.x > 0);
  // Later documents at the places of the first: runs of unlike lengths and batches measure at unlike ones.
  const curvesOf = (v: Variant) => {
    const [first, ...later] = all.map((_, i) => whole(like(v, i)!));
    return [first!, ...later.map((curve) => first!.map(({ x }) => ({ x, y: valueAt(curve, x) })))];
  };
  const controls = h("div", { class: "controls" },
    choice("Over", "axis", [["step", "steps"], ["tokens", "tokens"]], axis, context),
    shared.length > 0 && choice("Difference of", "metric", metrics.map((m) => [m.key, m.label] as const), metric.key, context));
  return [
    section("Emergence", controls, ...pairs(metrics.slice(0, 6).map((m) => figure({ id: m.key, title: m.label, note: m.what, plot: emergence(each, m, axis, half(width), 290), numbers: () => curveTable(each, m, axis), file: filesOf(all) })))),
    ...shared.map((v) => {
      const points = curvesOf(v);
      return section(alone ? "Difference" : v.label, curves(all, {
        id: `variant-${v.name}`, title: metric.label, note: metric.what, x: axis === "step" ? "training step" : "tokens trained on", logX: true, y: { label: metric.label, ...(metric.log ? { type: "log" } : {}) },
      }, (_, i) => points[i]!, context));
    }),
  ];
}
