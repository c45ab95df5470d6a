import type { BoardFragment, BoardTaskFragment, BoardTasksFragment } from "../generated/operations";
import { Link, usePlace } from "../router";
import { Empty } from "./empty";
import { GraphiQL } from "./graphiql";
import { counted, formatCount } from "./numbers";
import { Sideways } from "./sideways";
import { Shape, lookOfTask, stateInWords } from "./status";
import { Time } from "./time";

/** How many tasks of a column are shown: first, and each time more are asked for. */
const SIZES = [10, 30, 100];

/** How many tasks of each column the board at a place shows. */
export function boardSize(query: URLSearchParams): number {
  return SIZES.find((size) => String(size) === query.get("show")) ?? (SIZES[0] as number);
}

/** The tasks of a project in columns by state. */
export function Board(props: { board: BoardFragment; size: number }) {
  const { board, size } = props;
  const columns: [string, BoardTasksFragment][] = [
    ["Waits for tasks", board.waitingTasks],
    ["Ready", board.readyTasks],
    ["In progress", board.workingTasks],
    ["Blocked", board.blockedTasks],
    ["Failed", board.failedTasks],
    ["Completed", board.completedTasks],
    ["Cancelled or skipped", board.endedTasks],
  ];
  if (columns.every(([, { totalCount }]) => totalCount === 0)) {
    return (
      <Empty title="This project has no tasks yet">
        <p>
          Orchestrators add them with <code>createTasks</code>. Try it in <GraphiQL />.
        </p>
      </Empty>
    );
  }
  return (
    <Sideways class="board" label="Board of the tasks">
      {columns.map(([title, { totalCount, nodes }]) => (
        <section key={title} class={totalCount ? "lane" : "lane none"} aria-label={title}>
          <h2>
            {title} <span class="note">{formatCount(totalCount)}</span>
          </h2>
          {nodes.length > 0 && (
            <ul>
              {nodes.map((task) => (
                <Card key={task.id} task={task} />
              ))}
            </ul>
          )}
          <More shown={nodes.length} of={totalCount} size={size} />
        </section>
      ))}
    </Sideways>
  );
}

/** The states of tasks in columns of several states. */
const UNLIKE = ["BLOCKED", "CANCELLED", "SKIPPED"];

function Card({ task }: { task: BoardTaskFragment }) {
  const attempt = task.status === "IN_PROGRESS" ? task.currentAttempt : null;
  const look = lookOfTask(task.status, task.blockedReason, task.unmetDependencyCount);
  return (
    <li class={`card tone-${look.tone}`}>
      <Link to="/tasks/:id" params={{ id: task.id }}>
        <Shape look={look} /> <span>{task.title}</span>
      </Link>
      <p class="note">
        {UNLIKE.includes(task.status) && <span>{stateInWords(task.status, task.blockedReason)}</span>}
        {task.unmetDependencyCount > 0 && task.status !== "BLOCKED" && (
          <span>for {counted(task.unmetDependencyCount, "task")}</span>
        )}
        {task.agent && <span>{task.agent.name}</span>}
        {task.priority !== 3 && <span>priority {task.priority}</span>}
        <Time at={task.updatedAt} />
      </p>
      {attempt && (
        <p class="note">
          {attempt.progressPercent != null && (
            <progress value={attempt.progressPercent} max={100} aria-label={`Progress of ${task.title}`} />
          )}
          {task.cancelRequested ? "Asked to stop" : attempt.statusMessage}
        </p>
      )}
    </li>
  );
}

function More(props: { shown: number; of: number; size: number }) {
  const { path, query } = usePlace();
  if (props.of <= props.shown) return null;
  const next = SIZES.find((size) => size > props.size);
  const left = `${formatCount(props.of - props.shown)} more`;
  if (!next) return <p class="note">{left}: the graph can be searched.</p>;
  return (
    <Link class="note" to={path} query={{ ...Object.fromEntries(query), show: String(next) }}>
      {left}: show up to {next}
    </Link>
  );
}
