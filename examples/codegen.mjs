/** The configuration of graphql-codegen for TypeScript: each scalar has the type of its JSON. */

/** @type {import("@graphql-codegen/cli").CodegenConfig} */
export default {
  schema: "schema.graphql",
  documents: ["src/**/*.graphql", "src/**/*.ts"],
  generates: {
    "src/generated/": {
      preset: "client",
      config: {
        strictScalars: true,
        scalars: {
          BigInt: { input: "string | number", output: "string" },
          DateTime: "string",
          Decimal: { input: "string | number", output: "string" },
          JSON: "unknown",
        },
        enumType: "string-literal",
        documentMode: "string",
        useTypeImports: true,
      },
    },
  },
};
