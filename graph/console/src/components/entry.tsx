import type { EventEntryFragment } from "../generated/operations";
import type { EventAction } from "../generated/schema";
import { Link, usePlace } from "../router";
import { Json } from "./json";
import { type Look, Shape, inWords } from "./status";

const LOOKS: Record<EventAction, Look> = {
  CREATED: { tone: "good", shape: "ring" },
  UPDATED: { tone: "quiet", shape: "half" },
  DELETED: { tone: "bad", shape: "slash" },
};

const VERBS: Record<EventAction, string> = { CREATED: "created", UPDATED: "changed", DELETED: "deleted" };

/** The pages of objects. */
const PAGES: Record<string, string> = {
  Project: "/projects/:id",
  Task: "/tasks/:id",
  Conversation: "/conversations/:id",
};

/** How many changed values an entry shows before it is opened, and how long they are. */
const MOST_VALUES = 4;
const LONGEST = 60;

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

/** The name of a type in words: `TaskAttempt` is `Task attempt`. */
export function typeInWords(type: string): string {
  const words = type.split(/(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])/);
  return words
    .map((word, index) => (index === 0 || word === word.toUpperCase() ? word : word.toLowerCase()))
    .join(" ");
}

/** An event of the log: when, who, what, and the values before and after. */
export function Entry({ event, name }: { event: EventEntryFragment; name?: string | undefined }) {
  const { action, entityId, entityType, createdAt, project } = event;
  const { path, query } = usePlace();
  const page = action === "DELETED" ? undefined : PAGES[entityType];
  const title = name || nameIn(event);
  const narrowed = { ...Object.fromEntries(query), after: null, before: null };
  return (
    <li>
      <time dateTime={createdAt}>{clock.format(new Date(createdAt))}</time>
      <Shape look={LOOKS[action]} />
      <div>
        <p>
          {event.actorId ? (
            <Link to={path} query={{ ...narrowed, actor: event.actorId }}>
              {actorOf(event)}
            </Link>
          ) : (
            "The server"
          )}{" "}
          {VERBS[action]} {typeInWords(entityType).replace(/^[A-Z](?=[a-z])/, (first) => first.toLowerCase())}{" "}
          {page ? (
            <Link to={page} params={{ id: entityId }}>
              {title || "without a name"}
            </Link>
          ) : (
            <strong>{title}</strong>
          )}
          {project && project.id !== entityId && <span class="note"> in {project.name}</span>}
        </p>
        <Changes event={event} />
      </div>
      <Link class="narrow" to={path} query={{ ...narrowed, object: entityId }}>
        History<span class="unseen"> of {title || typeInWords(entityType)}</span>
      </Link>
    </li>
  );
}

function actorOf({ actorType, user, agent }: EventEntryFragment): string {
  const found = user?.displayName || user?.username || agent?.name;
  return found ?? (actorType === "AGENT" ? "An agent" : "A person");
}

type Values = Record<string, unknown>;

/** The name in the values of an event, for what is gone or has no name of its own. */
function nameIn(event: EventEntryFragment): string {
  const values = { ...(event.before as Values | null), ...(event.after as Values | null) };
  const found = values.title ?? values.name ?? values.summary ?? values.model_name ?? values.type;
  return typeof found === "string" ? found : "";
}

function Changes({ event }: { event: EventEntryFragment }) {
  const before = (event.before ?? {}) as Values;
  const after = (event.after ?? {}) as Values;
  if (event.action !== "UPDATED") {
    return (
      <details>
        <summary>Values</summary>
        <Json value={event.action === "DELETED" ? before : after} />
      </details>
    );
  }
  const columns = Object.keys({ ...before, ...after });
  const shown = columns.slice(0, MOST_VALUES).map((column) => (
    <li key={column}>
      <span class="note">{inWords(column)}:</span> <Value value={before[column]} /> →{" "}
      <Value value={after[column]} />
    </li>
  ));
  const isCut = columns.length > MOST_VALUES || columns.some((column) => isLong(before[column]) || isLong(after[column]));
  return (
    <>
      <ul class="changes">{shown}</ul>
      {isCut && (
        <details>
          <summary>All values</summary>
          <Json value={{ before, after }} />
        </details>
      )}
    </>
  );
}

function textOf(value: unknown): string {
  if (value === null || value === undefined) return "–";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function isLong(value: unknown): boolean {
  return textOf(value).length > LONGEST;
}

function Value({ value }: { value: unknown }) {
  const text = textOf(value);
  return <span class="value">{isLong(value) ? `${text.slice(0, LONGEST)} …` : text}</span>;
}
