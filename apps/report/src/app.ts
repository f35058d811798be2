// The page around the views: documents, tabs, the switch of light and dark.
import { KIND_NAMES, unlikeSchema, type Report } from "./data/documents";
import { h } from "./dom";
import { hideTip } from "./plot/tip";
import { State } from "./state";
import { systemTheme, useTheme, type Theme } from "./theme";
import { VIEWS } from "./views/index";
import type { View } from "./views/view";

export const fault = (says: string): Node[] => [h("h1", {}, "This report cannot be shown"), h("p", { role: "alert" }, says)];

export function start(report: Report, root: HTMLElement): void {
  const state = new State(() => draw());
  const announcer = h("div", { id: "announcer", class: "unseen", role: "status", "aria-live": "polite" });
  const top = h("header", { class: "top" });
  const main = h("main", { id: "main", tabindex: -1 });
  const skip = h("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); main.focus(); } }, "Skip to the content");
  root.replaceChildren(skip, top, main, h("footer", {}, `sinkscope ${report.version}. Everything is in this file; nothing is fetched.`), announcer);
  let printing = false;
  let last = "";

  function draw(): void {
    const theme: Theme = printing ? "light" : state.text("theme", systemTheme()) === "dark" ? "dark" : "light";
    useTheme(theme);
    hideTip();
    const document_ = report.documents[state.index("doc", report.documents.length)]!;
    const style = getComputedStyle(main);
    const width = Math.floor(Math.min(1120, main.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)));
    let views: View[] = [], view: View | undefined, content: Node[];
    try {
      views = VIEWS.filter((v) => v.shows(document_, report));
      view = views.find((v) => v.key === state.text("view", "")) ?? views[0]!;
      content = view.draw({ report, document: document_, state, width });
    } catch (error) {
      console.error(error);
      content = fault(unlikeSchema(document_.name, error).message);
    }

    const focused = (document.activeElement as HTMLElement | null)?.dataset["focus"];
    const tabs = h("nav", { class: "tabs", "aria-label": "Views" }, views.map((v) => h("a", { href: state.link({ view: v.key }), "aria-current": v === view ? "page" : null, "data-focus": `tab-${v.key}` }, v.label)));
    const documents = report.documents.length < 2 ? null : h("label", { class: "choice documents" }, h("span", {}, "Document"),
      h("select", { "data-focus": "doc", onchange: (event) => state.go({ doc: (event.target as HTMLSelectElement).value, layer: null, head: null, prompt: null, query: null, of: null }) },
        report.documents.map((d) => h("option", { value: d.index, selected: d === document_ }, `${d.name} (${KIND_NAMES[d.kind]})`))));
    const other: Theme = theme === "dark" ? "light" : "dark";
    const switch_ = h("button", { type: "button", class: "quiet", "data-focus": "theme", "aria-label": `Switch to ${other} colours`, onclick: () => state.set({ theme: other === systemTheme() ? null : other }) }, other === "dark" ? "◐ Dark" : "◑ Light");
    top.replaceChildren(h("div", { class: "bar" }, h("span", { class: "brand" }, "sinkscope"), tabs, h("div", { class: "right" }, documents, switch_)));

    const place = `${document_.index} ${view?.key}`;
    main.className = `view-${view?.key}`;
    main.replaceChildren(...content);
    document.title = `${document_.name}${view ? `: ${view.label}` : ""} – sinkscope`;
    if (focused) root.querySelector<HTMLElement>(`[data-focus="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    if (last && last !== place) scrollTo(0, 0);
    last = place;
  }

  let drawnWidth = innerWidth;
  let resized = 0;
  addEventListener("resize", () => {
    clearTimeout(resized);
    if (!printing) resized = setTimeout(() => { if (innerWidth !== drawnWidth) { drawnWidth = innerWidth; draw(); } }, 120) as unknown as number;
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  // A printed page is light, whatever the screen is.
  addEventListener("beforeprint", () => { printing = true; draw(); });
  addEventListener("afterprint", () => { printing = false; draw(); });
  draw();
}
