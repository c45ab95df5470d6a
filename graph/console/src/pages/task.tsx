import { useRef } from "preact/hooks";

import { Changes } from "../components/changes";
import { Frame } from "../components/frame";
import { Content } from "../components/json";
import { Loaded, isBadAddress } from "../components/loaded";
import { nameOf } from "../components/person";
import { Shape, StatusBadge, inWords, lookOf } from "../components/status";
import { TaskMoves } from "../components/task-moves";
import { Time } from "../components/time";
import { TaskChangesDocument, TaskDocument } from "../generated/operations";
import { bareId } from "../ids";
import { useLiveQuery } from "../live";
import { whyNotReady } from "../reasons";
import { useEditable } from "../rights";
import { Link } from "../router";
import { Missing } from "./missing";
import { Attempts } from "./task-attempts";
import { Asked, Costs, Dependencies, Facts } from "./task-facts";
import { type Found, Part, TaskLine, Value } from "./task-parts";

/** What changes the task, why it waits, or what is about it. Its project is known only when it is read. */
const CHANGES = [
  "Project",
  "Task",
  "TaskAttempt",
  "TaskDependency",
  "HumanInteraction",
  "Communication",
  "UsageRecord",
  "Budget",
];

/** As many reasons as task.graphql asks for. */
const MOST_REASONS = 10;

/** A task: what is to be done, why it is not done yet, who tried, and what was said about it. */
export function Task(props: { params: Record<string, string> }) {
  const id = props.params.id ?? "";
  const project = useRef<string | undefined>(undefined);
  const result = useLiveQuery({
    query: TaskDocument,
    variables: { id },
    changes: TaskChangesDocument,
    changesOf: { where: { entityType: { in: CHANGES } } },
    interval: 2_000,
    concerns: ({ events: { event } }) => !project.current || (event?.projectId ?? project.current) === project.current,
  });
  const { data } = result;
  project.current = data?.task?.project.id;
  const mayEdit = useEditable(project.current ? [project.current] : []);
  const isMissing = data ? !data.task : result.error && isBadAddress(result.error);
  if (isMissing) return <Missing what="task" />;
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
        {({ task }) => task && <Shown task={task} mayEdit={mayEdit(task.project.id)} read={result.read} />}
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
          <Dependencies task={task} mayEdit={props.mayEdit} onConflict={props.read} />
          <Asked task={task} />
          <Costs task={task} />
        </aside>
      </div>
    </>
  );
}

/** Why nobody works on it, in words; each reason once, with all that it is about. */
function Waiting({ task }: { task: Found }) {
  if (["IN_PROGRESS", "COMPLETED"].includes(task.status)) return null;
  if (task.whyNotReady.length === 0) {
    return (
      <Part title="Ready">
        <p>It can be claimed now: the next agent that fits gets it.</p>
      </Part>
    );
  }
  const reasons = new Map<string, Found["whyNotReady"]>();
  for (const reason of task.whyNotReady) {
    const words = whyNotReady(reason);
    reasons.set(words, [...(reasons.get(words) ?? []), reason]);
  }
  return (
    <Part title="Why nobody works on it">
      <ul class="reasons">
        {[...reasons].map(([words, all]) => (
          <li key={words}>
            {words}
            {all.map(({ until, task: other, interaction }) => (
              <>
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
              </>
            ))}
          </li>
        ))}
      </ul>
      {task.whyNotReady.length === MOST_REASONS && <p class="note">The first {MOST_REASONS} are shown.</p>}
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
