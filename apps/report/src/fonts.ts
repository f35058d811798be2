// The page's two fonts are in the file; the same text goes into pictures, which know no fonts of the page.
import inter from "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2?inline";
import serif from "@fontsource-variable/source-serif-4/files/source-serif-4-latin-wght-normal.woff2?inline";
import { h } from "./dom";

export const SANS = "Inter, system-ui, 'Liberation Sans', Arial, 'DejaVu Sans', sans-serif";
const face = (family: string, source: string) => `@font-face { font-family: "${family}"; src: url("${source}") format("woff2"); font-weight: 200 900; }`;

export const sansFace = face("Inter", inter);

export function useFonts(): void {
  document.head.append(h("style", {}, sansFace, face("Source Serif 4", serif)));
}
