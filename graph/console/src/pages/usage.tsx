import { Empty } from "../components/empty";
import { Choice, ProjectChoice } from "../components/filters";
import { Frame } from "../components/frame";
import { Loaded } from "../components/loaded";
import { counted, formatCost, formatCount } from "../components/numbers";
import { Pager, pageOf } from "../components/pager";
import { AllChangesDocument, UsageDocument, type UsageQuery } from "../generated/operations";
import { useLiveQuery } from "../live";
import { Budgets } from "./usage-budgets";
import { Breakdown, measures, type Measure, Times } from "./usage-charts";
import { type Period, periods } from "./usage-periods";

const BUDGETS = 20;

/** Tokens and cost by time, model, agent and project, and budgets. */
export function Usage({ query }: { query: URLSearchParams }) {
  const project = query.get("project");
  const period: Period = chosen(periods, query.get("period"), "month");
  const measure: Measure = chosen(measures, query.get("measure"), "cost");
  const from = period.from(new Date());
  const inProject = project ? { projectId: { eq: project } } : {};
  const usage = useLiveQuery({
    query: UsageDocument,
    variables: {
      project,
      isAll: project === null,
      from: from.toISOString(),
      unit: [period.unit],
      ...pageOf(query, BUDGETS),
      where: inProject,
    },
    changes: AllChangesDocument,
    changesOf: { where: { entityType: { in: ["UsageRecord", "Budget", "BudgetAlert"] }, ...inProject } },
    interval: 5_000,
  });
  const filters = (
    <>
      <ProjectChoice />
      <Choice name="period" label="Period" options={optionsOf(periods, "month")} />
      <Choice name="measure" label="Show" options={optionsOf(measures, "cost")} />
    </>
  );
  return (
    <Frame title="Usage" actions={filters}>
      <Loaded of={usage}>
        {({ total: [total], times, models, agents, projects, budgets }) => (
          <>
            {total ? (
              <>
                <Totals total={total} />
                <Times period={period} from={from} rows={times} measure={measure} />
                <div class="columns">
                  <Breakdown
                    title="By model"
                    head="Model"
                    measure={measure}
                    total={total}
                    rows={models.map((row) => ({ ...row, name: row.modelName ?? "No model" }))}
                  />
                  <Breakdown
                    title="By agent"
                    head="Agent"
                    measure={measure}
                    total={total}
                    rows={agents.map((row) => ({ ...row, name: row.agent?.name ?? "No agent" }))}
                  />
                  {projects && (
                    <Breakdown
                      title="By project"
                      head="Project"
                      measure={measure}
                      total={total}
                      rows={projects.map((row) => ({ ...row, name: row.project?.name ?? "No project" }))}
                    />
                  )}
                </div>
              </>
            ) : (
              <Nothing />
            )}
            <section>
              <h2>Budgets</h2>
              <Budgets budgets={budgets.nodes} />
              <Pager pageInfo={budgets.pageInfo} label="Pages of budgets" />
            </section>
          </>
        )}
      </Loaded>
    </Frame>
  );
}

/** What a name in the URL stands for; the default if it stands for nothing. */
function chosen<Value>(of: Record<string, Value>, name: string | null, otherwise: string): Value {
  return of[name !== null && Object.hasOwn(of, name) ? name : otherwise] as Value;
}

/** The options of a choice; the first one is the default. */
function optionsOf(of: Record<string, { title: string }>, first: string) {
  const names = [first, ...Object.keys(of).filter((name) => name !== first)];
  return names.map((name) => [name, of[name]!.title] as const);
}

function Totals({ total }: { total: UsageQuery["total"][number] }) {
  const unpriced = Number(total.unpricedCalls);
  const parts = [
    ["Cost", formatCost(total.cost)],
    ["Input tokens", formatCount(total.inputTokens)],
    ["Input from a cache", formatCount(total.cachedInputTokens)],
    ["Output tokens", formatCount(total.outputTokens)],
    ["Calls", formatCount(total.calls)],
    ["Failed calls", formatCount(total.failures)],
  ];
  return (
    <>
      <dl class="totals">
        {parts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {unpriced > 0 && (
        <p class="note">
          {counted(unpriced, "call has", "calls have")} no price yet, and {unpriced === 1 ? "is" : "are"} missing in
          the cost: register the models, then run <code>repriceUsage</code>.
        </p>
      )}
    </>
  );
}

function Nothing() {
  return (
    <Empty title="No call of a model was recorded in this time">
      <p>
        Workers record what they use with <code>recordUsage</code>. Give the models prices with{" "}
        <code>createAiModel</code>, and each call has a cost.
      </p>
    </Empty>
  );
}
