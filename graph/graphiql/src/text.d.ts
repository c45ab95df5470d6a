declare module "*.graphql" {
  const text: string;
  export default text;
}

declare module "*.variables.json" {
  const text: string;
  export default text;
}
