// The report in Debian's Chromium. SINKSCOPE_REPORTS: a folder of reports that the program wrote; made-up ones are tested always.
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { reportData, reportHtml } from "./make-report.mjs";
import { samples } from "./make-samples.mjs";
import * as made_up from "./made-up.mjs";
import { browser, open, tabs } from "./page.mjs";

const { BIDI, HOSTILE } = made_up;

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const folder = mkdtempSync(join(tmpdir(), "sinkscope-report-"));
for (const [name, documents] of Object.entries(samples())) writeFileSync(join(folder, `made-up-${name}.html`), reportHtml(documents));
const inFolder = (path) => readdirSync(path).filter((f) => f.endsWith(".html")).sort().map((f) => join(path, f));
const OWN = /made-up-(weaker|three)\.html$/; // of a test of their own: the others have the like
const files = [...inFolder(folder).filter((f) => !OWN.test(f)), ...(process.env.SINKSCOPE_REPORTS ? inFolder(process.env.SINKSCOPE_REPORTS) : [])];
const made = (name) => join(folder, `made-up-${name}.html`);

let chromium;
before(async () => { chromium = await browser(); });
after(() => chromium.close());

async function opened(file, fragment, run, options) {
  const it = await open(chromium, file, fragment, options);
  try {
    await run(it.page, it);
    assert.deepEqual(it.faults, [], `${basename(file)}${fragment}`);
  } finally {
    await it.close();
  }
}

// Goes to a view and waits until it is drawn.
const go = (page, fragment) => page.evaluate((hash) => new Promise((resolve) => {
  if (location.hash === `#${hash}`) return resolve();
  addEventListener("hashchange", () => requestAnimationFrame(() => setTimeout(resolve)), { once: true });
  location.hash = hash;
}), fragment);

// waitForFunction needs eval, which the page forbids.
async function headingIs(page, text) {
  for (let i = 0; i < 100 && (await page.textContent("main h1")) !== text; ++i) await page.waitForTimeout(50);
  assert.equal(await page.textContent("main h1"), text);
}

// Every document of a file with every view that it has.
async function everyView(page, documents, run) {
  for (let doc = 0; doc < documents.length; ++doc) {
    await go(page, `doc=${doc}`);
    for (const { label, view } of await tabs(page)) {
      await go(page, `doc=${doc}&view=${view}`);
      await run({ doc, view, label, document: documents[doc] });
    }
  }
}

const numberOf = (text) => Number(text.replace("−", "-").replaceAll(",", "").replace(/[^\d.eE+-]/g, ""));
const digitsOf = (text) => (/\.(\d+)/.exec(text)?.[1] ?? "").length;
// A shown number is the document's, rounded to the digits that are shown.
function sameNumber(shown, value, what) {
  if (value === null || value === undefined) return assert.equal(shown, "–", what);
  assert.ok(Math.abs(numberOf(shown) - value) <= 0.5001 * 10 ** -digitsOf(shown) + 1e-9 * Math.abs(value), `${what}: '${shown}' is shown, the document has ${value}`);
}

// Three digits that count.
const close = (shown, value, what) => assert.ok(Math.abs(numberOf(shown) - value) <= 0.0051 * Math.abs(value), `${what}: '${shown}' is shown, the document has ${value}`);

// The rows of the table whose caption begins so, by the columns' heads.
const rowsOf = (page, caption) => page.evaluate((wanted) => {
  const table = [...document.querySelectorAll("table")].find((t) => t.caption?.textContent.startsWith(wanted));
  const heads = table && [...table.tHead.rows[0].cells].map((c) => c.textContent);
  return table && [...table.tBodies[0].rows].map((row) => Object.fromEntries([...row.cells].map((c, i) => [heads[i], c.textContent])));
}, caption);

// Records of CSV; a quoted cell may hold commas, quotes and ends of lines.
function parsed(csv) {
  const rows = [[]];
  for (let at = 0; at < csv.length;) {
    const [all, quoted, plain, end] = /^(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/.exec(csv.slice(at)) ?? [];
    assert.ok(all, `CSV at '${csv.slice(at, at + 40)}'`);
    rows.at(-1).push(quoted?.replaceAll('""', '"') ?? plain);
    at += all.length;
    if (end === "\r\n") rows.push([]);
  }
  assert.deepEqual(rows.pop(), [], "CSV ends with its line");
  return rows;
}

// Texts of plots that go beyond their plot.
const overflowing = (page) => page.$$eval("main svg", (plots) => plots.flatMap((svg) => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter((text) => {
    const { width, left, right, top, bottom } = text.getBoundingClientRect();
    return width > 0 && (left < box.left - 2 || right > box.right + 2 || top < box.top - 3 || bottom > box.bottom + 3);
  }).map((text) => `${svg.getAttribute("aria-label")}: '${text.textContent}'`);
}));

// What clicks on the buttons hand to the browser to save, as names and bytes: Chromium does not begin every one of many downloads. Elements are named by data-focus.
async function saved(page, focuses) {
  const saves = await page.evaluate(async (wanted) => {
    const blobs = new Map(), make = URL.createObjectURL, click = HTMLAnchorElement.prototype.click;
    URL.createObjectURL = (blob) => {
      const url = make.call(URL, blob);
      blobs.set(url, blob);
      return url;
    };
    const base64 = (blob) => new Promise((resolve) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
      reader.readAsDataURL(blob);
    });
    const saveOf = (focus) => new Promise((resolve) => {
      HTMLAnchorElement.prototype.click = function () { resolve({ name: this.download, blob: blobs.get(this.href) }); };
      document.querySelector(`[data-focus="${CSS.escape(focus)}"]`).click();
      setTimeout(() => resolve(null), 30_000);
    });
    const all = [];
    for (const focus of wanted) {
      const save = await saveOf(focus);
      all.push(save && { name: save.name, base64: await base64(save.blob) });
    }
    URL.createObjectURL = make;
    HTMLAnchorElement.prototype.click = click;
    return all;
  }, focuses);
  saves.forEach((save, i) => assert.ok(save, `a click on ${focuses[i]} saved nothing`));
  return saves.map(({ name, base64 }) => ({ name, bytes: Buffer.from(base64, "base64") }));
}

// One head and one prompt of two profiles: their numbers, what keys and tokens receive, and the differences.
async function comparedHead(page, doc, other, documents) {
  const both = [documents[doc], documents[other]];
  const layer = Math.min(...both.map((d) => d.content.model.n_layer)) - 1, head = 0;
  const [[a, b], name] = [both.map((d) => d.content.layers.find((l) => l.layer === layer)?.heads.find((x) => x.head === head)), `${layer}:${head}`];
  if (!a || !b) return;
  await go(page, `doc=${doc}&view=compare&with=${other}&layer=${layer}&head=${head}&of=${name}`);
  const [first] = await rowsOf(page, `Layer ${layer}, head ${head}`);
  sameNumber(first[both[0].name], a.sink_rate_first, name), sameNumber(first[both[1].name], b.sink_rate_first, name), sameNumber(first.difference, b.sink_rate_first - a.sink_rate_first, name);
  const alphas = both.map(({ tensors: { alpha } }) => alpha && Array.from(alpha.data.subarray((layer * alpha.shape[2] + head) * alpha.shape[3], (layer * alpha.shape[2] + head + 1) * alpha.shape[3]), (v) => (v / 255) ** 2));
  if (!alphas[0] || !alphas[1] || !both[0].content.prompts) return;
  const keys = parsed((await saved(page, ["keys-CSV"]))[0].bytes.toString());
  const near = (shown, value, what) => assert.ok(Math.abs(Number(shown) - value) < 1e-6, `${what}: ${shown}, the document has ${value}`);
  for (const [at, x, y, change] of keys.slice(1)) if (x && y) near(x, alphas[0][at], `key ${at}`), near(y, alphas[1][at], `key ${at}`), near(change, alphas[1][at] - alphas[0][at], `key ${at}`);
  assert.ok(keys.length > 8);
  const rows = await rowsOf(page, "Tokens that differ most");
  assert.ok(rows.length > 0, "texts are compared");
  let before = Infinity;
  for (const row of rows) {
    const [p, q = p] = row.position.split(" and ").map(Number);
    sameNumber(row[both[0].name], alphas[0][p], `token ${p}`), sameNumber(row[both[1].name], alphas[1][q], `token ${q}`), sameNumber(row.difference, alphas[1][q] - alphas[0][p], `token ${p} and ${q}`);
    assert.equal(both[0].content.prompts[0].texts[p], both[1].content.prompts[0].texts[q]);
    assert.ok(Math.abs(alphas[1][q] - alphas[0][p]) <= before + 1e-9, "those that differ most come first");
    before = Math.abs(alphas[1][q] - alphas[0][p]);
  }
}

// A place of a map, as parts of its width and height, within what lies over its plot.
const cellOf = (page, id, across, down) => page.$eval(id, (figure, [u, v]) => {
  const [image, over] = ["svg image", ".cells"].map((e) => figure.querySelector(e).getBoundingClientRect());
  return { x: image.x - over.x + u * image.width, y: image.y - over.y + v * image.height };
}, [across, down]);

describe("every report", { concurrency: availableParallelism() }, () => {
  for (const file of files) {
    const name = basename(file);
    const { documents } = reportData(readFileSync(file, "utf8"));

    test(`${name}: every view opens, asks for nothing and is accessible in both themes`, async () => {
      for (const colorScheme of ["light", "dark"])
        await opened(file, "", async (page) => {
          await everyView(page, documents, async ({ doc, view, label }) => {
            assert.equal(await page.textContent('.tabs a[aria-current="page"]'), label);
            assert.ok((await page.textContent("main h1")).length > 0);
            await page.evaluate(axe);
            // The themes differ in their colours alone.
            const { violations } = await page.evaluate((only) => axe.run({ resultTypes: ["violations"], ...(only ? { runOnly: only } : {}) }), colorScheme === "dark" ? ["color-contrast"] : null);
            const serious = violations.filter((v) => ["serious", "critical"].includes(v.impact)).map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => `${n.target} ${n.failureSummary}`).join("; ")}`);
            assert.deepEqual(serious, [], `${name}, ${colorScheme}, document ${doc}, ${view}`);
          });
        }, { colorScheme });
    });

    test(`${name}: the numbers on the page are the document's`, async () => {
      await opened(file, "", async (page) => {
        for (const [doc, { content, tensors }] of documents.entries()) {
          const kind = /\.(\w+)\//.exec(content.schema)[1];
          await go(page, `doc=${doc}`);
          if (kind === "profile") {
            const rows = await rowsOf(page, "Attention to the first token");
            sameNumber(rows[0].measured, content.sink_rate.first, "sink rate");
            sameNumber(rows[0]["uniform attention"], content.sink_rate.null, "null");
            sameNumber(rows[1].measured, content.sink_rate.alpha_by_position[0], "alpha");
            content.first.n.forEach((_, i) => sameNumber(rows[2 + i].measured, content.first.share[i], "share"));
            sameNumber(rows[5].measured, content.strongest_is_first, "strongest is first");
            const sinks = await rowsOf(page, "Positions on which more than 25 % of the heads sink");
            content.sinks.forEach((sink, i) => { sameNumber(sinks[i]["sink rate"], sink.sink_rate, "a sink's rate"); sameNumber(sinks[i]["mean attention"], sink.alpha, "a sink's alpha"); assert.equal(Number(sinks[i].heads), sink.heads.length); });
          }
          const { alpha } = tensors;
          if (kind === "profile" && alpha && content.prompts) {
            await go(page, `doc=${doc}&view=text`);
            const rows = await rowsOf(page, "Tokens of prompt 0");
            const [, , nHead, nKey] = alpha.shape;
            const heads = content.layers.filter((l) => l.measured).flatMap((l) => l.heads.map((x) => l.layer * nHead + x.head));
            const of = (k) => heads.map((at) => (alpha.data[at * nKey + k] / 255) ** 2);
            assert.ok(rows.length > 0);
            rows.forEach((row, i) => {
              const values = of(Number(row.position)), mean = values.reduce((a, b) => a + b, 0) / values.length;
              sameNumber(row["mean attention"], mean, `position ${row.position}`);
              sameNumber(row["heads that sink on it"], (100 * values.filter((x) => x > content.run.epsilon).length) / values.length, `position ${row.position}`);
              assert.ok(i === 0 || numberOf(rows[i - 1]["mean attention"]) >= numberOf(row["mean attention"]), "the most first");
            });
          }
          const explanation = kind === "explain" ? content : content.explain;
          if (explanation) {
            await go(page, `doc=${doc}&view=why`);
            const tables = { outliers: await rowsOf(page, "Dimensions of the hidden state"), secondary: await rowsOf(page, "Tokens that become like"), dormant: await rowsOf(page, "Sinking on one prompt"), experts: await rowsOf(page, "Experts with most sink tokens") };
            for (const [key, rows] of Object.entries(tables)) assert.equal(rows?.length ?? 0, key === "experts" ? Math.min(40, explanation.experts.length) : explanation[key].length, key);
            explanation.outliers.forEach((o, i) => { const row = tables.outliers[i]; assert.equal(Number(row.dimension), o.dim); assert.equal(Number(row.position), o.position); close(row.value, o.value, "an outlier"); close(row["times the median"], o.over_median, "an outlier"); assert.equal(row["behind layers"], `${o.first_layer} to ${o.last_layer}`); assert.equal(row["rises in"], `${o.rises_in}, ${o.rises_by}`); });
            explanation.secondary.forEach((x, i) => { const row = tables.secondary[i]; assert.deepEqual([row.prompt, row.position, row.layers, row.kind], [`${x.prompt}`, `${x.position}`, `${x.first_layer} to ${x.last_layer}`, x.kind]); });
            explanation.dormant.forEach((d, i) => { const row = tables.dormant[i]; assert.equal(row.head, `${d.layer}:${d.head}`); assert.equal(Number(row["prompt where it sinks"]), d.sinking_prompt); assert.equal(Number(row["prompt where it works"]), d.working_prompt); });
            for (const row of tables.experts ?? []) {
              const expert = explanation.experts.find((x) => `${x.layer} ${x.expert}` === `${row.layer} ${row.expert}`);
              sameNumber(row["of sink tokens"], expert.sink_share, "an expert");
              sameNumber(row["of others"], expert.other_share, "an expert");
            }
          }
          const other = documents.findIndex((d, i) => i !== doc && d.content.schema === content.schema);
          if (kind === "profile" && other >= 0) {
            await go(page, `doc=${doc}&view=compare&with=${other}`);
            const rows = await page.$$eval("table", (tables) => [...tables.find((t) => t.caption.textContent === "Side by side").tBodies[0].rows].map((row) => [...row.cells].map((c) => c.textContent)));
            const numbers = ({ sink_rate, first, strongest_is_first, sinks, run }) => [sink_rate.first, sink_rate.alpha_by_position[0], sink_rate.uniform_alpha_by_position[0], first.share[0], strongest_is_first, sinks.length, run.length, run.n_prompt, run.epsilon];
            const [a, b] = [numbers(content), numbers(documents[other].content)];
            assert.equal(rows.length, a.length);
            rows.forEach(([what, left, right, difference], i) => { sameNumber(left, a[i], what); sameNumber(right, b[i], what); sameNumber(difference, b[i] - a[i], what); });
            await comparedHead(page, doc, other, documents);
          }
          await go(page, `doc=${doc}`);
          if (kind === "profile" || kind === "explain") {
            for (const metric of await page.$$eval("#heads select option", (options) => options.map((o) => o.value))) {
              await go(page, `doc=${doc}&metric=${metric}`);
              const [{ bytes }] = await saved(page, ["heads-CSV"]);
              const rows = parsed(bytes.toString());
              assert.deepEqual(rows[0], ["layer", "head", metric]);
              const values = new Map([...content.layers, ...(content.explain?.layers ?? [])].flatMap((l) => (l.heads ?? []).filter((h) => metric in h).map((h) => [`${l.layer} ${h.head}`, h[metric]])));
              for (const [layer, head, value] of rows.slice(1)) if (values.has(`${layer} ${head}`)) assert.equal(value, String(values.get(`${layer} ${head}`) ?? ""), `${metric} of ${layer}:${head}`);
              assert.ok(rows.length > values.size, `${metric}: ${rows.length - 1} rows of ${values.size}`);
            }
          }
          if (kind === "ablate") {
            const rows = await rowsOf(page, "Edits and their controls");
            content.edits.forEach((edit, i) => {
              const row = rows[i];
              assert.equal(row.edit, edit.edit);
              for (const [head, key] of [["change", "loss_change"], ["KL", "kl"], ["same top", "same_top"], ["sink rate", "sink_rate"]]) {
                sameNumber(row[head], edit[key], `${edit.edit}, ${key}`);
                if (`control: ${head}` in row) sameNumber(row[`control: ${head}`], edit.control?.[key], `control of ${edit.edit}, ${key}`);
              }
            });
          }
          if (kind === "eval") {
            const rows = await rowsOf(page, "Policies");
            assert.equal(rows.length, content.results.length);
            content.results.forEach((r, i) => {
              const row = rows[i];
              assert.deepEqual([row.policy, row.type, row.sinks, row["rows kept"]], [r.policy, r.kv_type, `${r.sinks}`, r.budget_rows === 0 ? "all" : r.budget_rows.toLocaleString("en")]);
              const unit = 1024 ** ["B", "KiB", "MiB", "GiB"].indexOf(row.bytes.split(" ")[1]);
              assert.ok(Math.abs(numberOf(row.bytes.split(" ")[0]) * unit - r.kv_bytes) <= 0.006 * r.kv_bytes, `${row.bytes} of ${r.kv_bytes}`);
              sameNumber(row["mean rows"], r.mean_rows, r.policy);
              sameNumber(row["tokens/s"], r.tokens_per_second, r.policy);
              for (const [head, key] of content.run.task === "text" ? [["perplexity", "ppl"], ["KL", "kl"], ["same top", "same_top"]] : [["right answers", "accuracy"]]) sameNumber(row[head], r[key], `${r.policy}, ${key}`);
            });
          }
          if (kind === "training") {
            const rows = await rowsOf(page, "Sinks set in where");
            content.runs.forEach((run, i) => { assert.equal(rows[i].run, run.name); sameNumber(rows[i]["attention to the first"], run.lines.at(-1).alpha, run.name); sameNumber(rows[i]["sink rate"], run.lines.at(-1).sink_rate, run.name); sameNumber(rows[i]["validation loss"], run.lines.at(-1).validation, run.name); });
          }
          if (kind === "denoise") {
            await page.click("#centre summary");
            await page.waitForSelector("#centre table");
            const rows = await rowsOf(page, "Steps");
            content.steps.forEach((step, i) => { assert.equal(Number(rows[i]["masked tokens"]), step.n_masked); sameNumber(rows[i].centre, step.centre, `step ${i}`); });
          }
        }
      });
    });

    test(`${name}: every export is saved and can be read`, async () => {
      await opened(file, "", async (page) => {
        await everyView(page, documents, async ({ doc, view }) => {
          const where = `${name}, document ${doc}, ${view}`;
          const focuses = await page.$$eval("main button[data-focus]", (buttons) => buttons.filter((b) => ["SVG", "PNG", "CSV"].includes(b.textContent)).map((b) => b.dataset.focus));
          for (const { name: saidName, bytes } of await saved(page, focuses)) {
            assert.match(saidName, /^[^/\\<>]+\.(svg|png|csv)$/, where);
            if (saidName.endsWith(".svg")) {
              const found = await page.evaluate((text) => {
                const parsed = new DOMParser().parseFromString(text, "image/svg+xml");
                return { error: parsed.querySelector("parsererror")?.textContent ?? null, marks: parsed.querySelectorAll("rect, path, circle, image, line").length, scripts: parsed.querySelectorAll("script, foreignObject").length };
              }, bytes.toString());
              assert.equal(found.error, null, `${where}, ${saidName}`);
              assert.equal(found.scripts, 0);
              assert.ok(found.marks > 1 && found.marks <= 5000 + 500, `${where}, ${saidName}: ${found.marks} marks`);
            } else if (saidName.endsWith(".png")) {
              assert.equal(bytes.subarray(0, 8).toString("latin1"), "\x89PNG\r\n\x1a\n");
              assert.ok(bytes.readUInt32BE(16) > 200 && bytes.readUInt32BE(20) > 80, `${where}, ${saidName}: ${bytes.readUInt32BE(16)} x ${bytes.readUInt32BE(20)}`);
            } else {
              const rows = parsed(bytes.toString());
              assert.ok(rows.length > 0 && rows.every((row) => row.length === rows[0].length), `${where}, ${saidName}`);
            }
          }
        });
      });
    });

    test(`${name}: no text goes beyond its plot, on a screen, on a phone, on paper`, async () => {
      await opened(file, "", async (page) => {
        const check = (what) => everyView(page, documents, async ({ doc, view }) => {
          assert.deepEqual(await overflowing(page), [], `${name}, document ${doc}, ${view}, ${what}`);
          if (what === "paper") assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}, document ${doc}, ${view}: wider than paper`);
        });
        await check("screen");
        await page.setViewportSize({ width: 390, height: 800 });
        await page.waitForTimeout(300); // it is drawn again
        await check("phone");
        await page.emulateMedia({ media: "print" });
        await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
        await page.setViewportSize({ width: 718, height: 1000 }); // A4 less its margins
        await check("paper");
      });
    });

    test(`${name}: the keyboard alone reaches everything`, async () => {
      await opened(file, "", async (page) => {
        await everyView(page, documents, async ({ doc, view }) => {
          const wanted = await page.evaluate(() => {
            const all = [...document.querySelectorAll("a[href], button, select, summary, [tabindex='0']")].filter((e) => e.getClientRects().length > 0 && !e.closest("details:not([open]) > :not(summary)"));
            all.forEach((e, i) => e.setAttribute("data-test-stop", i));
            document.activeElement?.blur();
            document.body.tabIndex = -1;
            document.body.focus();
            document.body.removeAttribute("tabindex");
            return all.length;
          });
          const reached = new Set();
          for (let i = 0; i < wanted + 3 && reached.size < wanted; ++i) {
            await page.keyboard.press("Tab");
            const stop = await page.evaluate(() => document.activeElement?.getAttribute("data-test-stop"));
            if (stop !== null) reached.add(stop);
          }
          assert.equal(reached.size, wanted, `${name}, document ${doc}, ${view}: ${reached.size} of ${wanted}`);
        });
      });
    });

    const profiled = documents.findIndex(({ content }) => content.schema === "sinkscope.profile/1");
    if (profiled >= 0)
      test(`${name}: a cell opens its head, by pointer and by keys`, async () => {
        const { content, tensors } = documents[profiled];
        await opened(file, `#doc=${profiled}`, async (page) => {
          const layer = Math.min(2, content.model.n_layer - 1), head = Math.min(1, content.layers[layer].heads.length - 1);
          await page.focus("#heads [role=gridcell]");
          for (let i = 0; i < layer; ++i) await page.keyboard.press("ArrowRight");
          for (let i = 0; i < head; ++i) await page.keyboard.press("ArrowDown");
          const cell = await page.$eval("#heads [role=gridcell]", (e) => ({ label: e.getAttribute("aria-label"), box: e.getBoundingClientRect().toJSON() }));
          assert.match(cell.label, new RegExp(`^layer ${layer}, head ${head}: `));
          const metric = await page.$eval("#heads select", (s) => s.value);
          if (content.layers[layer].measured) sameNumber(cell.label.split(": ")[1], content.layers[layer].heads[head][metric], "the cell's label");
          const overview = await page.textContent("main h1");
          await page.keyboard.press("Enter");
          await headingIs(page, `Layer ${layer}, head ${head}`);
          await page.goBack();
          await headingIs(page, overview);
          await page.mouse.click(cell.box.x + cell.box.width / 2, cell.box.y + cell.box.height / 2);
          await headingIs(page, `Layer ${layer}, head ${head}`);
          const shown = await page.$$eval(".facts dd", (all) => all.map((e) => e.textContent));
          if (content.layers[layer].measured) sameNumber(shown[1], content.layers[layer].heads[head].alpha_first, "alpha of the head");
          if (tensors.alpha && content.prompts) {
            const first = await page.getAttribute("#token-0", "aria-label");
            const [, nLayer, nHead, nKey] = tensors.alpha.shape;
            assert.ok(nLayer === content.model.n_layer && nHead > head);
            sameNumber(/receives ([\d.]+)/.exec(first)[1], (tensors.alpha.data[(layer * nHead + head) * nKey] / 255) ** 2, "attention that the first token receives");
          }
        });
      });
  }
});

test("what is saved arrives as a file", async () => {
  await opened(made("everything"), "", async (page) => {
    const coming = page.waitForEvent("download", { timeout: 60_000 });
    await page.click("#heads [data-focus=heads-CSV]");
    const download = await coming;
    assert.match(download.suggestedFilename(), /\.csv$/);
    assert.match(readFileSync(await download.path(), "utf8"), /^layer,head,/);
  });
});

test("a link shows the view that it was made of, and going back goes back", async () => {
  await opened(made("everything"), "#doc=0&view=head&layer=0&head=3&query=17&theme=dark", async (page) => {
    await headingIs(page, "Layer 0, head 3");
    assert.equal(await page.getAttribute("html", "data-theme"), "dark");
    assert.equal(await page.getAttribute("#query-17", "aria-selected"), "true");
    await page.click('.tabs a:text("Text")');
    assert.match(page.url(), /view=text/);
    await page.goBack();
    await headingIs(page, "Layer 0, head 3");
    await page.reload();
    await page.waitForSelector("main h1");
    await headingIs(page, "Layer 0, head 3");
  });
});

test("the map, the text and the fan show the same query", async () => {
  const { documents } = reportData(readFileSync(made("everything"), "utf8"));
  const { map } = documents[0].tensors;
  const [, nMap, n] = map.shape;
  const [layer, head] = documents[0].content.run.maps[1];
  await opened(made("everything"), `#view=head&layer=${layer}&head=${head}`, async (page) => {
    await page.click("#token-20");
    assert.match(page.url(), /query=20/);
    assert.equal(await page.getAttribute("#query-20", "aria-selected"), "true");
    assert.ok(await page.$eval("#token-20", (e) => e.classList.contains("query")));
    const codes = map.data.subarray((1 % nMap) * n * n + 20 * n, (1 % nMap) * n * n + 21 * n);
    const weights = [...codes].map((v) => (v === 0 ? 0 : 2 ** ((v - 255) / 25.4)));
    const top = weights.indexOf(Math.max(...weights));
    const shown = await page.$$eval("#fan svg text", (all) => all.map((t) => t.textContent));
    const at = shown.indexOf(String(top));
    assert.ok(at >= 0, "the strongest key is in the fan");
    sameNumber(shown[at + 2], weights[top], "its weight");
    await page.mouse.move(1, 1);
    await page.focus(".queries");
    await page.keyboard.press("ArrowDown");
    assert.match(page.url(), /query=21/);
  });
});

test("hostile text is shown as text", async () => {
  await opened(made("hostile"), "#view=text", async (page) => {
    const scripts = await page.$$eval("script", (all) => all.length);
    assert.equal(scripts, 1, "the page's own script alone");
    assert.equal(await page.$$eval("main img, main iframe, main a[href^=javascript]", (all) => all.length), 0);
    const shown = await page.$$eval(".token", (all) => all.map((e) => e.textContent));
    assert.equal(shown.length, HOSTILE.length);
    assert.equal(shown[0], "<script>alert(1)</script>");
    assert.equal(shown[1], " <img src=x onerror=alert(2)>");
    assert.equal(shown[HOSTILE.indexOf(" &amp;&lt;")], " &amp;&lt;");
    assert.equal(shown[HOSTILE.indexOf("\u202Eevil\u202C")], "⟨U+202E⟩evil⟨U+202C⟩");
    assert.equal(shown[HOSTILE.indexOf("\u0000\u0007\u001b[31m")], "⟨U+0000⟩⟨U+0007⟩⟨U+001B⟩[31m");
    assert.equal(shown[HOSTILE.indexOf(" 👩‍👩‍👧")], " 👩‍👩‍👧");
    for (const view of ["overview", "head", "why"]) await go(page, `view=${view}&layer=0&head=0`);
  });
});

test("the page may fetch nothing", async () => {
  const { page, faults, close } = await open(chromium, made("everything"));
  const outcome = await page.evaluate(() => fetch("http://127.0.0.1:9/").then(() => "fetched", () => "refused"));
  await close();
  assert.equal(outcome, "refused");
  assert.ok(faults.some((f) => /Content Security Policy/.test(f)), faults.join("\n"));
});

test("many cells are one picture, few are cells", async () => {
  await opened(made("wide"), "", async (page) => {
    assert.equal(await page.$$eval("#heads svg image", (all) => all.length), 1);
    assert.ok(await page.$$eval("#heads svg *", (all) => all.length) < 1000);
  });
  await opened(made("everything"), "", async (page) => assert.equal(await page.$$eval("#heads svg image", (all) => all.length), 0));
});

test("a printed page is light, has no controls, and names what was chosen", async () => {
  const [layer, head] = reportData(readFileSync(made("everything"), "utf8")).documents[0].content.run.maps[0];
  await opened(made("everything"), `#theme=dark&view=head&layer=${layer}&head=${head}&prompt=1`, async (page) => {
    const inSight = (selector) => page.$$eval(selector, (all) => all.filter((e) => e.getClientRects().length > 0).map((e) => e.textContent));
    assert.deepEqual(await inSight(".paper"), []);
    assert.ok((await inSight(".hint")).length > 0);
    await page.emulateMedia({ media: "print" });
    await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
    assert.equal(await page.getAttribute("html", "data-theme"), "light");
    assert.deepEqual(await inSight(".top, .tools, .hint, select, button, summary"), []);
    const prompt = await page.$eval("[data-focus=prompt] option:checked", (e) => e.textContent);
    assert.match(prompt, /^1: /);
    assert.ok((await inSight(".paper")).includes(prompt), "the prompt is named");
    assert.ok((await page.pdf({ format: "A4" })).length > 20_000);
    await page.evaluate(() => dispatchEvent(new Event("afterprint")));
    assert.equal(await page.getAttribute("html", "data-theme"), "dark");
  });
});

test("text that goes right to left, and characters of several tokens, are read in their order", async () => {
  await opened(made("bidi"), "#view=text", async (page) => {
    const tokens = await page.$$eval(".token", (all) => all.map((e) => ({ text: e.textContent, mark: getComputedStyle(e, "::before").content, ...e.getBoundingClientRect().toJSON() })));
    assert.equal(tokens.map((t) => t.text).join(""), BIDI.join("").replace("\n", "↵"));
    const turn = BIDI.indexOf("\n");
    for (let i = 1; i < tokens.length; ++i) {
      if (i !== turn + 1) assert.ok(i <= turn ? tokens[i].right <= tokens[i - 1].left + 1 : tokens[i].left >= tokens[i - 1].right - 1, `'${BIDI[i]}' stands ${i <= turn ? "left" : "right"} of '${BIDI[i - 1]}'`);
      if (BIDI[i] === "") assert.ok(tokens[i].width > 1 && tokens[i].mark.includes("·"), `token ${i} can be seen`);
    }
    // Letters of four tokens take the room of the joined word, with the mark of the continued letter in it.
    const room = await page.evaluate(() => {
      const word = document.createElement("span");
      word.textContent = " مرحبا";
      document.querySelector(".tokens").append(word);
      const { width } = word.getBoundingClientRect();
      word.remove();
      return width;
    });
    const [first, last, rest] = [BIDI.indexOf(" م"), BIDI.indexOf("ا"), BIDI.indexOf("")];
    const width = tokens.slice(first, last + 1).reduce((sum, t, i) => sum + (first + i === rest ? 0 : t.width), 0);
    assert.ok(Math.abs(width - room) < 1.5, `${width} and ${room}`);
    await page.hover(`#token-${rest}`);
    assert.match(await page.textContent(".tip"), /rest of a character/);
  });
});

test("one document twice does not differ", async () => {
  const file = join(folder, "twice.htm"), [one] = samples().bidi;
  writeFileSync(file, reportHtml([one, { ...one, name: "the same again" }]));
  await opened(file, "#view=compare", async (page) => assert.match(await page.textContent("main .title .note"), /there is no difference/));
});

test("heads are compared: a cell chooses one, maps of both and their difference say the same weights", async () => {
  const { documents: [a, b] } = reportData(readFileSync(made("weaker"), "utf8"));
  const [layer, head] = a.content.run.maps.find(([l, h]) => b.content.run.maps.some(([m, g]) => m === l && g === h));
  await opened(made("weaker"), "#view=compare", async (page) => {
    for (const id of ["#heads-0", "#difference"]) {
      await page.focus(`${id} [role=gridcell]`);
      await page.keyboard.press("Control+Home");
      for (let i = 0; i < layer; ++i) await page.keyboard.press("ArrowRight");
      for (let i = 0; i < head; ++i) await page.keyboard.press("ArrowDown");
      await page.keyboard.press("Enter");
      assert.ok((await page.$$eval("main h2", (all) => all.map((e) => e.textContent))).includes(`Layer ${layer}, head ${head}`));
      await go(page, "view=compare&layer=11&head=7");
    }
    await go(page, `view=compare&layer=${layer}&head=${head}`);
    const weight = ({ content, tensors: { map } }, row, key) => {
      const i = content.run.maps.findIndex(([l, h]) => l === layer && h === head), n = map.shape[2], v = map.data[i * n * n + row * n + key];
      return v === 0 ? 0 : 2 ** ((v - 255) / 25.4);
    };
    const n = a.tensors.map.shape[2], [row, key] = [40, 0];
    for (const id of ["#map-0", "#map-1", "#map-difference-1"]) {
      await page.hover(`${id} .cells`, { position: await cellOf(page, id, (key + 0.5) / n, (row + 0.5) / n) });
      const tip = await page.$$eval(".tip > *", (all) => all.map((e) => e.textContent));
      const said = (name) => /(?:weight )?([−+\d.]+)$/.exec(tip.find((line) => line.startsWith(`${name}:`)))[1];
      sameNumber(said(a.name), weight(a, row, key), id);
      sameNumber(said(b.name), weight(b, row, key), id);
      sameNumber(said(`${b.name} less ${a.name}`), weight(b, row, key) - weight(a, row, key), id);
    }
    await page.click("#map-1 .cells", { position: await cellOf(page, "#map-1", 0.5 / n, 17.5 / n) });
    assert.match(page.url(), /query=17/);
    for (const i of [0, 1]) assert.equal(await page.getAttribute(`#query-${i}-17`, "aria-selected"), "true");
  });
});

test("unlike models and prompts are compared as far as that goes", async () => {
  await opened(made("unlike"), "#view=compare&layer=1&head=1", async (page) => {
    for (const id of ["#map-0", "#map-1"]) assert.ok(await page.$(id), id);
    for (const id of ["#map-difference-1", "#difference"]) assert.equal(await page.$(id), null, id);
    for (const id of ["#map-1", "#map-0"]) {
      await page.hover(`${id} .cells`, { position: await cellOf(page, id, 0.01, 0.99) });
      assert.equal((await page.$$eval(".tip > *", (all) => all.map((e) => e.textContent))).length, 3, "one document's weight");
    }
    for (const fragment of ["layer=5&head=7", "layer=5&head=7&of=5:7", "layer=99&head=-1&prompt=x&query=1e9&scale=constructor&with=none&of=7:7:7"]) {
      await go(page, `view=compare&${fragment}`);
      assert.ok(await page.$("#head"), fragment);
    }
    await go(page, "view=compare&layer=5&head=7");
    assert.match(await page.textContent("main"), /Not every document has measured this head/);
    assert.equal(await page.$("#map-0"), null);
  });
});

test("edits and runs are compared", async () => {
  const { documents } = reportData(readFileSync(made("everything"), "utf8"));
  const [edits, runs] = ["ablate", "training"].map((kind) => documents.map((d, i) => [i, d.content]).filter(([, content]) => content.schema.includes(kind)));
  await opened(made("everything"), `#doc=${edits[0][0]}&view=compare`, async (page) => {
    const rows = parsed((await saved(page, ["loss_change-difference-CSV"]))[0].bytes.toString()).slice(1);
    edits[0][1].edits.forEach((e, i) => assert.deepEqual(rows[i].slice(0, 3), [e.edit, String(e.loss_change), String(edits[1][1].edits[i].loss_change)]));
    for (const [, x, y, change] of rows) assert.ok(Math.abs(Number(change) - (Number(y) - Number(x))) < 1e-9);
    assert.doesNotMatch(await page.textContent("#loss_change-difference"), /\+\+/);
    await go(page, `doc=${runs[0][0]}&view=compare&metric=validation`);
    const curve = parsed((await saved(page, ["variant-model.attention=softmax-CSV"]))[0].bytes.toString()).slice(1);
    const mean = ([, { runs: all }], step) => { const of = all.filter((r) => r.variant === "model.attention=softmax").map((r) => r.lines.find((l) => l.step === step).validation); return of.reduce((a, b) => a + b, 0) / of.length; };
    assert.ok(curve.length > 10);
    for (const [step, x, y, change] of curve) for (const [said, is] of [[x, mean(runs[0], Number(step))], [y, mean(runs[1], Number(step))], [change, mean(runs[1], Number(step)) - mean(runs[0], Number(step))]]) assert.ok(Math.abs(Number(said) - is) < 1e-9, `step ${step}`);
  });
});

test("three documents are compared at once, each with the first", async () => {
  const { documents } = reportData(readFileSync(made("three"), "utf8"));
  await opened(made("three"), "#view=compare", async (page) => {
    assert.equal(await page.textContent("main h1"), "one, two and three");
    const rows = await rowsOf(page, "Side by side");
    documents.forEach(({ name, content }, i) => {
      sameNumber(rows[1][name], content.sink_rate.alpha_by_position[0], name);
      if (i > 0) sameNumber(rows[1][`${name}, difference`], content.sink_rate.alpha_by_position[0] - documents[0].content.sink_rate.alpha_by_position[0], name);
    });
    for (const id of ["#heads-0", "#heads-1", "#heads-2", "#difference-1", "#difference-2", "#change-1-0", "#change-2-0"]) assert.ok(await page.$(id), id);
    await page.selectOption("[data-focus=with]", "2");
    assert.equal(await page.textContent("main h1"), "one and three");
    await page.click("[data-focus=swap]");
    await headingIs(page, "three and one");
  });
});

test("a document that is not as its schema says is named; the others are shown", async () => {
  const file = join(folder, "unlike.htm"), damaged = made_up.ablation();
  writeFileSync(file, reportHtml([{ ...damaged, name: "bent", content: { ...damaged.content, edits: 7 } }, made_up.evaluation()]));
  const { page, close: end } = await open(chromium, file);
  assert.match(await page.textContent("[role=alert]"), /^'bent' cannot be shown: .*write it anew\.$/);
  await go(page, "doc=1");
  assert.equal(await page.textContent('.tabs a[aria-current="page"]'), "Policies");
  await end();
});

test("a page without data, and one with damaged data, say so", async () => {
  const frame = reportHtml([]).replace(/(<script id="sinkscope-data"[^>]*>)[^<]*/, "$1");
  for (const [name, html, says] of [["empty", frame, /holds no data/], ["damaged", frame.replace(/(<script id="sinkscope-data"[^>]*>)/, "$1AAAA"), /cannot be decompressed/]]) {
    const file = join(folder, `${name}.htm`);
    writeFileSync(file, html);
    await opened(file, "", async (page) => assert.match(await page.textContent("[role=alert]"), says));
  }
});
