import { Empty } from "../components/empty";
import { counted, formatCost, formatCount } from "../components/numbers";
import { type Look, Shape, inWords } from "../components/status";
import { Table } from "../components/table";
import { Time } from "../components/time";
import type { BudgetRowFragment } from "../generated/operations";
import { Link } from "../router";

/** Budgets with how much of each is used, and its last alerts. */
export function Budgets({ budgets }: { budgets: readonly BudgetRowFragment[] }) {
  if (budgets.length === 0) {
    return (
      <Empty title="There is no budget">
        <p>
          Owners of a project limit what it may cost with <code>createBudget</code>, for an hour, a day, a
          month or ever. A hard budget stops claims when it is used up.
        </p>
      </Empty>
    );
  }
  return (
    <Table caption="Budgets" stacks heads={["Budget of", "Period", "Used", "#Spent", "#Reserved", "#Limit", "Alerts"]}>
      {budgets.map((budget) => (
        <Row key={budget.id} budget={budget} />
      ))}
    </Table>
  );
}

function Row({ budget }: { budget: BudgetRowFragment }) {
  const { period, periodEndsAt, limitCost, limitTokens, isHard, refusesUsage, alerts } = budget;
  const amount = (value: string) => (limitCost === null ? formatCount(value) : formatCost(value));
  const stops = refusesUsage ? "Stops claims and usage at 100 %" : isHard ? "Stops claims at 100 %" : "Only warns";
  return (
    <tr>
      <th scope="row">
        <Subject budget={budget} />
      </th>
      <td data-head="Period">
        {period === "EVER" ? "For ever" : `Each ${inWords(period).toLowerCase()}`}
        {periodEndsAt && (
          <span class="detail">
            begins anew <Time at={periodEndsAt} />
          </span>
        )}
      </td>
      <td data-head="Used">
        <Used budget={budget} />
        <span class="detail">{stops}</span>
      </td>
      <td class="number" data-head="Spent">
        {amount(budget.spent)}
      </td>
      <td class="number" data-head="Reserved">
        {amount(budget.reserved)}
      </td>
      <td class="number" data-head="Limit">
        {limitCost === null ? counted(limitTokens ?? "0", "token") : amount(limitCost ?? "0")}
      </td>
      <td data-head="Alerts">
        {inOrder(alerts.nodes).map(({ id, threshold, createdAt }) => (
          <span key={id} class="alert">
            {threshold} % <Time at={createdAt} />
          </span>
        ))}
      </td>
    </tr>
  );
}

function Subject({ budget: { project, agent, task, modelName } }: { budget: BudgetRowFragment }) {
  const link = (
    <Link to="/projects/:id" params={{ id: project.id }}>
      {project.name}
    </Link>
  );
  const part = task ? (
    <Link to="/tasks/:id" params={{ id: task.id }}>
      {task.title}
    </Link>
  ) : (
    (agent?.name ?? modelName)
  );
  if (!part) return link;
  return (
    <>
      {part}
      <span class="detail">
        {task ? "a task" : agent ? "an agent" : "a model"} in {link}
      </span>
    </>
  );
}

/** Alerts by time; several thresholds are often reached at once. */
function inOrder(alerts: BudgetRowFragment["alerts"]["nodes"]) {
  return alerts.toSorted(
    (one, other) => one.createdAt.localeCompare(other.createdAt) || one.threshold - other.threshold,
  );
}

/** The share that is spent, as a bar in the colour of its state, in words too. */
function Used({ budget: { percentUsed, thresholds, isHard } }: { budget: BudgetRowFragment }) {
  const look: Look =
    percentUsed >= 100
      ? { tone: "bad", shape: isHard ? "cross" : "bar" }
      : thresholds.some((threshold) => percentUsed >= threshold)
        ? { tone: "waiting", shape: "half" }
        : { tone: "good", shape: "ring" };
  return (
    <span class={`badge tone-${look.tone}`}>
      <Shape look={look} />
      <svg class="used" aria-hidden="true">
        <rect width={`${Math.min(100, percentUsed)}%`} height="100%" />
      </svg>
      {percentUsed} %
    </span>
  );
}
