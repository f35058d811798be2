// The arrays of a profile, decoded where they are read: a report's numbers stay bytes.
import { PayloadError, type Payload } from "./payload";
import type { Profile } from "./schema/profile";

export type LayerHead = readonly [layer: number, head: number];

export interface Prompt {
  tokens: number[];
  texts: string[];
  special: boolean[];
}

// alpha is coded as round(255 sqrt(alpha)).
const ALPHA = Float32Array.from({ length: 256 }, (_, v) => (v / 255) ** 2);
// Whole maps are coded logarithmically: 0 is nothing, 255 is 1.
const WEIGHT = Float32Array.from({ length: 256 }, (_, v) => (v === 0 ? 0 : 2 ** ((v - 255) / 25.4)));

export class Attention {
  constructor(
    readonly prompts: Prompt[],
    private readonly alphas: Bytes | null, // [prompt, layer, head, key]
    private readonly bands: Bytes | null, // [layer, head, query band, key band]
    private readonly maps: Bytes | null, // [prompt, map, row, key]
    readonly mapped: LayerHead[],
    readonly mapFloor: number,
  ) {}

  // Prompts that have arrays; there may be more in `prompts`.
  get nPrompt(): number {
    return this.alphas?.shape[0] ?? 0;
  }

  get nBand(): number {
    return this.bands?.shape[3] ?? 0;
  }

  // Mean attention to each key of the prompt, from the rows that see it.
  alpha(prompt: number, layer: number, head: number): Float32Array | null {
    return this.alphas && row(this.alphas, ALPHA, [prompt, layer, head], this.length(prompt));
  }

  // The same as a mean over the heads of a layer, or of all layers.
  meanAlpha(prompt: number, heads: readonly LayerHead[]): Float32Array | null {
    if (!this.alphas || heads.length === 0) return null;
    const mean = new Float32Array(this.length(prompt));
    for (const [layer, head] of heads) {
      const alpha = this.alpha(prompt, layer, head);
      if (!alpha) return null;
      for (let k = 0; k < mean.length; ++k) mean[k]! += alpha[k]! / heads.length;
    }
    return mean;
  }

  // Share of these heads that sink on each key.
  sinkRate(prompt: number, heads: readonly LayerHead[], epsilon: number): Float32Array | null {
    if (!this.alphas || heads.length === 0) return null;
    const rate = new Float32Array(this.length(prompt));
    for (const [layer, head] of heads) {
      const alpha = this.alpha(prompt, layer, head);
      if (!alpha) return null;
      for (let k = 0; k < rate.length; ++k) if (alpha[k]! > epsilon) rate[k]! += 1 / heads.length;
    }
    return rate;
  }

  // Mean weight between bands of queries and of keys, [query band][key band].
  band(layer: number, head: number): Float32Array[] | null {
    const rows = Array.from({ length: this.nBand }, (_, q) => this.bands && row(this.bands, ALPHA, [layer, head, q], this.nBand));
    return rows.length > 0 && rows.every((r) => r !== null) ? rows : null;
  }

  // The whole map where it was kept.
  map(prompt: number, layer: number, head: number): AttentionMap | null {
    const index = this.mapped.findIndex(([l, h]) => l === layer && h === head);
    if (!this.maps || index < 0 || prompt >= this.maps.shape[0]!) return null;
    const [, nMap, nRow, nKey] = this.maps.shape as [number, number, number, number];
    const size = nRow * nKey;
    return new AttentionMap(this.maps.data.subarray((prompt * nMap + index) * size, (prompt * nMap + index + 1) * size), Math.min(nRow, this.length(prompt)), nKey);
  }

  length(prompt: number): number {
    return this.prompts[prompt]?.texts.length ?? this.alphas?.shape[3] ?? 0;
  }
}

export class AttentionMap {
  constructor(
    private readonly codes: Uint8Array, // [row, key]
    readonly n: number,
    private readonly stride: number,
  ) {}

  weight(row: number, key: number): number {
    return WEIGHT[this.codes[row * this.stride + key]!]!;
  }

  row(row: number): Float32Array {
    return Float32Array.from({ length: this.n }, (_, key) => this.weight(row, key));
  }

  column(key: number): Float32Array {
    return Float32Array.from({ length: this.n }, (_, row) => this.weight(row, key));
  }

  // The largest weight in each cell when n x n is seen as size x size: a column of one key must not vanish.
  shrunk(size: number): Float32Array {
    const out = new Uint8Array(size * size);
    for (let r = 0; r < this.n; ++r) {
      const to = Math.floor((r * size) / this.n) * size;
      const from = r * this.stride;
      for (let k = 0; k < this.n; ++k) {
        const at = to + Math.floor((k * size) / this.n);
        if (this.codes[from + k]! > out[at]!) out[at] = this.codes[from + k]!;
      }
    }
    return Float32Array.from(out, (code) => WEIGHT[code]!);
  }
}

// Keys with the largest weights, the largest first.
export function strongest(weights: Float32Array, n: number, floor: number): number[] {
  return Array.from(weights.keys())
    .filter((k) => weights[k]! > floor)
    .sort((a, b) => weights[b]! - weights[a]!)
    .slice(0, n);
}

// Positions in both of the tokens that two prompts begin with; where their marks differ, behind them.
export function sharedTokens(a: Prompt, b: Prompt): [number, number][] {
  const marks = ({ special }: Prompt) => { const n = special.indexOf(false); return n < 0 ? special.length : n; };
  const [from, to] = a.texts[0] === b.texts[0] ? [0, 0] : [marks(a), marks(b)];
  const pairs: [number, number][] = [];
  for (let i = 0; from + i < a.texts.length && to + i < b.texts.length && a.texts[from + i] === b.texts[to + i]; ++i) pairs.push([from + i, to + i]);
  return pairs;
}

interface Bytes {
  shape: number[];
  data: Uint8Array;
}

// The last axis at the place `index` of the others, decoded, as far as `length`.
function row(array: Bytes, decode: Float32Array, index: number[], length: number): Float32Array | null {
  let at = 0;
  for (const [axis, i] of index.entries()) {
    if (i >= array.shape[axis]!) return null;
    at = at * array.shape[axis]! + i;
  }
  const stride = array.shape[index.length]!;
  return Float32Array.from(array.data.subarray(at * stride, at * stride + Math.min(length, stride)), (v) => decode[v]!);
}

export function attentionOf(profile: Profile, document: number, { tensors, metadata }: Payload): Attention | null {
  const bytes = (name: string, dimensions: number): Bytes | null => {
    const tensor = tensors.get(`${document}.${name}`);
    if (!tensor) return null;
    if (tensor.dtype !== "U8" || tensor.shape.length !== dimensions)
      throw new PayloadError(`'${document}.${name}' is ${tensor.dtype} of ${tensor.shape.length} axes, U8 of ${dimensions} was expected; make the report again.`);
    return tensor;
  };
  const prompts = (profile.prompts ?? []).map((p): Prompt => ({ tokens: p.tokens, texts: p.texts, special: p.special ?? p.texts.map(() => false) }));
  const [alpha, bands, maps] = [bytes("alpha", 4), bytes("bands", 4), bytes("map", 4)];
  if (!alpha && !bands && !maps && prompts.length === 0) return null;
  return new Attention(prompts, alpha, bands, maps, profile.run.maps ?? [], Number(metadata[`${document}.map_floor`] ?? 1 / 1024));
}
