import { strongest } from "../data/attention";

// The strongest keys in their order, with what is left out between them, in at most `room` lines.
export function keysInSight(weights: Float32Array, room: number): ({ key: number } | { skipped: number })[] {
  const top = strongest(weights, room, 0);
  for (let n = top.length; n > 0; --n) {
    const keys = top.slice(0, n).sort((a, b) => a - b);
    const entries: ({ key: number } | { skipped: number })[] = [];
    let next = 0;
    for (const key of keys) {
      if (key > next) entries.push({ skipped: key - next });
      entries.push({ key });
      next = key + 1;
    }
    if (entries.length <= room) return entries;
  }
  return [];
}
