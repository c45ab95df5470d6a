/** The GraphQL client: a normalised cache, requests by POST, and subscriptions over one WebSocket. */

import {
  Client,
  type CombinedError,
  type ExecutionResult,
  fetchExchange,
  mapExchange,
  subscriptionExchange,
} from "@urql/core";
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

/** How many subscriptions have ended or were refused, and are to be begun again. */
export const interrupted = new Store(0);

/** How long they wait, in milliseconds: at first, and at most. */
const WAIT = { first: 1_000, most: 30_000 };

/** The codes of errors that come again, however often a subscription is begun. */
const LASTING = ["BAD_REQUEST", "BAD_USER_INPUT", "FORBIDDEN", "UNAUTHENTICATED"];

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
            unsubscribe: resumable(query ?? "", variables ?? {}, sink, (payload, observer) =>
              socket.subscribe(payload, observer as Parameters<typeof socket.subscribe>[1]),
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
type Observer = { next: (result: ExecutionResult) => void; error: (error: unknown) => void; complete: () => void };

/** Starts a subscription whose `after` is always the cursor of its last message.
 *
 * graphql-ws sends the same payload again when it has connected again, so that nothing is missed. A
 * subscription that ends by an error, or with the connection if graphql-ws gives up, begins again too.
 */
function resumable(
  query: string,
  variables: Record<string, unknown>,
  sink: Observer,
  start: (payload: Payload, observer: Observer) => () => void,
): () => void {
  const payload = { query, variables: { ...variables } };
  let wait = WAIT.first;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isInterrupted = false;
  let stop = begin();

  function mark(is: boolean) {
    if (is !== isInterrupted) interrupted.set(interrupted.get() + (is ? 1 : -1));
    isInterrupted = is;
  }

  function accept() {
    wait = WAIT.first;
    mark(false);
  }

  function begin() {
    let hasEnded = false;
    const leave = start(payload, {
      next: (result) => {
        if (!result.data) return end(result.errors);
        accept();
        for (const update of Object.values(result.data)) {
          const { cursor } = (update ?? {}) as { cursor?: string };
          if (cursor) payload.variables.after = cursor;
        }
        sink.next(result);
      },
      error: end,
      complete: () => end([]),
    });
    // One that goes on after its last message is silent until something happens.
    timer = setTimeout(accept, WAIT.first);

    function end(errors: unknown) {
      if (hasEnded) return;
      hasEnded = true;
      leave();
      clearTimeout(timer);
      const isLast = isLasting(errors);
      mark(!isLast);
      if (isLast) return sink.error(errors);
      // Not all at the same time, if a server refused many.
      timer = setTimeout(() => (stop = begin()), wait * (0.5 + Math.random() / 2));
      wait = Math.min(2 * wait, WAIT.most);
    }

    return () => {
      hasEnded = true;
      leave();
    };
  }

  return () => {
    clearTimeout(timer);
    stop();
    mark(false);
  };
}

function isLasting(errors: unknown): boolean {
  return Array.isArray(errors) && errors.some(({ extensions }) => LASTING.includes(extensions?.code));
}

function isUnauthenticated(error: CombinedError): boolean {
  return error.graphQLErrors.some(({ extensions }) => extensions?.code === "UNAUTHENTICATED");
}
