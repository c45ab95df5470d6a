// Bundles the console into dist/. It loads files only from its own origin, under /console/. All file
// names except index.html contain a hash of the contents, so that browsers can cache them forever.

import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

await rm("dist", { recursive: true, force: true });
const { metafile } = await build({
  entryPoints: { console: "src/main.tsx", style: "src/style.css", icon: "src/icon.svg" },
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  define: { "process.env.NODE_ENV": '"production"' },
  loader: { ".svg": "copy" },
  outdir: "dist/assets",
  entryNames: "[name]-[hash]",
  metafile: true,
  logLevel: "warning",
});

const files = Object.keys(metafile.outputs).map((path) => basename(path));

// The server sends these to browsers that accept them, and compresses nothing itself.
for (const name of await readdir("dist/assets")) {
  const contents = await readFile(`dist/assets/${name}`);
  const compressed = gzipSync(contents, { level: 9 });
  if (compressed.length < contents.length) await writeFile(`dist/assets/${name}.gz`, compressed);
}

const html = await readFile("index.html", "utf8");
const url = (_, name) => `/console/${files.find((file) => file.startsWith(`${name}-`))}`;
await writeFile("dist/index.html", html.replace(/\{(\w+)\}/g, url));
