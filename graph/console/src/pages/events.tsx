import { Empty } from "../components/empty";
import { Choice, ProjectChoice, useChoose } from "../components/filters";
import { Frame } from "../components/frame";
import { GraphiQL } from "../components/graphiql";
import { Loaded } from "../components/loaded";
import { AllChangesDocument, type EventEntryFragment, type EventsQuery, EventsDocument } from "../generated/operations";
import type { ActorType, EventAction } from "../generated/schema";
import { useLiveQuery } from "../live";
import { Link, usePlace } from "../router";
import { Entry, idsIn, typeInWords } from "./events-entry";
import { useEventNames } from "./events-names";

const SIZE = 50;

/** The types of the log; a test compares them with the tables that are logged. */
const TYPES = [
  "Project",
  "ProjectMember",
  "Task",
  "TaskDependency",
  "TaskAttempt",
  "Agent",
  "AgentSubscription",
  "AgentTool",
  "Tool",
  "AIModel",
  "Communication",
  "HumanInteraction",
  "InteractionAnswer",
  "Conversation",
  "Message",
  "UsageRecord",
  "Budget",
  "BudgetAlert",
  "Webhook",
  "User",
  "AccessToken",
] as const;

/** The types that are left out unless the URL says otherwise: they are most of the log, and what matters of
 * them is told by changes of tasks and budgets too.
 */
const LEFT_OUT = ["TaskAttempt", "UsageRecord"];

/** In the URL, that nothing is left out. */
const NOTHING_LEFT_OUT = "none";

const ACTIONS: [EventAction, string][] = [
  ["CREATED", "Created"],
  ["UPDATED", "Changed"],
  ["DELETED", "Deleted"],
];

const ACTORS: [ActorType | "NONE", string][] = [
  ["USER", "People"],
  ["AGENT", "Agents"],
  ["NONE", "The server, or SQL"],
];

/** The names in the URL that leave events out. */
const FILTERS = ["project", "type", "action", "actors", "actor", "object", "from", "to", "without"];

/** The event log as a timeline, the newest first. */
export function Events({ query }: { query: URLSearchParams }) {
  const where = filterOf(query);
  const after = query.get("after");
  const before = query.get("before");
  const isLive = !after && !before && query.get("live") !== "off";
  const events = useLiveQuery({
    query: EventsDocument,
    variables: after ? { first: SIZE, after, where } : { last: SIZE, before, where },
    changes: AllChangesDocument,
    changesOf: { where },
    interval: 2_000,
    concerns: () => isLive,
  });
  return (
    <Frame title="Events" actions={<Filters query={query} onLive={events.read} />}>
      <Chosen query={query} />
      <LeftOut types={leftOut(query)} />
      <Loaded of={events}>
        {({ events: { nodes, pageInfo } }) =>
          nodes.length === 0 ? (
            <Nothing isFiltered={FILTERS.some((name) => query.has(name))} />
          ) : (
            <>
              <Timeline events={nodes.toReversed()} />
              <Pages pageInfo={pageInfo} />
            </>
          )
        }
      </Loaded>
    </Frame>
  );
}

/** The types that are left out; none if one type or one object is asked for. */
function leftOut(query: URLSearchParams): string[] {
  if (query.get("type") || query.get("object")) return [];
  const named = query.get("without");
  if (named === null) return LEFT_OUT;
  return named.split(",").filter((type) => (TYPES as readonly string[]).includes(type));
}

/** The conditions that the URL names. */
function filterOf(query: URLSearchParams) {
  const [project, type, actor] = ["project", "type", "actor"].map((name) => query.get(name));
  const [object, from, to] = ["object", "from", "to"].map((name) => query.get(name));
  const [action] = ACTIONS.find(([action]) => action === query.get("action")) ?? [];
  const [actors] = ACTORS.find(([actors]) => actors === query.get("actors")) ?? [];
  const without = leftOut(query);
  return {
    ...(project && { projectId: { eq: project } }),
    ...(type && { entityType: { eq: type } }),
    ...(without.length > 0 && { not: { entityType: { in: without } } }),
    ...(action && { action: { eq: action } }),
    ...(actors && { actorType: actors === "NONE" ? { isNull: true } : { eq: actors } }),
    ...(actor && { actorId: { eq: actor } }),
    ...(object && { entityId: { eq: object } }),
    ...((from || to) && { createdAt: { ...(from && { gte: instant(from) }), ...(to && { lt: instant(to) }) } }),
  };
}

/** The moment of a field for a local date and time; none if it is not one. */
function instant(local: string): string | undefined {
  const date = new Date(LOCAL.test(local) ? local : NaN);
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString();
}

const LOCAL = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?$/;

function Filters({ query, onLive }: { query: URLSearchParams; onLive: () => void }) {
  const choose = useChoose();
  const types = TYPES.map((type) => [type, typeInWords(type)] as const);
  const time = (name: string, label: string) => (
    <label class="choice">
      <span>{label}</span>
      <input
        type="datetime-local"
        value={instant(query.get(name) ?? "") === undefined ? "" : (query.get(name) ?? "")}
        onChange={(event) => choose({ [name]: event.currentTarget.value || null })}
      />
    </label>
  );
  return (
    <>
      <ProjectChoice />
      <Choice name="type" label="Of" none="Everything" options={types} />
      <Choice name="action" label="What" none="All changes" options={ACTIONS} />
      <Choice name="actors" label="By" none="Anybody" options={ACTORS} />
      <span class="choices">
        {time("from", "From")}
        {time("to", "To")}
      </span>
      <label class="inline">
        <input
          type="checkbox"
          checked={query.get("live") !== "off"}
          onChange={({ currentTarget: { checked } }) => {
            choose({ live: checked ? null : "off" });
            if (checked) onLive();
          }}
        />
        Live
      </label>
    </>
  );
}

/** The types that are left out, each with a link that brings it back, and a choice of another. */
function LeftOut({ types }: { types: readonly string[] }) {
  const { path, query } = usePlace();
  const choose = useChoose();
  if (query.get("type") || query.get("object")) return null;
  const without = (types: readonly string[]) => (types.length > 0 ? types.join(",") : NOTHING_LEFT_OUT);
  const left = TYPES.filter((type) => !types.includes(type));
  return (
    <div class="chosen" role="group" aria-label="Types that are left out">
      <span class="note">{types.length > 0 ? "Left out:" : "Nothing is left out."}</span>
      {types.map((type) => (
        <Link
          key={type}
          class="button"
          to={path}
          query={{
            ...Object.fromEntries(query),
            without: without(types.filter((each) => each !== type)),
            after: null,
            before: null,
          }}
        >
          {typeInWords(type)} <span aria-hidden="true">✕</span>
          <span class="unseen"> (show this type)</span>
        </Link>
      ))}
      <label class="choice">
        <span class="unseen">Leave out a type</span>
        <select
          value=""
          onChange={({ currentTarget }) => choose({ without: without([...types, currentTarget.value]) })}
        >
          <option value="">Leave out …</option>
          {left.map((type) => (
            <option key={type} value={type}>
              {typeInWords(type)}
            </option>
          ))}
        </select>
      </label>
    </div>
  );
}

/** The filters that are set by links in the entries. */
function Chosen({ query }: { query: URLSearchParams }) {
  const { path } = usePlace();
  const present = Object.fromEntries(query);
  const ids = ["object", "actor"].map((name) => query.get(name)).filter((id) => id !== null);
  const names = useEventNames(ids);
  if (ids.length === 0) return null;
  return (
    <p class="chosen">
      {["object", "actor"].map((name) => {
        const id = query.get(name);
        if (id === null) return null;
        return (
          <Link key={name} class="button" to={path} query={{ ...present, [name]: null, after: null, before: null }}>
            {name === "object" ? `Of ${names.get(id)?.name || "one object"}` : `By ${names.get(id)?.name || "one actor"}`} <span aria-hidden="true">✕</span>
            <span class="unseen"> (remove this filter)</span>
          </Link>
        );
      })}
    </p>
  );
}

function Timeline({ events }: { events: readonly EventEntryFragment[] }) {
  const names = useEventNames(events.flatMap(idsIn));
  const days = new Map<string, EventEntryFragment[]>();
  for (const event of events) {
    const title = day.format(new Date(event.createdAt));
    days.set(title, [...(days.get(title) ?? []), event]);
  }
  return (
    <>
      {[...days].map(([title, entries]) => (
        <section key={title} class="day">
          <h2>{title}</h2>
          <ol class="timeline">
            {entries.map((event) => (
              <Entry key={event.position} event={event} names={names} />
            ))}
          </ol>
        </section>
      ))}
    </>
  );
}

const day = new Intl.DateTimeFormat("en", { dateStyle: "full" });

function Pages({ pageInfo }: { pageInfo: EventsQuery["events"]["pageInfo"] }) {
  const { path, query } = usePlace();
  const at = (cursors: Record<string, string | null | undefined>) => ({
    ...Object.fromEntries(query),
    after: null,
    before: null,
    ...cursors,
  });
  const isNewest = !query.get("after") && !query.get("before");
  if (isNewest && !pageInfo.hasPreviousPage) return null;
  return (
    <nav class="pager" aria-label="Pages of events">
      {!isNewest && (
        <span>
          <Link to={path} query={at({})}>
            ⇤ Newest
          </Link>{" "}
          {pageInfo.hasNextPage && (
            <Link to={path} query={at({ after: pageInfo.endCursor })}>
              ← Newer
            </Link>
          )}
        </span>
      )}
      {pageInfo.hasPreviousPage && (
        <Link to={path} query={at({ before: pageInfo.startCursor })}>
          Older →
        </Link>
      )}
    </nav>
  );
}

function Nothing({ isFiltered }: { isFiltered: boolean }) {
  return isFiltered ? (
    <Empty title="Nothing that you may see happened like this">
      <p>
        <Link to="/events">Show all events</Link>
      </p>
    </Empty>
  ) : (
    <Empty title="Nothing has happened yet">
      <p>
        Every change of an object is an event, whoever makes it. The first ones come with the first project:
        run <code>createProjectPlan</code> in <GraphiQL />.
      </p>
    </Empty>
  );
}
