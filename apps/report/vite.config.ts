import { createHash } from "node:crypto";
import { defineConfig, type Plugin } from "vite";
import { viteSingleFile } from "vite-plugin-singlefile";

// The page may run its own script, known by its hash, and nothing else; it may fetch nothing.
function contentSecurityPolicy(): Plugin {
  return {
    name: "content-security-policy",
    enforce: "post",
    generateBundle(_options, bundle) {
      const page = bundle["index.html"];
      if (page?.type !== "asset") throw new Error("the build has no index.html");
      const html = String(page.source);
      const hashes = [...html.matchAll(/<script type="module"[^>]*>([\s\S]*?)<\/script>/g)].map((m) => `'sha256-${createHash("sha256").update(m[1]!).digest("base64")}'`);
      if (hashes.length !== 1) throw new Error(`the page has ${hashes.length} scripts of its own, 1 was expected`);
      const policy = `default-src 'none'; script-src ${hashes.join(" ")}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'`;
      page.source = html.replace("<!-- content security policy -->", () => `<meta http-equiv="Content-Security-Policy" content="${policy}">`);
    },
  };
}

export default defineConfig({
  build: { target: "es2022", assetsInlineLimit: Number.MAX_SAFE_INTEGER, chunkSizeWarningLimit: 2000, modulePreload: false },
  plugins: [viteSingleFile({ removeViteModuleLoader: true }), contentSecurityPolicy()],
  test: { include: ["tests/*.test.ts"] },
} as Parameters<typeof defineConfig>[0]);
