// Numbers and token texts as people read them.

export type Value = number | null | undefined;

const MINUS = "\u2212";
export const NOTHING = "\u2013";

const signs = (text: string) => text.replace(/^-/, MINUS);

// `digits` behind the point.
export const fixed = (value: Value, digits: number): string => (isNumber(value) ? signs(value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1")) : NOTHING);

// Three digits that count.
export function short(value: Value): string {
  if (!isNumber(value)) return NOTHING;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6 || size < 1e-4) return signs(value.toExponential(1).replace("e+", "e"));
  return signs(size >= 100 ? Math.round(value).toLocaleString("en") : value.toPrecision(3));
}

// On an axis: no zeros behind what counts.
export const tick = (value: number): string => (value === 0 ? "0" : Math.abs(value) >= 1e6 || Math.abs(value) < 1e-4 ? short(value) : signs(Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 })));
// A number that was chosen, not measured.
export const plain = (value: Value): string => (isNumber(value) ? signs(String(value)) : NOTHING);

export const percent = (value: Value, digits = 1): string => (isNumber(value) ? `${fixed(value, digits)} %` : NOTHING);
export const signed = (value: Value, digits: number): string => (isNumber(value) && value > 0 ? "+" : "") + fixed(value, digits);
export const count = (value: Value): string => (isNumber(value) ? Math.round(value).toLocaleString("en") : NOTHING);
export const interval = (ci: readonly [number, number] | null | undefined, digits: number): string => (ci ? `${fixed(ci[0], digits)} to ${fixed(ci[1], digits)}` : NOTHING);

export function bytes(value: Value): string {
  if (!isNumber(value)) return NOTHING;
  if (value < 1024) return `${value} B`;
  const power = Math.min(3, Math.floor(Math.log2(value) / 10));
  return `${Number((value / 1024 ** power).toPrecision(3))} ${["", "KiB", "MiB", "GiB"][power]}`;
}

export const plural = (n: number, one: string, many = `${one}s`): string => `${count(n)} ${n === 1 ? one : many}`;

export const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);

const PICTURE_JOINED = /(\p{Extended_Pictographic}|\uFE0F|\u{1F3FB}|\u{1F3FC}|\u{1F3FD}|\u{1F3FE}|\u{1F3FF})\u200D$/u;

// What a token says that continues a character which began in the token before.
export const REST = "·";

// Control characters and marks of direction have no shape, and some would turn the text around them: they are shown by a sign or a number.
export function visible(text: string): string {
  let out = "";
  for (const c of text) {
    const code = c.codePointAt(0)!;
    if (c === "\n") out += "↵";
    else if (c === "\t") out += "⇥";
    else if (c === "\u200D" && PICTURE_JOINED.test(out + c)) out += c;
    else if (/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}]/u.test(c)) out += `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
    else out += c;
  }
  return out;
}

// In a list or a label: spaces are seen.
export function quoted(text: string): string {
  if (text === "") return `${REST} rest of a character`;
  return visible(text).replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length));
}

// Between other words in one line, whose order it must not change.
export const isolated = (text: string): string => `\u2068${text}\u2069`;

export const clipped = (text: string, n: number): string => {
  const letters = [...text];
  return letters.length <= n ? text : `${letters.slice(0, n - 1).join("")}…`;
};
