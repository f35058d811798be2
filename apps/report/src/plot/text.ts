// A prompt's tokens in reading order, each shaded by a number; they can be walked with the arrow keys and chosen.
import { announce, h } from "../dom";
import { quoted, REST, visible } from "../format";
import { inkOn, sequential } from "../theme";
import { hideTip, showTip } from "./tip";

export interface Tokens {
  id?: string; // unique in the view
  label: string;
  texts: string[];
  special: boolean[]; // marks of the model, which say nothing of the text's direction
  shade: (i: number) => number | null; // 0 to 1
  colour?: (t: number) => string;
  mark?: ((i: number) => boolean) | undefined; // a sink
  tip: (i: number) => string[];
  current?: number | null;
  hover?: ((i: number | null) => void) | undefined;
  choose?: ((i: number) => void) | undefined;
}

export interface TokenText {
  element: HTMLElement;
  highlight: (query: number | null, keys: readonly number[]) => void;
}

const SHADES = 64;

export function tokenText({ id = "token", label, texts, special, shade, colour = sequential(), mark, tip, current = null, hover, choose }: Tokens): TokenText {
  const shades = Array.from({ length: SHADES + 1 }, (_, i) => colour(i / SHADES));
  const spans = texts.map((text, i) => {
    const value = shade(i);
    const step = value === null ? null : Math.round(Math.min(1, Math.max(0, value)) * SHADES);
    const shown = visible(text);
    const classes = ["token", mark?.(i) && "sink", text === "" && "rest", (special[i] || shown.includes("⟨U+")) && "apart"].filter(Boolean).join(" ");
    const span = h("span", { role: "option", class: classes, "data-rest": text === "" ? `\u200D${REST}\u200D` : null, id: `${id}-${i}`, "aria-label": `${i} ${quoted(text)}: ${tip(i).slice(1).join(", ")}`, "aria-selected": i === current ? "true" : "false" }, shown);
    if (step !== null) {
      span.style.background = shades[step]!;
      span.style.color = inkOn(shades[step]!);
    }
    return span;
  });
  const element = h("div", { role: "listbox", tabindex: 0, class: texts.length > 700 ? "tokens long" : "tokens", "aria-label": `${label}; arrow keys walk through the tokens${choose ? ", Enter chooses one as the query" : ""}`, "data-focus": `${id}s` },
    spans.flatMap((span, i) => (texts[i]!.includes("\n") ? [span, h("br")] : [span])));

  let active: number | null = null;
  const activate = (i: number | null) => {
    if (active !== null) spans[active]!.classList.remove("active");
    active = i;
    if (i === null) return element.removeAttribute("aria-activedescendant");
    spans[i]!.classList.add("active");
    element.setAttribute("aria-activedescendant", `${id}-${i}`);
  };
  const indexOf = (event: Event): number | null => {
    const span = (event.target as Element).closest(".token");
    return span ? Number(span.id.slice(id.length + 1)) : null;
  };
  let under: number | null = null;
  element.addEventListener("pointermove", (event) => {
    const i = indexOf(event);
    if (i === null) hideTip();
    else showTip(event.clientX, event.clientY, tip(i));
    if (i === under) return;
    under = i;
    if (i !== null) hover?.(i);
  });
  element.addEventListener("pointerleave", () => { under = null; hideTip(); hover?.(null); });
  element.addEventListener("click", (event) => { const i = indexOf(event); if (i !== null) choose?.(i); });
  element.addEventListener("blur", () => { activate(null); hideTip(); hover?.(null); });
  element.addEventListener("keydown", (event) => {
    const at = active ?? current ?? 0;
    const to: Record<string, number> = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + 10, ArrowUp: at - 10, Home: 0, End: texts.length - 1 };
    const next = active === null && event.key.startsWith("Arrow") ? at : to[event.key];
    if (next !== undefined) {
      const i = Math.min(texts.length - 1, Math.max(0, next));
      activate(i);
      spans[i]!.scrollIntoView({ block: "nearest" });
      const { left, bottom } = spans[i]!.getBoundingClientRect();
      showTip(left, bottom - 8, tip(i));
      announce(tip(i).join(", "));
      hover?.(i);
    } else if (event.key === "Enter" && active !== null && choose) choose(active);
    else return;
    event.preventDefault();
  });

  let shown: Element[] = [];
  const highlight = (query: number | null, keys: readonly number[]) => {
    for (const e of shown) e.classList.remove("query", "looked-at");
    shown = keys.map((k) => spans[k]!).filter(Boolean);
    for (const e of shown) e.classList.add("looked-at");
    if (query !== null && spans[query]) {
      spans[query].classList.add("query");
      shown.push(spans[query]);
    }
  };
  return { element, highlight };
}
