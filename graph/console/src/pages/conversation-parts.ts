/** What the structured content of messages means, in the forms that the APIs of chat models use. */

import { markNumbers } from "../exact";

/** A call of a tool, or another part; `value` is all that is known of it. */
export type Part = { title: string; value: unknown };

type Fields = Record<string, unknown>;

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}

/** The parts of a message that its text does not contain. */
export function partsOf(parts: unknown): Part[] {
  const list = Array.isArray(parts) ? parts : parts === null || parts === undefined ? [] : [parts];
  return list.flatMap((part): Part[] => {
    if (!isFields(part)) return typeof part === "string" ? [] : [{ title: "Structured content", value: part }];
    if (part.type === "text") return []; // it is in the text
    // `{type: "function", function: {…}}`, `{type: "function_call", function_call: {…}}`, `{type: "tool_use", …}`
    const call = [part.function, part.function_call].find(isFields) ?? part;
    const name = text(call.name);
    const input = call.arguments ?? call.input;
    if (name && input !== undefined) return [{ title: `Calls ${name}`, value: parsed(input) }];
    return [{ title: text(part.type) ?? "Structured content", value: part }];
  });
}

/** Arguments are often JSON in a string. */
function parsed(value: unknown): unknown {
  if (typeof value !== "string") return value;
  try {
    return JSON.parse(markNumbers(value));
  } catch {
    return value;
  }
}

/** The name of the tool whose result a message is, if its metadata has it. */
export function toolOf(metadata: unknown): string | null {
  return isFields(metadata) ? (text(metadata.name) ?? text(metadata.tool_name)) : null;
}

/** The length of a summary that the server has cut (SUMMARY_LENGTH in db/conversations.py). */
const CUT = 50;

/** A summary, which ends in an ellipsis if it may be cut. */
export function withEllipsis(summary: string): string {
  return [...summary].length < CUT ? summary : `${summary}…`;
}
