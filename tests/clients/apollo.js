/** Apollo Client: a list that grows page by page, and a cache that knows objects by their id. */

import { ApolloClient, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { CombinedGraphQLErrors } from "@apollo/client/errors";
import { relayStylePagination } from "@apollo/client/utilities";
import { ask, headers, project, report, url } from "./server.js";

const TASKS = gql`
  query Tasks($project: ID!, $after: String) {
    project(id: $project) {
      id
      name
      tasks(first: 3, after: $after) {
        edges {
          cursor
          node {
            ...Row
          }
        }
        pageInfo {
          endCursor
          hasNextPage
        }
      }
    }
  }

  fragment Row on Task {
    id
    title
    version
  }
`;

const RENAME = gql`
  mutation Rename($input: UpdateTaskInput!) {
    updateTask(input: $input) {
      task {
        id
        title
        version
      }
      userErrors {
        code
        path
        ... on Conflict {
          current {
            id
            ... on Task {
              title
            }
          }
        }
      }
    }
  }
`;

// Fragments on interfaces are matched by the cache itself, so it must know who implements them.
const { __schema } = await ask("{ __schema { types { name possibleTypes { name } } } }");
const possibleTypes = Object.fromEntries(
  __schema.types
    .filter((type) => type.possibleTypes)
    .map((type) => [type.name, type.possibleTypes.map(({ name }) => name)]),
);

const client = new ApolloClient({
  link: new HttpLink({ uri: url, headers }),
  cache: new InMemoryCache({
    possibleTypes,
    // An id is global: it needs no type beside it to be a key.
    dataIdFromObject: ({ id }) => id,
    typePolicies: { Project: { fields: { tasks: relayStylePagination(["where", "orderBy"]) } } },
  }),
});

const shown = { query: TASKS, variables: { project } };
const tasks = client.watchQuery(shown);
tasks.subscribe({});
const list = () => client.readQuery(shown).project.tasks;
const titles = () => list().edges.map(({ node }) => node.title);
const more = () => tasks.fetchMore({ variables: { after: list().pageInfo.endCursor } });
const rename = async (title, expectedVersion, options) => {
  const variables = { input: { id: list().edges[4].node.id, title, expectedVersion } };
  const { data } = await client.mutate({ mutation: RENAME, variables, ...options });
  const errors = data.updateTask.userErrors.map(({ code, path }) => ({ code, path }));
  return { titles: titles(), errors };
};

await client.query(shown);
const first = { titles: titles(), more: list().pageInfo.hasNextPage };
await more();
const second = { titles: titles(), more: list().pageInfo.hasNextPage };
await more();
const third = { titles: titles(), more: list().pageInfo.hasNextPage };
const renamed = await rename("Renamed", 1);
// Somebody else renames it; the conflict brings what it is called now.
const elsewhere = await rename("Renamed elsewhere", 2, { fetchPolicy: "no-cache" });
const conflict = await rename("Renamed again", 2);
const unnamed = await rename("");

const stranger = new ApolloClient({ link: new HttpLink({ uri: url }), cache: new InMemoryCache() });
const refusal = await stranger
  .query({ query: TASKS, variables: { project } })
  .catch((error) => CombinedGraphQLErrors.is(error) && error.errors[0].extensions.code);

report({ first, second, third, renamed, elsewhere, conflict, unnamed, refusal });
