/**
 * The official SDK, of the version before and of this one. An agent that has nothing but the address
 * and a token works through its day: what each call needs is in the answers of the calls before.
 */

import * as stateless from "@modelcontextprotocol/client";
import { createTaskSessionFromClient } from "@modelcontextprotocol/ext-tasks/client";
import * as sessions from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { headers, report, url } from "./server.js";

const address = new URL(`${process.env.TROUPE_URL}/mcp`);
const info = { name: "test", version: "1" };
const modern = { versionNegotiation: { mode: "auto" } };
const options = (more) => ({ requestInit: { headers: { ...headers, ...more } } });

/** What a person does, without MCP. */
async function person(query, variables) {
  const response = await fetch(url, {
    method: "POST",
    headers: { authorization: `Bearer ${process.env.TROUPE_PERSON}`, "content-type": "application/json" },
    body: JSON.stringify({ query, variables }),
  });
  return (await response.json()).data;
}

/** Answer a question, after a moment in which the agent waits. */
async function answer(id, text) {
  await new Promise((resolve) => setTimeout(resolve, 500));
  const { humanInteraction } = await person(
    "query Asked($id: ID!) { humanInteraction(id: $id) { contentHash } }",
    { id },
  );
  await person(
    `mutation Answer($id: ID!, $hash: String!, $answer: String!) {
      answerClarification(input: {id: $id, contentHash: $hash, answer: $answer}) { userErrors { message } }
    }`,
    { id, hash: humanInteraction.contentHash, answer: text },
  );
}

/** The calls of tools of a client; a result is refused with its sentences. */
const calls = (client) => async (name, args = {}) => {
  const { isError, content, structuredContent } = await client.callTool({ name, arguments: args });
  if (isError) throw new Error(content.map(({ text }) => text).join("\n"));
  return structuredContent;
};

/** What an agent sees of a server through a client. */
async function work(client, transport) {
  await client.connect(transport);
  const { tools } = await client.listTools();
  const use = calls(client);
  const ready = await use("find_ready_work");
  const { attempt } = await use("claim", { leaseSeconds: 100 });
  const attemptId = attempt.id;
  const { attempts: [beat] } = await use("heartbeat", { attemptId, progressPercent: 50, statusMessage: "Digging" });

  const { agents: [zoe] } = await use("search", { query: "zoe" });
  const sent = await use("send", { toAgentId: zoe.id, type: "REQUEST", content: { dig: true } });
  await person(
    `mutation Reply($from: ID!, $to: ID!, $reply: ID!) {
      sendCommunication(input: {
        fromAgentId: $from, toAgentId: $to, replyToId: $reply, type: "RESULT", content: "Done"
      }) { userErrors { message } }
    }`,
    { from: zoe.id, to: (await person("{ agents(where: {name: {eq: \"Ada\"}}) { nodes { id } } }")).agents.nodes[0].id, reply: sent.communication.id },
  );
  const { communications: [message] } = await use("receive");
  const rest = await use("receive", { acknowledgeIds: [message.id] });

  const question = { kind: "CLARIFICATION", title: "Where?", content: "Where do I dig?", attemptId };
  const { interaction } = await use("ask_person", question);
  const waiting = use("wait_for_answer", { id: interaction.id });
  await answer(interaction.id, "There.");
  const answered = await waiting;

  const usage = { modelName: "gpt-x", inputTokens: 30, outputTokens: 5, cost: "0.10", attemptId, requestId: attemptId };
  const { usageRecords: [recorded] } = await use("record_usage", usage);
  const { usageRecords: [repeated] } = await use("record_usage", usage);
  const ended = await use("complete", { attemptId, result: { by: "SDK" }, idempotencyKey: attemptId });

  const given = await use("claim");
  await use("release", { attemptId: given.attempt.id, handover: "Dig on.", checkpoint: { dug: 1 } });
  const taken = await use("claim");
  const failed = await use("fail", { attemptId: taken.attempt.id, error: "Rock.", retryable: false });

  const refused = await client.callTool({ name: "heartbeat", arguments: { attemptId: "x", progressPercent: 101 } });
  const missing = await client.callTool({ name: "complete", arguments: {} });
  await client.close();
  return {
    version: client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion,
    tools: tools.map(({ name }) => name),
    isReady: ready.nodes.some(({ id }) => id === attempt.task.id),
    title: attempt.task.title,
    beat: [beat.status, beat.leaseLost],
    message: [message.content, message.fromAgent.name, message.replyTo.id === sent.communication.id],
    rest: rest.communications,
    answer: [answered.status, answered.answer],
    usage: [recorded.cost, repeated.id === recorded.id],
    completed: ended.attempt.task.status,
    handover: taken.attempt.task.attempts[0].handover,
    checkpoint: taken.attempt.task.checkpoint,
    failed: failed.attempt.task.status,
    refused: [refused, missing].map(({ isError, content }) => [isError, content.map(({ text }) => text)]),
  };
}

/** What a client of the extension for tasks sees while it waits for the answer of a person. */
async function wait() {
  const protocolVersion = "2026-07-28";
  const client = new stateless.Client(info, modern);
  await client.connect(new stateless.StreamableHTTPClientTransport(address, options()));
  const rawDispatch = async (request) => {
    const { method, params } = request;
    const named = params.taskId ?? params.name;
    const response = await fetch(address, {
      method: "POST",
      headers: {
        ...headers,
        accept: "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-method": method,
        "mcp-name": named,
        "mcp-protocol-version": protocolVersion,
      },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, ...request }),
    });
    const { result, error } = await response.json();
    return error ? { kind: "error", error } : { kind: "result", result };
  };
  const session = createTaskSessionFromClient(client, {
    endpointId: "troupe",
    rawDispatch,
    v2RequestFraming: { protocolVersion, clientInfo: info, clientCapabilities: {} },
  });
  const call = async (name, args, onEvent) => {
    const { outcome } = await (await session.callTool(name, args)).settle({ onEvent });
    return outcome.result.structuredContent;
  };
  const question = { kind: "CLARIFICATION", title: "When?", content: "When do I dig?" };
  const { interaction } = await call("ask_person", question);
  const events = [];
  const waiting = call("wait_for_answer", { id: interaction.id }, ({ type }) => events.push(type));
  await answer(interaction.id, "Now.");
  const answered = await waiting;
  await session.close();
  await client.close();
  return { events, answer: answered.answer };
}

/** How a client fails whose token is not valid. */
async function fail(client, transport) {
  try {
    await client.connect(transport);
  } catch (error) {
    return error.constructor.name;
  }
}

report([
  await work(
    new stateless.Client(info, modern),
    new stateless.StreamableHTTPClientTransport(address, options()),
  ),
  await work(new sessions.Client(info), new StreamableHTTPClientTransport(address, options())),
  await wait(),
  await fail(
    new stateless.Client(info, modern),
    new stateless.StreamableHTTPClientTransport(address, options({ authorization: "Bearer troupe_wrong" })),
  ),
]);
