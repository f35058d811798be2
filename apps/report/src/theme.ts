// Colours of the page and of plots: one table, which the program's own pictures read too.
import { interpolateLab, interpolateRgbBasis, lab } from "d3";
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

// The darker of two inks on a light colour, the lighter one on a dark colour.
export const inkOn = (background: string): string => (lab(background).l > 58 ? palette.ink : "#ffffff");

export const seriesColour = (i: number): string => current.series[i % current.series.length]!;
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
export const seriesDash = (i: number): string => DASHES[Math.floor(i / current.series.length) % DASHES.length]!;
