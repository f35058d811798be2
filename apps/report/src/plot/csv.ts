// Tables as data: what the page shows of them is table.ts.

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
  brief?: boolean; // on paper the first 20 rows alone
  file?: string; // with it, a button saves the table
}

export const tableOf = <Row>(t: Table<Row>): Table<never> => t as unknown as Table<never>;

export function csvOf<Row>({ columns, rows }: Table<Row>): string {
  const cell = (value: unknown) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns.map((c) => cell(c.label)), ...rows.map((row) => columns.map((c) => cell(c.value(row))))].map((line) => line.join(",") + "\r\n").join("");
}
