/** A small worker: it claims tasks, does each within a minute, and completes it. */
// It needs no package, and in TOKEN the token of an agent that is READY.
export {}; // Node.js needs neither this nor the next line, which are for tsc.
declare const process: { env: Record<string, string>; exit(status: number): never };

const { GRAPHQL_URL: url = "http://127.0.0.1:8000/graphql", TOKEN } = process.env;
const headers = { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" };
const CLAIM = `mutation { claimTask(input: {}) {
  message attempt { id task { title input } } userErrors { message } } }`;
const END = `mutation($end: CompleteTaskInput!) {
  completeTask(input: $end) { userErrors { message } } }`;

async function send(query: string, variables = {}): Promise<any> {
  const body = JSON.stringify({ query, variables });
  const response = await fetch(url, { method: "POST", headers, body });
  const { data, errors } = (await response.json()) as any;
  console.log(errors ? errors[0].message : JSON.stringify(data));
  return errors ? process.exit(1) : data;
}

async function work() {
  const { attempt } = (await send(CLAIM)).claimTask;
  const result = attempt && { title: attempt.task.title }; // put your own work here
  if (attempt) await send(END, { end: { attemptId: attempt.id, result } });
  setTimeout(work, attempt ? 0 : 5000);
}

work();
