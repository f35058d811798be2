import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { deflateSync } from "node:zlib";
import Ajv from "ajv";
import { describe, expect, it } from "vitest";
import { sharedTokens, strongest } from "../src/data/attention";
import { explanationOf, reportOf, type Evaluation, type Line } from "../src/data/documents";
import { bestOf, policyName } from "../src/data/evaluation";
import { domainOf, headNumbers, metricsOf } from "../src/data/metrics";
import { fromBase64, inflate, PayloadError, safetensors } from "../src/data/payload";
import { curveOf, onsetOf, variantLabels, variantsOf } from "../src/data/training";
import { fixed, percent, quoted, short, tick, visible } from "../src/format";
import { keysInSight } from "../src/plot/keys";
import { csvOf } from "../src/plot/csv";
// @ts-expect-error the tests' helpers are plain JavaScript
import { reportData, safetensors as packed } from "./make-report.mjs";
// @ts-expect-error the tests' helpers are plain JavaScript
import * as made from "./made-up.mjs";

const reportFrom = (documents: unknown[]) => reportOf(safetensors(new Uint8Array(packed(documents))));

describe("payload", () => {
  it("comes through base64 and deflate as the bytes that went in", async () => {
    const bytes = new Uint8Array(packed([made.ablation()]));
    const text = deflateSync(bytes).toString("base64");
    expect(await inflate(fromBase64(text))).toEqual(bytes);
  });

  it("says what is wrong with damaged data", async () => {
    expect(() => fromBase64("no base64 !")).toThrow(PayloadError);
    await expect(inflate(Uint8Array.from([1, 2, 3]))).rejects.toThrow(PayloadError);
    expect(() => safetensors(new Uint8Array(4))).toThrow(/no header/);
    const bytes = new Uint8Array(packed([made.ablation()]));
    expect(() => safetensors(bytes.subarray(0, bytes.length - 1))).toThrow(/expected/);
    expect(() => reportOf({ metadata: { schema: "other" }, tensors: new Map() })).toThrow(/sinkscope.report\/1/);
  });

  it("refuses a document of a schema that it does not know", () => {
    expect(() => reportFrom([{ name: "x", content: { schema: "sinkscope.profile/2" } }])).toThrow(/profile\/2/);
  });
});

describe("attention", () => {
  const source = made.profile({ nLayer: 3, nHead: 2, length: 40, nPrompt: 2, nMap: 1 });
  const document = reportFrom([source]).documents[0]!;
  const attention = document.attention!;

  it("decodes alpha by prompt, layer and head to within its 8 bits", () => {
    for (let layer = 0; layer < 3; ++layer)
      for (let head = 0; head < 2; ++head) {
        const want = source.content.layers[layer].heads[head].alpha_first as number;
        expect(Math.abs(attention.alpha(1, layer, head)![0]! - want)).toBeLessThan(1 / 255);
      }
    expect(attention.alpha(2, 0, 0)).toBeNull();
  });

  it("decodes maps to within 3 per cent, and zero where a query cannot see", () => {
    const [layer, head] = attention.mapped[0]!;
    const map = attention.map(0, layer, head)!;
    for (const [row, key] of [[39, 0], [39, 39], [20, 19], [0, 0]] as const) {
      const want = source.weight(layer, head, row, key) as number;
      expect(Math.abs(map.weight(row, key) / want - 1)).toBeLessThan(0.03);
    }
    expect(map.weight(3, 4)).toBe(0);
    expect(attention.map(0, 2, 1)).toBeNull();
  });

  it("keeps the largest weight of each cell when a map is shrunk", () => {
    const [layer, head] = attention.mapped[0]!;
    const map = attention.map(0, layer, head)!;
    const small = map.shrunk(10);
    let largest = 0;
    for (let r = 36; r < 40; ++r) for (let k = 0; k < 4; ++k) largest = Math.max(largest, map.weight(r, k));
    expect(small[9 * 10]).toBe(largest);
  });

  it("averages over heads", () => {
    const heads = [[0, 0], [2, 1]] as const;
    const mean = attention.meanAlpha(0, heads)!;
    expect(mean[5]).toBeCloseTo((attention.alpha(0, 0, 0)![5]! + attention.alpha(0, 2, 1)![5]!) / 2, 6);
    const rate = attention.sinkRate(0, heads, 0.3)!;
    expect(rate[0]).toBe(heads.filter(([l, h]) => attention.alpha(0, l, h)![0]! > 0.3).length / 2);
  });
});

describe("prompts that are compared", () => {
  const prompt = (texts: string[], marks = 0) => ({ tokens: [], texts, special: texts.map((_, i) => i < marks) });

  it("share the tokens that both begin with", () => {
    expect(sharedTokens(prompt(["<s>", "a", "b", "c"], 1), prompt(["<s>", "a", "x", "c"], 1))).toEqual([[0, 0], [1, 1]]);
    expect(sharedTokens(prompt(["a", "b"]), prompt(["a"]))).toEqual([[0, 0]]);
  });

  it("share what follows a mark that one of them lacks", () => {
    expect(sharedTokens(prompt(["<s>", "a", "b"], 1), prompt(["a", "b", "c"]))).toEqual([[1, 0], [2, 1]]);
    expect(sharedTokens(prompt(["<bos>", "a"], 1), prompt(["<s>", "<i>", "a"], 2))).toEqual([[1, 2]]);
  });

  it("share nothing where they differ from the first on", () => {
    expect(sharedTokens(prompt(["a"]), prompt(["b"]))).toEqual([]);
    expect(sharedTokens(prompt(["<s>"], 1), prompt(["a"]))).toEqual([]);
  });
});

describe("the fan", () => {
  it("shows the strongest keys in their order, with what is left out, in the room that there is", () => {
    const weights = Float32Array.from({ length: 2048 }, (_, k) => (k === 0 ? 0.5 : k === 1000 ? 0.2 : k > 2040 ? 0.04 : 0));
    const entries = keysInSight(weights, 12);
    expect(entries.length).toBeLessThanOrEqual(12);
    expect(entries[0]).toEqual({ key: 0 });
    expect(entries[1]).toEqual({ skipped: 999 });
    expect(entries[2]).toEqual({ key: 1000 });
    const shown = entries.reduce((n, e) => n + ("key" in e ? 1 : e.skipped), 0);
    expect(shown).toBe(2048);
  });

  it("shows every key of a short prompt", () => {
    expect(keysInSight(Float32Array.from([0.5, 0.3, 0.2]), 12)).toEqual([{ key: 0 }, { key: 1 }, { key: 2 }]);
  });

  it("orders keys by weight and leaves out those at the floor", () => {
    expect(strongest(Float32Array.from([0.1, 0.5, 0, 0.4]), 3, 0)).toEqual([1, 3, 0]);
  });
});

describe("metrics", () => {
  const document = reportFrom([made.profile({ explain: true })]).documents[0]!;

  it("are those that the document has numbers of", () => {
    const keys = metricsOf(document).map((m) => m.key);
    expect(keys).toContain("sink_rate_first");
    expect(keys).toContain("gap");
    expect(keys).not.toContain("learned_sink_mass");
  });

  it("of layer and head are the document's", () => {
    expect(headNumbers(document, "gap")![4]![2]).toBe(explanationOf(document)!.layers[5]!.heads![2]!.gap);
  });

  it("have colours that go both ways from zero where they are signed", () => {
    const gap = metricsOf(document).find((m) => m.key === "gap")!;
    const [low, high] = domainOf(gap, headNumbers(document, "gap")!);
    expect(low).toBe(-high);
  });
});

describe("training", () => {
  const line = (step: number, alpha: number): Line => ({ step, tokens: step, loss: 1, validation: 1, sink_rate: 0, sink_null: 0, alpha, alpha_null: 0.02, strongest: 0, place: 0, place_rate: 0, place_alpha: 0, gated_alpha: 0, mass: 1, norm_ratio: [], top_ratio: [], value_ratio: [] });

  it("finds where sinks set in as the trainer does: above for good", () => {
    expect(onsetOf([line(0, 0.02), line(1, 0.05), line(2, 0.02), line(3, 0.04), line(4, 0.09)])!.step).toBe(3);
    expect(onsetOf([line(0, 0.02), line(1, 0.025)])).toBeNull();
  });

  it("puts seeds together by variant", () => {
    const { content } = made.training();
    const variants = variantsOf(content);
    expect(variants.map((v) => v.runs.length)).toEqual([3, 3, 3]);
    const point = curveOf(variants[0]!, "step", (l) => l.alpha).at(-1)!;
    expect(point.n).toBe(3);
    expect(point.low).toBeLessThanOrEqual(point.y);
    expect(point.high).toBeGreaterThanOrEqual(point.y);
  });

  it("reads runs of unlike lengths between their measurements, and ends each where it ends", () => {
    const run = (seed: number, lines: Line[]) => ({ name: `${seed}`, variant: "", seed, parameters: null, config: {}, lines });
    const curve = curveOf({ runs: [run(1, [line(0, 0), line(4, 0.4), line(8, 0.8)]), run(2, [line(0, 0), line(2, 0.4), line(6, 0.4)])] }, "step", (l) => l.alpha);
    expect(curve.map((p) => [p.x, p.n])).toEqual([[0, 2], [2, 2], [4, 2], [6, 2], [8, 1]]);
    expect(curve[1]!.y).toBeCloseTo((0.2 + 0.4) / 2);
    expect(curve[3]!.low).toBeCloseTo(0.4);
    expect(curve[3]!.high).toBeCloseTo(0.6);
  });

  it("calls variants by what they differ in", () => {
    expect(variantLabels(["a.x=1, a.y=2", "a.x=3, a.y=2"])).toEqual(["x 1", "x 3"]);
    expect(variantLabels(["a.x=1, a.y=2", "a.x=3"])).toEqual(["x 1 + y 2", "x 3"]);
    expect(variantLabels(["a.x=1, a.y=2", "a.x=1, a.y=3", "a.x=4, a.y=2"])).toEqual(["x 1 + y 2", "y 3", "x 4"]);
    expect(variantLabels(["a.x=1"])).toEqual(["all alike"]);
  });

  it("leaves out what checkpoints do not tell", () => {
    const run = { name: "checkpoints", variant: "", seed: null, parameters: null, config: {}, lines: [line(1, 0.02), line(2, 0.03)].map((l) => ({ ...l, tokens: null, validation: null })) };
    expect(curveOf({ runs: [run] }, "step", (l) => l.alpha).map((p) => p.x)).toEqual([1, 2]);
    expect(curveOf({ runs: [run] }, "tokens", (l) => l.alpha)).toEqual([]);
    expect(curveOf({ runs: [run] }, "step", (l) => l.validation)).toEqual([]);
  });
});

describe("policies", () => {
  it("are best where they lose least with the fewest rows, or answer most", () => {
    const best = (content: Evaluation) => { const found = bestOf(content)!; return [found.budget, found.best.map(policyName), found.all]; };
    expect(best(made.evaluation().content)).toEqual([128, ["snapkv"], 4]);
    expect(best(made.needles().content)).toEqual([512, ["snapkv"], 2]);
    expect(bestOf({ ...made.evaluation().content, results: [] })).toBeNull();
  });
});

describe("format", () => {
  it("shows what has no shape, and nothing that turns the text around it", () => {
    expect(visible("\u202Eevil\u202C")).toBe("⟨U+202E⟩evil⟨U+202C⟩");
    expect(visible("\u0000\u001b\n\t\u007f")).toBe("⟨U+0000⟩⟨U+001B⟩↵⇥⟨U+007F⟩");
    expect(visible("👩‍👩‍👧")).toBe("👩‍👩‍👧");
    expect(visible("a\u200Db")).toBe("a⟨U+200D⟩b");
    expect(quoted("  x ")).toBe("␣␣x␣");
    expect(quoted("")).toBe("· rest of a character");
  });

  it("rounds as it says", () => {
    expect(fixed(-0.0001, 2)).toBe("0.00");
    expect(fixed(-1.25, 1)).toMatch(/^−1\.[23]$/);
    expect(percent(null)).toBe("–");
    expect(short(12345)).toBe("12,345");
    expect(tick(20)).toBe("20");
  });

  it("quotes CSV", () => {
    expect(csvOf({ caption: "", columns: [{ label: "a,b", value: (r: string) => r }], rows: ['say "x"', "two\nlines", "plain"] })).toBe('"a,b"\r\n"say ""x"""\r\n"two\nlines"\r\nplain\r\n');
  });
});

describe("schemas", () => {
  const folder = join(__dirname, "../../../docs/schemas");
  const ajv = new Ajv({ allowUnionTypes: true });
  for (const file of readdirSync(folder)) ajv.addSchema(JSON.parse(readFileSync(join(folder, file), "utf8")));
  const check = (content: { schema: string }) => {
    const validate = ajv.getSchema(`${/\.(\w+)\//.exec(content.schema)![1]}.schema.json`)!;
    validate(content);
    return validate.errors;
  };

  it("describe the made-up documents", () => {
    for (const { content } of [made.profile({ explain: true, nExpert: 4 }), made.ablation(), made.evaluation(), made.needles(), made.denoising(), made.training()]) expect(check(content)).toBeNull();
  });

  it("refuse a missing field and an unknown one", () => {
    const { content } = made.ablation();
    expect(check({ ...content, loss: undefined })).not.toBeNull();
    expect(check({ ...content, more: 1 })).not.toBeNull();
  });

  // SINKSCOPE_REPORTS: a folder of reports that the program wrote.
  const reports = process.env["SINKSCOPE_REPORTS"];
  it.skipIf(!reports)("describe what the program wrote", () => {
    const files = readdirSync(reports!).filter((f) => f.endsWith(".html"));
    expect(files.length).toBeGreaterThan(0);
    for (const file of files) for (const { name, content } of reportData(readFileSync(join(reports!, file), "utf8")).documents) expect([file, name, check(content)]).toEqual([file, name, null]);
  });
});
