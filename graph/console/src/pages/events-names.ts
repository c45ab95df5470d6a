import { useClient } from "@urql/preact";
import { useEffect, useState } from "preact/hooks";

import { EventNamesDocument, type EventNamesQuery } from "../generated/operations";

type Named = NonNullable<EventNamesQuery["nodes"][number]>;

/** How people call the objects with these ids, by id; each is read once. An event has only an id. */
export function useEventNames(ids: readonly string[]): ReadonlyMap<string, string> {
  const client = useClient();
  const [names, setNames] = useState<ReadonlyMap<string, string>>(new Map());
  const unknown = [...new Set(ids)].filter((id) => !names.has(id)).sort();
  useEffect(() => {
    if (unknown.length === 0) return;
    let isCurrent = true;
    void client
      .query(EventNamesDocument, { ids: unknown })
      .toPromise()
      .then(({ data }) => {
        if (!isCurrent || !data) return;
        const found = unknown.map((id, index) => [id, nameOf(data.nodes[index])] as const);
        setNames((names) => new Map([...names, ...found]));
      });
    return () => void (isCurrent = false);
  }, [client, unknown.join()]);
  return names;
}

/** The name of an object; empty if it has none, or is gone. */
function nameOf(node: Named | null | undefined): string {
  switch (node?.__typename) {
    case "Project":
    case "Agent":
    case "Tool":
      return node.name;
    case "Task":
    case "ApprovalRequest":
    case "ClarificationRequest":
    case "FeedbackRequest":
    case "Notification":
      return node.title;
    case "TaskAttempt":
      return `${node.number} at ${node.task.title}`;
    case "Conversation":
      return node.heading ?? node.summary;
    case "User":
      return node.username;
    default:
      return "";
  }
}
