// The one box of numbers beside the pointer.
import { h } from "../dom";

const box = h("div", { class: "tip", "aria-hidden": "true", hidden: true });

export function showTip(x: number, y: number, lines: string[]): void {
  if (!box.isConnected) document.body.append(box);
  box.replaceChildren(...lines.map((line, i) => h(i === 0 ? "strong" : "span", {}, line)));
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  box.style.left = `${Math.max(4, x + 16 + width > innerWidth ? x - width - 12 : x + 16)}px`;
  box.style.top = `${Math.max(4, y + 16 + height > innerHeight ? y - height - 12 : y + 16)}px`;
}

export function hideTip(): void {
  box.hidden = true;
}
