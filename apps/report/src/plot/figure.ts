// A plot with its title, its exports, and its numbers as a table for those who cannot see it.
import { download, h, s } from "../dom";
import { sansFace } from "../fonts";
import { colours } from "../theme";
import { csvOf, type Table } from "./csv";
import { table } from "./table";

export interface Figure {
  id: string; // unique in the view, and part of exported files' names
  title: string;
  note?: string | undefined;
  hint?: string | undefined; // what a pointer does: not on paper
  plot: SVGSVGElement;
  over?: HTMLElement | undefined; // what lies on the plot: cells to focus
  controls?: HTMLElement | undefined;
  numbers?: (() => Table<never>) | undefined; // made when asked for
  file: string; // of the document
}

export function figure({ id, title, note, hint, plot, over, controls, numbers, file }: Figure): HTMLElement {
  const name = `${file}-${id}`;
  plot.setAttribute("role", "img");
  plot.querySelectorAll("g[aria-label]").forEach((g) => g.removeAttribute("aria-label")); // Plot's names of marks: within an image nobody hears them
  plot.setAttribute("aria-label", note ? `${title}. ${note}` : title);
  const button = (kind: string, run: () => void) => h("button", { type: "button", class: "quiet", "aria-label": `${title}: save as ${kind}`, "data-focus": `${id}-${kind}`, onclick: run }, kind);
  return h("figure", { id, class: "plot" },
    h("figcaption", {},
      h("div", { class: "caption" }, h("h3", {}, title), (note || hint) && h("p", { class: "note" }, note, hint && h("span", { class: "hint" }, ` ${hint}`))),
      h("div", { class: "tools" },
        button("SVG", () => download(name, "svg", new Blob([standalone(plot)], { type: "image/svg+xml" }))),
        button("PNG", () => void png(plot).then((blob) => download(name, "png", blob))),
        numbers && button("CSV", () => download(name, "csv", new Blob([csvOf(numbers())], { type: "text/csv" }))))),
    controls,
    h("div", { class: "canvas" }, plot, over),
    numbers && lazyDetails("Numbers", () => table(numbers())));
}

export function lazyDetails(summary: string, content: () => Node): HTMLElement {
  const details: HTMLDetailsElement = h("details", { ontoggle: () => { while (details.children.length > 1) details.lastChild!.remove(); if (details.open) details.append(content()); } }, h("summary", {}, summary));
  return details;
}

// An SVG file of its own: with background, and without what belongs to the page.
function standalone(plot: SVGSVGElement, style = ""): string {
  const copy = plot.cloneNode(true) as SVGSVGElement;
  const title = copy.getAttribute("aria-label") ?? "";
  copy.querySelectorAll("[data-page-only]").forEach((e) => e.remove());
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("xmlns:xlink", "http://www.w3.org/1999/xlink");
  copy.prepend(s("title", {}, title), s("rect", { width: "100%", height: "100%", fill: colours().paper }));
  if (style) copy.prepend(s("style", {}, style));
  return new XMLSerializer().serializeToString(copy);
}

async function png(plot: SVGSVGElement, scale = 2): Promise<Blob> {
  const url = URL.createObjectURL(new Blob([standalone(plot, sansFace)], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const { width, height } = plot.viewBox.baseVal.width > 0 ? plot.viewBox.baseVal : plot.getBoundingClientRect();
    const canvas = h("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
    canvas.getContext("2d")!.drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve, reject) => canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the browser made no PNG")))));
  } finally {
    URL.revokeObjectURL(url);
  }
}
