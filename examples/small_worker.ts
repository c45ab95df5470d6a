/** A small worker: it claims tasks, does each within a minute, and completes it. */
// It needs no package, and in TOKEN the token of an agent that is READY.

declare const process: { env: Record<string, string> };
const { GRAPHQL_URL: url = "http://127.0.0.1:8000/graphql", TOKEN } = process.env;
const headers = { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" };
const CLAIM = "mutation { claimTask(input: {}) { message attempt { id task { title input } } } }";
const COMPLETE = `mutation($done: CompleteTaskInput!) {
  completeTask(input: $done) { userErrors { message } } }`;

async function send(query: string, variables: object = {}): Promise<any> {
  const body = JSON.stringify({ query, variables });
  const response = await fetch(url, { method: "POST", headers, body });
  const { data, errors } = await response.json();
  if (errors) throw new Error(errors[0].message);
  return data;
}

while (true) {
  const { message, attempt } = (await send(CLAIM)).claimTask;
  if (attempt) {
    const result = { title: attempt.task.title }; // put your own work here
    console.log(await send(COMPLETE, { done: { attemptId: attempt.id, result } }));
  } else {
    console.log(message);
    await new Promise((wake) => setTimeout(wake, 5000));
  }
}

export {};
