import { StatusBadge } from "../components/status";
import { Time } from "../components/time";
import type { AttemptRowFragment } from "../generated/operations";
import { type Found, Part, Value } from "./task-parts";

/** The attempts of agents at a task, the last one first. */
export function Attempts({ task }: { task: Found }) {
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
