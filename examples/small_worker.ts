/** A small worker: it claims tasks, does each within a minute, and completes it. */
// It needs no package, and in TOKEN the token of an agent that is READY.
export {}; // Node.js needs neither this nor the next line, which are for tsc.
declare const process: { env: Record<string, string> };

const { GRAPHQL_URL: url = "http://127.0.0.1:8000/graphql", TOKEN } = process.env;
const headers = { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" };
const CLAIM = "mutation { claimTask(input: {}) { message attempt { id task { title input } } } }";
const END = "mutation($end: CompleteTaskInput!) { completeTask(input: $end) { userErrors { code } } }";

const send = (query: string, variables = {}): Promise<any> =>
  fetch(url, { method: "POST", headers, body: JSON.stringify({ query, variables }) })
    .then((response) => response.json());

while (true) {
  const answer = await send(CLAIM);
  console.log(JSON.stringify(answer));
  const { attempt } = answer.data.claimTask;
  const result = attempt && { title: attempt.task.title }; // put your own work here
  if (attempt) console.log(await send(END, { end: { attemptId: attempt.id, result } }));
  else await new Promise((wake) => setTimeout(wake, 5000));
}
