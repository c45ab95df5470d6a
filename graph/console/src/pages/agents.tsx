import { useEffect } from "preact/hooks";

import { Empty } from "../components/empty";
import { Choice, ProjectChoice } from "../components/filters";
import { Frame } from "../components/frame";
import { GraphiQL } from "../components/graphiql";
import { Loaded } from "../components/loaded";
import { Progress } from "../components/numbers";
import { Pager, pageOf } from "../components/pager";
import { Shape, StatusBadge, inWords, lookOf } from "../components/status";
import { Table } from "../components/table";
import { Time } from "../components/time";
import { type AgentRowFragment, AgentsDocument, AllChangesDocument } from "../generated/operations";
import type { AgentStatus } from "../generated/schema";
import { useLiveQuery } from "../live";
import { Link } from "../router";

const SIZE = 25;

/** What changes a row: an agent, its attempts and their progress, and what keeps it idle. */
const CHANGES = ["Agent", "TaskAttempt", "Task", "Project", "Budget"];

/** A heartbeat without progress is no event, so that the times of heartbeats are read again slowly. */
const HEARTBEATS = 30_000;

const STATUSES: AgentStatus[] = ["ACTIVE", "READY", "PAUSED", "ERROR", "INITIALIZING", "CREATED", "TERMINATED"];

/** All agents: state, load, last sign of life, what each works on, or why it has nothing to do. */
export function Agents({ query }: { query: URLSearchParams }) {
  const project = query.get("project");
  const status = query.get("status") as AgentStatus | null;
  const agents = useLiveQuery({
    query: AgentsDocument,
    variables: {
      ...pageOf(query, SIZE),
      where: { ...(project && { projectId: { eq: project } }), ...(status && { status: { eq: status } }) },
    },
    changes: AllChangesDocument,
    changesOf: {
      where: { entityType: { in: CHANGES }, ...(project && { projectId: { eq: project } }) },
    },
    interval: 2_000,
  });
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState === "visible" && agents.read(), HEARTBEATS);
    return () => clearInterval(timer);
  }, [agents.read]);
  const filters = (
    <>
      <ProjectChoice />
      <Choice
        name="status"
        label="State"
        none="Any state"
        options={STATUSES.map((status) => [status, inWords(status)] as const)}
      />
    </>
  );
  return (
    <Frame title="Agents" actions={filters}>
      <Loaded of={agents}>
        {({ agents: { nodes, pageInfo } }) =>
          nodes.length === 0 ? (
            <Nothing isFiltered={project !== null || status !== null} />
          ) : (
            <>
              <Table
                caption="Agents"
                stacks
                heads={["Agent", "State", "Load", "Works on", "Why idle", "Last sign of life"]}
              >
                {nodes.map((agent) => (
                  <Row key={agent.id} agent={agent} />
                ))}
              </Table>
              <Pager pageInfo={pageInfo} label="Pages of agents" />
            </>
          )
        }
      </Loaded>
    </Frame>
  );
}

function Row({ agent }: { agent: AgentRowFragment }) {
  const { totalCount, nodes } = agent.running;
  const isFull = totalCount >= agent.maxConcurrentTasks;
  return (
    <tr>
      <th scope="row">
        {agent.name}
        <span class="detail">
          {inWords(agent.type)} in{" "}
          <Link to="/projects/:id" params={{ id: agent.project.id }}>
            {agent.project.name}
          </Link>
        </span>
      </th>
      <td>
        <StatusBadge status={agent.status} />
        {!agent.isActive && <span class="detail">Switched off by people</span>}
      </td>
      <td data-head="Load">
        <Progress value={totalCount} of={agent.maxConcurrentTasks} label={`Load of ${agent.name}`} />
      </td>
      <td data-head="Works on">
        {nodes.map(({ id, task, progressPercent, statusMessage }) => (
          <div key={id}>
            <Link class="line" to="/tasks/:id" params={{ id: task.id }}>
              <Shape look={lookOf("IN_PROGRESS")} /> {task.title}
            </Link>
            <span class="detail">
              {[progressPercent !== null && `${progressPercent} %`, statusMessage].filter(Boolean).join(", ")}
            </span>
          </div>
        ))}
        {totalCount > nodes.length && <span class="detail">and {totalCount - nodes.length} more</span>}
      </td>
      <td data-head="Why idle">{!isFull && <Why agent={agent} />}</td>
      <td data-head="Last sign of life">{agent.lastSeenAt ? <Time at={agent.lastSeenAt} /> : <span class="note">Never seen</span>}</td>
    </tr>
  );
}

function Why({ agent }: { agent: AgentRowFragment }) {
  if (agent.whyIdle.length === 0) return <span class="note">A task is ready for it</span>;
  return (
    <>
      {agent.whyIdle.map(({ code, message, until }) => (
        <p key={code} class="why">
          {message}
          {until && (
            <>
              {" "}
              (<Time at={until} />)
            </>
          )}
        </p>
      ))}
    </>
  );
}

function Nothing({ isFiltered }: { isFiltered: boolean }) {
  return isFiltered ? (
    <Empty title="No agent is like this">
      <p>
        <Link to="/agents">Show all agents</Link>
      </p>
    </Empty>
  ) : (
    <Empty title="There is no agent yet">
      <p>
        Make one with <code>createAgent</code> in <GraphiQL />, and a token for its worker
        with <code>troupe tokens create</code>. The worker then claims tasks with <code>claimTask</code>.
      </p>
    </Empty>
  );
}
