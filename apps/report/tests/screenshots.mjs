// Pictures of each view in both themes, for docs/report.md: node tests/screenshots.mjs FOLDER,
// of the reports in SINKSCOPE_REPORTS (scripts/make-pictures), and of made-up ones where no model is at hand.
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import sharp from "sharp";
import { reportHtml } from "./make-report.mjs";
import { samples } from "./make-samples.mjs";
import { browser, open } from "./page.mjs";

const REPORTS = process.env.SINKSCOPE_REPORTS;
const OUT = process.argv[2] ?? join(dirname(fileURLToPath(import.meta.url)), "../../../docs/pictures/report");
const WIDTH = 1280, COLOURS = 256;

// name: [report, fragment, height in pixels at most, where it begins]; "made-up" reports are of samples().
const PICTURES = {
  overview: ["smollm2", "", 1310],
  head: ["smollm2", "#view=head&layer=13&head=3&query=56", 1500],
  "head-long": ["long", "#view=head&layer=12&head=3&query=1502", 1090],
  text: ["smollm2", "#view=text", 1000],
  why: ["smollm2", "#view=why", 3300],
  edits: ["edits", "", 2100],
  policies: ["policies", "", 1840],
  compare: ["compare", "#view=compare", 1800],
  "compare-head": ["compare", "#view=compare", 2950, "#head"],
  steps: ["made-up everything", "#doc=5&view=steps", 1500],
  experts: ["made-up experts", "#view=why", 1000, "#experts"],
  training: ["training", "", 2600],
};

const folder = mkdtempSync(join(tmpdir(), "sinkscope-pictures-"));
const made = samples();
function fileOf(report) {
  if (!report.startsWith("made-up ")) {
    if (!REPORTS) throw new Error("SINKSCOPE_REPORTS must name the folder of reports that scripts/make-pictures makes");
    return join(REPORTS, `${report}.html`);
  }
  const name = report.slice("made-up ".length);
  const file = join(folder, `${name}.html`);
  writeFileSync(file, reportHtml(made[name]));
  return file;
}

mkdirSync(OUT, { recursive: true });
const chromium = await browser();
let total = 0;
for (const [name, [report, fragment, height, from]] of Object.entries(PICTURES))
  for (const colorScheme of ["light", "dark"]) {
    const { page, faults, close } = await open(chromium, fileOf(report), fragment, { colorScheme, viewport: { width: WIDTH, height: 900 } });
    const whole = await page.evaluate(() => document.documentElement.scrollHeight);
    await page.setViewportSize({ width: WIDTH, height: Math.min(height, whole) });
    if (from) await page.$eval(from, (e) => e.closest("section").scrollIntoView());
    await page.waitForTimeout(200);
    const picture = await sharp(await page.screenshot()).png({ palette: true, colours: COLOURS, dither: 0, compressionLevel: 9, effort: 10 }).toBuffer();
    writeFileSync(join(OUT, `${name}-${colorScheme}.png`), picture);
    total += picture.length;
    if (faults.length > 0) throw new Error(`${name}: ${faults.join("; ")}`);
    await close();
  }
await chromium.close();
console.log(`${Object.keys(PICTURES).length * 2} pictures, ${(total / 1e6).toFixed(2)} MB`);
