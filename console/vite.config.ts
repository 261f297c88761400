import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants } from "node:zlib";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

/** Largest first load, compressed, in bytes. */
const BUDGET = 250_000;

/** Writes a compressed neighbour of each asset, and fails if the first load is too large. */
function compressed(): Plugin {
  return {
    name: "compressed",
    apply: "build",
    closeBundle() {
      const folder = join(import.meta.dirname, "dist/assets");
      let total = 0;
      for (const name of readdirSync(folder).filter((name) => /\.(js|css|svg)$/.test(name))) {
        const quality = { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY };
        const packed = brotliCompressSync(readFileSync(join(folder, name)), { params: quality });
        writeFileSync(join(folder, `${name}.br`), packed);
        total += packed.length;
      }
      console.log(`assets: ${total} bytes compressed, of at most ${BUDGET}`);
      if (total > BUDGET) {
        throw new Error("the console is too large for its budget");
      }
    },
  };
}

export default defineConfig({
  plugins: [react(), compressed()],
  build: { modulePreload: { polyfill: false }, assetsInlineLimit: 0 },
  server: { proxy: { "/api": process.env.ROTA_ENDPOINT ?? "http://127.0.0.1:7420" } },
});
