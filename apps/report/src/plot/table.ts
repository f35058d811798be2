// Tables: what is shown is formatted, what is exported is not.
import { download, h } from "../dom";
import { NOTHING } from "../format";
import { csvOf, type Table } from "./csv";

export function table<Row>({ caption, columns, rows, brief, file }: Table<Row>): HTMLElement {
  const shown = columns.filter((c) => !c.fileOnly);
  const body = rows.map((row) => h("tr", {}, shown.map((c) => {
    const value = c.value(row);
    return h("td", { class: c.text ? "text" : "number" }, c.show ? c.show(row) : value === null || value === undefined ? NOTHING : String(value));
  })));
  const save = () => download(file ?? caption, "csv", new Blob([csvOf({ caption, columns, rows })], { type: "text/csv" }));
  return h("div", { class: brief ? "table brief" : "table" },
    file && h("div", { class: "tools" }, h("button", { type: "button", class: "quiet", "aria-label": `${caption}: save as CSV`, "data-focus": `${file}-csv`, onclick: save }, "CSV")),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
      h("table", {}, h("caption", {}, h("span", {}, caption)), h("thead", {}, h("tr", {}, shown.map((c) => h("th", { scope: "col", class: c.text ? "text" : "number" }, c.label)))), h("tbody", {}, body))),
    brief && rows.length > 20 && h("p", { class: "note paper" }, `The first 20 of ${rows.length} rows; the report has all.`));
}
