/**
 * Types for the operations beside this file, from the schema that the server says it has.
 *
 * This is graphql-codegen without its command line, which reads the configuration and writes files,
 * and needs many more packages to do so. The configuration is the one of the documentation.
 */

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { codegen } from "@graphql-codegen/core";
import { preset } from "@graphql-codegen/client-preset";
import { buildClientSchema, getIntrospectionQuery, parse, printSchema } from "graphql";
import configuration from "../../../examples/codegen.mjs";
import { ask } from "../server.js";

const folder = new URL("generated/", import.meta.url).pathname;
const location = new URL("operations.graphql", import.meta.url).pathname;
const rawSDL = await readFile(location, "utf8");
const schemaAst = buildClientSchema(await ask(getIntrospectionQuery()));

const [generated] = Object.values(configuration.generates);
const files = await preset.buildGeneratesSection({
  baseOutputDir: folder,
  schema: parse(printSchema(schemaAst)),
  schemaAst,
  documents: [{ location, rawSDL, document: parse(rawSDL) }],
  // Node.js, without a bundler, needs the names of files.
  config: { ...generated.config, importExtension: ".js" },
  presetConfig: { fragmentMasking: false },
  plugins: [],
  pluginMap: {},
});

await mkdir(folder, { recursive: true });
for (const file of files) await writeFile(file.filename, await codegen(file));
