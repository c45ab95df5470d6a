/** The global ids of the API, and the bare ids in the columns of events. */

/** The bare id in a global id. */
export function bareId(id: string): string {
  return atob(id).replace(/^\w+:/, "");
}

/** The global id of an object of a type. */
export function globalId(type: string, id: string): string {
  return btoa(`${type}:${id}`);
}

/** The types that the names of columns with ids end in, where the name is not that of the type itself. */
const TYPES: Record<string, string> = {
  assignee: "User",
  attempt: "TaskAttempt",
  dependency: "Task",
  dependent: "Task",
  interaction: "HumanInteraction",
  owner: "User",
  responded_by: "User",
};

const PLAIN = ["Project", "Task", "Agent", "User", "Conversation", "Tool"];

/** The global id that a column of an event has; null if it has none, or one of what has no name. */
export function idInColumn(column: string, value: unknown): string | null {
  if (typeof value !== "string" || !column.endsWith("_id")) return null;
  const words = column.replace(/_id$/, "");
  const last = words.split("_").at(-1) ?? "";
  const type = TYPES[words] ?? TYPES[last] ?? PLAIN.find((name) => name.toLowerCase() === last);
  return type ? globalId(type, value) : null;
}
