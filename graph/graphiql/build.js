// Bundles the page into dist/. It loads files only from its own origin, under /graphiql/. All file
// names except index.html contain a hash of the contents, so that browsers can cache them forever.

import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

/** Bundles the entry points, and returns the URL of each by its name. */
async function bundle(entryPoints, options) {
  const { metafile } = await build({
    entryPoints,
    bundle: true,
    minify: true,
    target: "es2022",
    outdir: "dist/assets",
    entryNames: "[name]-[hash]",
    chunkNames: "[name]-[hash]",
    metafile: true,
    logLevel: "warning",
    ...options,
  });
  const files = Object.keys(metafile.outputs).map((path) => basename(path));
  const url = (name) => `/graphiql/${files.find((file) => file.startsWith(`${name}-`))}`;
  return Object.fromEntries(Object.keys(entryPoints).map((name) => [name, url(name)]));
}

await rm("dist", { recursive: true, force: true });

const workers = await bundle({
  editor: "monaco-editor/esm/vs/editor/editor.worker.js",
  graphql: "monaco-graphql/esm/graphql.worker.js",
  json: "monaco-editor/esm/vs/language/json/json.worker.js",
});
const { style } = await bundle({ style: "src/style.css" });
const { page } = await bundle(
  { page: "src/page.tsx" },
  {
    format: "esm",
    splitting: true,
    jsx: "automatic",
    // GraphiQL's style sheet contains the styles of the editor.
    loader: { ".css": "empty", ".graphql": "text", ".variables.json": "text" },
    define: { WORKERS: JSON.stringify(workers), "process.env.NODE_ENV": '"production"' },
    // GraphiQL imports these two by their old names, which are not ES modules.
    alias: {
      "prettier/parser-babel": "prettier/plugins/babel",
      "prettier/parser-graphql": "prettier/plugins/graphql",
    },
  },
);

// The server sends these to browsers that accept them, and compresses nothing itself.
for (const name of await readdir("dist/assets")) {
  const contents = await readFile(`dist/assets/${name}`);
  const compressed = gzipSync(contents, { level: 9 });
  if (compressed.length < contents.length) await writeFile(`dist/assets/${name}.gz`, compressed);
}

const html = await readFile("index.html", "utf8");
await writeFile("dist/index.html", html.replace("{style}", style).replace("{page}", page));
