import { Empty } from "../components/empty";
import { Frame } from "../components/frame";
import { GraphiQL, hasGraphiQL } from "../components/graphiql";
import { Loaded } from "../components/loaded";
import { Progress, formatCost, formatCount } from "../components/numbers";
import { Pager, pageOf } from "../components/pager";
import { Shape, StatusBadge, lookOf } from "../components/status";
import { Stuck } from "../components/stuck";
import { Table } from "../components/table";
import { AllChangesDocument, type ProjectRowFragment, ProjectsDocument } from "../generated/operations";
import { useLiveQuery } from "../live";
import { Link } from "../router";

const SIZE = 20;

/** How many reasons why it is stuck are shown of each. */
const MOST_STUCK = 3;

/** What changes a row of the list: not each heartbeat, nor messages. */
const CHANGES = ["Project", "Agent", "Task", "TaskDependency", "HumanInteraction", "UsageRecord", "Budget"];

/** All projects: how far each is, what it cost, who waits for people, and what is stuck. */
export function Projects(props: { query: URLSearchParams }) {
  const projects = useLiveQuery({
    query: ProjectsDocument,
    variables: { ...pageOf(props.query, SIZE), stuck: MOST_STUCK + 1 },
    changes: AllChangesDocument,
    changesOf: { where: { entityType: { in: CHANGES } } },
    interval: 2_000,
  });
  return (
    <Frame title="Projects">
      <Loaded of={projects}>
        {({ projects: { nodes, pageInfo } }) =>
          nodes.length === 0 ? (
            <FirstStep />
          ) : (
            <>
              <Table
                caption="Projects"
                stacks
                heads={["Project", "State", "Done", "#Cost", "Waits for people", "Stuck"]}
              >
                {nodes.map((project) => (
                  <Row key={project.id} project={project} />
                ))}
              </Table>
              <Pager pageInfo={pageInfo} label="Pages of projects" />
            </>
          )
        }
      </Loaded>
    </Frame>
  );
}

function FirstStep() {
  return (
    <Empty title="There is no project yet">
      <p>
        Workers and orchestrators make them with <code>createProjectPlan</code>, the tasks included, and
        the command <code>troupe import taskmaster</code> from a file. Try it in <GraphiQL />
        {hasGraphiQL && ": its tab MakePlan is an example"}. <code>make demo</code> serves a database with
        agents at work.
      </p>
    </Empty>
  );
}

function Row({ project }: { project: ProjectRowFragment }) {
  const counted = project.all.totalCount - project.ended.totalCount;
  return (
    <tr>
      <th scope="row">
        <Link to="/projects/:id" params={{ id: project.id }}>
          {project.name}
        </Link>
      </th>
      <td>
        <StatusBadge status={project.status} />
      </td>
      <td>
        <Progress value={project.completed.totalCount} of={counted} label={`Done of ${project.name}`} />
        {project.working.totalCount > 0 && (
          <span class="note">
            <Shape look={lookOf("IN_PROGRESS")} /> {formatCount(project.working.totalCount)} in progress
          </span>
        )}
      </td>
      <td class="number" data-head="Cost">{formatCost(project.cost)}</td>
      <td data-head="Waits for people">
        <Asked project={project} />
      </td>
      <td data-head="Stuck">
        <Stuck project={project} most={MOST_STUCK} />
      </td>
    </tr>
  );
}

/** The requests to people that a project waits for. */
export function Asked({ project }: { project: ProjectRowFragment }) {
  return (
    <>
      {project.asked.nodes.map(({ id, title }) => (
        <Link key={id} class="line" to="/inbox" query={{ of: id }}>
          <Shape look={lookOf("BLOCKED", "HUMAN_INPUT")} /> {title}
        </Link>
      ))}
      {project.asked.totalCount > project.asked.nodes.length && (
        <Link class="line" to="/inbox">
          <More shown={project.asked.nodes.length} of={project.asked.totalCount} />
        </Link>
      )}
    </>
  );
}

function More(props: { shown: number; of: number }) {
  return props.of > props.shown ? <span class="note">and {formatCount(props.of - props.shown)} more</span> : null;
}
