// What comparisons of every kind are made of: columns, curves and figures of each document, and how much more each is than the first.
import type { Document } from "../../data/documents";
import { isNumber, short, type Value } from "../../format";
import { tableOf, type Column } from "../../plot/csv";
import { figure } from "../../plot/figure";
import { lines, type Lines, type Series } from "../../plot/lines";
import { seriesColour, seriesDash } from "../../theme";
import { half, pair, type Context } from "../view";

export const difference = (a: Value, b: Value): number | null => (isNumber(a) && isNumber(b) ? b - a : null);
export const signedBy = (x: number | null, show: (x: Value) => string): string => (isNumber(x) && x > 0 && !show(x).startsWith("+") ? "+" : "") + show(x);

export const filesOf = (all: Document[]): string => (all.length > 2 ? `${all[0]!.name}-and-${all.length - 1}-more` : all.map((d) => d.name).join("-and-"));
export const lessFirst = (all: Document[], i: number): string => `${all[i]!.name} less ${all[0]!.name}`;

// A number of each document, and of each but the first how much more it is.
export function columnsOf<Row>(all: Document[], value: (row: Row, i: number) => Value, show: (x: Value, row: Row) => string = short): Column<Row>[] {
  return [
    ...all.map(({ name }, i): Column<Row> => ({ label: name, value: (r) => value(r, i), show: (r) => show(value(r, i), r) })),
    ...all.slice(1).map(({ name }, j): Column<Row> => {
      const change = (r: Row) => difference(value(r, 0), value(r, j + 1));
      return { label: all.length === 2 ? "difference" : `${name}, difference`, value: change, show: (r) => signedBy(change(r), (x) => show(x, r)) };
    }),
  ];
}

export interface Curves {
  id: string;
  title: string;
  note: string;
  x: string;
  y: Lines["y"];
  logX?: boolean;
  file?: string;
}

// Curves of all in one plot, and beside it what each is more than the first.
export function curves(all: Document[], { id, title, note, x, y, logX = false, file = filesOf(all) }: Curves, pointsOf: (document: Document, i: number) => Series["points"], context: Context): HTMLElement {
  const w = half(context.width);
  const series = all.map((d, i): Series => ({ name: d.name, points: pointsOf(d, i) }));
  const values = series.map(({ points }) => new Map(points.map((p) => [p.x, p.y])));
  const changes = series.slice(1).map(({ name, points }, j): Series => ({ name: all.length === 2 ? "difference" : name, colour: seriesColour(j + 1), dash: seriesDash(j + 1), points: points.filter((p) => values[0]!.has(p.x)).map((p) => ({ x: p.x, y: difference(values[0]!.get(p.x), values[j + 1]!.get(p.x)) })) }));
  const log = y.type === "log" && series.every(({ points }) => points.every((p) => !isNumber(p.y) || p.y > 0));
  const places = [...new Set(series.flatMap(({ points }) => points.map((p) => p.x)))].sort((p, q) => p - q);
  const numbers = () => tableOf({ caption: title, columns: [{ label: x, value: (at: number) => at }, ...columnsOf<number>(all, (at, i) => values[i]!.get(at))], rows: places });
  return pair(
    figure({ id, title, note, plot: lines({ series, width: w, x: { label: x, ...(logX ? { type: "log" } : {}) }, y: y.type === "log" && !log ? { label: y.label } : y }), numbers, file }),
    figure({ id: `${id}-difference`, title: `${title}: difference`, note: all.length === 2 ? `${lessFirst(all, 1)}.` : `Less ${all[0]!.name}.`, plot: lines({ series: [...changes, { name: "0", quiet: true, unnamed: true, points: places.filter((at) => values[0]!.has(at)).map((at) => ({ x: at, y: 0 })) }], width: w, x: { label: x, ...(logX ? { type: "log" } : {}) }, y: { label: `${y.label}, difference` } }), numbers, file }));
}
