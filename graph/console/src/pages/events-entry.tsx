import { Json } from "../components/json";
import { nameOf } from "../components/person";
import { type Look, Shape, choiceInWords, inWords } from "../components/status";
import { exactText, markedNumber, visible } from "../exact";
import type { EventEntryFragment } from "../generated/operations";
import type { EventAction } from "../generated/schema";
import { idInColumn } from "../ids";
import { Link, usePlace } from "../router";
import { type Named, type Names, placeOf } from "./events-names";

const LOOKS: Record<EventAction, Look> = {
  CREATED: { tone: "good", shape: "ring" },
  UPDATED: { tone: "quiet", shape: "half" },
  DELETED: { tone: "bad", shape: "slash" },
};

const VERBS: Record<EventAction, string> = { CREATED: "created", UPDATED: "changed", DELETED: "deleted" };

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

/** The ids of the objects that must be named so that an event can be read. */
export function idsIn(event: EventEntryFragment): string[] {
  return [...(nameIn(event) ? [] : [event.entityId]), ...shownColumns(event).flatMap((column) => idsOf(event, column))];
}

/** An event of the log: when, who, what, and the values before and after. */
export function Entry({ event, names }: { event: EventEntryFragment; names: Names }) {
  const { action, entityId, entityType, createdAt, project } = event;
  const { path, query } = usePlace();
  const known = names.get(entityId);
  const place = action === "DELETED" ? null : (placeOf(entityType, entityId) ?? known?.place);
  const title = nameIn(event) || known?.name;
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
          {project && project.id !== entityId && (
            <span class="note">
              {" "}
              in <Link {...placeOf("Project", project.id)!}>{project.name}</Link>
            </span>
          )}
        </p>
        <Changes event={event} names={names} />
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
function nameIn(event: EventEntryFragment): string {
  const values = { ...(event.before as Values | null), ...(event.after as Values | null) };
  const found = values.title ?? values.name ?? values.summary ?? values.model_name ?? values.content;
  return typeof found === "string" ? shortened(found) : "";
}

/** The columns that an event had before and after. */
function valuesOf(event: EventEntryFragment): { before: Values; after: Values } {
  return { before: (event.before ?? {}) as Values, after: (event.after ?? {}) as Values };
}

/** The columns of an event that it shows before it is opened: of a new or a deleted object, those that
 * tell what it belongs to. The project and the actor are in the line above.
 */
function shownColumns(event: EventEntryFragment): string[] {
  const { before, after } = valuesOf(event);
  const all = Object.keys({ ...before, ...after });
  const isTold = (column: string) =>
    column !== "project_id" && idsOf(event, column).some((id) => id !== event.actorId);
  return (event.action === "UPDATED" ? all : all.filter(isTold)).slice(0, MOST_VALUES);
}

/** The global ids that a column had before and after. */
function idsOf(event: EventEntryFragment, column: string): string[] {
  const { before, after } = valuesOf(event);
  return [before, after].flatMap((values) => idInColumn(column, values[column]) ?? []);
}

function Changes({ event, names }: { event: EventEntryFragment; names: Names }) {
  const { before, after } = valuesOf(event);
  const shown = shownColumns(event).map((column) => {
    const value = (of: Values) => (
      <Value
        value={choiceInWords(column, of[column]) ?? of[column]}
        named={names.get(idInColumn(column, of[column]) ?? "")}
      />
    );
    return (
      <li key={column}>
        <span class="note">{inWords(column.replace(/_id$/, ""))}:</span>{" "}
        {event.action === "UPDATED" ? (
          <>
            {value(before)} → {value(after)}
          </>
        ) : (
          value(event.action === "DELETED" ? before : after)
        )}
      </li>
    );
  });
  if (event.action !== "UPDATED") {
    return (
      <>
        <details>
          <summary>Values</summary>
          <Json value={event.action === "DELETED" ? before : after} />
        </details>
        {shown.length > 0 && <ul class="changes">{shown}</ul>}
      </>
    );
  }
  const columns = Object.keys({ ...before, ...after });
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

/** A value in short; of an object, its name with a link to it. */
function Value({ value, named }: { value: unknown; named: Named | undefined }) {
  if (named?.name && named.place) return <Link {...named.place}>{shortened(named.name)}</Link>;
  return <span class="value">{shortened(named?.name || textOf(value))}</span>;
}
