// Colours of the page and of plots: one table, which the program's own pictures read too.
import { interpolateLab, interpolateRgbBasis, rgb } from "d3";
import palette from "../palette.json";

export type Theme = "light" | "dark";

interface Palette {
  ink: string;
  paper: string;
  grid: string;
  accent: string;
  series: string[];
  ramp: string[];
}

let current: Palette = palette;

export const colours = (): Palette => current;

// Between paper and ink: text of axes.
export const muted = (): string => interpolateLab(current.ink, current.paper)(0.38);

export function useTheme(theme: Theme): void {
  current = theme === "dark" ? palette.dark : palette;
  const root = document.documentElement;
  root.dataset["theme"] = theme;
  root.style.colorScheme = theme;
  for (const name of ["ink", "paper", "grid", "accent"] as const) root.style.setProperty(`--${name}`, current[name]);
  root.style.setProperty("--ramp", current.ramp.join(", "));
}

export const systemTheme = (): Theme => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

// 0 to 1: nothing to everything.
export const sequential = (): ((t: number) => string) => clamped(interpolateRgbBasis(current.ramp));

// 0 to 1, the paper at one half.
export function diverging(): (t: number) => string {
  const [low, high] = [interpolateLab(current.series[0]!, current.ramp[0]!), interpolateLab(current.ramp[0]!, current.series[1]!)];
  return clamped((t) => (t < 0.5 ? low(2 * t) : high(2 * t - 1)));
}

const clamped = (f: (t: number) => string) => (t: number) => f(Math.min(1, Math.max(0, t)));

// Black or white, whichever is read better: their contrast is at least 4.58 on any colour.
export function inkOn(background: string): string {
  const { r, g, b } = rgb(background);
  const [red, green, blue] = [r, g, b].map((c) => (c <= 10.31 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4)) as [number, number, number];
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
}

export const seriesColour = (i: number): string => current.series[i % current.series.length]!;
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
export const seriesDash = (i: number): string => DASHES[Math.floor(i / current.series.length) % DASHES.length]!;
