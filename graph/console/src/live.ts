/** What a page reads, kept as it is now by subscriptions. */

import type { TypedDocumentNode } from "@graphql-typed-document-node/core";
import { type AnyVariables, type Client, createRequest, useClient, useQuery } from "@urql/preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

type Document<Data, Variables> = TypedDocumentNode<Data, Variables>;

/** How long a page waits for its subscription before it reads without it, in milliseconds. */
const PATIENCE = 1_500;

/** What has come of a subscription: `early` if what it is about is read before its first message. */
type State = "waiting" | "early" | "live";

/** Follows a subscription, which must select `cursor` and take `$after` (see client.ts).
 *
 * Returns whether to read what it is about: after its first message, or when that takes too long.
 * Calls `onMessage` with each message after the first one, which tells the state as it is then. If
 * that has been read before, changes may be missing between, and `onMessage` gets the first one too:
 * a message without an event, like one after a gap.
 */
export function useSubscription<Data, Variables extends AnyVariables>(
  document: Document<Data, Variables>,
  variables: Variables,
  onMessage: (data: Data) => void,
): boolean {
  const client = useClient();
  const [readable, setReadable] = useState("");
  const latest = useRef(onMessage);
  latest.current = onMessage;
  const key = JSON.stringify(variables);
  useEffect(() => {
    let state: State = "waiting";
    const become = (next: State) => {
      state = next;
      setReadable(key);
    };
    const shared = sharedBy(client, createRequest(document, variables).key);
    shared.followers += 1;
    if (shared.hasBegun) become("live");
    const timer = setTimeout(() => state === "waiting" && become("early"), PATIENCE);
    const { unsubscribe } = client.subscription(document, variables).subscribe(({ data }) => {
      if (!data) return;
      const before = state;
      shared.hasBegun = true;
      become("live");
      if (before !== "waiting") latest.current(data);
    });
    return () => {
      clearTimeout(timer);
      unsubscribe();
      shared.followers -= 1;
      setReadable("");
    };
  }, [client, document, key]);
  return readable === key;
}

type Shared = { followers: number; hasBegun: boolean };

const shares = new WeakMap<Client, Map<number, Shared>>();

/** What is known of a subscription that urql shares between its followers: only the first of them gets
 * its first message.
 */
function sharedBy(client: Client, key: number): Shared {
  const known = shares.get(client) ?? new Map<number, Shared>();
  shares.set(client, known);
  const found = known.get(key);
  if (found && found.followers > 0) return found;
  const shared = { followers: 0, hasBegun: false };
  known.set(key, shared);
  return shared;
}

/** Reads a query, and reads it again when one of the messages of a subscription tells of a change.
 *
 * The query waits for the first message of the subscription, so that no change is between them.
 * Many changes at once are read once: at most every `interval` milliseconds.
 */
export function useLiveQuery<Data, Variables extends AnyVariables, Change, ChangeVariables extends AnyVariables>(
  args: {
    query: Document<Data, Variables>;
    variables: Variables;
    changes: Document<Change, ChangeVariables>;
    changesOf: ChangeVariables;
    interval?: number;
    /** Whether a message is about what is shown; all are by default. */
    concerns?: (change: Change) => boolean;
    /** Is called with each message that tells of a change, whether it concerns the query or not. */
    onChange?: (change: Change) => void;
  },
) {
  const { query, variables, changes, changesOf, interval = 1_000, concerns, onChange } = args;
  const isReadable = useSubscription(changes, changesOf, (change) => {
    onChange?.(change);
    if (concerns?.(change) ?? true) refresh();
  });
  const [result, execute] = useQuery<Data, Variables>({
    query,
    variables,
    pause: !isReadable,
    requestPolicy: "cache-and-network",
  } as Parameters<typeof useQuery<Data, Variables>>[0]);
  const read = useCallback(() => execute({ requestPolicy: "network-only" }), [execute]);
  const refresh = useThrottled(read, interval, result.fetching || result.stale);
  // Another page of the same list replaces this one when it is there.
  const last = useRef<Data | undefined>(undefined);
  last.current = result.data ?? last.current;
  return { ...result, data: last.current, read };
}

/** A function that runs an action at most once in each interval, the last call never left out.
 *
 * While the action `isRunning` it is not begun again, which would end it: it runs once more afterwards.
 */
export function useThrottled(action: () => void, interval: number, isRunning = false): () => void {
  const latest = useRef({ action, isRunning });
  latest.current = { action, isRunning };
  const state = useRef<{ timer?: ReturnType<typeof setTimeout> | undefined; last: number; isDue: boolean }>({
    last: 0,
    isDue: false,
  });
  useEffect(() => () => clearTimeout(state.current.timer), []);
  const run = useCallback(() => {
    if (state.current.timer !== undefined) return;
    const wait = Math.max(0, state.current.last + interval - Date.now());
    state.current.timer = setTimeout(() => {
      state.current.timer = undefined;
      state.current.isDue = latest.current.isRunning;
      if (state.current.isDue) return;
      state.current.last = Date.now();
      latest.current.action();
    }, wait);
  }, [interval]);
  useEffect(() => {
    if (!isRunning && state.current.isDue) run();
  }, [isRunning, run]);
  return run;
}
