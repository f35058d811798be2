// Documents of every kind that no model wrote: for what real ones lack (hostile text, 128 x 128 heads, experts, denoising, seeds).
// Every number follows from a formula and a fixed generator; nothing here is a measurement.

export function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
const round = (x) => Math.round(x * 1e6) / 1e6;
const list = (n, f) => Array.from({ length: n }, (_, i) => f(i));
const mean = (xs) => xs.reduce((a, b) => a + b, 0) / xs.length;

export const HOSTILE = ["<script>alert(1)</script>", " <img src=x onerror=alert(2)>", "</script>", " שלום", " مرحبا", "\u202Eevil\u202C", " 👩‍👩‍👧", "\u0000\u0007\u001b[31m", "\n", "\t", " &amp;&lt;", "\u200B", "\uFFFD", "  ", "", "`; ]]> -->", " 日本語", "e\u0301\u0302\u0303", "\u2028", "a".repeat(200), "\"'", "${x}", "javascript:alert(3)"];
// Letters that join, a direction that turns within a line, characters of several tokens ("" continues the one before).
export const BIDI = ["<s>", "שלו", "ם", " ע", "ולם", ",", " م", "ر", "", "ح", "ب", "ا", " 😀", "", "", "", ".", "\n", "to", " the", " right", " 🎉", "", " again", "."];
const WORDS = "the of a language model gives much its attention to few tokens that carry no meaning most often first one and in , . is are was river stone light window paper moves under over small large by with for because where".split(" ");

const model = (nLayer, nHead, more = {}) => ({ file: "made-up.gguf", sha256: "0".repeat(64), architecture: "made-up", name: "Made-up model", n_layer: nLayer, n_head: nHead, n_head_kv: nHead, n_expert: 0, n_vocab: 1000, n_context_train: 4096, file_type: "F32", ...more });
const run = (length, nPrompt) => ({ epsilon: 0.3, min_rows: 16, length, shortest: length, n_prompt: nPrompt, n_token: length * nPrompt, bos: "first", kv_type: "f16", threads: 2, batch: 512, isa: "avx2", seed: 1, seconds: 1.5, tokens_per_second: round((length * nPrompt) / 1.5), peak_rss_bytes: 2e8 });

const alphaCode = (alpha) => Math.round(255 * Math.sqrt(Math.min(1, Math.max(0, alpha))));
const weightCode = (w) => (w >= 1 / 1024 ? Math.min(255, Math.max(1, Math.round(255 + 25.4 * Math.log2(w)))) : 0);

// Heads whose rows put a share on the first key, on the present one and on the others, all by formula.
export function profile({ name = "made-up", nLayer = 12, nHead = 8, length = 64, nPrompt = 2, nMap = 2, seed = 7, texts = null, strength = 1, explain = false, nExpert = 0 } = {}) {
  const random = generator(seed);
  const share = list(nLayer, (l) => list(nHead, () => Math.min(0.97, Math.max(0, strength * (Math.sin((Math.PI * (l + 1)) / (nLayer + 1)) * 0.75 + (random() - 0.5) * 0.7)))));
  const near = list(nLayer, () => list(nHead, () => 1 + Math.floor(random() * 6)));
  const weight = (l, h, i, k) => {
    if (k > i) return 0;
    const sink = share[l][h];
    const others = list(i + 1, (j) => (j === 0 ? 0 : Math.exp(-(i - j) / (near[l][h] * 3))));
    const sum = others.reduce((a, b) => a + b, 0);
    return (k === 0 ? (i === 0 ? 1 : sink) : 0) + (i === 0 ? 0 : ((1 - sink) * others[k]) / sum);
  };
  // Column means without all rows: geometric tails are short.
  const alphaOf = (l, h, k) => (k === 0 ? share[l][h] + (1 - share[l][h]) / length : ((1 - share[l][h]) * Math.min(1, 3 / (near[l][h] * (length - k + 2)))) );
  const prompts = list(nPrompt, (p) => {
    const own = texts && p === 0 ? texts : list(length, (i) => (i === 0 ? "<s>" : (i % 23 === 0 ? "\n" : " ") + WORDS[Math.floor(random() * WORDS.length)]));
    return { tokens: own.map((_, i) => (i === 0 ? 1 : 100 + i)), texts: own, special: own.map((_, i) => i === 0) };
  });
  const P = Math.max(...prompts.map((p) => p.texts.length));
  const layers = list(nLayer, (layer) => {
    const heads = list(nHead, (head) => ({ head, alpha_first: round(alphaOf(layer, head, 0)), sink_rate_first: alphaOf(layer, head, 0) > 0.3 ? 100 : 0, entropy: round(3 * (1 - share[layer][head])), strongest_is_first: round(100 * Math.min(1, share[layer][head] * 1.2)), first_share: round(share[layer][head]) }));
    return { layer, measured: true, sink_rate_first: round(mean(heads.map((h) => h.sink_rate_first))), first_share: round(mean(heads.map((h) => h.first_share))), entropy: round(mean(heads.map((h) => h.entropy))), strongest_is_first: round(mean(heads.map((h) => h.strongest_is_first))), heads };
  });
  const alphas = list(P, (k) => round(mean(share.flatMap((heads, l) => heads.map((_, h) => alphaOf(l, h, k))))));
  const rates = list(P, (k) => round(100 * mean(share.flatMap((heads, l) => heads.map((_, h) => (alphaOf(l, h, k) > 0.3 ? 1 : 0))))));
  const uniform = list(P, (k) => round(list(P - k, (i) => 1 / (k + i + 1)).reduce((a, b) => a + b, 0) / (P - k)));
  const heads = share.flatMap((row, l) => row.flatMap((_, h) => (alphaOf(l, h, 0) > 0.3 ? [[l, h]] : [])));
  const first = mean(share.flat());
  const maps = heads.slice(0, nMap);
  const content = {
    schema: "sinkscope.profile/1", answer: `Made-up model sinks on its first token \`<s>\`: ${rates[0].toFixed(0)} % of ${nLayer * nHead} heads give it more than 0.3 of their attention (on average ${alphas[0].toFixed(3)}; uniform attention would give ${uniform[0].toFixed(3)})`,
    model: model(nLayer, nHead, { name: `Made-up ${name}`, n_expert: nExpert }), run: { ...run(P, nPrompt), maps },
    sink_rate: { first: rates[0], null: 0, first_ci95: [round(rates[0] - 3), round(rates[0] + 3)], by_position: rates, null_by_position: list(P, () => 0), alpha_by_position: alphas, uniform_alpha_by_position: uniform, sum_by_position: list(P, (k) => round(alphas[k] * (P - k))), share_by_position: list(P, (k) => round((alphas[k] * (P - k)) / P)) },
    first: { n: [1, 4, 8], share: [round(first), round(first + 0.05), round(first + 0.1)], uniform: [0.016, 0.06, 0.12], boost: [round(first / 0.016), round((first + 0.05) / 0.06), round((first + 0.1) / 0.12)], last_rows: Math.min(64, P), share_ci95: list(3, () => [round(first - 0.02), round(first + 0.12)]) },
    strongest_is_first: round(100 * first), strongest_is_first_ci95: [round(100 * first - 2), round(100 * first + 2)], learned_sink: null, layers,
    sinks: rates[0] > 25 ? [{ position: 0, token: 1, text: prompts[0].texts[0], special: true, token_share: 1, sink_rate: rates[0], sink_rate_ci95: [round(rates[0] - 3), round(rates[0] + 3)], alpha: alphas[0], heads }] : [],
    tokens: [], baselines: [], notes: ["Made up: no model was measured."], prompts,
  };
  if (explain) content.explain = explanation({ content, share, random, nExpert });
  const alpha = new Uint8Array(nPrompt * nLayer * nHead * P);
  let at = 0;
  for (let p = 0; p < nPrompt; ++p) for (let l = 0; l < nLayer; ++l) for (let h = 0; h < nHead; ++h) for (let k = 0; k < P; ++k) alpha[at++] = k < prompts[p].texts.length ? alphaCode(alphaOf(l, h, k)) : 0;
  const B = Math.min(32, P), bands = new Uint8Array(nLayer * nHead * B * B);
  at = 0;
  for (let l = 0; l < nLayer; ++l) for (let h = 0; h < nHead; ++h) for (let q = 0; q < B; ++q) for (let k = 0; k < B; ++k) bands[at++] = k > q ? 0 : alphaCode(k === 0 ? (share[l][h] * B) / P + 0.001 : (1 - share[l][h]) * Math.exp(-(q - k) * 1.2) * 0.1);
  const map = new Uint8Array(nPrompt * maps.length * P * P);
  at = 0;
  for (let p = 0; p < nPrompt; ++p) for (const [l, h] of maps) {
    const scale = near[l][h] * 3, sums = [];
    for (let i = 0, sum = 0; i < P; ++i) sums[i] = sum = i === 0 ? 0 : sum * Math.exp(-1 / scale) + 1;
    for (let i = 0; i < P; ++i, at += P) for (let k = 0; k <= i; ++k) map[at + k] = weightCode(k === 0 ? (i === 0 ? 1 : share[l][h]) : ((1 - share[l][h]) * Math.exp(-(i - k) / scale)) / sums[i]);
  }
  return { name, content, tensors: { alpha: { shape: [nPrompt, nLayer, nHead, P], data: alpha }, bands: { shape: [nLayer, nHead, B, B], data: bands }, ...(maps.length > 0 ? { map: { shape: [nPrompt, maps.length, P, P], data: map } } : {}) }, weight };
}

function explanation({ content, share, random, nExpert }) {
  const { model, run } = content;
  const first = (l) => 10 * 1.2 ** Math.max(0, l) + (l >= 3 && l < model.n_layer - 1 ? 900 : 0);
  const layers = list(model.n_layer + 1, (i) => {
    const layer = i - 1;
    const hidden = { norm_first: round(first(layer)), norm_median: round(10 * 1.15 ** i), norm_sinks: round(first(layer) * 0.98), top_over_median: round(20 + 5 * i), spread: round(0.9 - 0.02 * i), moved: round(0.1 + 0.01 * i), moved_without_first: round(0.08 + 0.008 * i), largest: { value: round(first(layer) * 0.95), dim: 42, prompt: 0, position: 0, token: 1, text: "<s>", over_median: round(first(layer) * 3) } };
    if (layer < 0) return { layer, hidden };
    const heads = share[layer].map((x, head) => {
      const logit = 6 * x + random(), other = -1.5 + random();
      const gap = logit - other;
      return { head, sinks: x > 0.3 ? 1 : 0, where: x > 0.3 ? [{ position: 0, token: 1, text: "<s>", special: true, share: 1 }] : [], entropy: round(3 * (1 - x)), query_norm: round(11 + random()), key_norm: round(6 + random()), other_key_norm: round(15 + random()), cos: round(0.1 + 0.5 * x), other_cos: round(-0.05 + 0.02 * random()), cos_unrotated: round(0.1 + 0.5 * x), other_cos_unrotated: 0.01, logit: round(logit), other_logit: round(other), gap: round(gap), gap_by_norm: round(-0.4 * gap), gap_by_angle: round(1.35 * gap), null_mass: round(0.05 * (1 - x)), output_share: round(0.3 * x) };
    });
    return { layer, hidden, key_norm_first: 6.2, key_norm_median: 15.4, value_norm_first: round(0.3 + 0.05 * layer), value_norm_median: round(2 + 0.2 * layer), key_norm_sinks: 6.4, value_norm_sinks: round(0.35 + 0.05 * layer), heads };
  });
  return {
    schema: "sinkscope.explain/1", answer: `${content.answer}; the first token's hidden state grows most in layer 3, from 17 to 920 (others: 17)`, model, run, onset: 3, onset_rise: 902.7, layers,
    outliers: [{ dim: 42, position: 0, token: 1, text: "<s>", n_prompt: run.n_prompt, n_place: run.n_prompt, massive: true, sink_dimension: true, value: 950, over_median: 2800, layer: 5, first_layer: 3, last_layer: model.n_layer - 2, rises_in: 3, rises_by: "mlp", falls_in: model.n_layer - 1, falls_by: "mlp" }],
    secondary: [{ prompt: 0, position: 23, token: 123, text: "\n", first_layer: 4, last_layer: 9, kind: "secondary" }],
    experts: nExpert === 0 ? [] : list(model.n_layer, (layer) => list(nExpert, (expert) => ({ layer, expert, sink_share: round(expert === (layer * 5) % nExpert ? 0.9 : 0.1 / nExpert), other_share: round((1 / nExpert) * (0.6 + 0.8 * random())), sink_weight: round(expert === (layer * 5) % nExpert ? 0.7 : 0.02), other_weight: round(1 / nExpert), largest_output: round(expert === (layer * 5) % nExpert ? 90 : 4 + random()), super: layer === 3 && expert === 15 % nExpert }))).flat(),
    d_sink: nExpert === 0 ? null : 0.41, dormant: [{ layer: 4, head: 1, sinking_prompt: 0, working_prompt: 1, alpha_sinking: 0.92, alpha_working: 0.11, loss_sinking: 0.001, loss_working: 0.084 }],
    missing: [], notes: ["Made up: no model was measured."],
  };
}

export function ablation({ name = "made-up edits", times = 1 } = {}) {
  const change = (d, spread, kl, top, rate) => ({ loss: round(3.4 + times * d), loss_change: round(times * d), loss_change_ci95: [round(times * d - spread), round(times * d + spread)], kl, same_top: top, sink_rate: rate });
  return { name, content: { schema: "sinkscope.ablate/1", model: model(12, 8), run: run(64, 6), controls: 3, loss: 3.4, sink_rate: 72.2, edits: [
    { edit: "mask:positions=0", ...change(0.112, 0.035, 0.138, 87, 0), control: change(0.047, 0.02, 0.061, 93, 72), control_of: "positions" },
    { edit: "scale:positions=0,gamma=0.5", ...change(0.007, 0.015, 0.014, 94, 63.6), control: change(-0.002, 0.004, 0.002, 98, 72.1), control_of: "positions" },
    { edit: "off-by-one", ...change(0.121, 0.14, 0.249, 84, 49.6), control: null, control_of: "" },
    { edit: "zero:dims=247/507,positions=0", ...change(3.537, 0.9, 3.889, 18, 16.2), control: change(0.002, 0.004, 0.001, 99, 72.2), control_of: "dimensions" },
  ], notes: [] } };
}

export function evaluation() {
  const random = generator(11);
  const result = (policy, budget, ppl, kv_type = "f16") => ({ policy, kv_type, sinks: policy === "streaming" ? 4 : 0, budget_rows: budget, budget_bytes: 0, kv_bytes: (budget || 8192) * 23040, mean_rows: budget || 4096, ppl, ppl_by_1024: list(8, (i) => round(ppl * (1 + 0.2 / (i + 1)) * (0.96 + 0.08 * random()) * (policy === "window" && i > 0 ? 2.5 : 1))), tokens_per_second_by_1024: list(8, (i) => round(budget ? 300 : 320 / (1 + 0.15 * i))), rss_by_1024: list(8, (i) => 2e8 + 2e6 * i), kl: policy === "full" ? 0 : round(Math.log(ppl / 12) + 0.01), same_top: round(100 - 10 * Math.log(ppl / 11.9)), tokens_per_second: budget ? 300 : 180 });
  return { name: "made-up policies", content: { schema: "sinkscope.eval/1", model: model(12, 8), run: { task: "text", seed: 1, text: "made-up.txt", n_token: 8192, skip: 0, alone: false, bos: true, chunk: 64, positions: "cache", protect: "", sink_maps: [] }, results: [result("full", 0, 12), ...[128, 256, 512].flatMap((b) => [result("window", b, round(60 - b / 16)), result("streaming", b, round(13.8 - b / 400)), result("snapkv", b, round(13.1 - b / 500)), result("h2o", b, round(13.4 - b / 450))])], notes: [] } };
}

export function needles() {
  const answers = (good) => [1024, 2048, 4096].flatMap((length) => [0, 0.25, 0.5, 0.75, 1].map((depth) => ({ length, depth, line: 3, expected: "48213", found: good(length, depth) ? "48213" : "11" })));
  const result = (policy, budget, good) => { const a = answers(good); return { policy, kv_type: "f16", sinks: policy === "streaming" ? 4 : 0, budget_rows: budget, budget_bytes: 0, kv_bytes: (budget || 4096) * 23040, mean_rows: budget || 2000, tokens_per_second: 200, accuracy: round((100 * a.filter((x) => x.found === x.expected).length) / a.length), answers: a }; };
  return { name: "made-up needles", content: { schema: "sinkscope.eval/1", model: model(12, 8), run: { task: "needle", seed: 1, text: "", n_token: 4096, skip: 0, alone: true, bos: true, chunk: 64, positions: "cache", protect: "", sink_maps: [] }, results: [result("full", 0, () => true), result("streaming", 512, (_, d) => d === 1), result("snapkv", 512, (l, d) => d > 0.2 || l < 2000)], notes: [] } };
}

export function denoising({ shift = 0 } = {}) {
  const steps = list(32, (step) => {
    const at = Math.round(20 + shift + step * 1.2);
    const sinks = [{ position: 0, token: 1, text: "<s>", sink_rate: round(60 - step), column_sum: round(20 - step * 0.2) }, { position: at, token: 13, text: step % 2 ? "." : "\n", sink_rate: round(30 + step * 0.8), column_sum: round(6 + step * 0.3) }];
    return { step, n_masked: 32 - step, centre: round(at * 0.6), n_sink_head: 60 + step, sinks };
  });
  return { name: `made-up denoising${shift ? ` ${shift}` : ""}`, content: { schema: "sinkscope.denoise/1", model: model(12, 8, { architecture: "llada" }), run: { length: 32, block: 32, steps: 32, temperature: 0, remasking: "confidence", epsilon: 3, seed: 1, mask: 999, bos: "auto", threads: 2, isa: "avx2", blas: true, n_prompt: 32, n_head: 96 }, tokens: list(64, (i) => i), text: " an answer of made-up words.\n", steps, notes: [] } };
}

export function training({ name = "made-up training", seed = 5 } = {}) {
  const random = generator(seed);
  const steps = [0, ...list(36, (i) => Math.round(4000 ** (i / 35)))].filter((x, i, all) => all.indexOf(x) === i);
  const runs = [["model.attention=softmax", 1, 900], ["model.attention=sigmoid", 0.05, 900], ["model.attention=gate_head", 0.55, 1500]].flatMap(([variant, strength, onset]) => [1, 2, 3].map((seed) => {
    const late = onset * (0.8 + 0.4 * random());
    return { name: `${variant.split("=")[1]}-${seed}`, variant, seed, parameters: 1280000, config: { "model.attention": variant.split("=")[1], "training.seed": seed, "training.tokens": 8000000 }, lines: steps.map((step) => {
      const t = 1 / (1 + (late / Math.max(1, step)) ** 3);
      const alpha = round(0.03 + 0.4 * strength * t + 0.003 * random());
      return { step, tokens: step * 2048, loss: round(8.3 - 0.62 * Math.log(1 + step) + 0.02 * random()), validation: round(8.31 - 0.61 * Math.log(1 + step) + 0.02 * random()), sink_rate: round(Math.max(0, 60 * strength * (t - 0.3))), sink_null: 0, alpha, alpha_null: 0.024, strongest: round(Math.min(1, alpha * 1.9)), place: 0, place_rate: round(Math.max(0, 60 * strength * (t - 0.3))), place_alpha: alpha, gated_alpha: round(alpha * (variant.includes("gate") ? 0.4 : 1)), mass: variant.includes("sigmoid") ? round(1 + 2 * t) : 1, norm_ratio: list(5, (l) => round(1 + strength * t * l * 1.5)), top_ratio: list(5, (l) => round(8 + strength * 40 * t * l)), value_ratio: list(4, (l) => round(1 - 0.5 * strength * t * (l / 4))) };
    }) };
  }));
  return { name, content: { schema: "sinkscope.training/1", title: "Made-up runs: three attentions, three seeds each", runs } };
}
