import { useCallback, useRef } from "preact/hooks";

import { useAction } from "../action";
import { Board, boardSize } from "../components/board";
import { Frame } from "../components/frame";
import { ProjectGraph } from "../components/graph";
import { Loaded, isBadAddress } from "../components/loaded";
import { Progress, counted, formatCost, formatCount } from "../components/numbers";
import { Shape, StatusBadge, lookOf } from "../components/status";
import { StatusMoves } from "../components/status-moves";
import { Stuck } from "../components/stuck";
import {
  ProjectChangesDocument,
  ProjectDocument,
  type ProjectHeadFragment,
  TransitionProjectDocument,
} from "../generated/operations";
import { useLiveQuery } from "../live";
import { PROJECT_MOVES } from "../moves";
import { useEditable } from "../rights";
import { Link } from "../router";
import type { Change } from "../task-graph";
import { Missing } from "./missing";
import { Asked } from "./projects";

/** What changes the head or the board. */
const CHANGES = [
  "Project",
  "Agent",
  "Task",
  "TaskAttempt",
  "TaskDependency",
  "HumanInteraction",
  "UsageRecord",
  "Budget",
];

/** How many reasons why it is stuck are shown, and if one wants all. */
const MOST_STUCK = 3;
const ALL_STUCK = 99;

type Props = { params: Record<string, string>; query: URLSearchParams };

/** A project: how it stands, and its tasks as a graph or as a board. */
export function Project(props: Props) {
  const isBoard = props.query.get("view") === "board";
  const id = props.params.id ?? "";
  const mostStuck = props.query.get("stuck") === "all" ? ALL_STUCK : MOST_STUCK;
  const listeners = useRef(new Set<(change: Change) => void>()).current;
  const subscribe = useCallback(
    (listener: (change: Change) => void) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    [listeners],
  );
  const result = useLiveQuery({
    query: ProjectDocument,
    variables: { id, isBoard, first: boardSize(props.query), stuck: mostStuck + 1 },
    changes: ProjectChangesDocument,
    changesOf: { id },
    interval: 2_000,
    concerns: ({ project: { event } }) => !event || CHANGES.includes(event.entityType),
    onChange: ({ project }) => listeners.forEach((listener) => listener(project)),
  });
  const project = result.data?.project;
  const mayEdit = useEditable(project ? [project.id] : []);
  const isMissing = result.data ? !project : result.error && isBadAddress(result.error);
  if (isMissing) return <Missing what="project" />;
  return (
    <Frame
      title={project?.name ?? "Project"}
      above={<Link to="/">Projects</Link>}
      actions={
        <>
          {project && mayEdit(project.id) && <Moves project={project} onRefused={result.read} />}
          <nav class="tabs" aria-label="Views of the tasks">
            <Link to="/projects/:id" params={{ id }} isCurrent={!isBoard}>
              Graph
            </Link>
            <Link to="/projects/:id" params={{ id }} query={{ view: "board" }} isCurrent={isBoard}>
              Board
            </Link>
          </nav>
        </>
      }
    >
      <Loaded of={result}>
        {({ project }) =>
          project && (
            <>
              <Head project={project} mostStuck={mostStuck} />
              {isBoard ? (
                "readyTasks" in project && <Board board={project as never} size={boardSize(props.query)} />
              ) : (
                <ProjectGraph
                  source={{ projectId: id, count: project.all.totalCount, subscribe }}
                  search={props.query.get("search") ?? ""}
                />
              )}
            </>
          )
        }
      </Loaded>
    </Frame>
  );
}

function Head({ project, mostStuck }: { project: ProjectHeadFragment; mostStuck: number }) {
  const outOf = project.all.totalCount - project.ended.totalCount;
  return (
    <div class="facts panel">
      <dl>
        <div>
          <dt>State</dt>
          <dd>
            <StatusBadge status={project.status} />
          </dd>
        </div>
        <div>
          <dt>Done</dt>
          <dd>
            <Progress value={project.completed.totalCount} of={outOf} label="Done" />
          </dd>
        </div>
        <div>
          <dt>Now</dt>
          <dd>
            <span class="line">
              {project.working.totalCount > 0 && <Shape look={lookOf("IN_PROGRESS")} />}
              {formatCount(project.working.totalCount)} in progress
            </span>
            <span class="note">
              {formatCount(project.ready.totalCount)} ready, {counted(project.waiting.totalCount, "waits", "wait")} for
              tasks
            </span>
          </dd>
        </div>
        <div>
          <dt>Cost</dt>
          <dd>
            {formatCost(project.cost)} <Link to="/usage" query={{ project: project.id }}>Usage</Link>
          </dd>
        </div>
      </dl>
      <dl>
        <div>
          <dt>Waits for people</dt>
          <dd>{project.asked.totalCount > 0 ? <Asked project={project} /> : <span class="note">Nothing</span>}</dd>
        </div>
        <div>
          <dt>Stuck</dt>
          <dd>
            {project.whyStuck.length > 0 ? (
              <Stuck project={project} most={mostStuck} />
            ) : (
              <span class="note">Nothing</span>
            )}
          </dd>
        </div>
      </dl>
    </div>
  );
}

/** Starts, pauses, resumes and ends a project. */
function Moves(props: { project: ProjectHeadFragment; onRefused: () => void }) {
  const { id, name, status, version } = props.project;
  const { run, isRunning, errors } = useAction(TransitionProjectDocument);
  return (
    <StatusMoves
      name={name}
      version={version}
      moves={PROJECT_MOVES[status]}
      change={async (to, expectedVersion) => {
        const done = await run({ input: { id, to, expectedVersion } });
        return done?.project?.version ?? null;
      }}
      onRefused={props.onRefused}
      isRunning={isRunning}
      errors={errors}
    />
  );
}
