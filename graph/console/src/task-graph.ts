/** The graph of a project's tasks, read once and then kept as it is now by what events tell. */

import type { Client } from "@urql/core";
import { useClient } from "@urql/preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";

import { connection } from "./client";
import { failureMessage } from "./components/failure";
import {
  GraphEdgesDocument,
  GraphPathDocument,
  GraphTasksDocument,
  type ProjectChangesSubscription,
} from "./generated/operations";
import type { Graph, GraphTask } from "./layout";
import { useThrottled } from "./live";

/** The most tasks and dependencies of a graph, so that each of the queries has a cost below the limit. */
const MOST = 5_000;
/** How often tasks are drawn again, and the graph is read again, at most; in milliseconds. */
const DRAWN_EVERY = 300;
const READ_EVERY = 5_000;

export type Change = ProjectChangesSubscription["project"];

/** Whose graph it is, and how it learns of changes: `subscribe` returns the function that ends it. */
export type GraphSource = {
  projectId: string;
  /** How many tasks there are, by which it is known what the graph may cost. */
  count: number;
  subscribe: (listener: (change: Change) => void) => () => void;
};

/** The states of tasks that take no time of the critical path. */
const NEVER_DONE = ["CANCELLED", "SKIPPED"];

type Columns = { title?: string; status?: string; blocked_reason?: string | null; unmet_dependency_count?: number };

/** The graph as it was last read, with what was told since; and why it cannot be read now. */
export function useGraph(source: GraphSource) {
  const client = useClient();
  const [result, setResult] = useState<{ graph: Graph; totalSeconds: number } | null>(null);
  const [failure, setFailure] = useState<string | null>(null);
  const [running, setRunning] = useState(0);
  const [patches, setPatches] = useState<ReadonlyMap<string, Partial<GraphTask>>>(new Map());
  // What was told since the graph was last asked for: the answer may not know it yet.
  const told = useRef(new Map<string, Partial<GraphTask>>());

  const count = useRef(source.count);
  count.current = source.count;
  const read = useCallback(async () => {
    const isAsked = new Map<string, Partial<GraphTask>>();
    const known = told.current;
    told.current = isAsked;
    const size = Math.min(MOST, Math.max(1_000, 4 * count.current));
    setRunning((running) => running + 1);
    const answer = await readGraph(client, source.projectId, size);
    setRunning((running) => running - 1);
    const isLatest = told.current === isAsked;
    if (typeof answer === "string") {
      told.current = new Map([...known, ...told.current]);
      if (isLatest) setFailure(answer);
    } else if (isLatest) {
      setPatches(new Map(isAsked));
      setResult(answer);
      setFailure(null);
    }
  }, [client, source.projectId]);

  const readAgain = useThrottled(() => void read(), READ_EVERY, running > 0);
  const drawAgain = useThrottled(() => setPatches((shown) => new Map([...shown, ...told.current])), DRAWN_EVERY);
  useEffect(() => {
    void read();
    return source.subscribe(({ event, gap }) => {
      if (gap || !event || isStructural(event)) return readAgain();
      if (event.entityType !== "Task") return;
      const patch = patchOf((event.after ?? {}) as Columns);
      told.current.set(event.entityId, { ...told.current.get(event.entityId), ...patch });
      drawAgain();
    });
  }, [read, source.subscribe]);
  useEffect(() => {
    if (failure === null) return;
    return connection.subscribe(() => connection.get() === "open" && readAgain());
  }, [failure, readAgain]);

  const graph = useMemo(() => {
    if (!result || patches.size === 0) return result?.graph ?? null;
    const tasks = result.graph.tasks.map((task) => ({ ...task, ...patches.get(task.id) }));
    return { ...result.graph, tasks };
  }, [result, patches]);
  return { graph, totalSeconds: result?.totalSeconds ?? 0, failure, read };
}

/** Whether an event changes what tasks there are, what waits for what, or the critical path. */
function isStructural(event: NonNullable<Change["event"]>): boolean {
  const { entityType, action } = event;
  if (entityType !== "Task") return entityType === "TaskDependency";
  const [before, after] = [event.before, event.after].map((columns) => (columns ?? {}) as Columns);
  return (
    action !== "UPDATED" ||
    ["parent_task_id", "estimated_seconds"].some((column) => column in after!) ||
    [before, after].some((columns) => NEVER_DONE.includes(columns?.status ?? ""))
  );
}

function patchOf(after: Columns): Partial<GraphTask> {
  return {
    ...(after.title !== undefined && { title: after.title }),
    ...(after.status !== undefined && { status: after.status as GraphTask["status"] }),
    ...(after.blocked_reason !== undefined && { blockedReason: after.blocked_reason }),
    ...(after.unmet_dependency_count !== undefined && { unmet: Number(after.unmet_dependency_count) }),
  };
}

/** The graph, by three queries, each of which may cost as much as is allowed; or what failed. */
async function readGraph(client: Client, id: string, size: number) {
  const variables = { id, size };
  const options = { requestPolicy: "network-only" } as const;
  const [tasks, edges, path] = await Promise.all([
    client.query(GraphTasksDocument, variables, options).toPromise(),
    client.query(GraphEdgesDocument, variables, options).toPromise(),
    client.query(GraphPathDocument, variables, options).toPromise(),
  ]);
  const error = tasks.error ?? edges.error ?? path.error;
  if (error) {
    const isLarge = error.graphQLErrors.some(({ extensions }) => extensions?.limit === "maxSize");
    return isLarge
      ? "This project has too many tasks and dependencies to be drawn. The board shows its tasks."
      : failureMessage(error);
  }
  const graph: Graph = {
    tasks: (tasks.data?.taskGraph?.nodes ?? []).flatMap(({ level, task }) => {
      if (!task) return [];
      const { id, title, status, blockedReason = null, unmetDependencyCount: unmet, parentTask } = task;
      return [{ id, title, status, blockedReason: blockedReason ?? null, unmet, level, parentId: parentTask?.id ?? null }];
    }),
    edges: (edges.data?.taskGraph?.edges ?? []).flatMap(({ dependent, dependency }) =>
      dependent && dependency ? [{ from: dependency.id, to: dependent.id }] : [],
    ),
    path: (path.data?.criticalPath?.path ?? []).flatMap(({ task }) => task?.id ?? []),
  };
  return { graph, totalSeconds: Number(path.data?.criticalPath?.totalSeconds ?? 0) };
}
