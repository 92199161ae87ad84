/// <reference types="node" />
import { fileURLToPath } from "node:url";

import type { Plugin, ResolvedConfig } from "vite";
import { build, defineConfig } from "vite";

/** The server that `npm run dev` asks: start `attlas view … --port 8100`, open the address it prints once, then the one of vite. */
const server = process.env["ATTLAS_SERVER"] ?? "http://127.0.0.1:8100";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/**
 * Builds the widget of notebooks when the page is built: one ES module without imports, as anywidget wants it. It holds the page for
 * its frame as text, so that is built first.
 */
function widget(): Plugin {
  let config: ResolvedConfig;
  const alone = { configFile: false, root: here("."), publicDir: false, logLevel: "warn" } as const;
  const common = { target: "es2022", cssCodeSplit: false, emptyOutDir: false } as const;
  return {
    name: "attlas-widget",
    apply: "build",
    configResolved: (resolved) => void (config = resolved),
    async closeBundle(error) {
      if (error) return;
      const lib = { entry: here("src/notebook/page.tsx"), formats: ["iife" as const], name: "attlas", cssFileName: "page" };
      const built = await build({ ...alone, define: PRODUCTION, build: { ...common, write: false, lib } });
      const files = (Array.isArray(built) ? built : [built]).flatMap((one) => ("output" in one ? one.output : []));
      const script = files.map((file) => (file.type === "chunk" ? file.code : "")).join("");
      const style = files.map((file) => (file.type === "asset" && file.fileName.endsWith(".css") ? String(file.source) : "")).join("");
      const id = "virtual:attlas-page";
      const page: Plugin = {
        name: "attlas-page",
        resolveId: (source) => (source === id ? `\0${id}` : null),
        load: (source) =>
          source === `\0${id}`
            ? `export const script = ${JSON.stringify(script)}; export const style = ${JSON.stringify(style)};`
            : null,
      };
      await build({
        ...alone,
        define: PRODUCTION,
        plugins: [page],
        build: {
          ...common,
          outDir: config.build.outDir,
          lib: { entry: here("src/widget.ts"), formats: ["es"], fileName: () => "widget.js" },
        },
      });
    },
  };
}

/** Libraries are built without it by default, for whoever uses them to choose. */
const PRODUCTION = { "process.env.NODE_ENV": JSON.stringify("production") };

export default defineConfig({
  plugins: [widget()],
  root: fileURLToPath(new URL(".", import.meta.url)),
  publicDir: false,
  build: {
    outDir: "../src/attlas/view/static",
    emptyOutDir: true,
    target: "es2022",
    // nothing inline: the content security policy of the page allows its own files and no others
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // one script and one style: a page that is saved as a file holds them, and a file can load no others
    rolldownOptions: { output: { codeSplitting: false } },
    cssCodeSplit: false,
    chunkSizeWarningLimit: 1000,
    // the notices that the licences of the bundled libraries ask for
    license: { fileName: "licences.md" },
  },
  server: {
    host: "127.0.0.1",
    proxy: { "/api": { target: server, changeOrigin: true } },
  },
});
