import type { AgentStatus, AnswerOutcome, AttemptStatus, InteractionStatus, ProjectStatus, TaskStatus } from "../generated/schema";

/** Every state that is shown; the same word means the same everywhere. */
export type Status = TaskStatus | ProjectStatus | AgentStatus | AttemptStatus | InteractionStatus | AnswerOutcome;

/** What a state means for who supervises; style.css has a colour for each. */
export type Tone = "quiet" | "waiting" | "active" | "good" | "bad" | "held";

/** How a state looks: colour and shape say the same, for those who do not see the colour. */
export type Look = { tone: Tone; shape: keyof typeof SHAPES };

/** Shapes as paths in a square of 16 by 16; `evenodd` fills them. */
export const SHAPES = {
  ring: "M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 1 1 0-13zM8 3.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9z",
  dot: "M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 1 1 0-13zM8 3.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9zM8 5.5a2.5 2.5 0 1 1 0 5a2.5 2.5 0 1 1 0-5z",
  half: "M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 1 1 0-13zM8 3.5a4.5 4.5 0 0 0 0 9z",
  play: "M3.5 1.5 14 8 3.5 14.5z",
  check: "M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 1 1 0-13zM4.2 8.3 6.9 11l5-5.2-1.2-1.1-3.8 4-1.5-1.6z",
  cross: "M8 0.8 15.2 8 8 15.2 0.8 8zM5.3 6.4 6.9 8 5.3 9.6l1.1 1.1L8 9.1l1.6 1.6 1.1-1.1L9.1 8l1.6-1.6-1.1-1.1L8 6.9 6.4 5.3z",
  pause: "M2 2h12v12H2zM5.2 5v6h1.8V5zM9 5v6h1.8V5z",
  person: "M8 1a3.2 3.2 0 1 1 0 6.4A3.2 3.2 0 1 1 8 1zM1.8 15c0-4 2.6-6.2 6.2-6.2s6.2 2.2 6.2 6.2z",
  bar: "M2 6.5h12v3H2z",
  slash: "M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 1 1 0-13zM4.2 10.4l6.2-6.2 1.4 1.4-6.2 6.2z",
} as const;

const LOOKS: Record<Status, Look> = {
  // Tasks
  PENDING: { tone: "quiet", shape: "ring" },
  ASSIGNED: { tone: "quiet", shape: "half" },
  IN_PROGRESS: { tone: "active", shape: "play" },
  BLOCKED: { tone: "waiting", shape: "pause" },
  COMPLETED: { tone: "good", shape: "check" },
  FAILED: { tone: "bad", shape: "cross" },
  CANCELLED: { tone: "quiet", shape: "slash" },
  SKIPPED: { tone: "quiet", shape: "bar" },
  // Projects
  DRAFT: { tone: "quiet", shape: "ring" },
  PLANNING: { tone: "quiet", shape: "half" },
  PAUSED: { tone: "waiting", shape: "pause" },
  ARCHIVED: { tone: "quiet", shape: "bar" },
  // Agents
  CREATED: { tone: "quiet", shape: "ring" },
  INITIALIZING: { tone: "quiet", shape: "half" },
  READY: { tone: "quiet", shape: "half" },
  ACTIVE: { tone: "active", shape: "play" },
  ERROR: { tone: "bad", shape: "cross" },
  TERMINATED: { tone: "quiet", shape: "slash" },
  // Attempts
  RUNNING: { tone: "active", shape: "play" },
  SUCCEEDED: { tone: "good", shape: "check" },
  LEASE_LOST: { tone: "bad", shape: "slash" },
  RELEASED: { tone: "quiet", shape: "bar" },
  // Requests to people
  APPROVED: { tone: "good", shape: "check" },
  REJECTED: { tone: "bad", shape: "cross" },
  ANSWERED: { tone: "good", shape: "check" },
  ACKNOWLEDGED: { tone: "good", shape: "check" },
  EXPIRED: { tone: "bad", shape: "slash" },
};

/** The look of a state; tasks that wait for a person have one of their own. */
export function lookOf(status: Status, blockedReason?: string | null): Look {
  return blockedReason === "HUMAN_INPUT" ? { tone: "held", shape: "person" } : LOOKS[status];
}

/** The look of a task; what is ready differs from what waits for so many other tasks. */
export function lookOfTask(status: TaskStatus, blockedReason: string | null, unmet: number): Look {
  const look = lookOf(status, blockedReason);
  return isToDo(status) ? { ...look, shape: unmet > 0 ? "ring" : "dot" } : look;
}

/** Whether a task with this status waits for other tasks or for an agent. */
export function isToDo(status: TaskStatus): boolean {
  return status === "PENDING" || status === "ASSIGNED";
}

/** A word of the API as people read it: `IN_PROGRESS` is `In progress`. */
export function inWords(value: string): string {
  const words = value.toLowerCase().replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Columns whose values are words of the API; those of others, such as `type`, people choose freely. */
const CHOICES = new Set([
  "blocked_reason",
  "level",
  "on_expiry",
  "on_failure",
  "outcome",
  "period",
  "role",
  "sender",
  "source",
  "status",
]);

/** The value of a column as people read it, if it is a word of the API. */
export function choiceInWords(column: string, value: unknown): string | null {
  return CHOICES.has(column) && typeof value === "string" ? inWords(value).toLowerCase() : null;
}

const REASONS: Record<string, string> = { HUMAN_INPUT: "Waits for a person", EXTERNAL: "Blocked", MANUAL: "Held" };

/** A state in words; of a task that is blocked, why. */
export function stateInWords(status: Status, blockedReason?: string | null): string {
  return (blockedReason && REASONS[blockedReason]) || inWords(status);
}

/** The shape of a state in its colour, without a word. */
export function Shape(props: { look: Look }) {
  return (
    <svg class={`shape tone-${props.look.tone}`} viewBox="0 0 16 16" aria-hidden="true">
      <path d={SHAPES[props.look.shape]} fill-rule="evenodd" />
    </svg>
  );
}

/** A state by colour, shape and word. */
export function StatusBadge(props: { status: Status; blockedReason?: string | null | undefined }) {
  const look = lookOf(props.status, props.blockedReason);
  return (
    <span class={`badge tone-${look.tone}`}>
      <Shape look={look} />
      {stateInWords(props.status, props.blockedReason)}
    </span>
  );
}
