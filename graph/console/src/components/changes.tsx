import { exactText } from "../exact";
import type { EventAction } from "../generated/schema";
import { choiceInWords, inWords } from "./status";

/** Columns that change with others, and tell nothing by themselves. */
const SILENT = new Set(["version", "updated_at", "current_attempt_id", "started_at", "completed_at"]);

/** What an event changed, in words: `Status: pending → in progress`. */
export function Changes(props: {
  event: { action: EventAction; before?: unknown; after?: unknown };
  /** The names of objects by their bare ids, as events have them. */
  names: ReadonlyMap<string, string>;
}) {
  const { action, before, after } = props.event;
  if (action === "CREATED") return <p>Created</p>;
  if (action === "DELETED") return <p>Deleted</p>;
  const old = (before ?? {}) as Record<string, unknown>;
  const changed = Object.entries((after ?? {}) as Record<string, unknown>).filter(([name]) => !SILENT.has(name));
  if (changed.length === 0) return <p>Changed</p>;
  return (
    <ul class="diff">
      {changed.map(([name, value]) => (
        <li key={name}>
          {inWords(name.replace(/_id$/, ""))}: <del>{short(name, old[name], props.names)}</del> →{" "}
          <ins>{short(name, value, props.names)}</ins>
        </li>
      ))}
    </ul>
  );
}

const MOST = 80;

function short(column: string, value: unknown, names: ReadonlyMap<string, string>): string {
  if (value == null) return "none";
  if (typeof value === "string" && names.has(value)) return names.get(value) as string;
  const words = choiceInWords(column, value);
  if (words) return words;
  const text = typeof value === "string" ? value : exactText(value).replace(/\s+/g, " ");
  return text.length > MOST ? `${text.slice(0, MOST)} …` : text;
}
