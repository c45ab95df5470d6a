/**
 * Types for the operations beside this file, from the schema that the server says it has.
 *
 * This is graphql-codegen without its command line, which reads a configuration and writes files,
 * and needs many more packages to do so.
 */

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { codegen } from "@graphql-codegen/core";
import { preset } from "@graphql-codegen/client-preset";
import { buildClientSchema, getIntrospectionQuery, parse, printSchema } from "graphql";
import { ask } from "../server.js";

const folder = new URL("generated/", import.meta.url).pathname;
const location = new URL("operations.graphql", import.meta.url).pathname;
const rawSDL = await readFile(location, "utf8");
const schemaAst = buildClientSchema(await ask(getIntrospectionQuery()));

const files = await preset.buildGeneratesSection({
  baseOutputDir: folder,
  schema: parse(printSchema(schemaAst)),
  schemaAst,
  documents: [{ location, rawSDL, document: parse(rawSDL) }],
  config: {
    documentMode: "string",
    enumType: "string-literal",
    strictScalars: true,
    scalars: { BigInt: "string", DateTime: "string", Decimal: "string", JSON: "unknown" },
    useTypeImports: true,
    importExtension: ".js",
  },
  presetConfig: { fragmentMasking: false },
  plugins: [],
  pluginMap: {},
});

await mkdir(folder, { recursive: true });
for (const file of files) await writeFile(file.filename, await codegen(file));
