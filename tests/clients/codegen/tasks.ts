/** A small typed client: what it asks and what it is answered have the types of the schema. */

import {
  CreateDocument,
  LimitDocument,
  TasksDocument,
  type CreateTaskInput,
  type RowFragment,
  type TaskStatus,
  type TasksQuery,
  type TypedDocumentString,
} from "./generated/graphql.js";

const NOWHERE = "00000000-0000-0000-0000-000000000000";

declare const process: { env: Record<string, string> };
const { TROUPE_URL, TROUPE_TOKEN, TROUPE_PROJECT: project = "" } = process.env;

async function execute<Data, Variables>(
  query: TypedDocumentString<Data, Variables>,
  variables: Variables,
): Promise<Data> {
  const response = await fetch(`${TROUPE_URL}/graphql`, {
    method: "POST",
    headers: { authorization: `Bearer ${TROUPE_TOKEN}`, "content-type": "application/json" },
    body: JSON.stringify({ query, variables }),
  });
  return (await response.json()).data;
}

const count: Record<TaskStatus, number> = {
  PENDING: 0,
  ASSIGNED: 0,
  IN_PROGRESS: 0,
  BLOCKED: 0,
  COMPLETED: 0,
  FAILED: 0,
  CANCELLED: 0,
  SKIPPED: 0,
};
const titles: string[] = [];
let total: number | undefined;
let after: string | null | undefined;
do {
  const data = await execute(TasksDocument, { project, order: "CREATED_AT_DESC", after });
  const tasks = data.project?.tasks;
  for (const task of tasks?.nodes ?? []) {
    count[task.status] += 1;
    titles.push(task.title);
  }
  total = tasks?.totalCount;
  after = tasks?.pageInfo.endCursor;
} while (titles.length < (total ?? 0));

const input: CreateTaskInput = { projectId: project, title: "New", dueAt: "2030-01-01T00:00:00Z" };
const created = (await execute(CreateDocument, { input })).createTask;
const wrong = await execute(CreateDocument, { input: { ...input, projectId: NOWHERE } });
const faults = wrong.createTask?.userErrors.map((fault) =>
  fault.__typename === "NotFound" ? fault.code : fault.path.join("."),
);

// Numbers and texts may be sent; what comes back is a text, with every digit.
const most = 2 ** 53 - 1;
const limits: string[] = [];
for (const [limitTokens, claimReserve] of [
  [most, 0.25],
  ["9007199254740993", "1E+3"],
] as const) {
  const budget = { projectId: project, period: "EVER", limitTokens, claimReserve } as const;
  const limit = (await execute(LimitDocument, { input: budget })).createBudget?.budget;
  limits.push(limit?.limitTokens ?? "none", limit?.claimReserve ?? "none");
}

console.log(JSON.stringify({ titles, total, count, created: created?.task, faults, limits }));

/** What the schema does not allow. The compiler complains if it would let one of these pass. */
export function impossible(row: RowFragment, data: TasksQuery): void {
  // @ts-expect-error: there is no such order.
  void execute(TasksDocument, { project, order: "TITLE_ASC" });
  // @ts-expect-error: a task needs a title.
  void execute(CreateDocument, { input: { projectId: project } });
  // @ts-expect-error: a task need not be assigned to anybody.
  row.agent.name;
  // @ts-expect-error: a DateTime is a text.
  row.dueAt?.getTime();
  // @ts-expect-error: no number has the digits of a cost.
  data.project!.cost.toFixed(2);
  // @ts-expect-error: JSON can be anything.
  data.project!.metadata.name;
}
