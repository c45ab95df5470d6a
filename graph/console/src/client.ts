/** The GraphQL client: a normalised cache, requests by POST, and subscriptions over one WebSocket. */

import { type CombinedError, Client, fetchExchange, mapExchange, subscriptionExchange } from "@urql/core";
import { cacheExchange } from "@urql/exchange-graphcache";
import { createClient as createSocket } from "graphql-ws";

import { send } from "../../plain/assets/token.js";
import { embedded, possibleTypes } from "./generated/schema";
import { markNumbers } from "./exact";
import { signOut } from "./session";
import { Store } from "./store";

const EXPIRED = "Your session has ended. Sign in again.";
const INVALID = "This token is not valid. Sign in again.";

/** Whether subscriptions arrive: `lost` while the connection is being opened again. */
export const connection = new Store<"idle" | "open" | "lost">("idle");

/** A client for one token, with an empty cache, and the function that closes its connection.
 *
 * A late answer to it ends no session but that of its own token.
 */
export function createClient(token: string): { client: Client; close: () => void } {
  let isAccepted = false;
  const refuse = () => signOut(token, isAccepted ? EXPIRED : INVALID);
  const socket = createSocket({
    url: `${location.origin.replace(/^http/, "ws")}/graphql`,
    webSocketImpl: ExactSocket,
    connectionParams: { Authorization: `Bearer ${token}` },
    lazyCloseTimeout: 2_000, // the next page subscribes soon after the last one ended
    retryAttempts: Infinity,
    shouldRetry: (event) => !(event instanceof CloseEvent && event.code === 4403),
    on: {
      connected: () => {
        isAccepted = true;
        connection.set("open");
      },
      closed: (event) => {
        const { code } = event as CloseEvent;
        if (code === 4403) refuse();
        else connection.set(code === 1000 ? "idle" : "lost");
      },
    },
  });
  const client = new Client({
    url: "/graphql",
    fetch: async (url, init) => {
      const response = await send(url, init);
      return new Response(markNumbers(await response.text()), response);
    },
    fetchOptions: token ? { headers: { Authorization: `Bearer ${token}` } } : {},
    preferGetMethod: false,
    exchanges: [
      mapExchange({
        onResult: ({ data, error }) => {
          if (error && isUnauthenticated(error)) refuse();
          else if (data) isAccepted = true;
        },
      }),
      cacheExchange({
        keys: Object.fromEntries(embedded.map((type) => [type, () => null])),
        possibleTypes,
      }),
      subscriptionExchange({
        forwardSubscription: ({ query, variables }) => ({
          subscribe: (sink) => ({
            unsubscribe: resumable(query ?? "", variables ?? {}, (payload, next) =>
              socket.subscribe(payload, {
                next: (result) => {
                  next(result);
                  sink.next(result as Parameters<typeof sink.next>[0]);
                },
                error: (error) => sink.error(error),
                complete: () => sink.complete(),
              }),
            ),
          }),
        }),
      }),
      fetchExchange,
    ],
  });
  return { client, close: () => void socket.dispose() };
}

/** A WebSocket whose messages have marked numbers, as answers by POST have. */
class ExactSocket extends WebSocket {
  override set onmessage(listen: ((event: MessageEvent) => void) | null) {
    super.onmessage = listen && (({ data }) => listen(new MessageEvent("message", { data: markNumbers(data) })));
  }
}

type Payload = { query: string; variables: Record<string, unknown> };

/** Starts a subscription whose `after` is always the cursor of its last message.
 *
 * graphql-ws sends the same payload again when it has connected again, so that nothing is missed.
 */
function resumable(
  query: string,
  variables: Record<string, unknown>,
  start: (payload: Payload, next: (result: { data?: Record<string, unknown> | null }) => void) => () => void,
): () => void {
  const payload = { query, variables: { ...variables } };
  return start(payload, ({ data }) => {
    for (const update of Object.values(data ?? {})) {
      const { cursor } = (update ?? {}) as { cursor?: string };
      if (cursor) payload.variables.after = cursor;
    }
  });
}

function isUnauthenticated(error: CombinedError): boolean {
  return error.graphQLErrors.some(({ extensions }) => extensions?.code === "UNAUTHENTICATED");
}
