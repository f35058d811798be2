// The documents of a report: what the program's --json writes, with the arrays that go with a profile.
import type { Ablation } from "./schema/ablate";
import type { Denoising } from "./schema/denoise";
import type { Evaluation } from "./schema/eval";
import type { Explanation } from "./schema/explain";
import type { Profile } from "./schema/profile";
import type { Training } from "./schema/training";
import { attentionOf, type Attention } from "./attention";
import { PayloadError, type Payload } from "./payload";

export type { Ablation, Denoising, Evaluation, Explanation, Profile, Training };
export type Content = Profile | Explanation | Ablation | Evaluation | Denoising | Training;
export type Layer = Profile["layers"][number];
export type ExplainedLayer = Explanation["layers"][number];
export type Run = Training["runs"][number];
export type Line = Run["lines"][number];

interface Kinds {
  profile: Profile;
  explain: Explanation;
  ablate: Ablation;
  eval: Evaluation;
  denoise: Denoising;
  training: Training;
}
export type Kind = keyof Kinds;

export const KIND_NAMES: Record<Kind, string> = { profile: "profile", explain: "explanation", ablate: "edits", eval: "policies", denoise: "denoising", training: "training" };

export interface Document {
  index: number;
  name: string;
  kind: Kind;
  content: Content;
  attention: Attention | null; // of a profile
}

export interface Report {
  version: string;
  documents: Document[];
}

export function as<K extends Kind>(document: Document, kind: K): Kinds[K] | null {
  return document.kind === kind ? (document.content as Kinds[K]) : null;
}

// Of a profile made with --explain, or of an explanation of its own.
export function explanationOf(document: Document): Explanation | null {
  return as(document, "explain") ?? as(document, "profile")?.explain ?? null;
}

export const unlikeSchema = (name: string, error: unknown): PayloadError =>
  error instanceof PayloadError ? error : new PayloadError(`'${name}' cannot be shown: it is not as its schema says (${String(error)}); write it anew.`);

function documentOf(name: string, index: number, payload: Payload): Document {
  const bytes = payload.tensors.get(`${index}.document`);
  if (bytes?.dtype !== "U8") throw new PayloadError(`The data in this file lacks the document '${name}'; make the report again.`);
  const content = JSON.parse(new TextDecoder().decode(bytes.data)) as Content;
  const kind = /^sinkscope\.(profile|explain|ablate|eval|denoise|training)\/1$/.exec(content.schema)?.[1] as Kind | undefined;
  if (!kind) throw new PayloadError(`'${name}' has the schema '${String(content.schema)}', which this report cannot show; give a file that --json wrote.`);
  return { index, name, kind, content, attention: kind === "profile" ? attentionOf(content as Profile, index, payload) : null };
}

export function reportOf(payload: Payload): Report {
  const { metadata } = payload;
  if (metadata["schema"] !== "sinkscope.report/1")
    throw new PayloadError(`The data in this file is '${metadata["schema"] ?? "nothing known"}', 'sinkscope.report/1' was expected; make the report again with the sinkscope that this page comes from.`);
  const names = JSON.parse(metadata["names"] ?? "[]") as string[];
  const documents = names.map((name, index): Document => {
    try {
      return documentOf(name, index, payload);
    } catch (error) {
      throw unlikeSchema(name, error);
    }
  });
  if (documents.length === 0) throw new PayloadError("This report holds no document; make it again with --report or `sinkscope view`.");
  return { version: metadata["version"] ?? "", documents };
}
