/** What people may do by hand with tasks, projects and agents; the server has the same tables. */

import type { AgentStatus, ProjectStatus, TaskStatus } from "./generated/schema";

/** A change of a task that a person can ask for. */
export type Move = "hold" | "release" | "retry" | "reopen" | "complete" | "cancel" | "reassign";

const MOVES: Record<TaskStatus, Move[]> = {
  PENDING: ["hold", "complete", "reassign", "cancel"],
  ASSIGNED: ["hold", "complete", "reassign", "cancel"],
  IN_PROGRESS: ["cancel"],
  BLOCKED: ["release", "complete", "reassign", "cancel"],
  COMPLETED: ["reopen"],
  FAILED: ["retry", "complete", "cancel"],
  CANCELLED: ["retry"],
  SKIPPED: ["retry"],
};

/** The status that a task gets by a move; `reassign` leaves it. */
export const TARGETS = {
  hold: "BLOCKED",
  release: "PENDING",
  retry: "PENDING",
  reopen: "PENDING",
  complete: "COMPLETED",
  cancel: "CANCELLED",
} as const satisfies Partial<Record<Move, TaskStatus>>;

/** What may be done with a task as it is; nothing again that was asked of its agent already. */
export function movesOf(task: { status: TaskStatus; cancelRequested: boolean }): Move[] {
  return task.cancelRequested ? [] : MOVES[task.status];
}

/** A change of the status of a project or an agent by hand, and what to ask before it if it is final. */
export type StatusMove<Status> = {
  label: string;
  title: string;
  /** The states that it then has, one after another. */
  to: readonly Status[];
  question?: string;
  /** Whether something is given up by it. */
  isLoss?: boolean;
};

const project = {
  pause: { label: "Pause", title: "Agents get no more of its tasks until it is resumed", to: ["PAUSED"] },
  resume: { label: "Resume", title: "Agents get its tasks again", to: ["IN_PROGRESS"] },
  finish: {
    label: "Finish …",
    title: "It is completed; agents get no more of its tasks",
    to: ["COMPLETED"],
    question: "Agents get no more of its tasks. A project that is completed cannot be resumed.",
  },
  cancel: {
    label: "Cancel …",
    title: "It is given up; agents get no more of its tasks",
    to: ["CANCELLED"],
    question: "Agents get no more of its tasks. A project that is cancelled cannot be resumed.",
    isLoss: true,
  },
  archive: {
    label: "Archive …",
    title: "It is put away for good",
    to: ["ARCHIVED"],
    question: "A project that is archived keeps this state for ever. Everything in it can still be read.",
  },
} as const satisfies Record<string, StatusMove<ProjectStatus>>;

function start(...to: ProjectStatus[]): StatusMove<ProjectStatus> {
  return { label: "Start", title: "Agents get its tasks from now on", to };
}

/** What people may do with a project in each state; the server's table allows no other. */
export const PROJECT_MOVES: Record<ProjectStatus, StatusMove<ProjectStatus>[]> = {
  DRAFT: [start("PLANNING", "IN_PROGRESS"), project.cancel],
  PLANNING: [start("IN_PROGRESS"), project.cancel],
  IN_PROGRESS: [project.pause, project.finish, project.cancel],
  PAUSED: [project.resume, project.cancel],
  COMPLETED: [project.archive],
  CANCELLED: [project.archive],
  ARCHIVED: [],
};

const agent = {
  start: { label: "Start", title: "It is ready to get tasks", to: ["READY"] },
  restart: { label: "Start again", title: "It is ready to get tasks again", to: ["INITIALIZING", "READY"] },
  pause: { label: "Pause", title: "It gets no more tasks until it is resumed", to: ["PAUSED"] },
  resume: { label: "Resume", title: "It gets tasks again", to: ["ACTIVE"] },
  terminate: {
    label: "Terminate …",
    title: "It never gets a task again",
    to: ["TERMINATED"],
    question: "It never gets a task again, and its tokens become invalid. What is assigned to it goes to others.",
    isLoss: true,
  },
} as const satisfies Record<string, StatusMove<AgentStatus>>;

/** What people may do with an agent in each state; the server's table allows no other. */
export const AGENT_MOVES: Record<AgentStatus, StatusMove<AgentStatus>[]> = {
  CREATED: [agent.start, agent.terminate],
  INITIALIZING: [agent.start, agent.terminate],
  READY: [agent.terminate],
  ACTIVE: [agent.pause, agent.terminate],
  PAUSED: [agent.resume, agent.terminate],
  ERROR: [agent.restart, agent.terminate],
  TERMINATED: [],
};
