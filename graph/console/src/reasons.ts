/** Why something does not go on, in the words of the console: those of the API name its operations. */

import { inWords, stateInWords } from "./components/status";
import type { AgentStatus, IdleReason, NotReadyReason, TaskStatus } from "./generated/schema";

/** Why a task cannot be claimed; a message of the API that names no operation is shown as it is. */
export function whyNotReady(reason: {
  code: NotReadyReason;
  message: string;
  task: { status: TaskStatus; blockedReason: string | null } | null;
  interaction: unknown;
}): string {
  switch (reason.code) {
    case "ENDED":
      return "It has ended.";
    case "APPROVAL":
      if (reason.interaction) return reason.message;
      return "It waits for a person, but no request is open any more. Release it, so that it goes on.";
    case "HELD":
      return "A person holds it. Release it, so that it goes on.";
    case "DEPENDENCY":
      return reason.task ? whyWaiting(reason.task) : reason.message;
    case "PROJECT_NOT_IN_PROGRESS":
      return "Its project is not in progress.";
    case "WRONG_TYPE":
      return reason.message.replace("READY or ACTIVE", "ready or active");
    case "AGENT_NOT_ACTIVE":
      return "The agent that it is assigned to is neither ready nor active.";
    default:
      return reason.message;
  }
}

function whyWaiting(task: { status: TaskStatus; blockedReason: string | null }): string {
  switch (task.status) {
    case "FAILED":
      return "It waits for a task that failed. Try that again, complete it, or remove the dependency.";
    case "CANCELLED":
    case "SKIPPED":
      return `It waits for a task that was ${inWords(task.status).toLowerCase()}. Try that again, or remove the dependency.`;
    default:
      return `It waits for a task: ${stateInWords(task.status, task.blockedReason).toLowerCase()}.`;
  }
}

/** Why an agent gets no task. */
export function whyIdle(
  reason: { code: IdleReason; message: string },
  agent: { status: AgentStatus; isActive: boolean },
): string {
  switch (reason.code) {
    case "AGENT_NOT_ACTIVE":
      if (!agent.isActive) return "It is switched off.";
      return `Agents get tasks while they are ready or active; this one is ${inWords(agent.status).toLowerCase()}.`;
    case "PROJECT_NOT_IN_PROGRESS":
      return "Its project is not in progress.";
    case "PROJECT_LIMIT":
      return "Its project allows no more tasks in progress, or waiting for people.";
    default:
      return reason.message;
  }
}
