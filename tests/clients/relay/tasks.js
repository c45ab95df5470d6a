/** Relay: what its compiler made of these operations, run by its runtime against the server. */

import { createRequire } from "node:module";
import relay from "relay-runtime";
import { headers, project, report, url } from "../server.js";

const require = createRequire(import.meta.url);

// In an application Babel puts what the compiler made in the place of each operation.
const graphql = ([text]) => {
  const [, name] = /(?:query|mutation|fragment) (\w+)/.exec(text);
  return require(`${process.env.RELAY_ARTIFACTS}/${name}.graphql.js`);
};

const PROJECT = graphql`
  query tasksProjectQuery($id: ID!) {
    project(id: $id) {
      ...tasks_project
    }
  }
`;

const TASKS = graphql`
  fragment tasks_project on Project
  @argumentDefinitions(count: { type: "Int", defaultValue: 3 }, cursor: { type: "String" })
  @refetchable(queryName: "tasksPageQuery") {
    name
    tasks(first: $count, after: $cursor) @connection(key: "project_tasks") {
      __id
      edges {
        node {
          ...tasks_row @relay(mask: false)
        }
      }
    }
  }
`;

graphql`
  fragment tasks_row on Node {
    id
    ... on Task {
      title
      status
    }
  }
`;

const TASK = graphql`
  query tasksTaskQuery($id: ID!) {
    node(id: $id) {
      __typename
      ...tasks_row @relay(mask: false)
    }
  }
`;

const RENAME = graphql`
  mutation tasksRenameMutation($input: UpdateTaskInput!) {
    updateTask(input: $input) {
      task {
        title
      }
      userErrors {
        message
        path
      }
    }
  }
`;

const CREATE = graphql`
  mutation tasksCreateMutation($input: CreateTaskInput!, $connections: [ID!]!) {
    createTask(input: $input) {
      task @appendNode(connections: $connections, edgeTypeName: "TaskEdge") {
        ...tasks_row
      }
    }
  }
`;

const DELETE = graphql`
  mutation tasksDeleteMutation($input: DeleteTaskInput!, $connections: [ID!]!) {
    deleteTask(input: $input) {
      deletedId @deleteEdge(connections: $connections) @deleteRecord
    }
  }
`;

const send = async ({ text: query }, variables) => {
  const body = JSON.stringify({ query, variables });
  const json = { ...headers, "content-type": "application/json" };
  return (await fetch(url, { method: "POST", headers: json, body })).json();
};
const environment = new relay.Environment({
  network: relay.Network.create(send),
  store: new relay.Store(new relay.RecordSource()),
});
const fetched = (query, variables) => relay.fetchQuery(environment, query, variables).toPromise();
const mutate = (mutation, variables) =>
  new Promise((onCompleted, onError) =>
    relay.commitMutation(environment, { mutation, variables, onCompleted, onError }),
  );

// What a component would see: the fragment, as the store has it at this moment.
const operation = relay.createOperationDescriptor(relay.getRequest(PROJECT), { id: project });
environment.retain(operation);
const seen = () => {
  const { project } = environment.lookup(operation.fragment).data;
  const selector = relay.getSingularSelector(relay.getFragment(TASKS), project);
  return environment.lookup(selector).data;
};
const titles = () => seen().tasks.edges.map(({ node }) => node.title);

await fetched(PROJECT, { id: project });
const { name, tasks } = seen();
const first = { name, titles: titles(), more: tasks.pageInfo.hasNextPage };

const { endCursor: cursor } = tasks.pageInfo;
await fetched(TASKS.metadata.refetch.operation, { id: project, count: 3, cursor });
const second = titles();

const { id } = seen().tasks.edges[4].node;
const { node } = await fetched(TASK, { id });
const refetched = { ...node, id: node.id === id };

const connections = [tasks.__id];
const { updateTask } = await mutate(RENAME, { input: { id, title: "Renamed" } });
const renamed = { errors: updateTask.userErrors, titles: titles() };
await mutate(CREATE, { input: { projectId: project, title: "New" }, connections });
const created = titles();
await mutate(DELETE, { input: { id }, connections });
const deleted = titles();

report({ first, second, refetched, renamed, created, deleted });
