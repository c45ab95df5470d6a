/** What a page reads, kept as it is now by subscriptions. */

import type { TypedDocumentNode } from "@graphql-typed-document-node/core";
import { type AnyVariables, useClient, useQuery } from "@urql/preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

type Document<Data, Variables> = TypedDocumentNode<Data, Variables>;

/** How long a page waits for its subscription before it reads without it, in milliseconds. */
const PATIENCE = 1_500;

/** Follows a subscription, which must select `cursor` and take `$after` (see client.ts).
 *
 * Calls `onMessage` with each message, the first one with the state included. Returns whether the
 * first message has come: what is read from then on is changed only by what later messages tell.
 */
export function useSubscription<Data, Variables extends AnyVariables>(
  document: Document<Data, Variables>,
  variables: Variables,
  onMessage: (data: Data) => void,
): boolean {
  const client = useClient();
  const [follows, setFollows] = useState("");
  const latest = useRef(onMessage);
  latest.current = onMessage;
  const key = JSON.stringify(variables);
  useEffect(() => {
    const timer = setTimeout(() => setFollows(key), PATIENCE);
    const { unsubscribe } = client.subscription(document, variables).subscribe(({ data }) => {
      setFollows(key);
      if (data) latest.current(data);
    });
    return () => {
      clearTimeout(timer);
      unsubscribe();
    };
  }, [client, document, key]);
  return follows === key;
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
  const isFollowing = useRef(false);
  const hasBegun = useRef(false);
  const latest = useRef<() => void>(() => {});
  const refresh = useThrottled(() => latest.current(), interval);
  const follows = useSubscription(changes, changesOf, (change) => {
    // The first message tells the state, which the query reads after it.
    if (isFollowing.current) {
      onChange?.(change);
      if (concerns?.(change) ?? true) refresh();
    } else if (hasBegun.current) {
      // The query did not wait for it any longer: a change may be between them.
      refresh();
    }
    isFollowing.current = true;
  });
  hasBegun.current = follows;
  const [result, execute] = useQuery<Data, Variables>({
    query,
    variables,
    pause: !follows,
    requestPolicy: "cache-and-network",
  } as Parameters<typeof useQuery<Data, Variables>>[0]);
  const read = useCallback(() => execute({ requestPolicy: "network-only" }), [execute]);
  latest.current = read;
  // Another page of the same list replaces this one when it is there.
  const last = useRef<Data | undefined>(undefined);
  last.current = result.data ?? last.current;
  return { ...result, data: last.current, read };
}

/** A function that runs at most once in each interval, the last call never left out. */
export function useThrottled(action: () => void, interval: number): () => void {
  const latest = useRef(action);
  latest.current = action;
  const state = useRef<{ timer?: ReturnType<typeof setTimeout> | undefined; last: number }>({ last: 0 });
  useEffect(() => () => clearTimeout(state.current.timer), []);
  return useCallback(() => {
    if (state.current.timer !== undefined) return;
    const wait = Math.max(0, state.current.last + interval - Date.now());
    state.current.timer = setTimeout(() => {
      state.current.timer = undefined;
      state.current.last = Date.now();
      latest.current();
    }, wait);
  }, [interval]);
}
