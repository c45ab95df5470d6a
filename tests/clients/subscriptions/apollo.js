/** Apollo Client over graphql-ws: when a subscription ends in an error, it is begun again. */

import { ApolloClient, InMemoryCache, gql } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { createClient } from "graphql-ws";
import WebSocket from "ws";
import { headers, url } from "../server.js";
import { forever, next, query, variables } from "./events.js";

globalThis.WebSocket ??= WebSocket;
const socket = createClient({
  url: url.replace("http", "ws"),
  webSocketImpl: WebSocket,
  connectionParams: headers,
  retryAttempts: 0,
});
const client = new ApolloClient({ link: new GraphQLWsLink(socket), cache: new InMemoryCache() });

forever((again) =>
  client
    .subscribe({ query: gql(query), variables: { ...variables } })
    .subscribe({ next: ({ data, error }) => (error ? again() : next(data)), error: again }),
);
