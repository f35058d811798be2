// Effects as dots with intervals, one line for each; a hollow dot is the control.
import { scaleLinear, scaleSymlog } from "d3";
import { s } from "../dom";
import { isNumber, quoted, tick } from "../format";
import { colours, muted, seriesColour } from "../theme";
import { drawing, fitted, label, legend, textWidth } from "./scale";

export interface Effect {
  value: number | null;
  interval: readonly [number, number] | null;
  show: string;
}

export interface DotRow {
  name: string;
  effects: (Effect | null)[]; // one for each of `kinds`
}

export interface Dots {
  rows: DotRow[];
  kinds: { name: string; hollow?: boolean; colour?: string }[];
  width: number;
  axis: string;
  zero?: number | null; // a line here: what is without any edit
  signed?: boolean; // a plus before what is more than 0
  names?: boolean; // at the left; otherwise another plot beside has them
  symmetricLog?: boolean; // where some effects are much larger than others
}

const ROW = 48, EACH = 17, BOTTOM = 44, NAME_SIZE = 12;

export function dots({ rows, kinds, width, axis, zero = 0, signed = false, names = true, symmetricLog = false }: Dots): SVGSVGElement {
  const left = names ? Math.min(width * 0.38, 20 + Math.max(...rows.map((r) => textWidth(quoted(r.name), NAME_SIZE)))) : 12;
  const right = 74, rowHeight = Math.max(ROW, kinds.length * EACH + 14);
  const colourOf = (j: number) => kinds[j]!.colour ?? (kinds[j]!.hollow ? muted() : seriesColour(j));
  const { element: key, height: keyHeight } = legend(kinds.map((kind, j) => ({ name: kind.name, colour: colourOf(j), shape: kind.hollow ? "hollow" : "dot" })), left + 8, width - left - 8);
  const top = 23 + keyHeight;
  const all = rows.flatMap((r) => r.effects.flatMap((e) => (e ? [e.value, ...(e.interval ?? [])] : []))).concat(zero).filter(isNumber);
  const domain: [number, number] = [Math.min(...all), Math.max(...all)];
  if (domain[0] === domain[1]) domain[1] += 1;
  const x = (symmetricLog ? scaleSymlog().constant(0.05) : scaleLinear()).domain(domain).nice().range([left + 8, width - right]);
  const height = top + rows.length * rowHeight + BOTTOM;
  const ticks = symmetricLog ? symlogTicks(x.domain() as [number, number]).filter((t, i, list) => list.slice(0, i).every((u) => Math.abs(x(u) - x(t)) > 34)) : x.ticks(Math.max(2, (width - left - right) / 90));
  const offset = (j: number) => (j - (kinds.length - 1) / 2) * EACH;
  return drawing(width, height,
    ...ticks.flatMap((t) => [s("line", { x1: x(t), x2: x(t), y1: top - 8, y2: top + rows.length * rowHeight, stroke: colours().grid }), label(x(t), height - BOTTOM + 16, (signed && t > 0 ? "+" : "") + tick(t), { "text-anchor": "middle" })]),
    ...(isNumber(zero) ? [s("line", { x1: x(zero), x2: x(zero), y1: top - 8, y2: top + rows.length * rowHeight, stroke: muted(), "stroke-width": 1.25 })] : []),
    label((left + width - right) / 2, height - 8, axis, { "text-anchor": "middle" }),
    key,
    ...rows.flatMap((row, i) => {
      const y = top + (i + 0.5) * rowHeight;
      return [
        ...(names ? [s("text", { x: left - 6, y: y + 4, "text-anchor": "end", "font-size": NAME_SIZE }, s("title", {}, row.name), fitted(quoted(row.name), left - 10, NAME_SIZE))] : []),
        ...row.effects.flatMap((e, j) => {
          if (!e || !isNumber(e.value)) return [];
          const kind = kinds[j]!;
          const colour = colourOf(j);
          const at = y + offset(j);
          const rightmost = Math.max(x(e.value) + 8, e.interval ? x(e.interval[1]) + 5 : 0);
          return [
            ...(e.interval ? [s("line", { x1: x(e.interval[0]), x2: x(e.interval[1]), y1: at, y2: at, stroke: colour, "stroke-width": 2, "stroke-linecap": "round" })] : []),
            s("circle", { cx: x(e.value), cy: at, r: 5, fill: kind.hollow ? colours().paper : colour, stroke: colour, "stroke-width": 1.75 }, s("title", {}, `${row.name}, ${kind.name}: ${e.show}`)),
            s("text", { x: rightmost + 3, y: at + 3.5, "font-size": 10.5, fill: muted(), stroke: colours().paper, "stroke-width": 3, "paint-order": "stroke", "font-variant-numeric": "tabular-nums" }, e.show),
          ];
        }),
      ];
    }));
}

function symlogTicks([low, high]: [number, number]): number[] {
  const sizes = [0.01, 0.1, 1, 10, 100].flatMap((p) => [p, 3 * p]);
  return [0, ...sizes.filter((x) => x <= high), ...sizes.map((x) => -x).filter((x) => x >= low)].sort((a, b) => Math.abs(b) - Math.abs(a));
}
