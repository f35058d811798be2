// Results of caches: what they are called, and which is best.
import type { Evaluation } from "./documents";
import { isNumber } from "../format";

export type Result = Evaluation["results"][number];

const nameOf = (r: Result, budget: string): string => [r.policy, budget, r.kv_type !== "f16" ? r.kv_type : "", r.policy === "streaming" && r.sinks !== 4 ? `${r.sinks} sinks` : ""].filter(Boolean).join(" ");
export const resultName = (r: Result): string => nameOf(r, r.budget_rows > 0 ? `${r.budget_rows}` : "");
export const policyName = (r: Result): string => nameOf(r, "");

// Those that do best with the fewest rows that any of them keeps; `all`: how many kept as few.
export function bestOf({ run, results }: Evaluation): { budget: number; best: Result[]; all: number } | null {
  const value = (r: Result) => (run.task === "text" ? -(r.ppl ?? NaN) : (r.accuracy ?? NaN));
  const bounded = results.filter((r) => r.budget_rows > 0 && isNumber(value(r)));
  const budget = Math.min(...bounded.map((r) => r.budget_rows));
  const tight = bounded.filter((r) => r.budget_rows === budget);
  const most = Math.max(...tight.map(value));
  return tight.length === 0 ? null : { budget, best: tight.filter((r) => value(r) === most), all: tight.length };
}
