// The key of the colours of shaded text.
import { sequential } from "../theme";
import { colourKey, drawing } from "./scale";

export function colourKeyFigure(title: string, show: (t: number) => string, colour = sequential()): SVGSVGElement {
  const plot = drawing(240, 44, colourKey(1, 16, colour, title, [[0, show(0)], [0.5, show(0.5)], [1, show(1)]], 220));
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", `Colours: ${title}, ${show(0)} to ${show(1)}`);
  return plot;
}
