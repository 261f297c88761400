import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants } from "node:zlib";
import react from "@vitejs/plugin-react";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

/** Largest first load, compressed, in bytes. */
const BUDGET = 250_000;

/** Writes a compressed neighbour of each asset, and fails if the first load is too large. */
function compressed(): Plugin {
  const first = new Set<string>();
  return {
    name: "compressed",
    apply: "build",
    generateBundle(_, bundle) {
      const load = (name: string) => {
        const chunk = bundle[name];
        if (chunk?.type === "chunk" && !first.has(name)) {
          first.add(name);
          for (const style of chunk.viteMetadata?.importedCss ?? []) {
            first.add(style);
          }
          // What is imported later, when a page needs it, does not count.
          chunk.imports.forEach(load);
        }
      };
      for (const [name, chunk] of Object.entries(bundle)) {
        if (chunk.type === "chunk" && chunk.isEntry) {
          load(name);
        }
      }
    },
    closeBundle() {
      const folder = join(import.meta.dirname, "dist/assets");
      let [total, all] = [0, 0];
      for (const name of readdirSync(folder).filter((name) => /\.(js|css|svg)$/.test(name))) {
        const quality = { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY };
        const packed = brotliCompressSync(readFileSync(join(folder, name)), { params: quality });
        writeFileSync(join(folder, `${name}.br`), packed);
        all += packed.length;
        total += first.has(`assets/${name}`) ? packed.length : 0;
      }
      console.log(`first load: ${total} bytes compressed, of at most ${BUDGET}; all assets: ${all}`);
      if (total === 0 || total > BUDGET) {
        throw new Error("the console is too large for its budget");
      }
    },
  };
}

export default defineConfig({
  plugins: [react(), compressed()],
  // The server names the path of the page, and a nonce for each response.
  base: "./",
  html: { cspNonce: "ROTA_NONCE" },
  build: { modulePreload: { polyfill: false }, assetsInlineLimit: 0 },
  server: { proxy: { "/api": process.env.ROTA_ENDPOINT ?? "http://127.0.0.1:7420" } },
  // Only a broken test comes near it.
  test: { testTimeout: 180_000 },
});
