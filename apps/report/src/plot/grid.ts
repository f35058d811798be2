// Layers x heads, depth from left to right: the whole model at a glance, each head a cell that can be entered.
import { announce, h, s } from "../dom";
import { fixed, isNumber, short, tick } from "../format";
import type { HeadNumbers, Metric } from "../data/metrics";
import { meanOf } from "../data/metrics";
import { colours, diverging, muted, sequential } from "../theme";
import { MANY_MARKS, raster } from "./raster";
import { colourKey, drawing, label, places, textWidth } from "./scale";
import { hideTip, showTip } from "./tip";

export interface Grid {
  id?: string; // unique in the view
  name?: string; // what it is of, where there are several
  enter?: string; // what Enter does with a cell
  numbers: HeadNumbers; // [layer][head]
  metric: Metric;
  domain: [number, number];
  width: number;
  columns?: string; // what a column is, "layer"
  rows?: string; // what a row is, "head"
  means?: boolean; // of columns, above them
  columnName?: ((column: number) => string) | undefined; // otherwise its number
  at?: { layer: number; head: number } | undefined; // where the focus starts
  marked?: ((layer: number, head: number) => boolean) | undefined; // with a dot
  markedNote?: string | undefined;
  choose?: ((layer: number, head: number) => void) | undefined;
}

const RIGHT = 8, BOTTOM = 74;
const WIDEST = 60, HIGHEST = 34, TALLEST = 680, LEAST = 5;

export const showMetric = (metric: Metric, value: number | null | undefined): string => (metric.unit === "%" ? `${fixed(value, 1)} %` : metric.unit ? `${short(value)} ${metric.unit}` : metric.domain ? fixed(value, 3) : short(value));

export function grid({ id = "grid", name, enter = "opens", numbers, metric, domain, width, columns = "layer", rows = "head", means = true, columnName = String, at, marked, markedNote, choose }: Grid): { plot: SVGSVGElement; over: HTMLElement } {
  const nLayer = numbers.length, nHead = Math.max(1, ...numbers.map((heads) => heads.length));
  const left = Math.max(40, 10 + textWidth(`${rows} ↓`));
  const top = means ? 46 : 20;
  const cw = Math.max(3, Math.min(WIDEST, Math.floor((width - left - RIGHT) / nLayer)));
  const ch = Math.min(HIGHEST, Math.max(LEAST, Math.min(cw, Math.floor(TALLEST / nHead))), Math.max(cw, 14));
  const gap = Math.min(cw, ch) >= 8 ? 1 : 0;
  const [w, hgt] = [nLayer * cw, nHead * ch];
  const colour = metric.signed ? diverging() : sequential();
  const scaled = (value: number) => (value - domain[0]) / (domain[1] - domain[0]);
  const many = nLayer * nHead > MANY_MARKS;

  const cells: Element[] = [];
  if (many) cells.push(raster(nLayer, nHead, (l, r) => { const v = numbers[l]![r]; return isNumber(v) ? scaled(v) : null; }, colour, { x: left, y: top, width: w, height: hgt }));
  for (let l = 0; l < nLayer; ++l)
    for (let r = 0; r < nHead; ++r) {
      const value = numbers[l]![r];
      const place = { x: left + l * cw, y: top + r * ch, width: cw - gap, height: ch - gap };
      if (!many && isNumber(value)) cells.push(s("rect", { ...place, rx: gap ? 2 : 0, fill: colour(scaled(value)) }));
      if (!many && !isNumber(value)) cells.push(s("rect", { x: place.x + 0.5, y: place.y + 0.5, width: cw - gap - 1, height: ch - gap - 1, rx: 2, fill: "none", stroke: colours().grid, "stroke-dasharray": "2 2" }));
      if (marked?.(l, r)) cells.push(s("circle", { cx: place.x + (cw - gap) / 2, cy: place.y + (ch - gap) / 2, r: Math.max(1.2, Math.min(3, ch / 8)), fill: colours().paper, stroke: colours().accent, "stroke-width": Math.min(1.5, ch / 8) }));
    }

  // Means of columns, above them.
  const zero = Math.min(1, Math.max(0, scaled(0)));
  const bars = (means ? numbers : []).map((heads, l) => {
    const mean = meanOf(heads);
    if (mean === null) return null;
    const t = Math.min(1, Math.max(0, scaled(mean)));
    return s("rect", { x: left + l * cw, width: cw - gap, y: top - 8 - 28 * Math.max(t, zero), height: Math.max(0.5, 28 * Math.abs(t - zero)), fill: muted(), opacity: 0.55 });
  }).filter((e) => e !== null);

  const axis: Element[] = [
    ...places(nLayer, Math.min(nLayer, w / (8 + 7 * Math.max(...numbers.map((_, l) => columnName(l).length))))).map((l) => label(left + (l + 0.5) * cw - gap / 2, top + hgt + 14, columnName(l), { "text-anchor": "middle" })),
    ...places(nHead, Math.min(nHead, hgt / 13)).map((r) => label(left - 7, top + (r + 0.5) * ch + 3.5, String(r), { "text-anchor": "end" })),
    label(left, top + hgt + 30, `${columns} →`),
    label(0, top - 10, `${rows} ↓`),
  ];
  if (markedNote && marked) axis.push(s("circle", { cx: left + 4, cy: top + hgt + 50, r: 3, fill: colours().paper, stroke: colours().accent, "stroke-width": 1.5 }), label(left + 13, top + hgt + 54, markedNote));
  const keyWidth = 170;
  const total = Math.max(left + w + RIGHT, left + keyWidth + 120);
  const middle = metric.signed ? 0 : (domain[0] + domain[1]) / 2;
  const key = colourKey(total - RIGHT - keyWidth, top + hgt + 44, colour, metric.label + (metric.unit ? `, ${metric.unit}` : ""), [[0, tick(domain[0])], [scaled(middle), tick(middle)], [1, tick(domain[1])]], keyWidth);
  const outline = s("rect", { width: cw - gap + 2, height: ch - gap + 2, rx: gap ? 3 : 0, fill: "none", stroke: colours().accent, "stroke-width": 2, visibility: "hidden", "data-page-only": "" });
  const plot = drawing(total, top + hgt + BOTTOM, ...cells, ...bars, ...axis, key, outline);

  // One cell can be focused; the arrows move it.
  const says = (l: number, r: number) => `${columns} ${columnName(l)}, ${rows} ${r}: ${isNumber(numbers[l]![r]) ? showMetric(metric, numbers[l]![r]) : "not measured"}`;
  const focus = h("div", { role: "gridcell", tabindex: 0, class: "cell-focus", "data-focus": `${id}-cell` });
  const line = h("div", { role: "row" }, focus);
  const over = h("div", { role: "grid", class: "cells", "aria-label": `${name ? `${name}: ` : ""}${metric.label} of each ${columns} and ${rows}; arrow keys move${choose ? `, Enter ${enter}` : ""}`, "aria-rowcount": nHead, "aria-colcount": nLayer }, line);
  let [layer, head] = [Math.min(at?.layer ?? 0, nLayer - 1), Math.min(at?.head ?? 0, nHead - 1)];
  const move = (l: number, r: number) => {
    [layer, head] = [Math.min(nLayer - 1, Math.max(0, l)), Math.min(nHead - 1, Math.max(0, r))];
    focus.setAttribute("aria-label", says(layer, head));
    focus.setAttribute("aria-colindex", String(layer + 1));
    line.setAttribute("aria-rowindex", String(head + 1));
    Object.assign(focus.style, { left: `${left + layer * cw - 1}px`, top: `${top + head * ch - 1}px`, width: `${cw - gap + 2}px`, height: `${ch - gap + 2}px` });
  };
  const tipAtFocus = () => {
    const { right, bottom } = focus.getBoundingClientRect();
    showTip(right - 12, bottom - 12, tipLines(layer, head));
  };
  const tipLines = (l: number, r: number) => [`${columns} ${columnName(l)}, ${rows} ${r}`, `${metric.label}: ${isNumber(numbers[l]![r]) ? showMetric(metric, numbers[l]![r]) : "not measured"}`, ...(marked?.(l, r) && markedNote ? [markedNote] : [])];
  const STEPS: Record<string, (event: KeyboardEvent) => [number, number]> = {
    ArrowLeft: () => [layer - 1, head],
    ArrowRight: () => [layer + 1, head],
    ArrowUp: () => [layer, head - 1],
    ArrowDown: () => [layer, head + 1],
    Home: (e) => (e.ctrlKey ? [0, 0] : [0, head]),
    End: (e) => (e.ctrlKey ? [nLayer - 1, nHead - 1] : [nLayer - 1, head]),
    PageUp: () => [layer, 0],
    PageDown: () => [layer, nHead - 1],
  };
  over.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (step) {
      move(...step(event));
      announce(says(layer, head));
      tipAtFocus();
    } else if ((event.key === "Enter" || event.key === " ") && choose) {
      hideTip();
      choose(layer, head);
    } else return;
    event.preventDefault();
  });
  focus.addEventListener("focus", () => { if (focus.matches(":focus-visible")) tipAtFocus(); });
  focus.addEventListener("blur", hideTip);

  const under = (event: MouseEvent): [number, number] | null => {
    const box = over.getBoundingClientRect();
    const [l, r] = [Math.floor((event.clientX - box.left - left) / cw), Math.floor((event.clientY - box.top - top) / ch)];
    return l >= 0 && l < nLayer && r >= 0 && r < nHead ? [l, r] : null;
  };
  over.addEventListener("pointermove", (event) => {
    const place = under(event);
    over.style.cursor = place && choose ? "pointer" : "default";
    outline.setAttribute("visibility", place ? "visible" : "hidden");
    if (!place) return hideTip();
    outline.setAttribute("x", String(left + place[0] * cw - 1));
    outline.setAttribute("y", String(top + place[1] * ch - 1));
    showTip(event.clientX, event.clientY, tipLines(...place));
  });
  over.addEventListener("pointerleave", () => { outline.setAttribute("visibility", "hidden"); hideTip(); });
  over.addEventListener("click", (event) => {
    const place = under(event);
    if (!place) return;
    move(...place);
    hideTip();
    choose?.(...place);
  });
  move(layer, head);
  return { plot, over };
}

// The numbers of a grid as rows of a table.
export function gridRows(numbers: HeadNumbers): { layer: number; head: number; value: number | null }[] {
  return numbers.flatMap((heads, layer) => Array.from(heads, (value, head) => ({ layer, head, value: value ?? null })));
}
