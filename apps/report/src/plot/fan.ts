// Whom a query looks at: the queries on the left, its strongest keys on the right, a line for each, as wide and dark as the weight.
// However long the prompt is, only the rows in sight are made.
import { h, s } from "../dom";
import { SANS } from "../fonts";
import { clipped, fixed, plural, quoted } from "../format";
import type { AttentionMap } from "../data/attention";
import { keysInSight } from "./keys";
import { colours, muted } from "../theme";

export interface Fan {
  id?: string; // unique in the view
  name?: string; // what it is of, where there are several
  map: AttentionMap;
  texts: string[];
  width: number;
  query: number;
  hover: (query: number) => void;
  leave: () => void;
  choose: (query: number) => void;
}

export interface FanView {
  element: HTMLElement;
  plot: SVGSVGElement;
  show: (query: number) => void; // scrolls there
}

const ROW = 22, ROWS = 22;

export function fan({ id = "query", name, map, texts, width, query, hover, leave, choose }: Fan): FanView {
  const left = Math.min(190, Math.round(width * 0.34)), right = Math.max(left + 46, width - 260), letters = width < 480 ? 10 : 18;
  const height = Math.min(ROWS, Math.max(6, map.n)) * ROW;
  const rows = h("div", { class: "rows", style: `height:${map.n * ROW}px` });
  const list = h("div", { class: "queries", role: "listbox", tabindex: 0, "aria-label": `${name ? `${name}: queries` : "Queries"}; up and down choose whose attention is shown`, "data-focus": `${id}-list`, style: `height:${height}px;width:${left}px` }, rows);
  const plot = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "font-family": SANS, "font-size": 12, fill: colours().ink });
  const element = h("div", { class: "fan", style: `width:${width}px` }, plot, list);
  let now = query;

  const fillRows = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4), last = Math.min(map.n, first + ROWS + 9);
    rows.replaceChildren(...Array.from({ length: last - first }, (_, j) => {
      const i = first + j;
      return h("div", { role: "option", id: `${id}-${i}`, class: i === now ? "row now" : "row", "aria-selected": i === now ? "true" : "false", style: `top:${i * ROW}px` }, h("span", { class: "at" }, i), h("bdi", {}, texts[i] === undefined ? "" : clipped(quoted(texts[i]), letters)));
    }));
    list.setAttribute("aria-activedescendant", `${id}-${now}`);
  };
  const draw = () => {
    const weights = map.row(now);
    const entries = keysInSight(weights, Math.floor(height / ROW));
    const y0 = now * ROW - list.scrollTop + ROW / 2;
    const seen = y0 >= -ROW && y0 <= height + ROW;
    const from = Math.min(height, Math.max(0, y0));
    plot.replaceChildren(
      // In the page, the list has the query.
      s("text", { x: left - 6, y: from, dy: "0.35em", "text-anchor": "end", "data-file-only": "" }, `${now} ${texts[now] === undefined ? "" : clipped(quoted(texts[now]!), letters)}`),
      ...entries.flatMap((entry, j) => {
        const y = (j + 0.5) * ROW + (height - entries.length * ROW) / 2;
        if ("skipped" in entry) return [s("text", { x: right + 42, y, dy: "0.35em", fill: muted(), "font-size": 11 }, `⋯ ${plural(entry.skipped, "token")}`)];
        const w = weights[entry.key]!;
        return [
          s("path", { d: `M${left + 4},${from}C${(left + right) / 2},${from} ${(left + right) / 2},${y} ${right},${y}`, fill: "none", stroke: colours().series[0]!, "stroke-width": 0.6 + 7 * w, "stroke-opacity": seen ? 0.15 + 0.75 * Math.sqrt(w) : 0.08 }),
          s("text", { x: right + 34, y, dy: "0.35em", "text-anchor": "end", fill: muted(), "font-size": 11, "font-variant-numeric": "tabular-nums" }, String(entry.key)),
          s("text", { x: right + 42, y, dy: "0.35em", style: "unicode-bidi: isolate" }, texts[entry.key] === undefined ? "" : clipped(quoted(texts[entry.key]!), letters)),
          s("text", { x: width - 2, y, dy: "0.35em", "text-anchor": "end", "font-variant-numeric": "tabular-nums", fill: w < 0.01 ? muted() : colours().ink }, fixed(w, 3)),
        ];
      }));
  };
  const show = (q: number) => {
    now = Math.min(map.n - 1, Math.max(0, q));
    const top = now * ROW;
    if (top < list.scrollTop || top > list.scrollTop + height - ROW) list.scrollTop = Math.max(0, top - height / 2);
    fillRows();
    draw();
  };
  const under = (event: Event) => { const row = (event.target as Element).closest(".row"); return row ? Number(row.id.slice(id.length + 1)) : null; };
  list.addEventListener("scroll", () => { fillRows(); draw(); });
  list.addEventListener("pointermove", (event) => { const i = under(event); if (i !== null && i !== now) { now = i; for (const row of rows.children) row.classList.toggle("now", row.id === `${id}-${i}`); draw(); hover(i); } });
  list.addEventListener("pointerleave", leave);
  list.addEventListener("click", (event) => { const i = under(event); if (i !== null) choose(i); });
  list.addEventListener("keydown", (event) => {
    const to: Record<string, number> = { ArrowDown: now + 1, ArrowUp: now - 1, PageDown: now + 20, PageUp: now - 20, Home: 0, End: map.n - 1 };
    const next = to[event.key];
    if (next === undefined) return;
    event.preventDefault();
    choose(Math.min(map.n - 1, Math.max(0, next)));
  });
  queueMicrotask(() => show(now));
  return { element, plot, show };
}
