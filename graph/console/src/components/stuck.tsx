import type { ObstacleFragment, ProjectRowFragment } from "../generated/operations";
import type { StuckReason } from "../generated/schema";
import { Link, type LinkTo } from "../router";
import { formatCount } from "./numbers";
import { type Look, Shape, lookOf } from "./status";

/** The reasons that are about a task that does not go on itself. */
const OPEN: ReadonlySet<StuckReason> = new Set(["HELD", "EXTERNAL", "APPROVAL"]);

/** As many tasks as the server counts for a reason. */
const MOST_COUNTED = 1_000;

/** What of a project does not go on until somebody does something, and why; at most `most` reasons. */
export function Stuck({ project, most }: { project: ProjectRowFragment; most: number }) {
  const shown = project.whyStuck.slice(0, most);
  return (
    <>
      {shown.map((reason) => {
        const { look, words, place } = described(reason, project);
        return (
          <div key={[reason.code, reason.type, reason.task?.id, reason.agent?.id, reason.budget?.id].join()}>
            <Link class="line" {...place}>
              <Shape look={look} /> {words}
            </Link>
            {reason.taskCount !== null && reason.taskCount > (OPEN.has(reason.code) ? 1 : 0) && (
              <span class="note">{notGoingOn(reason.taskCount)}</span>
            )}
          </div>
        );
      })}
      {project.whyStuck.length > most && (
        <div>
          <Link to="/projects/:id" params={{ id: project.id }} query={{ stuck: "all" }}>
            All reasons
          </Link>
        </div>
      )}
    </>
  );
}

function notGoingOn(count: number): string {
  if (count === 1) return "1 task does not go on";
  return `${formatCount(count)} tasks${count === MOST_COUNTED ? " or more" : ""} do not go on`;
}

function described(
  { code, type, task, agent, budget }: ObstacleFragment,
  project: ProjectRowFragment,
): { look: Look; words: string; place: LinkTo } {
  const query = { project: project.id };
  const of = (name?: string) => (name ? ` of ${name}` : "");
  const about = (look: Look, what: string) => ({
    look,
    words: `${task?.title ?? "A task"}: ${what}`,
    place: { to: "/tasks/:id", params: { id: task?.id ?? "" } },
  });
  switch (code) {
    case "PROJECT_NOT_IN_PROGRESS":
      return {
        look: lookOf(project.status),
        words: project.status === "PAUSED" ? "The project is paused" : "The project is not started",
        place: { to: "/projects/:id", params: { id: project.id } },
      };
    case "BUDGET":
      return {
        look: lookOf("ERROR"),
        words: `A budget${of(agent?.name ?? task?.title ?? budget?.modelName ?? undefined)} is used up`,
        place: { to: "/usage", query },
      };
    case "NO_AGENT":
      return { look: lookOf("ERROR"), words: "No agent is ready or active", place: { to: "/agents", query } };
    case "WRONG_TYPE":
      return { look: lookOf("ERROR"), words: `No agent takes tasks of the type ${type}`, place: { to: "/agents", query } };
    case "PROJECT_LIMIT":
      return {
        look: lookOf("BLOCKED"),
        words: `The project allows no task of the type ${type}`,
        place: { to: "/projects/:id", params: { id: project.id }, query: { view: "board" } },
      };
    case "AGENT_NOT_ACTIVE":
      return {
        look: lookOf("BLOCKED"),
        words: `${agent?.name ?? "An agent"} has tasks, but is not active`,
        place: { to: "/agents", query: { agent: agent?.id } },
      };
    case "FAILED":
      return about(lookOf("FAILED"), "failed");
    case "CANCELLED":
      return about(lookOf("CANCELLED"), "cancelled");
    case "SKIPPED":
      return about(lookOf("SKIPPED"), "skipped");
    case "HELD":
      return about(lookOf("BLOCKED"), "held");
    case "EXTERNAL":
      return about(lookOf("BLOCKED"), "blocked from outside");
    case "APPROVAL":
      return about(lookOf("BLOCKED", "HUMAN_INPUT"), "no request to people is open");
  }
}
