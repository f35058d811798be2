// Answers by length of the text and depth of what was asked for.
import { s } from "../dom";
import { count, fixed } from "../format";
import { colours, inkOn, muted, seriesColour } from "../theme";
import { drawing, label } from "./scale";

type Answer = { length: number; depth: number | null; line: number; expected: string; found: string };

export function depths(answers: Answer[], task: string, width: number): SVGSVGElement {
  const rowOf = (a: Answer) => (task === "needle" ? fixed((a.depth ?? 0) * 100, 0) : `${a.line}`);
  const columns = [...new Set(answers.map((a) => a.length))].sort((a, b) => a - b), rows = [...new Set(answers.map(rowOf))].sort((a, b) => Number(a) - Number(b));
  const [left, top] = [64, 26], cell = { width: Math.min(90, (width - left) / Math.max(1, columns.length)), height: rows.length > 16 ? 14 : 28 };
  return drawing(width, top + rows.length * cell.height + 44,
    label(left - 8, top - 10, task === "needle" ? "depth, %" : "line", { "text-anchor": "end" }),
    ...rows.map((row, j) => label(left - 8, top + (j + 0.5) * cell.height + 4, row, { "text-anchor": "end" })),
    ...columns.map((length, i) => label(left + (i + 0.5) * cell.width, top + rows.length * cell.height + 16, count(length), { "text-anchor": "middle" })),
    label(left, top + rows.length * cell.height + 34, "tokens →"),
    ...rows.flatMap((row, j) => columns.flatMap((length, i) => {
      const here = answers.filter((a) => a.length === length && rowOf(a) === row);
      if (here.length === 0) return [];
      const right = here.filter((a) => a.found === a.expected).length;
      const fill = right === here.length ? seriesColour(0) : right > 0 ? seriesColour(5) : colours().grid;
      const place = { x: left + i * cell.width + 1, y: top + j * cell.height + 1 };
      return [s("rect", { ...place, width: cell.width - 2, height: cell.height - 2, rx: 3, fill }, s("title", {}, here.map((a) => `expected ${a.expected}, found ${a.found}`).join("\n"))),
        s("text", { x: place.x + cell.width / 2 - 1, y: place.y + cell.height / 2 + 3, "text-anchor": "middle", fill: right > 0 ? inkOn(fill) : muted(), "font-size": Math.min(11, cell.height - 3) }, here.length > 1 ? `${right}/${here.length}` : right ? "right" : "wrong")];
    })));
}
