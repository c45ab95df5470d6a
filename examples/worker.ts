/** A worker: it claims tasks, works on them and asks people, and can be killed at any time. */
// It needs @urql/core, and in TOKEN the token of an agent that is READY.

import { Client, fetchExchange } from "@urql/core";
declare const process: { env: Record<string, string>; exit(status: number): never };
const { GRAPHQL_URL: url = "http://127.0.0.1:8000/graphql", TOKEN } = process.env;
const LEASE = Number(process.env.LEASE_SECONDS ?? "60");
const CLAIMED = `attempt { id task { title input checkpoint
  approvals: interactions(last: 1, where: {status: {in: [APPROVED, REJECTED]}}) {
    nodes { ... on ApprovalRequest { approved comment } } } } }`;
const SIGNALS = "attempts { leaseLost cancelRequested pauseRequested }";
const FINAL = ["BAD_USER_INPUT", "FORBIDDEN", "UNAUTHENTICATED"];

type Checkpoint = { done: number };
type Task = {
  title: string;
  input: { steps?: number; secondsPerStep?: number; question?: string } | null;
  checkpoint: Checkpoint | null;
  approvals: { nodes: { approved: boolean; comment: string | null }[] };
};
/** The server did not do it, or wants the work to stop. */
class Refused extends Error {}
/** The work cannot go on until a person has approved something. */
class ApprovalNeeded extends Error {}
/** A person has rejected it. */
class Rejected extends Error {}
const client = new Client({
  url,
  exchanges: [fetchExchange],
  fetchOptions: { headers: { Authorization: `Bearer ${TOKEN}` } },
});
const sleep = (seconds: number) => new Promise((wake) => setTimeout(wake, 1000 * seconds));

/** Send a mutation, and again for a minute if the server cannot answer now. */
async function send(name: string, input: object, shown = ""): Promise<any> {
  const kind = `${name[0]!.toUpperCase()}${name.slice(1)}Input!`;
  const document = `mutation($input: ${kind}) {
    ${name}(input: $input) { ${shown} userErrors { message } } }`;
  for (let seconds = 1; ; seconds *= 2) {
    const { data, error } = await client.mutation(document, { input });
    if (data?.[name]) {
      if (data[name].userErrors.length) throw new Refused(data[name].userErrors[0].message);
      return data[name];
    }
    const codes = error?.graphQLErrors.map(({ extensions }) => extensions["code"] as string) ?? [];
    if (seconds > 32 || codes.some((code) => FINAL.includes(code))) throw error;
    console.log(`${name} at ${url}: ${error?.message}; again in ${seconds} s`);
    await sleep(seconds);
  }
}

/** Work on a task, and end the attempt as the work ends. */
async function run({ id: attemptId, task }: { id: string; task: Task }) {
  const stop = new AbortController();
  let checkpoint = task.checkpoint ?? { done: 0 };
  /** Keep the task, and store how far the work is. */
  const beat = async (reached = checkpoint) => {
    checkpoint = reached;
    const beats = { attempts: [{ attemptId, checkpoint }], leaseSeconds: LEASE };
    const told = await send("heartbeat", beats, SIGNALS);
    if (Object.values(told.attempts[0]).includes(true)) throw new Refused(`${task.title}: stopped`);
  };
  const timer = setInterval(() => beat().catch((error) => stop.abort(error)), (1000 * LEASE) / 3);
  try {
    const result = await work(task, checkpoint, beat, stop.signal);
    await send("completeTask", { attemptId, result });
  } catch (error) {
    if (error instanceof ApprovalNeeded) { // parks the task; this worker is free for others
      const ask = { attemptId, checkpoint, title: error.message, content: checkpoint };
      await send("requestApproval", { ...ask, blockTask: true, idempotencyKey: crypto.randomUUID() });
    } else if (error instanceof Refused) {
      await send("releaseTask", { attemptId, checkpoint });
    } else {
      console.log(`${task.title}: ${error}`);
      const retryable = !(error instanceof Rejected);
      await send("failTask", { attemptId, checkpoint, error: String(error), retryable });
    }
  } finally {
    clearInterval(timer);
  }
}

/** Put your own work here. This sample does steps, and asks a person before the last one. */
async function work(
  { title, input, approvals }: Task,
  checkpoint: Checkpoint,
  save: (checkpoint: Checkpoint) => Promise<void>,
  signal: AbortSignal,
): Promise<unknown> {
  const { steps = 1, secondsPerStep = 1, question } = input ?? {};
  if (!Number.isInteger(steps)) throw new TypeError("The number of steps is no integer");
  const [approval] = approvals.nodes;
  for (let done = checkpoint.done + 1; done <= steps; done++) {
    if (done === steps && question) {
      if (!approval) throw new ApprovalNeeded(question);
      if (!approval.approved) throw new Rejected(approval.comment ?? "");
    }
    await sleep(secondsPerStep);
    signal.throwIfAborted();
    await save({ done });
    console.log(`${title}: step ${done} of ${steps}`);
  }
  return { done: steps };
}

/** Claim a task and work on it, and then the next one. */
async function next() {
  try {
    const claim = { leaseSeconds: LEASE, idempotencyKey: crypto.randomUUID() };
    const { attempt } = await send("claimTask", claim, CLAIMED);
    await (attempt ? run(attempt) : sleep(1));
  } catch (error) {
    console.log((error as Error).message);
    if (!(error instanceof Refused)) process.exit(1);
    await sleep(1);
  }
  setTimeout(next);
}

next();
