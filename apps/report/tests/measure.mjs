// How fast a report is, as numbers; nothing is asserted: node tests/measure.mjs FILE.html...
// The first view: from the start of loading until its heading is painted. Hovering: frames a second while the pointer runs over
// the text, the map and the queries of a head whose whole map was kept.
import { basename } from "node:path";
import { readFileSync, statSync } from "node:fs";
import { reportData } from "./make-report.mjs";
import { browser, open } from "./page.mjs";

const chromium = await browser();
const REPEATS = 5, SECONDS = 4;

async function firstView(file) {
  const times = [];
  for (let i = 0; i < REPEATS; ++i) {
    const context = await chromium.newContext({ viewport: { width: 1280, height: 900 } });
    const page = await context.newPage();
    await page.addInitScript(() => {
      new MutationObserver((_, observer) => {
        if (!document.querySelector("main h1")) return;
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => { window.firstView = performance.now(); }));
      }).observe(document, { subtree: true, childList: true });
    });
    await page.goto(`file://${file}`);
    let time;
    while ((time = await page.evaluate(() => window.firstView)) === undefined) await page.waitForTimeout(20); // waitForFunction needs eval, which the page forbids
    times.push(time);
    await context.close();
  }
  return times.sort((a, b) => a - b);
}

// Moves the pointer along a path within an element for some seconds; frames are counted by the page.
async function hover(page, selector, path) {
  const box = await (await page.waitForSelector(selector)).boundingBox();
  await page.evaluate(() => {
    window.frames_ = [];
    const count = (now) => { window.frames_.push(now); window.counting = requestAnimationFrame(count); };
    window.counting = requestAnimationFrame(count);
  });
  const end = Date.now() + SECONDS * 1000;
  let moves = 0;
  for (; Date.now() < end; ++moves) {
    const { x, y } = path(moves);
    await page.mouse.move(box.x + box.width * x, box.y + box.height * y);
  }
  const frames = await page.evaluate(() => { cancelAnimationFrame(window.counting); return window.frames_; });
  const gaps = frames.slice(1).map((t, i) => t - frames[i]).sort((a, b) => a - b);
  return { perSecond: (1000 * gaps.length) / (frames.at(-1) - frames[0]), slow: gaps[Math.floor(gaps.length * 0.99)], moves };
}

const zigzag = (rows) => (i) => ({ x: 0.02 + 0.96 * ((i * 0.037) % 1), y: 0.04 + 0.92 * (((i * 0.037) / rows) % 1) });

for (const file of process.argv.slice(2).map((f) => (f.startsWith("/") ? f : `${process.cwd()}/${f}`))) {
  const times = await firstView(file);
  console.log(`${basename(file)}, ${(statSync(file).size / 1e6).toFixed(2)} MB: first view after ${times[Math.floor(REPEATS / 2)].toFixed(0)} ms (median of ${REPEATS}, ${times[0].toFixed(0)} to ${times.at(-1).toFixed(0)})`);
  const { documents } = reportData(readFileSync(file, "utf8"));
  const doc = documents.findIndex((d) => d.tensors.map);
  if (doc < 0) continue;
  const [layer, head] = documents[doc].content.run.maps[0];
  const { page, close } = await open(chromium, file, `#doc=${doc}&view=head&layer=${layer}&head=${head}`);
  for (const [what, selector, path] of [["the text", ".tokens", zigzag(18)], ["the map", "#map .cells", zigzag(40)], ["the queries", ".queries", zigzag(22)]]) {
    await page.$eval(selector, (e) => e.scrollIntoView({ block: "center" }));
    const { perSecond, slow, moves } = await hover(page, selector, path);
    console.log(`  hovering over ${what} of ${documents[doc].tensors.map.shape[2]} tokens: ${perSecond.toFixed(0)} frames/s, 99 % of frames within ${slow.toFixed(0)} ms, ${moves} moves in ${SECONDS} s`);
  }
  await close();
}
await chromium.close();
