// Strict types of the documents, from their JSON schemas: docs/schemas/X.schema.json -> src/data/schema/X.ts.
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { compileFromFile } from "json-schema-to-typescript";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const schemas = join(root, "../../docs/schemas");
const out = join(root, "src/data/schema");

mkdirSync(out, { recursive: true });
for (const file of readdirSync(schemas)) {
  const name = file.replace(".schema.json", "");
  if (name === "common") continue;
  const types = await compileFromFile(join(schemas, file), { cwd: schemas, additionalProperties: false, style: { printWidth: 160 }, bannerComment: `// Made of docs/schemas/${file} by scripts/types.mjs.` });
  writeFileSync(join(out, `${name}.ts`), types);
}
