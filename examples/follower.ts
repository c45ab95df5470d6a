/** A follower: it gets each event of a project once, though the server restarts meanwhile. */
// It needs graphql-ws and Node.js 22 or later, in TOKEN an access token, and in PROJECT the id of a
// project.

import { createClient } from "graphql-ws";

declare const process: { env: Record<string, string | undefined>; exit(status: number): never };
const { GRAPHQL_URL = "http://127.0.0.1:8000/graphql", TOKEN, PROJECT: project } = process.env;
const COUNT = Number(process.env.COUNT ?? "0"); // of events, after which it ends; 0 means never

const FOLLOW = `subscription($project: ID, $after: String) {
  events(projectId: $project, after: $after) {
    cursor gap { after } event { position action entityType entityId } } }`;
const LOG = `query($project: ID, $after: String, $first: Int, $last: Int) {
  events(where: {projectId: {eq: $project}}, after: $after, first: $first, last: $last) {
    nodes { position } pageInfo { endCursor } } }`;

type Event = { position: string; action: string; entityType: string; entityId: string };
type Message = { events: { cursor: string; gap: object | null; event: Event } };
type Page = { events: { nodes: Event[]; pageInfo: { endCursor: string } } };

const client = createClient({
  url: GRAPHQL_URL.replace("http", "ws"),
  connectionParams: { Authorization: `Bearer ${TOKEN}` },
  retryAttempts: Infinity,
  retryWait: () => new Promise((resolve) => setTimeout(resolve, 1000)),
  shouldRetry: (event) => (event as CloseEvent).code !== 4403, // the token is not valid
  on: { closed: (event) => console.log(`Closed: ${(event as CloseEvent).code}`) },
});

/** A page of the log. */
async function page(variables: object): Promise<Page["events"]> {
  for await (const { data, errors } of client.iterate<Page>({
    query: LOG,
    variables: { project, ...variables },
  })) {
    if (data) return data.events;
    throw errors;
  }
  throw new Error("The server sent nothing.");
}

async function main(): Promise<void> {
  const start = (await page({ last: 1 })).pageInfo.endCursor;
  console.log("Following");
  // The client connects and subscribes again by itself, with the cursor that is the last one then.
  const variables = { project, after: start };
  const seen: string[] = [];
  for await (const { data, errors } of client.iterate<Message>({ query: FOLLOW, variables })) {
    if (!data) throw errors;
    const { cursor, gap, event } = data.events;
    if (gap) throw new Error("Events are missing: read again what you need.");
    variables.after = cursor;
    seen.push(event.position);
    console.log(`${event.position}: ${event.action} ${event.entityType} ${event.entityId}`);
    if (seen.length === COUNT) break;
  }

  const logged: string[] = [];
  for (let after = start; logged.length < COUNT; ) {
    const { nodes, pageInfo } = await page({ after, first: 100 });
    logged.push(...nodes.map(({ position }) => position));
    after = pageInfo.endCursor;
  }
  if (seen.join() !== logged.slice(0, COUNT).join()) throw new Error(`The log has ${logged}`);
  console.log(`Each of ${COUNT} events came once, in order.`);
  await client.dispose();
}

main();
