/** What people may do with a task by hand; the server has the same table. */

import type { TaskStatus } from "./generated/schema";

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
