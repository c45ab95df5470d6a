/** A link to GraphiQL, where this server serves it. It reads the token of this tab, so that it is not in the link. */

export const hasGraphiQL = "graphiql" in document.documentElement.dataset;

export function GraphiQL() {
  return hasGraphiQL ? <a href="/graphql">GraphiQL</a> : <>GraphiQL</>;
}
