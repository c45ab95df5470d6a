// Writes src/generated/: operations.ts has the types and documents of the operations in
// src/**/*.graphql; schema.ts has what the cache must know of the schema, and all enums. This is
// graphql-codegen without its command line, which needs many more packages.

import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { codegen } from "@graphql-codegen/core";
import * as typedDocumentNode from "@graphql-codegen/typed-document-node";
import * as operations from "@graphql-codegen/typescript-operations";
import { buildSchema, isAbstractType, isEnumType, isObjectType, parse } from "graphql";

const FOLDER = "src/generated";

const text = await readFile("../../schema.graphql", "utf8");
const schemaAst = buildSchema(text);
const names = (await readdir("src", { recursive: true })).filter((name) => name.endsWith(".graphql"));
const documents = await Promise.all(
  names.sort().map((name) => `src/${name}`).map(async (location) => ({
    location,
    document: parse(await readFile(location, "utf8")),
  })),
);

const config = {
  arrayInputCoercion: false,
  dedupeFragments: true,
  scalars: { BigInt: "string", DateTime: "string", Decimal: "string", JSON: "unknown" },
  strictScalars: true,
  useTypeImports: true,
};
const code = await codegen({
  filename: `${FOLDER}/operations.ts`,
  schema: parse(text),
  schemaAst,
  documents,
  config,
  plugins: [{ operations: {} }, { typedDocumentNode: {} }],
  pluginMap: { operations, typedDocumentNode },
});

const types = Object.values(schemaAst.getTypeMap()).filter((type) => !type.name.startsWith("__"));
const possibleTypes = types
  .filter(isAbstractType)
  .map((type) => [type.name, schemaAst.getPossibleTypes(type).map(({ name }) => name)]);
const roots = [schemaAst.getQueryType(), schemaAst.getMutationType(), schemaAst.getSubscriptionType()];
const embedded = types
  .filter((type) => isObjectType(type) && !type.getFields().id && !roots.includes(type))
  .map(({ name }) => name);
const enums = types.filter(isEnumType).map((type) => {
  const values = type.getValues().map(({ name }) => JSON.stringify(name));
  return `export type ${type.name} = ${values.join(" | ")};\n`;
});
const facts = `/** The types of each interface and union. */
export const possibleTypes: Record<string, string[]> = ${JSON.stringify(Object.fromEntries(possibleTypes))};

/** The types without an id: the cache stores them in the object that contains them. */
export const embedded: string[] = ${JSON.stringify(embedded)};

${enums.join("")}`;

await mkdir(FOLDER, { recursive: true });
await writeFile(`${FOLDER}/operations.ts`, code);
await writeFile(`${FOLDER}/schema.ts`, facts);
