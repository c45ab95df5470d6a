/** What the objects of events are called, and where they are shown. An event has only ids. */

import { useClient } from "@urql/preact";
import { useEffect, useState } from "preact/hooks";

import { nameOf as nameOfUser } from "../components/person";
import { EventNamesDocument, type EventNamesQuery } from "../generated/operations";
import type { LinkTo } from "../router";
import { withEllipsis } from "./conversation-parts";

/** The name of an object, empty if it has none or is gone; and its page, if there is one. */
export type Named = { name: string; place: LinkTo | null };

export type Names = ReadonlyMap<string, Named>;

/** The most ids that the API takes at once. */
const MOST = 100;

/** The page of an object of a type. */
export function placeOf(type: string, id: string): LinkTo | null {
  switch (type) {
    case "Project":
      return { to: "/projects/:id", params: { id } };
    case "Task":
      return { to: "/tasks/:id", params: { id } };
    case "Conversation":
      return { to: "/conversations/:id", params: { id } };
    case "Agent":
      return { to: "/agents", query: { agent: id } };
    case "HumanInteraction":
      return { to: "/inbox", query: { of: id } };
    default:
      return null;
  }
}

/** The objects with these ids; each is read once. */
export function useEventNames(ids: readonly string[]): Names {
  const client = useClient();
  const [names, setNames] = useState<Names>(new Map());
  const unknown = [...new Set(ids)].filter((id) => !names.has(id)).sort();
  useEffect(() => {
    let isCurrent = true;
    async function read(ids: string[]) {
      const { data } = await client.query(EventNamesDocument, { ids }).toPromise();
      if (!isCurrent || !data) return;
      const found = ids.map((id, index) => [id, named(data.nodes[index])] as const);
      setNames((names) => new Map([...names, ...found]));
    }
    for (let at = 0; at < unknown.length; at += MOST) void read(unknown.slice(at, at + MOST));
    return () => void (isCurrent = false);
  }, [client, unknown.join()]);
  return names;
}

function named(node: EventNamesQuery["nodes"][number] | undefined): Named {
  switch (node?.__typename) {
    case "Project":
    case "Agent":
    case "Tool":
      return { name: node.name, place: placeOf(node.__typename, node.id) };
    case "Task":
      return { name: node.title, place: placeOf("Task", node.id) };
    case "ApprovalRequest":
    case "ClarificationRequest":
    case "FeedbackRequest":
    case "Notification":
      return { name: node.title, place: placeOf("HumanInteraction", node.id) };
    case "TaskAttempt":
      return { name: `${node.number} at ${node.task.title}`, place: placeOf("Task", node.task.id) };
    case "Conversation":
      return { name: node.heading ?? withEllipsis(node.summary), place: placeOf("Conversation", node.id) };
    case "User":
      return { name: nameOfUser(node), place: null };
    default:
      return { name: "", place: null };
  }
}
