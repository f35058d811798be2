// Tables: what is shown is formatted, what is exported is not.
import { download, h } from "../dom";
import { NOTHING } from "../format";

export interface Column<Row> {
  label: string;
  value: (row: Row) => string | number | boolean | null | undefined;
  show?: (row: Row) => string | Node; // otherwise the value
  text?: boolean; // left, not in columns of digits
  fileOnly?: boolean; // in the CSV alone
}

export interface Table<Row> {
  caption: string;
  columns: Column<Row>[];
  rows: readonly Row[];
  file?: string; // with it, a button saves the table
}

export const tableOf = <Row>(t: Table<Row>): Table<never> => t as unknown as Table<never>;

export function table<Row>({ caption, columns, rows, file }: Table<Row>): HTMLElement {
  const shown = columns.filter((c) => !c.fileOnly);
  const body = rows.map((row) => h("tr", {}, shown.map((c) => {
    const value = c.value(row);
    return h("td", { class: c.text ? "text" : "number" }, c.show ? c.show(row) : value === null || value === undefined ? NOTHING : String(value));
  })));
  const save = () => download(`${file}.csv`, new Blob([csvOf({ caption, columns, rows })], { type: "text/csv" }));
  return h("div", { class: "table" },
    file && h("div", { class: "tools" }, h("button", { type: "button", class: "quiet", "aria-label": `${caption}: save as CSV`, "data-focus": `${file}-csv`, onclick: save }, "CSV")),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
      h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, shown.map((c) => h("th", { scope: "col", class: c.text ? "text" : "number" }, c.label)))), h("tbody", {}, body))));
}

export function csvOf<Row>({ columns, rows }: Table<Row>): string {
  const cell = (value: unknown) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns.map((c) => cell(c.label)), ...rows.map((row) => columns.map((c) => cell(c.value(row))))].map((line) => line.join(",") + "\r\n").join("");
}
