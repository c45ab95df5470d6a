import type { ComponentChildren } from "preact";

import { formatCompact, formatCost, formatCount } from "../components/numbers";
import { nameOf } from "../components/person";
import { StatusBadge } from "../components/status";
import { Table } from "../components/table";
import { Time } from "../components/time";
import { Link } from "../router";
import { RemoveDependency } from "./task-dependency";
import { type Found, Part, Rest, TaskLine } from "./task-parts";

/** What is known of a task, one line each. */
export function Facts({ task }: { task: Found }) {
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

const FAILURES = { SKIP: "", HOLD: "held if that fails", IGNORE: "goes on if that fails" };

/** What a task waits for, what waits for it, and its subtasks. */
export function Dependencies(props: { task: Found; mayEdit: boolean; onConflict: () => void }) {
  const { task } = props;
  const waits = task.waitsFor.filter(({ why }) => why !== "SUBTASK");
  const { dependents, subtasks } = task;
  return (
    <>
      <Part title="Waits for" count={waits.length}>
        {waits.length === 0 && <p class="note">No other task.</p>}
        {waits.map(
          ({ task: other, why, onFailure, isMet }) =>
            other && (
              <div key={other.id} class="wait">
                <TaskLine
                  task={other}
                  note={[why === "INHERITED" && "as its parent does", FAILURES[onFailure ?? "SKIP"]]}
                />
                {props.mayEdit && why === "DEPENDENCY" && !isMet && (
                  <RemoveDependency task={task} dependency={other} onRefused={props.onConflict} />
                )}
              </div>
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

/** The requests to people about a task. */
export function Asked({ task }: { task: Found }) {
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

/** What the calls of models for a task cost. */
export function Costs({ task }: { task: Found }) {
  const { nodes, totalCount } = task.usageRecords;
  return (
    <Part title="Cost">
      <p>
        {formatCost(task.cost)}
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
