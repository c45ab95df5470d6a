/** urql: over graphql-ws by its exchange for subscriptions, or by itself over event streams. */

import { Client, fetchExchange, subscriptionExchange } from "@urql/core";
import { createClient } from "graphql-ws";
import WebSocket from "ws";
import { headers, url } from "../server.js";
import { forever, next, query, variables } from "./events.js";

const fetchSubscriptions = process.argv[2] === "sse";
const socket = createClient({
  url: url.replace("http", "ws"),
  webSocketImpl: WebSocket,
  connectionParams: headers,
  retryAttempts: 0,
});
const forwardSubscription = ({ query, variables }) => ({
  subscribe: (sink) => ({ unsubscribe: socket.subscribe({ query, variables }, sink) }),
});
const client = new Client({
  url,
  fetchOptions: { headers },
  fetchSubscriptions,
  exchanges: [fetchExchange, subscriptionExchange({ forwardSubscription })],
});

forever((again) => {
  const { unsubscribe } = client
    .subscription(query, { ...variables })
    .subscribe(({ data, error, hasNext }) => {
      // At the end of an event stream it shows the last message once more.
      if (data && !error && hasNext) return next(data);
      unsubscribe();
      again();
    });
});
