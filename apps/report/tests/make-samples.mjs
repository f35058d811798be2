// Reports of made-up documents, one for each matter that the browser tests and the measurements need: node tests/make-samples.mjs FOLDER
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { reportHtml } from "./make-report.mjs";
import * as made from "./made-up.mjs";

export function samples() {
  const twin = made.profile({ name: "before", nPrompt: 2, explain: true });
  return {
    hostile: [made.profile({ name: "<b>hostile</b>", texts: made.HOSTILE, length: made.HOSTILE.length, nPrompt: 1, explain: true })],
    bidi: [made.profile({ name: "bidi", texts: made.BIDI, length: made.BIDI.length, nPrompt: 2 })],
    wide: [made.profile({ name: "wide", nLayer: 128, nHead: 128, length: 32, nPrompt: 1 })],
    long: [made.profile({ name: "long", nLayer: 24, nHead: 16, length: 2048, nPrompt: 1, nMap: 16 })],
    experts: [made.profile({ name: "experts", nLayer: 16, nHead: 8, explain: true, nExpert: 32 })],
    weaker: [made.profile({ name: "whole" }), made.profile({ name: "weaker", strength: 0.9 })],
    unlike: [made.profile({ name: "small", nLayer: 4, nHead: 4, length: 24, nMap: 8 }), made.profile({ name: "large", nLayer: 6, nHead: 8, length: 40, nMap: 24, explain: true })],
    three: ["one", "two", "three"].map((name, i) => made.profile({ name, nLayer: 4, nHead: 4, length: 24, nPrompt: 2, seed: 7 + i, strength: 1 - 0.3 * i })),
    everything: [twin, made.profile({ name: "after", nPrompt: 2, seed: 8, strength: 0.6, explain: true }), made.ablation(), made.evaluation(), made.needles(), made.denoising(), made.denoising({ shift: 12 }), made.training(), { name: "explanation alone", content: twin.content.explain }, made.ablation({ name: "made-up edits, twice", times: 2 }), made.training({ name: "made-up training, again", seed: 6 })],
  };
}

if (process.argv[1]?.endsWith("make-samples.mjs")) {
  const folder = process.argv[2];
  if (!folder) throw new Error("usage: node tests/make-samples.mjs FOLDER");
  mkdirSync(folder, { recursive: true });
  for (const [name, documents] of Object.entries(samples())) writeFileSync(join(folder, `${name}.html`), reportHtml(documents));
}
