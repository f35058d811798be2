// The key of the colours of shaded text.
import { sequential } from "../theme";
import { colourKey, drawing } from "./scale";

export function colourKeyFigure(title: string, show: (t: number) => string): SVGSVGElement {
  const plot = drawing(240, 44, colourKey(1, 16, sequential(), title, [[0, show(0)], [0.5, show(0.5)], [1, show(1)]], 220));
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", `Colours from light to dark: ${title}, ${show(0)} to ${show(1)}`);
  return plot;
}
