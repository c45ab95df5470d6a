/** Whether this server serves GraphiQL. */
export const hasGraphiQL = "graphiql" in document.documentElement.dataset;

/** Where to try an operation: a link to GraphiQL, or the address of the API for other clients.
 *
 * GraphiQL reads the token of this tab, so that it is not in the link.
 */
export function GraphiQL() {
  if (hasGraphiQL) return <a href="/graphql">GraphiQL</a>;
  return (
    <>
      a GraphQL client, with the API at <code>{location.origin}/graphql</code>
    </>
  );
}
