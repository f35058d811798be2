// Fills the built page as the program does: documents and arrays -> safetensors -> deflate -> base64 in the page.
//   node tests/make-report.mjs OUT.html FILE.json...          (arrays that a profile names are taken from beside it)
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { deflateSync, inflateSync } from "node:zlib";

const page = join(dirname(fileURLToPath(import.meta.url)), "../dist/index.html");
const SLOT = '<script id="sinkscope-data" type="application/octet-stream">';

// documents: [{ name, content, tensors: { alpha: { shape, data: Uint8Array } } }]
export function safetensors(documents, metadata = {}) {
  const header = { __metadata__: { schema: "sinkscope.report/1", version: "test", names: JSON.stringify(documents.map((d) => d.name)), ...metadata } };
  const parts = [];
  let offset = 0;
  const add = (name, shape, data) => {
    header[name] = { dtype: "U8", shape, data_offsets: [offset, offset + data.length] };
    parts.push(data);
    offset += data.length;
  };
  documents.forEach(({ content, tensors = {} }, i) => {
    const json = Buffer.from(JSON.stringify(content));
    add(`${i}.document`, [json.length], json);
    for (const [name, { shape, data }] of Object.entries(tensors)) add(`${i}.${name}`, shape, data);
  });
  const head = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(head.length));
  return Buffer.concat([length, head, ...parts]);
}

export function reportHtml(documents, metadata = {}) {
  const html = readFileSync(page, "utf8");
  if (html.split(SLOT).length !== 2) throw new Error(`${page} has not exactly one place for data`);
  return html.replace(SLOT, () => SLOT + deflateSync(safetensors(documents, metadata), { level: 9 }).toString("base64"));
}

// The data of a report again: { metadata, documents: [{ name, content, tensors }] }.
export function reportData(html) {
  const text = html.slice(html.indexOf(SLOT) + SLOT.length, html.indexOf("</script>", html.indexOf(SLOT)));
  const { header, bytes } = parts(inflateSync(Buffer.from(text, "base64")));
  return {
    metadata: header.__metadata__,
    documents: JSON.parse(header.__metadata__.names).map((name, i) => {
      const own = Object.entries(header).filter(([key]) => key.startsWith(`${i}.`)).map(([key, t]) => [key.slice(key.indexOf(".") + 1), { shape: t.shape, data: bytes.subarray(...t.data_offsets) }]);
      const tensors = Object.fromEntries(own);
      return { name, content: JSON.parse(tensors.document.data.toString("utf8")), tensors };
    }),
  };
}

function parts(file) {
  const length = Number(file.readBigUInt64LE(0));
  return { header: JSON.parse(file.subarray(8, 8 + length).toString("utf8")), bytes: file.subarray(8 + length) };
}

// The arrays of --arrays, coded for the page.
function coded(path) {
  const { header, bytes } = parts(readFileSync(path));
  const values = (name, Type) => { const t = header[name]; const part = bytes.subarray(...t.data_offsets); return { shape: t.shape, data: new Type(part.buffer.slice(part.byteOffset, part.byteOffset + part.length)) }; };
  const tensors = {};
  if (header.column_n_row) {
    const [sum, n] = [values("column_sum", Float32Array), values("column_n_row", Uint32Array)];
    const each = sum.shape.slice(1).reduce((a, b) => a * b, 1), nPrompt = Math.max(1, Math.min(sum.shape[0], Math.floor(2.5e6 / each)));
    tensors.alpha = { shape: [nPrompt, ...sum.shape.slice(1)], data: Uint8Array.from({ length: nPrompt * each }, (_, i) => (n.data[i] > 0 && Number.isFinite(sum.data[i]) ? Math.round(255 * Math.sqrt(Math.min(1, sum.data[i] / n.data[i]))) : 0)) };
  }
  if (header.bands) {
    const { shape, data } = values("bands", Float32Array);
    tensors.bands = { shape, data: Uint8Array.from(data, (w) => (Number.isFinite(w) ? Math.round(255 * Math.sqrt(Math.min(1, w))) : 0)) };
  }
  if (header.map) {
    const { shape, data } = values("map", Float32Array);
    tensors.map = { shape, data: Uint8Array.from(data, (w) => (w >= 1 / 1024 ? Math.min(255, Math.max(1, Math.round(255 + 25.4 * Math.log2(w)))) : 0)) };
  }
  const maps = header.__metadata__.maps ? header.__metadata__.maps.split(",").map((m) => m.split(":").map(Number)) : undefined;
  return { tensors, maps };
}

export function documentOf(path) {
  const content = JSON.parse(readFileSync(path, "utf8"));
  const arrays = content.arrays ? join(dirname(path), content.arrays) : path.replace(/\.json$/, ".safetensors");
  if (content.schema !== "sinkscope.profile/1" || !existsSync(arrays)) return { name: basename(path, ".json"), content };
  const { tensors, maps } = coded(arrays);
  if (maps) content.run.maps ??= maps;
  return { name: basename(path, ".json"), content, tensors };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [out, ...files] = process.argv.slice(2);
  if (files.length === 0) throw new Error("usage: node tests/make-report.mjs OUT.html FILE.json...");
  writeFileSync(out, reportHtml(files.map(documentOf)));
}
