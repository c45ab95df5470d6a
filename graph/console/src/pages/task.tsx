import type { ComponentChildren } from "preact";

import { Changes, bareId } from "../components/changes";
import { Frame } from "../components/frame";
import { Content, Json } from "../components/json";
import { Loaded } from "../components/loaded";
import { formatCompact, formatCost, formatCount } from "../components/numbers";
import { nameOf } from "../components/person";
import { Shape, StatusBadge, inWords, lookOf } from "../components/status";
import { Table } from "../components/table";
import { TaskMoves } from "../components/task-moves";
import { Time } from "../components/time";
import {
  type AttemptRowFragment,
  TaskChangesDocument,
  TaskDocument,
  type TaskLineFragment,
  type TaskQuery,
} from "../generated/operations";
import { useLiveQuery } from "../live";
import { Link } from "../router";
import { Missing } from "./missing";

type Found = NonNullable<TaskQuery["task"]>;

/** A task: what is to be done, why it is not done yet, who tried, and what was said about it. */
export function Task(props: { params: Record<string, string> }) {
  const id = props.params.id ?? "";
  const result = useLiveQuery({
    query: TaskDocument,
    variables: { id },
    changes: TaskChangesDocument,
    changesOf: { id },
  });
  const { data } = result;
  if (data && !data.task) return <Missing what="task" />;
  const task = data?.task;
  return (
    <Frame
      title={task?.title ?? "Task"}
      above={
        task && (
          <>
            <Link to="/">Projects</Link> ›{" "}
            <Link to="/projects/:id" params={{ id: task.project.id }}>
              {task.project.name}
            </Link>
            {task.parentTask && (
              <>
                {" › "}
                <Link to="/tasks/:id" params={{ id: task.parentTask.id }}>
                  {task.parentTask.title}
                </Link>
              </>
            )}
          </>
        )
      }
      actions={task && <StatusBadge status={task.status} blockedReason={task.blockedReason} />}
    >
      <Loaded of={result}>
        {({ task, viewer }) =>
          task && <Shown task={task} mayEdit={viewer.rights.includes("EDIT")} read={result.read} />
        }
      </Loaded>
    </Frame>
  );
}

function Shown(props: { task: Found; mayEdit: boolean; read: () => void }) {
  const { task } = props;
  return (
    <>
      {props.mayEdit && <TaskMoves task={task} projectId={task.project.id} onConflict={props.read} />}
      <div class="task">
        <div>
          <Waiting task={task} />
          <Work task={task} />
          <Attempts task={task} />
          <Messages task={task} />
          <History task={task} />
        </div>
        <aside aria-label="Facts">
          <Facts task={task} />
          <Dependencies task={task} />
          <Asked task={task} />
          <Costs task={task} />
        </aside>
      </div>
    </>
  );
}

/** Why nobody works on it, in words. */
function Waiting({ task }: { task: Found }) {
  const reasons = task.whyNotReady;
  if (["IN_PROGRESS", "COMPLETED"].includes(task.status)) return null;
  const isReady = reasons.length === 0;
  return (
    <Part title={isReady ? "Ready" : "Why nobody works on it"}>
      {isReady && <p>It can be claimed now: the next agent that fits gets it.</p>}
      <ul class="reasons">
        {reasons.map(({ code, message, until, task: other, interaction }, index) => (
          <li key={`${code} ${index}`}>
            {message}
            {until && (
              <>
                {" "}
                (<Time at={until} />)
              </>
            )}
            {other && <TaskLine task={other} />}
            {interaction && (
              <Link class="line" to="/inbox" query={{ of: interaction.id }}>
                <Shape look={lookOf("BLOCKED", "HUMAN_INPUT")} /> {interaction.title}
              </Link>
            )}
          </li>
        ))}
      </ul>
    </Part>
  );
}

function Work({ task }: { task: Found }) {
  return (
    <Part title="What is to be done">
      {task.description ? <p class="text">{task.description}</p> : <p class="note">No description.</p>}
      {task.acceptanceCriteria && (
        <>
          <h3>Done if</h3>
          <p class="text">{task.acceptanceCriteria}</p>
        </>
      )}
      <Value title="Error" value={task.error} isOpen />
      <Value title="Result" value={task.result} isOpen />
      <Value title="Input" value={task.input} />
      <Value title="Checkpoint" value={task.checkpoint} />
      <Value title="Metadata" value={task.metadata} />
    </Part>
  );
}

/** A JSON value to unfold; nothing if there is none. */
function Value(props: { title: string; value: unknown; isOpen?: boolean }) {
  const { value } = props;
  const isEmpty = value == null || (typeof value === "object" && Object.keys(value).length === 0);
  if (isEmpty) return null;
  return (
    <details open={props.isOpen}>
      <summary>{props.title}</summary>
      <Json value={value} />
    </details>
  );
}

function Attempts({ task }: { task: Found }) {
  const { nodes, totalCount } = task.attempts;
  return (
    <Part title="Attempts" count={totalCount}>
      {totalCount === 0 && <p class="note">No agent has tried it yet.</p>}
      {[...nodes].reverse().map((attempt) => (
        <Attempt key={attempt.id} attempt={attempt} />
      ))}
      {totalCount > nodes.length && <p class="note">The last {nodes.length} are shown.</p>}
    </Part>
  );
}

function Attempt({ attempt }: { attempt: AttemptRowFragment }) {
  const isRunning = attempt.status === "RUNNING";
  return (
    <article class="attempt" aria-label={`Attempt ${attempt.number}`}>
      <header>
        <h3>Attempt {attempt.number}</h3>
        <StatusBadge status={attempt.status} />
        <span class="note">
          {attempt.agent?.name} began <Time at={attempt.startedAt} />
          {attempt.endedAt && (
            <>
              , ended <Time at={attempt.endedAt} />
            </>
          )}
          {isRunning && (
            <>
              , last heard of <Time at={attempt.heartbeatAt ?? attempt.startedAt} />
            </>
          )}
        </span>
      </header>
      {(attempt.statusMessage || attempt.progressPercent != null) && (
        <p class="progress">
          {attempt.progressPercent != null && (
            <progress value={attempt.progressPercent} max={100} aria-label={`Progress of attempt ${attempt.number}`} />
          )}
          <span>{attempt.statusMessage}</span>
        </p>
      )}
      {attempt.handover && <p class="text">{attempt.handover}</p>}
      <Value title="Error" value={attempt.error} isOpen />
      <Value title="Result" value={attempt.result} />
      <Value title="Checkpoint" value={attempt.checkpoint} />
    </article>
  );
}

function Messages({ task }: { task: Found }) {
  const { nodes, totalCount } = task.communications;
  return (
    <Part title="Messages of agents" count={totalCount}>
      {totalCount === 0 && <p class="note">None is about this task.</p>}
      {[...nodes].reverse().map(({ id, type, content, sentAt, fromAgent, toAgent, status }) => (
        <article key={id} class="attempt" aria-label={`Message: ${inWords(type)}`}>
          <header>
            <h3>
              {fromAgent?.name ?? "An agent"} to {toAgent?.name ?? "an agent"}
            </h3>
            <span class="note">
              {inWords(type)}, {inWords(status).toLowerCase()}, <Time at={sentAt} />
            </span>
          </header>
          <Content value={content} />
        </article>
      ))}
      {totalCount > nodes.length && <p class="note">The last {nodes.length} are shown.</p>}
    </Part>
  );
}

function History({ task }: { task: Found }) {
  const { nodes, totalCount } = task.history;
  const agents = [task.agent, ...task.attempts.nodes.map(({ agent }) => agent)];
  const names = new Map(agents.flatMap((agent) => (agent ? [[bareId(agent.id), agent.name]] : [])));
  return (
    <Part title="History" count={totalCount}>
      <ol class="history">
        {[...nodes].reverse().map((event) => (
          <li key={event.position}>
            <span class="note">
              <Time at={event.createdAt} />
              {" · "}
              {event.user ? nameOf(event.user) : (event.agent?.name ?? "the server")}
            </span>
            <Changes event={event} names={names} />
          </li>
        ))}
      </ol>
      {totalCount > nodes.length && (
        <Link to="/events" query={{ object: task.id }}>
          All changes
        </Link>
      )}
    </Part>
  );
}

function Facts({ task }: { task: Found }) {
  const creator = task.createdByUser ? nameOf(task.createdByUser) : task.createdByAgent?.name;
  return (
    <Part title="Facts">
      <dl class="content">
        <Fact name="Agent">{task.agent?.name ?? "Any that fits"}</Fact>
        <Fact name="Priority">{task.priority} of 5</Fact>
        <Fact name="Type">{task.type}</Fact>
        <Fact name="Attempts">
          {task.attemptCount} of {task.maxAttempts}
        </Fact>
        {task.cancelRequested && <Fact name="Cancellation">Its agent has been asked to stop</Fact>}
        <Fact name="Resources">{task.resourceKeys.join(", ")}</Fact>
        <Fact name="Estimate">{task.estimatedSeconds != null && `${formatCount(task.estimatedSeconds)} s`}</Fact>
        <Fact name="Due">{task.dueAt && <Time at={task.dueAt} />}</Fact>
        <Fact name="Started">{task.startedAt && <Time at={task.startedAt} />}</Fact>
        <Fact name="Completed">{task.completedAt && <Time at={task.completedAt} />}</Fact>
        <Fact name="Changed">
          <Time at={task.updatedAt} />
        </Fact>
        <Fact name="Created">
          <Time at={task.createdAt} /> {creator && <>by {creator}</>}
        </Fact>
      </dl>
    </Part>
  );
}

/** A line of a list of facts; nothing if there is no value. */
function Fact(props: { name: string; children: ComponentChildren }) {
  if (!props.children) return null;
  return (
    <div>
      <dt>{props.name}</dt>
      <dd>{props.children}</dd>
    </div>
  );
}

function Dependencies({ task }: { task: Found }) {
  const waits = task.waitsFor.filter(({ why }) => why !== "SUBTASK");
  const { dependents, subtasks } = task;
  return (
    <>
      <Part title="Waits for" count={waits.length}>
        {waits.length === 0 && <p class="note">No other task.</p>}
        {waits.map(
          ({ task: other, why, onFailure }) =>
            other && (
              <TaskLine
                key={other.id}
                task={other}
                note={[why === "INHERITED" && "as its parent does", FAILURES[onFailure ?? "SKIP"]]}
              />
            ),
        )}
      </Part>
      <Part title="Holds up" count={dependents.totalCount}>
        {dependents.totalCount === 0 && <p class="note">No other task.</p>}
        {dependents.nodes.map(({ dependent, onFailure }) => (
          <TaskLine key={dependent.id} task={dependent} note={[FAILURES[onFailure]]} />
        ))}
        <Rest shown={dependents.nodes.length} of={dependents.totalCount} />
      </Part>
      {subtasks.totalCount > 0 && (
        <Part title="Subtasks" count={subtasks.totalCount}>
          {subtasks.nodes.map((each) => (
            <TaskLine key={each.id} task={each} />
          ))}
          <Rest shown={subtasks.nodes.length} of={subtasks.totalCount} />
        </Part>
      )}
    </>
  );
}

const FAILURES = { SKIP: "", HOLD: "held if that fails", IGNORE: "goes on if that fails" };

function TaskLine(props: { task: TaskLineFragment; note?: (string | false)[] }) {
  const { task } = props;
  const note = props.note?.filter(Boolean).join(", ");
  const look = lookOf(task.status, task.blockedReason);
  return (
    <Link class="line" to="/tasks/:id" params={{ id: task.id }}>
      <Shape look={look} />
      <span>
        {task.title} <span class="note">{[inWords(task.status).toLowerCase(), note].filter(Boolean).join(", ")}</span>
      </span>
    </Link>
  );
}

function Rest(props: { shown: number; of: number }) {
  return props.of > props.shown ? <p class="note">and {formatCount(props.of - props.shown)} more</p> : null;
}

function Asked({ task }: { task: Found }) {
  if (task.interactions.nodes.length === 0) return null;
  return (
    <Part title="Asked of people">
      {[...task.interactions.nodes].reverse().map(({ id, title, status, createdAt, respondedAt }) => (
        <div key={id}>
          <Link to="/inbox" query={{ of: id }}>
            {title}
          </Link>
          <p class="note">
            <StatusBadge status={status} /> <Time at={respondedAt ?? createdAt} />
          </p>
        </div>
      ))}
    </Part>
  );
}

function Costs({ task }: { task: Found }) {
  const { nodes, totalCount } = task.usageRecords;
  return (
    <Part title="Cost">
      <p>
        {formatCost(task.cost)} US dollars
        {task.totalCost !== task.cost && `, ${formatCost(task.totalCost)} with its subtasks`}
      </p>
      {totalCount > 0 && (
        <Table caption="Calls of models" heads={["Model", "#Tokens", "#Cost", "When"]}>
          {[...nodes].reverse().map((record) => (
            <tr key={record.id}>
              <td>
                {record.modelName}
                {!record.success && <span class="note"> failed</span>}
              </td>
              <td class="number">{formatCompact(record.inputTokens + record.outputTokens)}</td>
              <td class="number">{record.cost == null ? "–" : formatCost(record.cost)}</td>
              <td>
                <Time at={record.occurredAt} />
              </td>
            </tr>
          ))}
        </Table>
      )}
      {totalCount > nodes.length && (
        <p class="note">
          The last {nodes.length} of {formatCount(totalCount)} calls are shown.
        </p>
      )}
    </Part>
  );
}

function Part(props: { title: string; count?: number; children: ComponentChildren }) {
  return (
    <section class="panel part">
      <h2>
        {props.title} {props.count !== undefined && <span class="note">{formatCount(props.count)}</span>}
      </h2>
      {props.children}
    </section>
  );
}
