/** The messages of a conversation that a page shows: a range of them, extended at both ends. */

import { useClient, useQuery } from "@urql/preact";
import { useCallback, useState } from "preact/hooks";

import {
  ConversationDocument,
  MessageAddedDocument,
  MoreMessagesDocument,
  type ShownMessageFragment,
} from "../generated/operations";
import { useSubscription } from "../live";

const SIZE = 30;

/** How many messages after the one that was asked for are shown with it. */
const CONTEXT = 10;

/** A `sequence` that no message has: the largest that the API takes. */
const END = 2 ** 31 - 1;

/** What came after the first page. */
type More = {
  /** Of further pages. */
  read: readonly ShownMessageFragment[];
  /** Of the subscription. */
  told: readonly ShownMessageFragment[];
  /** The cursors from which further pages are read: null at an end, absent before the first. */
  older?: string | null;
  newer?: string | null;
};

const NOTHING: More = { read: [], told: [] };

/** Reads a conversation: its newest messages, or those around the one with the sequence `around`.
 *
 * New messages arrive by `messageAdded`, each with its content, so that nothing is read again.
 */
export function useMessages(id: string, around: number | null) {
  const client = useClient();
  const [more, setMore] = useState(NOTHING);
  const [isReading, setReading] = useState(false);
  const isReadable = useSubscription(MessageAddedDocument, { id }, ({ messageAdded: { message } }) => {
    if (message) {
      setMore((more) => ({ ...more, told: [...more.told, message] }));
    } else {
      // After a gap, or what was read before the subscription began, messages may be missing.
      setMore(NOTHING);
      read();
    }
  });
  const [{ data, error }, execute] = useQuery({
    query: ConversationDocument,
    variables: { id, size: SIZE, to: around === null ? END : around + CONTEXT },
    pause: !isReadable,
    requestPolicy: "network-only",
  });
  const read = useCallback(() => execute({ requestPolicy: "network-only" }), [execute]);

  const first = data?.conversation?.messages;
  const start = first?.pageInfo.hasPreviousPage ? first.pageInfo.startCursor : null;
  const end = data?.conversation?.newer.nodes.length ? first?.pageInfo.endCursor : null;
  const { older = start, newer = end } = more;

  async function extend(variables: { last: number; before: string } | { first: number; after: string }) {
    setReading(true);
    const { data } = await client.query(MoreMessagesDocument, { id, ...variables }, { requestPolicy: "network-only" });
    setReading(false);
    const page = data?.conversation?.messages;
    if (!page) return;
    const { hasPreviousPage, hasNextPage, startCursor, endCursor } = page.pageInfo;
    const next =
      "before" in variables
        ? { older: hasPreviousPage ? (startCursor ?? null) : null }
        : { newer: hasNextPage ? (endCursor ?? null) : null };
    setMore((more) => ({ ...more, read: [...more.read, ...page.nodes], ...next }));
  }

  return {
    data,
    error,
    read,
    isReading,
    messages: inOrder([...(first?.nodes ?? []), ...more.read], more.told, !newer),
    readOlder: older ? () => extend({ last: SIZE, before: older }) : null,
    readNewer: newer ? () => extend({ first: SIZE, after: newer }) : null,
  };
}

/** The messages that were read; after them the new ones, if none is missing between. */
function inOrder(
  read: readonly ShownMessageFragment[],
  told: readonly ShownMessageFragment[],
  isAtEnd: boolean,
): ShownMessageFragment[] {
  const byId = new Map([...(isAtEnd ? told : []), ...read].map((message) => [message.id, message]));
  return [...byId.values()].sort((one, other) => one.sequence - other.sequence);
}
