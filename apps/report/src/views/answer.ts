// What a document says in a sentence, and what its numbers depend on.
import type { Ablation, Content, Document, Evaluation, Run, Training } from "../data/documents";
import { bestOf, policyName } from "../data/evaluation";
import { onsetOf, variantsOf, type Variant } from "../data/training";
import { h } from "../dom";
import { count, fixed, interval, percent, plain, plural, quoted, signed } from "../format";
import { facts } from "./view";

// The sentence in two sizes: what is so, and how much.
export function answer(document: Document): HTMLElement {
  const sentence = sentenceOf(document.content);
  const [, claim, numbers] = /^((?:[^`:]|`[^`]*`|:(?! ))*): ([\s\S]*)$/.exec(sentence) ?? [null, sentence, ""];
  return h("header", { class: "answer" },
    h("h1", {}, marked(claim!)),
    numbers && h("p", { class: "lede" }, marked(numbers)),
    facts(dependsOn(document.content)));
}

const marked = (sentence: string): (string | Node)[] => sentence.split(/(`[^`]*`)/).map((part) => (/^`.*`$/s.test(part) ? h("code", {}, h("bdi", {}, quoted(part.slice(1, -1)))) : part));

function sentenceOf(content: Content): string {
  switch (content.schema) {
    case "sinkscope.profile/1":
      return content.explain?.answer ?? content.answer;
    case "sinkscope.explain/1":
      return content.answer;
    case "sinkscope.ablate/1":
      return ofEdits(content);
    case "sinkscope.eval/1":
      return ofCaches(content);
    case "sinkscope.denoise/1": {
      const [first, last] = [content.steps[0], content.steps.at(-1)];
      return `${content.model.name} writes ${plural(content.run.length, "token")} in ${plural(content.steps.length, "step")}: the centre of its sinks goes from position ${fixed(first?.centre, 1)} to ${fixed(last?.centre, 1)}`;
    }
    case "sinkscope.training/1":
      return ofRuns(content);
  }
}

function ofEdits({ edits }: Ablation): string {
  const most = [...edits].sort((a, b) => Math.abs(b.loss_change ?? 0) - Math.abs(a.loss_change ?? 0))[0];
  if (!most) return "No edit was made";
  const between = most.loss_change_ci95 ? ` (95 % interval ${interval(most.loss_change_ci95, 3)})` : "";
  const control = most.control ? `; at places drawn at random ${signed(most.control.loss_change, 3)}` : "";
  return `\`${most.edit}\` changes the loss${edits.length > 1 ? ` most of ${plural(edits.length, "edit")}` : ""}: ${signed(most.loss_change, 3)} nats per token${between}${control}`;
}

function ofCaches(content: Evaluation): string {
  const { run, results } = content;
  const found = bestOf(content), text = run.task === "text";
  if (!found) return `${plural(results.length, "cache")} side by side: ${text ? `${count(run.n_token)} tokens of text` : run.task === "needle" ? "needles in a long text" : "lines in a long text"}`;
  const { budget, best, all } = found;
  const full = results.find((r) => r.policy === "full");
  const whole = full ? `; ${text ? fixed(full.ppl, 2) : percent(full.accuracy, 0)} with everything` : "";
  const names = listed(best.map(policyName));
  const does = text ? (all > 1 ? "loses least" : "is what was tried") : best[0]!.accuracy === 0 ? "answers nothing" : all > 1 ? (best.length > 1 ? "answer most" : "answers most") : "answers";
  return `With ${count(budget)} rows kept, ${names} ${does}: ${text ? `perplexity ${fixed(best[0]!.ppl, 2)}` : `${percent(best[0]!.accuracy, 0)} right`}${whole}`;
}

// With which variants sinks set in, and with which not.
function ofRuns(training: Training): string {
  const { runs } = training, variants = variantsOf(training);
  const share = (of: readonly Run[]) => of.filter((r) => onsetOf(r.lines)).length / of.length;
  const onset = onsetOf(runs[0]!.lines);
  if (runs.length === 1) return onset ? `Sinks set in: from step ${count(onset.step)} on; attention to the first token ends at ${fixed(runs[0]!.lines.at(-1)!.alpha, 3)}` : "No sinks set in";
  const named = (chosen: Variant[]) => (chosen.length > 4 ? `${chosen.length} of ${variants.length} variants` : listed(chosen.map((v) => v.label)));
  const [all, some, none] = [(x: number) => x === 1, (x: number) => x > 0 && x < 1, (x: number) => x === 0].map((is) => variants.filter((v) => is(share(v.runs)))) as [Variant[], Variant[], Variant[]];
  const inRuns = `in ${count(share(runs) * runs.length)} of ${plural(runs.length, "run")}`;
  if (none.length === variants.length) return `No sinks set in: ${inRuns}`;
  if (all.length === variants.length || variants.length === 1) return `Sinks set in${variants.length > 1 ? ` with all ${variants.length} variants` : ""}: ${inRuns}`;
  const where = [all.length > 0 && `with ${named(all)}`, some.length > 0 && `at times with ${named(some)}`].filter(Boolean).join(", ");
  return `Sinks set in ${where}: ${inRuns}${none.length > 0 ? `; never with ${named(none)}` : ""}`;
}

const listed = (names: readonly string[]): string => names.join(", ").replace(/, (?=[^,]*$)/, " and ");

function dependsOn(content: Content): [string, string][] {
  if (content.schema === "sinkscope.training/1") return [["of", content.title], ["runs", count(content.runs.length)], ["variants", count(new Set(content.runs.map((r) => r.variant)).size)]];
  const { model } = content;
  const about: [string, string][] = [
    ...(content.schema === "sinkscope.eval/1" || content.schema === "sinkscope.ablate/1" ? [["model", model.name] as [string, string]] : []),
    ["architecture", `${model.architecture}, ${model.n_layer} layers of ${model.n_head} heads${model.n_expert > 0 ? `, ${model.n_expert} experts` : ""}, ${model.file_type}`],
  ];
  if (content.schema === "sinkscope.eval/1") {
    const { run } = content;
    return [...about, ["text", run.text || run.task], ["tokens", count(run.n_token)], ["BOS", run.bos ? "first" : "none"], ["chunk", `${run.chunk} tokens`], ["positions", run.positions], ["protected", run.protect || "nothing"], ["seed", String(run.seed)]];
  }
  if (content.schema === "sinkscope.denoise/1") {
    const { run } = content;
    return [...about, ["answer", plural(run.length, "token")], ["prompt", plural(run.n_prompt, "token")], ["block", count(run.block)], ["remasking", run.remasking], ["temperature", plain(run.temperature)], ["epsilon", plain(run.epsilon)], ["seed", String(run.seed)]];
  }
  const { run } = content;
  return [...about,
    ["prompts", `${count(run.n_prompt)} of ${run.shortest === run.length ? count(run.length) : `${count(run.shortest)} to ${count(run.length)}`} tokens`],
    ["first token", run.bos === "first" ? "BOS" : "no BOS"],
    ["epsilon", plain(run.epsilon)],
    ["cache", run.kv_type],
    ["seed", String(run.seed)],
    ["file", `SHA-256 ${model.sha256.slice(0, 12)}…`],
  ];
}
