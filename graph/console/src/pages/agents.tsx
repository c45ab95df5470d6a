import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";

import { useAction } from "../action";
import { Empty } from "../components/empty";
import { Choice, ProjectChoice } from "../components/filters";
import { Frame } from "../components/frame";
import { GraphiQL } from "../components/graphiql";
import { Loaded } from "../components/loaded";
import { Progress } from "../components/numbers";
import { Pager, pageOf } from "../components/pager";
import { Shape, StatusBadge, inWords, lookOf } from "../components/status";
import { StatusMoves } from "../components/status-moves";
import { Table } from "../components/table";
import { Time } from "../components/time";
import {
  type AgentRowFragment,
  AgentsDocument,
  AllChangesDocument,
  SwitchAgentDocument,
  TransitionAgentDocument,
} from "../generated/operations";
import type { AgentStatus } from "../generated/schema";
import { useLiveQuery } from "../live";
import { whyIdle } from "../reasons";
import { AGENT_MOVES } from "../moves";
import { useEditable } from "../rights";
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
  const status = STATUSES.find((status) => status === query.get("status")) ?? null;
  const agent = query.get("agent");
  const agents = useLiveQuery({
    query: AgentsDocument,
    variables: {
      ...pageOf(query, SIZE),
      where: {
        ...(project && { projectId: { eq: project } }),
        ...(status && { status: { eq: status } }),
        ...(agent && { id: { eq: agent } }),
      },
    },
    changes: AllChangesDocument,
    changesOf: {
      where: { entityType: { in: CHANGES }, ...(project && { projectId: { eq: project } }) },
    },
    interval: 2_000,
  });
  const projects = agents.data?.agents.nodes.map(({ project }) => project.id) ?? [];
  const mayEdit = useEditable(projects);
  const hasActions = projects.some(mayEdit);
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
            <Nothing isFiltered={status !== null || agent !== null} isOfProject={project !== null} />
          ) : (
            <>
              {agent && (
                <p>
                  <Link to="/agents">Show all agents</Link>
                </p>
              )}
              <Table
                caption="Agents"
                stacks
                heads={[
                  ...["Agent", "State", "Load", "Works on, or why it is idle", "Last sign of life"],
                  ...(hasActions ? ["Actions"] : []),
                ]}
              >
                {nodes.map((agent) => (
                  <Row key={agent.id} agent={agent}>
                    {mayEdit(agent.project.id) ? (
                      <td data-head="Actions">
                        <Moves agent={agent} onRefused={agents.read} />
                      </td>
                    ) : (
                      hasActions && <td />
                    )}
                  </Row>
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

/** An agent in the table; its last cell is what is inside. */
function Row({ agent, children }: { agent: AgentRowFragment; children: ComponentChildren }) {
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
      <td data-head={totalCount > 0 ? "Works on" : "Idle"}>
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
        {!isFull && <Why agent={agent} />}
      </td>
      <td data-head="Last sign of life">{agent.lastSeenAt ? <Time at={agent.lastSeenAt} /> : <span class="note">Never seen</span>}</td>
      {children}
    </tr>
  );
}

/** Starts, pauses and ends an agent, and switches it off whatever it says itself. */
function Moves(props: { agent: AgentRowFragment; onRefused: () => void }) {
  const { id, name, status, isActive, version } = props.agent;
  const transition = useAction(TransitionAgentDocument);
  const update = useAction(SwitchAgentDocument);
  const isRunning = transition.isRunning || update.isRunning;
  async function toggle() {
    transition.dismiss();
    const done = await update.run({ input: { id, isActive: !isActive, expectedVersion: version } });
    if (done === null) props.onRefused();
  }
  return (
    <div class="buttons">
      <StatusMoves
        name={name}
        version={version}
        moves={AGENT_MOVES[status]}
        change={async (to, expectedVersion) => {
          update.dismiss();
          const done = await transition.run({ input: { id, to, expectedVersion } });
          return done?.agent?.version ?? null;
        }}
        onRefused={props.onRefused}
        isRunning={isRunning}
        errors={[...transition.errors, ...update.errors]}
      />
      {status !== "TERMINATED" && (
        <button
          title={isActive ? "It gets no task, whatever its state is" : "It gets tasks again, if its state allows"}
          aria-label={`Switch ${isActive ? "off" : "on"} ${name}`}
          disabled={isRunning}
          onClick={() => void toggle()}
        >
          Switch {isActive ? "off" : "on"}
        </button>
      )}
    </div>
  );
}

function Why({ agent }: { agent: AgentRowFragment }) {
  if (agent.whyIdle.length === 0) return <span class="note">A task is ready for it</span>;
  return (
    <>
      {agent.whyIdle.map((reason) => (
        <p key={reason.code} class="why">
          {whyIdle(reason, agent)}
          {reason.until && (
            <>
              {" "}
              (<Time at={reason.until} />)
            </>
          )}
        </p>
      ))}
    </>
  );
}

function Nothing({ isFiltered, isOfProject }: { isFiltered: boolean; isOfProject: boolean }) {
  return isFiltered ? (
    <Empty title="No agent is like this">
      <p>
        <Link to="/agents">Show all agents</Link>
      </p>
    </Empty>
  ) : (
    <Empty title={isOfProject ? "This project has no agent yet" : "There is no agent yet"}>
      <p>
        Make one with <code>createAgent</code> in <GraphiQL />, and a token for its worker
        with <code>troupe tokens create</code>. The worker then claims tasks with <code>claimTask</code>.
      </p>
      {isOfProject && (
        <p>
          <Link to="/agents">Show all agents</Link>
        </p>
      )}
    </Empty>
  );
}
