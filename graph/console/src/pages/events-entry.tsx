import { Json } from "../components/json";
import { nameOf } from "../components/person";
import { type Look, Shape, inWords } from "../components/status";
import { exactText, markedNumber, visible } from "../exact";
import type { EventEntryFragment } from "../generated/operations";
import type { EventAction } from "../generated/schema";
import { Link, usePlace } from "../router";

const LOOKS: Record<EventAction, Look> = {
  CREATED: { tone: "good", shape: "ring" },
  UPDATED: { tone: "quiet", shape: "half" },
  DELETED: { tone: "bad", shape: "slash" },
};

const VERBS: Record<EventAction, string> = { CREATED: "created", UPDATED: "changed", DELETED: "deleted" };

/** Where the objects of a type are shown. */
const PLACES: Record<string, (id: string) => LinkTo> = {
  Project: (id) => ({ to: "/projects/:id", params: { id } }),
  Task: (id) => ({ to: "/tasks/:id", params: { id } }),
  Conversation: (id) => ({ to: "/conversations/:id", params: { id } }),
  HumanInteraction: (id) => ({ to: "/inbox", query: { of: id } }),
};

type LinkTo = { to: string; params?: Record<string, string>; query?: Record<string, string> };

/** Types that people call otherwise. */
const WORDS: Record<string, string> = {
  HumanInteraction: "Request",
  InteractionAnswer: "Answer to a request",
  TaskAttempt: "Attempt",
};

/** How many changed values an entry shows before it is opened, and how long they are. */
const MOST_VALUES = 4;
const LONGEST = 60;

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

/** The name of a type in words: `TaskAttempt` is `Task attempt`. */
export function typeInWords(type: string): string {
  const known = WORDS[type];
  if (known) return known;
  const words = type.split(/(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])/);
  return words
    .map((word, index) => (index === 0 || word === word.toUpperCase() ? word : word.toLowerCase()))
    .join(" ");
}

/** An event of the log: when, who, what, and the values before and after. */
export function Entry({ event, name }: { event: EventEntryFragment; name?: string | undefined }) {
  const { action, entityId, entityType, createdAt, project } = event;
  const { path, query } = usePlace();
  const place = action === "DELETED" ? undefined : PLACES[entityType]?.(entityId);
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
          {place ? (
            <Link {...place}>{title || "without a name"}</Link>
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
  if (user) return nameOf(user);
  return agent?.name ?? (actorType === "AGENT" ? "An agent" : "A person");
}

type Values = Record<string, unknown>;

/** The name in the values of an event; empty if there is none. */
export function nameIn(event: EventEntryFragment): string {
  const values = { ...(event.before as Values | null), ...(event.after as Values | null) };
  const found = values.title ?? values.name ?? values.summary ?? values.model_name ?? values.content;
  return typeof found === "string" ? shortened(found) : "";
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

const MOMENT = /^\d{4}-\d\d-\d\dT[\d:.]+\+00:00$/;
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

function textOf(value: unknown): string {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "string") return exactText(value);
  if (MOMENT.test(value)) return moment.format(new Date(value));
  return markedNumber(value) ?? visible(value);
}

function isLong(value: unknown): boolean {
  return textOf(value).length > LONGEST;
}

function shortened(text: string): string {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)} …` : text;
}

function Value({ value }: { value: unknown }) {
  return <span class="value">{shortened(textOf(value))}</span>;
}
