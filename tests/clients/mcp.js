/** The official SDK, of the version before and of this one: an agent works on a task. */

import * as stateless from "@modelcontextprotocol/client";
import * as sessions from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { headers, report } from "./server.js";

const address = new URL(`${process.env.TROUPE_URL}/mcp`);
const info = { name: "test", version: "1" };

/** What an agent sees of a server through a client. */
async function work(client, transport) {
  await client.connect(transport);
  const { tools } = await client.listTools();
  const use = async (name, args = {}) => (await client.callTool({ name, arguments: args })).structuredContent;
  const { attempt } = await use("claim");
  await use("heartbeat", { attemptId: attempt.id, progressPercent: 50 });
  const ended = await use("complete", { attemptId: attempt.id, result: { by: "SDK" } });
  const refused = await client.callTool({ name: "complete", arguments: { attemptId: "x" } });
  await client.close();
  return {
    tools: tools.map(({ name }) => name),
    title: attempt.task.title,
    status: ended.attempt.task.status,
    refused: [refused.isError, refused.content[0].text],
    version: client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion,
  };
}

/** How a client fails whose token is not valid. */
async function fail(client, transport) {
  try {
    await client.connect(transport);
  } catch (error) {
    return error.constructor.name;
  }
}

const options = (authorization) => ({ requestInit: { headers: { ...headers, ...authorization } } });
const wrong = options({ authorization: "Bearer troupe_wrong" });
report([
  await work(
    new stateless.Client(info, { versionNegotiation: { mode: "auto" } }),
    new stateless.StreamableHTTPClientTransport(address, options()),
  ),
  await work(new sessions.Client(info), new StreamableHTTPClientTransport(address, options())),
  await fail(
    new stateless.Client(info, { versionNegotiation: { mode: "auto" } }),
    new stateless.StreamableHTTPClientTransport(address, wrong),
  ),
]);
