/** graphql-ws, by the protocol that it defines: what it is answered, and a server that restarts. */

import { createClient } from "graphql-ws";
import WebSocket from "ws";
import { headers, project, report, url } from "./server.js";

const address = { url: url.replace("http", "ws"), webSocketImpl: WebSocket };
const client = createClient({
  ...address,
  lazy: false,
  connectionParams: headers,
  // By itself it tries again after 1012, but not while nobody listens.
  shouldRetry: () => true,
  retryAttempts: 100,
  retryWait: () => new Promise((resolve) => setTimeout(resolve, 100)),
});
const ask = async (query, variables) => {
  for await (const result of client.iterate({ query, variables })) return result;
};
const refusal = (error) => error.map(({ extensions }) => extensions.code);

const codes = [];
client.on("closed", ({ code }) => codes.push(code));

const TASKS = "query($id: ID!) { project(id: $id) { tasks(last: 2) { nodes { id title } } } }";
const { data } = await ask(TASKS, { id: project });
const tasks = data.project.tasks.nodes;

const UPDATE =
  "mutation($input: UpdateTaskInput!) { updateTask(input: $input) { task { title } userErrors { code } } }";
const update = async (title) =>
  (await ask(UPDATE, { input: { id: tasks[0].id, title } })).data.updateTask;
const updated = await update("Renamed");
const unnamed = await update("");

const partial = await ask('{ me { username } project(id: "?") { name } }');
const refused = await ask("{ nothing }").catch(refusal);
const many = await Promise.all(tasks.map(({ id }) => ask("query($id: ID!) { task(id: $id) { title } }", { id })));

const stranger = createClient({
  ...address,
  connectionParams: { Authorization: "Bearer unknown" },
  retryAttempts: 0,
});
const forbidden = await new Promise((resolve) =>
  stranger.subscribe({ query: "{ __typename }" }, { next() {}, complete() {}, error: resolve }),
);

// The test restarts the server when it reads this line.
const connected = new Promise((resolve) => client.on("connected", resolve));
process.stdout.write("asked\n");
await connected;

report({
  titles: tasks.map(({ title }) => title),
  updated,
  unnamed,
  partial: { data: partial.data, codes: refusal(partial.errors) },
  refused,
  many: many.map(({ data }) => data.task.title),
  forbidden: [forbidden.code, forbidden.reason],
  restarted: { code: codes[0], again: (await ask("{ __typename }")).data },
});
await client.dispose();
