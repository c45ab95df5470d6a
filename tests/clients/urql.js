/** urql with its normalised cache, which checks what it stores against the schema. */

import { Client, fetchExchange, gql } from "@urql/core";
import { cacheExchange } from "@urql/exchange-graphcache";
import { relayPagination } from "@urql/exchange-graphcache/extras";
import { getIntrospectionQuery } from "graphql";
import { ask, headers, project, report, url } from "./server.js";

const TASKS = gql`
  query Tasks(
    $project: ID!
    $order: TaskOrder = PRIORITY_DESC
    $first: Int
    $after: String
    $last: Int
    $before: String
  ) {
    tasks(
      where: { project: { id: { eq: $project } } }
      orderBy: $order
      first: $first
      after: $after
      last: $last
      before: $before
    ) {
      edges {
        node {
          id
          title
          priority
        }
      }
      pageInfo {
        startCursor
        endCursor
        hasNextPage
        hasPreviousPage
      }
    }
  }
`;

const UPDATE = gql`
  mutation Update($input: UpdateTaskInput!) {
    updateTask(input: $input) {
      task {
        id
        title
      }
      userErrors {
        __typename
        message
        path
      }
    }
  }
`;

const cache = cacheExchange({
  schema: await ask(getIntrospectionQuery()),
  resolvers: { Query: { tasks: relayPagination() } },
});
const client = new Client({ url, exchanges: [cache, fetchExchange], fetchOptions: { headers } });

const page = async (variables) => {
  const { data, error } = await client.query(TASKS, { project, ...variables }).toPromise();
  if (error) return error.graphQLErrors.map(({ extensions }) => extensions.code);
  return data.tasks;
};
const titles = ({ edges }) => edges.map(({ node }) => node.title);
const update = async (input) => {
  const { data } = await client.mutation(UPDATE, { input }).toPromise();
  return data.updateTask;
};

const first = await page({ first: 3 });
const second = await page({ first: 3, after: first.pageInfo.endCursor });
const order = "PRIORITY_ASC";
const last = await page({ order, last: 2 });
const backward = await page({ order, last: 2, before: last.pageInfo.startCursor });

const { id } = first.edges[2].node;
const updated = await update({ id, title: "Renamed" });
const refused = await update({ id, title: "", priority: 99 });
const after = await page({ first: 3 });

report({
  forward: [titles(first), titles(second)],
  backward: [titles(last), titles(backward)],
  updated: { title: updated.task.title, shown: titles(after) },
  refused,
  error: await page({ first: 3, after: "nonsense" }),
});
