// One head on one prompt, as a profile has it: what Head shows of one document, and Compare of several.
import { strongest, type Attention, type AttentionMap, type LayerHead, type Prompt } from "../data/attention";
import { as, type Document, type Profile } from "../data/documents";
import { clipped, fixed, quoted } from "../format";
import { tableOf, type Table } from "../plot/csv";
import type { Lines, Series } from "../plot/lines";
import { SCALES, type ScaleName } from "../plot/map";
import { choice, type Context } from "./view";

export interface HeadOn {
  document: Document;
  profile: Profile;
  attention: Attention;
  layer: number;
  head: number;
  prompt: number;
  texts: string[]; // older programs kept none
  special: boolean[];
  alpha: Float32Array | null; // [key]
  map: AttentionMap | null;
  n: number; // tokens of the prompt
}

export function headOn(document: Document, layer: number, head: number, prompt: number): HeadOn {
  const attention = document.attention!;
  const { texts, special } = attention.prompts[prompt] ?? { texts: [], special: [] };
  const map = attention.map(prompt, layer, head);
  return { document, profile: as(document, "profile")!, attention, layer, head, prompt, texts, special, alpha: attention.alpha(prompt, layer, head), map, n: map?.n ?? attention.length(prompt) };
}

export const named = (texts: string[], i: number): string => (texts[i] === undefined ? "" : quoted(texts[i]));

// Whether enough rows see a key for its mean to say something.
export function seen(profile: Profile, n: number, key: number): boolean {
  const uniform = profile.sink_rate.uniform_alpha_by_position;
  const causal = (uniform[0] ?? 0) > 1.5 / n;
  return !causal || n - key >= profile.run.min_rows;
}

// A map as it is drawn: the whole one where it was kept, or else bands of all prompts.
export interface Picture {
  whole: boolean;
  title: string;
  note: string;
  cells: number; // of the drawing
  n: number; // of the axes
  of: string; // what a place on an axis is, where it is more than one position
  at: (row: number, column: number) => number; // weight, of cells x cells
  weight: (row: number, column: number) => number; // of n x n
  query: (row: number) => string;
  key: (column: number) => string;
  says: (row: number, column: number) => string;
  numbers: () => Table<never>;
}

export function pictureOf(on: HeadOn, size: number): Picture | null {
  const { map, attention, texts } = on;
  if (map) {
    const cells = Math.min(map.n, Math.round(size * devicePixelRatio));
    const shrunk = cells < map.n ? map.shrunk(cells) : null;
    return {
      whole: true, title: "Attention map", note: `Rows are queries, columns keys${shrunk ? "; the largest weight in each pixel" : ""}.`,
      cells, n: map.n, of: "",
      at: shrunk ? (row, column) => shrunk[row * cells + column]! : (row, column) => map.weight(row, column),
      weight: (row, key) => map.weight(row, key),
      query: (row) => `query ${row} ${named(texts, row)}`,
      key: (column) => `key ${column} ${named(texts, column)}`,
      says: (row, key) => `weight ${weightText(map, attention, row, key)}`,
      numbers: () => strongestTable(map, texts),
    };
  }
  const bands = attention.band(on.layer, on.head);
  if (!bands) return null;
  const each = Math.ceil(on.profile.run.length / attention.nBand);
  const at = (row: number, column: number) => bands[row]![column]!;
  return {
    whole: false, title: "Attention in bands", note: `Mean weight of ${attention.nBand} bands of queries and keys, over all prompts. Whole maps come with --maps ${on.layer}:${on.head}.`,
    cells: attention.nBand, n: attention.nBand, of: each > 1 ? " band" : "",
    at, weight: at,
    query: (row) => `queries ${bandText(row, each, on.profile)}`,
    key: (column) => `keys ${bandText(column, each, on.profile)}`,
    says: (row, column) => `mean weight ${fixed(at(row, column), 4)}`,
    numbers: () => bandTable(bands, each, on.profile),
  };
}

const weightText = (map: AttentionMap, attention: Attention, row: number, key: number) => {
  const weight = map.weight(row, key);
  return key > row && weight === 0 ? "none: not visible" : weight === 0 ? `below ${fixed(attention.mapFloor, 4)}` : fixed(weight, 4);
};

const bandText = (band: number, each: number, profile: Profile) => (each <= 1 ? String(band) : `${Math.ceil((band * profile.run.length) / 32)} to ${Math.ceil(((band + 1) * profile.run.length) / 32) - 1}`);

const bandTable = (bands: Float32Array[], each: number, profile: Profile) => tableOf({
  caption: "Mean weight between bands",
  columns: [{ label: "queries", value: (r) => bandText(r.query, each, profile), text: true }, { label: "keys", value: (r) => bandText(r.key, each, profile), text: true }, { label: "mean weight", value: (r) => Number(r.weight.toPrecision(4)), show: (r) => fixed(r.weight, 4) }],
  rows: bands.flatMap((row, query) => Array.from(row, (weight, key) => ({ query, key, weight }))).filter((r) => r.weight > 0),
});

// A whole map has too many weights for a table: of each query its strongest key, and what the first gets.
const strongestTable = (map: AttentionMap, texts: string[]) => tableOf({
  caption: "The strongest key of each query",
  columns: [
    { label: "query", value: (r) => r.query },
    { label: "token", value: (r) => named(texts, r.query), text: true },
    { label: "strongest key", value: (r) => r.key },
    { label: "its token", value: (r) => named(texts, r.key), text: true },
    { label: "weight", value: (r) => Number(map.weight(r.query, r.key).toPrecision(3)) },
    { label: "weight on the first key", value: (r) => Number(map.weight(r.query, 0).toPrecision(3)) },
  ],
  rows: Array.from({ length: map.n }, (_, query) => ({ query, key: strongest(map.row(query), 1, -1)[0]! })),
});

export function queryTable(map: AttentionMap, texts: string[], query: number) {
  const row = map.row(query);
  return tableOf({ caption: `Whom query ${query} looks at`, columns: [{ label: "key", value: (k) => k }, { label: "token", value: (k) => named(texts, k), text: true }, { label: "weight", value: (k) => Number(row[k]!.toPrecision(3)) }], rows: strongest(row, 64, 0) });
}

export const mapSize = (width: number): number => Math.min(width, 560) - 66;

// Long rows have small weights.
export function scaleOf({ state }: Context, n: number): ScaleName {
  const usual: ScaleName = n > 256 ? "log" : "sqrt";
  const wanted = state.text("scale", usual);
  return Object.hasOwn(SCALES, wanted) ? (wanted as ScaleName) : usual;
}

export const scaleChoice = (context: Context, scale: ScaleName): HTMLElement => choice("Colours", "scale", Object.entries(SCALES).map(([key, { name }]) => [key, name] as const), scale, context);

export const alphaPoints = (alpha: Float32Array): Series["points"] => Array.from(alpha, (y, x) => ({ x, y }));

export const ALPHA_AXIS: Lines["y"] = { label: "alpha", type: "sqrt", domain: [0, 1], ticks: [0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1] };

// The heads that a choice of "all", of a layer or of a layer and a head ("3:1") stands for, as far as they were measured.
export function headsOf(profile: Profile, choice: string): LayerHead[] {
  const [layer, head] = choice.split(":");
  return profile.layers
    .filter((l) => l.measured && (choice === "all" || String(l.layer) === layer))
    .flatMap((l) => l.heads.filter((x) => head === undefined || String(x.head) === head).map((x): LayerHead => [l.layer, x.head]));
}

// What these choices offer.
export const layersOf = (profile: Profile) => profile.layers.filter((l) => l.measured && l.heads.length > 0).map((l) => [String(l.layer), `layer ${l.layer}`] as const);
export const promptsOf = (prompts: Prompt[]) => prompts.map((p, i) => [String(i), `${i}: ${clipped(quoted(p.texts.slice(0, 8).join("").trim()), 40)}`] as const);
