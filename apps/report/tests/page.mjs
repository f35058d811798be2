// A page of Debian's Chromium on a report, with what the page does wrong written down.
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

export async function browser() {
  if (!existsSync(CHROMIUM)) throw new Error(`${CHROMIUM} is not there: apt-get install chromium, or name one in CHROMIUM`);
  return chromium.launch({ executablePath: CHROMIUM, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
}

// `faults` fills with console errors, exceptions, blocked loads and every request that is not of the file itself.
export async function open(browser, file, fragment = "", options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, acceptDownloads: true, ...options });
  const page = await context.newPage();
  const faults = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) faults.push(`console: ${message.text()}`); });
  page.on("pageerror", (error) => faults.push(`exception: ${error.message}`));
  page.on("request", (request) => { if (!/^(file|data|blob):/.test(request.url())) faults.push(`request: ${request.url()}`); });
  page.on("dialog", (dialog) => { faults.push(`dialog: ${dialog.message()}`); void dialog.dismiss(); });
  const url = pathToFileURL(resolve(file)).href;
  await page.goto(url + fragment);
  await page.waitForSelector("main h1");
  return { page, faults, url, close: () => context.close() };
}

export const tabs = (page) => page.$$eval(".tabs a", (links) => links.map((a) => ({ label: a.textContent, view: new URLSearchParams(a.getAttribute("href").slice(1)).get("view") })));
