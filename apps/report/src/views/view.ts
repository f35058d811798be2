// What a view is, and what it gets.
import type { Document, Report } from "../data/documents";
import type { State } from "../state";
import { h } from "../dom";

export interface Context {
  report: Report;
  document: Document;
  state: State;
  width: number; // pixels that a view may fill
}

export interface View {
  key: string;
  label: string;
  shows: (document: Document, report: Report) => boolean; // whether there is something to show
  draw: (context: Context) => Node[];
}

export const half = (width: number): number => (width < 820 ? width : Math.floor((width - 48) / 2));

export const pair = (...children: (Node | null | false)[]): HTMLElement => h("div", { class: "pair" }, children);

export const pairs = (each: HTMLElement[]): HTMLElement[] => Array.from({ length: Math.ceil(each.length / 2) }, (_, i) => pair(...each.slice(2 * i, 2 * i + 2)));

export function choice(label: string, key: string, options: readonly (readonly [value: string, text: string])[], value: string, { state }: Pick<Context, "state">): HTMLElement {
  return h("label", { class: "choice" }, h("span", {}, label),
    h("select", { "data-focus": key, onchange: (event) => state.set({ [key]: (event.target as HTMLSelectElement).value }) },
      options.map(([v, text]) => h("option", { value: v, selected: v === value }, text))),
    h("span", { class: "paper" }, options.find(([v]) => v === value)?.[1]));
}

export function section(title: string, ...children: (Node | string | null | false | undefined)[]): HTMLElement {
  return h("section", {}, h("h2", {}, title), children);
}

// name: value, in a line that wraps.
export function facts(list: [name: string, value: string][]): HTMLElement {
  return h("dl", { class: "facts" }, list.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

export function notesOf(notes: readonly string[], title = "What a reader must know"): Node[] {
  return notes.length === 0 ? [] : [section(title, h("ul", { class: "notes" }, notes.map((note) => h("li", {}, note))))];
}
