/** graphql-ws, which connects and subscribes again by itself, with the variables of that moment. */

import { createClient } from "graphql-ws";
import WebSocket from "ws";
import { headers, url } from "../server.js";
import { next, query, retries, variables } from "./events.js";

const client = createClient({
  ...retries,
  url: url.replace("http", "ws"),
  webSocketImpl: WebSocket,
  connectionParams: headers,
});
client.subscribe({ query, variables }, { next: ({ data }) => next(data), error: console.error, complete() {} });
