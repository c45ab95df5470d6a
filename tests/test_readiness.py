"""What tasks wait for, why they are not ready, which are, and why agents are idle."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import ARRAY, String, Uuid, text

import db
from db import OnFailure, Right
from db.claims import idle
from db.statements import Values, compiled, value
from tests import factories
from tests.conftest import ADMIN, People
from tests.world import World, gid, make_world

WAITS = """query($id: ID!, $first: Int) { task(id: $id) {
  waitsFor(first: $first) { why onFailure isMet task { title } }
} }"""
WHY = """query($id: ID!) { task(id: $id) {
  whyNotReady { code message until resource task { title } }
} }"""
READY = """query($project: ID!, $agent: ID, $first: Int, $after: String) {
  readyTasks(projectId: $project, agentId: $agent, first: $first, after: $after) {
    totalCount nodes { title } pageInfo { endCursor hasNextPage }
  }
}"""
LATER = datetime(2999, 1, 1, tzinfo=UTC)
EXPIRED = db.InteractionStatus.EXPIRED
IDLE = "query($id: ID!) { agent(id: $id) { whyIdle { code message until } } }"


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def both(world: World, resolvers: People, query: str, **variables: Any) -> Any:
    """What the owner is answered, which has to be the same both ways, by one statement."""
    compiled = await world.owner.ask(query, **variables)
    resolved = await resolvers.owner.ask(query, **variables)
    assert compiled.text == resolved.text
    assert len(compiled.statements) == 1
    return compiled.data


async def do(world: World, *statements: str, **values: Any) -> None:
    """Change rows past the rules."""
    async with world.database.write(ADMIN) as session:
        for statement in statements:
            await session.execute(text(statement), values)


async def work(world: World) -> None:
    """Let the project hand out its tasks, and the agent take them."""
    await do(
        world,
        "UPDATE projects SET status = 'IN_PROGRESS'",
        "UPDATE agents SET status = 'ACTIVE'",
    )


async def test_what_a_task_waits_for(world: World, resolvers: People) -> None:
    async with world.database.write(ADMIN) as session:
        first = await factories.make_task(session, world.project, "First")
        failed = await factories.make_task(
            session, world.project, "Failed", status=db.TaskStatus.FAILED
        )
        done = await factories.make_task(
            session, world.project, "Done", status=db.TaskStatus.COMPLETED
        )
        below = await factories.make_task(
            session, world.project, "Below", parent_task_id=world.subtask.id
        )
        for dependent, dependency, kind in (
            (world.parent, first, OnFailure.HOLD),
            (world.subtask, failed, OnFailure.IGNORE),
            (below, done, OnFailure.SKIP),
            (below, failed, OnFailure.SKIP),
        ):
            await factories.make_dependency(session, dependent, dependency, on_failure=kind)

    def found(data: Any) -> list[tuple[Any, ...]]:
        return [
            (wait["task"]["title"], wait["why"], wait["onFailure"], wait["isMet"])
            for wait in data["task"]["waitsFor"]
        ]

    assert found(await both(world, resolvers, WAITS, id=gid(below))) == [
        ("Free", "INHERITED", "SKIP", False),
        ("First", "INHERITED", "HOLD", False),
        ("Failed", "DEPENDENCY", "SKIP", False),
        ("Failed", "INHERITED", "IGNORE", True),
        ("Done", "DEPENDENCY", "SKIP", True),
    ]
    assert found(await both(world, resolvers, WAITS, id=gid(world.parent))) == [
        ("Subtask", "SUBTASK", None, False),
        ("First", "DEPENDENCY", "HOLD", False),
    ]
    assert found(await both(world, resolvers, WAITS, id=gid(world.subtask), first=1)) == [
        ("Free", "DEPENDENCY", "SKIP", False)
    ]
    refused = await world.owner.ask(WAITS, id=gid(below), first=1001)
    assert refused.code == "BAD_USER_INPUT"


async def test_what_many_tasks_wait_for_is_one_statement(world: World, resolvers: People) -> None:
    query = "{ tasks { nodes { title waitsFor { task { title } } whyNotReady { code } } } }"
    data = await both(world, resolvers, query)
    waits = {
        task["title"]: [each["task"]["title"] for each in task["waitsFor"]]
        for task in data["tasks"]["nodes"]
    }
    assert waits == {"Parent": ["Subtask"], "Free": [], "Subtask": ["Free"]}
    resolved = await resolvers.owner.ask(query)
    assert len(resolved.statements) == 4  # tasks, waits, the tasks of these, reasons


async def why(world: World, resolvers: People, task: db.Task) -> list[Any]:
    """The reasons that a task is not ready, without their messages and without nulls."""
    data = await both(world, resolvers, WHY, id=gid(task))
    reasons = []
    for reason in data["task"]["whyNotReady"]:
        assert reason["message"].endswith(".")
        about = reason["task"] and reason["task"]["title"]
        more = [each for each in (about, reason["until"], reason["resource"]) if each is not None]
        reasons.append((reason["code"], *more) if more else reason["code"])
    return reasons


async def said(world: World, resolvers: People, task: db.Task) -> list[str]:
    """The messages of the reasons that a task is not ready."""
    data = await both(world, resolvers, WHY, id=gid(task))
    return [reason["message"] for reason in data["task"]["whyNotReady"]]


async def test_why_a_task_is_not_ready(world: World, resolvers: People) -> None:
    free = world.free
    assert await why(world, resolvers, free) == ["PROJECT_NOT_IN_PROGRESS", "WRONG_TYPE"]
    await do(world, "UPDATE projects SET status = 'IN_PROGRESS'")
    await do(world, "UPDATE tasks SET type = 'DEVELOPER' WHERE id = :id", id=free.id)
    assert await why(world, resolvers, free) == ["WRONG_TYPE"]
    assert await said(world, resolvers, free) == [
        "No agent of its project that is READY or ACTIVE is of the type DEVELOPER. Only a claim"
        " that names this type gets it."
    ]
    await do(world, "UPDATE tasks SET type = NULL WHERE id = :id", id=free.id)
    assert await said(world, resolvers, free) == ["No agent of its project is READY or ACTIVE."]
    await do(world, "UPDATE tasks SET type = 'DEVELOPER' WHERE id = :id", id=free.id)
    await work(world)
    assert await why(world, resolvers, free) == []
    assert await why(world, resolvers, world.subtask) == [("DEPENDENCY", "Free")]
    await do(world, "UPDATE tasks SET status = 'FAILED' WHERE id = :id", id=free.id)
    assert await why(world, resolvers, free) == ["ENDED"]
    assert await why(world, resolvers, world.parent) == [("DEPENDENCY", "Subtask")]
    back = "UPDATE tasks SET status = 'PENDING', blocked_reason = NULL WHERE id = :id"
    for reason, code in (("HUMAN_INPUT", "APPROVAL"), ("MANUAL", "HELD"), ("EXTERNAL",) * 2):
        blocked = "UPDATE tasks SET status = 'BLOCKED', blocked_reason = :why WHERE id = :id"
        await do(world, blocked, id=free.id, why=reason)
        assert await why(world, resolvers, free) == [code]
    await do(world, back, id=free.id)
    later = "UPDATE tasks SET available_at = '2999-01-01T00:00Z' WHERE id = :id"
    await do(world, later, id=free.id)
    assert await why(world, resolvers, free) == [("BACKOFF", "2999-01-01T00:00:00+00:00")]
    await do(world, "UPDATE tasks SET available_at = now() WHERE id = :id", id=free.id)
    await do(world, "UPDATE projects SET status = 'PAUSED'")
    assert await why(world, resolvers, free) == ["PROJECT_NOT_IN_PROGRESS"]


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("FAILED", ": retry that task, complete it by hand, or remove the dependency."),
        # These cannot be completed.
        ("CANCELLED", ": retry that task, or remove the dependency."),
        ("SKIPPED", ": retry that task, or remove the dependency."),
        ("IN_PROGRESS", "."),
    ],
)
async def test_it_is_advised_what_can_be_done_about_a_dependency(
    world: World, resolvers: People, status: str, advice: str
) -> None:
    await work(world)
    await do(
        world, "UPDATE tasks SET status = :status WHERE id = :id", status=status, id=world.free.id
    )
    data = await both(world, resolvers, WHY, id=gid(world.subtask))
    messages = {each["code"]: each["message"] for each in data["task"]["whyNotReady"]}
    assert messages["DEPENDENCY"] == f"It waits for a task that is {status}{advice}"


async def test_the_requests_that_a_task_waits_for_are_named(
    world: World, resolvers: People
) -> None:
    blocked = "UPDATE tasks SET status = 'BLOCKED', blocked_reason = 'HUMAN_INPUT' WHERE id = :id"
    await do(world, blocked, id=world.free.id)
    query = """query($id: ID!) { task(id: $id) { whyNotReady {
      code message until interaction { title ... on ApprovalRequest { requiredApprovals } }
    } } }"""

    async def reasons() -> Any:
        data = await both(world, resolvers, query, id=gid(world.free))
        found = [each for each in data["task"]["whyNotReady"] if each["code"] == "APPROVAL"]
        return [(each["message"], each["until"], each["interaction"]) for each in found]

    asked = "It waits for a person to answer."
    over = "It waits for a person, but no request is open any more. `transitionTask` releases it."
    assert await reasons() == [(over, None, None)]
    async with world.database.write(ADMIN) as session:
        for title, model, values in (
            ("Fly?", db.ApprovalRequest, {"blocks_task": True}),
            ("Where?", db.ClarificationRequest, {"blocks_task": True, "expires_at": LATER}),
            ("Beside", db.FeedbackRequest, {}),
            ("Over", db.FeedbackRequest, {"blocks_task": True, "status": EXPIRED}),
        ):
            about = {"project_id": world.project.id, "task_id": world.free.id}
            await model.create(session, title=title, content={}, **about, **values)
    assert await reasons() == [
        (asked, None, {"title": "Fly?", "requiredApprovals": 1}),
        (asked, "2999-01-01T00:00:00+00:00", {"title": "Where?"}),
    ]
    await do(world, "UPDATE human_interactions SET status = 'EXPIRED'")
    assert await reasons() == [(over, None, None)]


async def test_why_a_task_is_not_ready_though_nothing_is_wrong_with_it(
    world: World, resolvers: People
) -> None:
    await work(world)
    free = world.free
    async with world.database.write(ADMIN) as session:
        attempt = await factories.make_claimed(session, world.ada, "Busy")
        busy = await session.get_one(db.Task, attempt.task_id)
        busy.resource_keys = ["disk", "gpu"]
    assert await why(world, resolvers, busy) == ["IN_PROGRESS"]
    assert await why(world, resolvers, free) == ["AGENT_AT_CAPACITY"]
    assert "AGENT_AT_CAPACITY" in str(await both(world, resolvers, IDLE, id=gid(world.ada)))
    await do(world, "UPDATE agents SET max_concurrent_tasks = 2")
    assert await why(world, resolvers, free) == []
    await do(world, "UPDATE tasks SET resource_keys = '{gpu,net}' WHERE id = :id", id=free.id)
    assert await why(world, resolvers, free) == [("RESOURCE_RESERVED", "Busy", "gpu")]
    assert "RESOURCE_RESERVED" in str(await both(world, resolvers, IDLE, id=gid(world.ada)))
    await do(world, "UPDATE tasks SET resource_keys = '{}' WHERE id = :id", id=free.id)
    assigned = "UPDATE tasks SET status = 'ASSIGNED', agent_id = :agent WHERE id = :id"
    await do(world, assigned, id=free.id, agent=world.ada.id)
    await do(world, "UPDATE agents SET status = 'PAUSED'")
    assert await why(world, resolvers, free) == ["AGENT_NOT_ACTIVE"]
    assert "AGENT_NOT_ACTIVE" in str(await both(world, resolvers, IDLE, id=gid(world.ada)))


async def test_why_an_agent_is_idle(world: World, resolvers: People) -> None:
    await work(world)
    ada = gid(world.ada)
    assert await both(world, resolvers, IDLE, id=ada) == {"agent": {"whyIdle": []}}
    await do(world, "UPDATE tasks SET type = 'RESEARCHER'")
    (reason,) = (await both(world, resolvers, IDLE, id=ada))["agent"]["whyIdle"]
    assert reason["code"] == "WRONG_TYPE"
    # A claim is answered by the types that it names, whatever the type of its agent.
    claim = "claimTask { attempt { task { title } } reason userErrors { code } }"
    payload = await world.agent.change(claim, agentId=ada, types=["TESTER", "WRITER"])
    assert payload == {"attempt": None, "reason": "WRONG_TYPE", "userErrors": []}
    payload = await world.agent.change(claim, agentId=ada, types=["TESTER", "RESEARCHER"])
    assert payload["reason"] is None
    await do(world, "DELETE FROM task_attempts")
    await do(world, "UPDATE tasks SET status = 'PENDING', attempt_count = 0, started_at = NULL")
    await do(world, "UPDATE tasks SET type = NULL, available_at = '2999-01-01T00:00Z'")
    (reason,) = (await both(world, resolvers, IDLE, id=ada))["agent"]["whyIdle"]
    assert (reason["code"], reason["until"]) == ("BACKOFF", "2999-01-01T00:00:00+00:00")


async def full(world: World, **values: Any) -> None:
    """A hard budget that has no room for an attempt, instead of others."""
    await do(world, "DELETE FROM budgets")
    new = {"limit_cost": Decimal("1.5"), "claim_reserve": Decimal(2)} | values
    async with world.database.write(ADMIN) as session:
        period = db.BudgetPeriod.EVER
        await db.Budget.create(session, **{"project_id": world.project.id, "period": period} | new)


async def test_a_budget_without_room_is_why(world: World, resolvers: People) -> None:
    await work(world)
    async with world.database.write(ADMIN) as session:
        task = await factories.make_task(session, world.project, "Part")
        task.parent_task_id = world.parent.id
    free, part, ada = world.free, task, world.ada
    asked = {"project": gid(world.project)}

    async def found() -> tuple[Any, ...]:
        """Whether budgets hold up two tasks and an agent, and what is ready."""
        reasons = [await why(world, resolvers, each) for each in (free, part)]
        (idle,) = (await both(world, resolvers, IDLE, id=gid(ada)))["agent"]["whyIdle"] or [None]
        ready = []
        for more in ({}, {"agent": gid(ada)}):
            page = (await both(world, resolvers, READY, **asked, **more))["readyTasks"]
            ready.append({node["title"] for node in page["nodes"]})
        return *reasons, idle and idle["code"], *ready

    all, none, held = {"Free", "Part"}, set[str](), ["BUDGET"]
    assert await found() == ([], [], None, all, all)
    await full(world)
    assert await found() == (held, held, "BUDGET", none, none)
    await full(world, is_hard=False)
    assert await found() == ([], [], None, all, all)
    await full(world, task_id=world.parent.id)
    assert await found() == ([], held, None, {"Free"}, {"Free"})
    await do(world, "UPDATE tasks SET type = 'WRITER' WHERE id = :id", id=free.id)
    assert await found() == (["WRONG_TYPE"], held, "BUDGET", {"Free"}, none)
    await do(world, "UPDATE tasks SET type = NULL WHERE id = :id", id=free.id)
    await full(world, agent_id=ada.id)
    assert await found() == (held, held, "BUDGET", all, none)
    await full(world, model_name="another")
    assert await found() == ([], [], None, all, all)
    await full(world, model_name=world.model.id)
    assert await found() == (held, held, "BUDGET", all, none)
    # Another agent could take them.
    async with world.database.write(ADMIN) as session:
        status = db.AgentStatus.READY
        await factories.make_agent(session, world.project, "Eve", status=status)
    assert await found() == ([], [], "BUDGET", all, none)


async def test_a_budget_is_named_in_words(world: World, resolvers: People) -> None:
    await work(world)
    for values, start in (
        ({}, "The budget of the project has no room: of 1.5 US dollars, 0"),
        (
            {"agent_id": world.ada.id, "period": db.BudgetPeriod.DAY},
            "The daily budget of the agent Ada has no room: of 1.5 US dollars, 0",
        ),
        (
            {"task_id": world.free.id, "period": db.BudgetPeriod.HOUR},
            "The hourly budget of the task Free has no room: of 1.5 US dollars, 0",
        ),
        (
            {
                "model_name": world.model.id,
                "period": db.BudgetPeriod.MONTH,
                "limit_cost": None,
                "limit_tokens": 10,
                "claim_reserve": 10.5,
            },
            "The monthly budget of the model gpt-4o has no room: of 10 tokens, 0",
        ),
    ):
        values = {"claim_reserve": 2} | values
        await full(world, **values)
        words = f"{start} is spent and 0 reserved; a claim needs {values['claim_reserve']}."
        task = (await both(world, resolvers, WHY, id=gid(world.free)))["task"]
        (reason,) = task["whyNotReady"]
        assert (reason["code"], reason["message"]) == ("BUDGET", words)
        (end,) = (await both(world, resolvers, "{ budgets { nodes { periodEndsAt } } }"))[
            "budgets"
        ]["nodes"]
        assert reason["until"] == end["periodEndsAt"]
        agent = (await both(world, resolvers, IDLE, id=gid(world.ada)))["agent"]
        assert agent["whyIdle"] == [{"code": "BUDGET", "message": words, "until": None}]


async def test_ready_tasks_are_those_that_an_agent_could_claim_the_most_urgent_first(
    world: World, resolvers: People
) -> None:
    await work(world)
    async with world.database.write(ADMIN) as session:
        other = await factories.make_agent(session, world.project, "Other", type="RESEARCHER")
        tasks: dict[str, dict[str, Any]] = {
            "urgent": {"priority": 5, "available_at": factories.minutes(2)},
            "first": {"priority": 5, "available_at": factories.minutes(1)},
            "mine": {"type": "DEVELOPER", "priority": 1},
            "research": {"type": "RESEARCHER"},
            "later": {"available_at": factories.minutes(60 * 24 * 365 * 100)},
            "done": {"status": db.TaskStatus.COMPLETED},
            "assigned": {"status": db.TaskStatus.ASSIGNED, "agent_id": world.ada.id},
            "to another": {"status": db.TaskStatus.ASSIGNED, "agent_id": other.id},
        }
        for title, values in tasks.items():
            await factories.make_task(session, world.project, title, **values)
    asked = {"project": gid(world.project), "agent": gid(world.ada)}

    page = (await both(world, resolvers, READY, **asked))["readyTasks"]
    assert [node["title"] for node in page["nodes"]] == [
        "first",
        "urgent",
        "Free",
        "assigned",
        "mine",
    ]
    assert page["totalCount"] == 5
    found, after = [], None
    for _ in range(3):
        page = (await both(world, resolvers, READY, **asked, first=2, after=after))["readyTasks"]
        found += [node["title"] for node in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
    assert found == ["first", "urgent", "Free", "assigned", "mine"]

    of_all = (await both(world, resolvers, READY, project=asked["project"]))["readyTasks"]
    assert {node["title"] for node in of_all["nodes"]} == {*found, "research", "to another"}
    await do(world, "UPDATE agents SET is_active = false")
    assert (await both(world, resolvers, READY, **asked))["readyTasks"]["totalCount"] == 0
    await do(world, "UPDATE projects SET status = 'PAUSED'")
    of_all = (await both(world, resolvers, READY, project=asked["project"]))["readyTasks"]
    assert of_all["totalCount"] == 0
    theirs = {"project": gid(world.elsewhere), "agent": gid(world.bob)}
    assert (await both(world, resolvers, READY, **theirs))["readyTasks"]["totalCount"] == 0


async def make_many(world: World, number: int, **columns: str) -> None:
    """Tasks that are ready, with these columns as SQL, of which n is the number of each."""
    values = {"title": "'x'", "available_at": "now() - n * interval '1 s'"} | columns
    await do(
        world,
        f"INSERT INTO tasks (project_id, {', '.join(values)}) SELECT '{world.project.id}',"
        f" {', '.join(values.values())} FROM generate_series(1, {number}) n",
        "ANALYZE tasks",
    )


async def test_a_page_of_ready_tasks_is_read_from_an_index(world: World, resolvers: People) -> None:
    await work(world)
    types = "CASE WHEN n % 2 = 0 THEN 'DEVELOPER' END"
    await make_many(world, 5_000, priority="1 + n % 5", type=types)
    asked = {"project": gid(world.project), "first": 50}
    query = READY.replace("totalCount", "")
    first = await world.owner.ask(query, **asked)
    after = first.data["readyTasks"]["pageInfo"]["endCursor"]
    connection = await world.database.open()
    try:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        for client in (world.owner, resolvers.owner):
            for agent in (None, gid(world.ada)):
                more = {"agent": agent, "after": after}
                (read,) = (await client.ask(query, **asked, **more)).statements
                nothing = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", read))))
                await connection.execute(f"PREPARE page AS {read}")
                rows = await connection.fetch(f"EXPLAIN EXECUTE page({nothing})")
                await connection.execute("DEALLOCATE page")
                plan = "\n".join(row[0] for row in rows)
                assert "Index Scan using ix_tasks_ready" in plan
                assert "Sort Key" not in plan
    finally:
        await connection.close()


async def test_the_order_of_ready_tasks_is_that_of_claims(world: World) -> None:
    await work(world)
    times = "timestamptz '2026-01-01T00:00:00Z' + n % 7 * interval '1 us'"
    await make_many(world, 50, priority="1 + n % 5", available_at=times, title="n::text")
    await do(world, "UPDATE agents SET max_concurrent_tasks = 100")
    answer = await world.owner.ask(READY, project=gid(world.project), agent=gid(world.ada))
    payload = await world.agent.change("claimTasks { attempts { task { title } } }", limit=50)

    ready = [node["title"] for node in answer.data["readyTasks"]["nodes"]]
    assert len(ready) == 50
    assert [each["task"]["title"] for each in payload["attempts"]] == ready


async def test_a_claim_and_the_agent_name_the_same_reason(world: World, resolvers: People) -> None:
    ada = gid(world.ada)

    async def reason(code: str, message: str) -> None:
        claimed = await world.agent.change("claimTask { reason message availableAt }")
        (shown,) = (await both(world, resolvers, IDLE, id=ada))["agent"]["whyIdle"]
        assert shown["code"] == code
        assert shown["message"] == message
        assert claimed == {"reason": code, "message": message, "availableAt": shown["until"]}

    await reason(
        "AGENT_NOT_ACTIVE",
        "This agent is CREATED. Agents get tasks while they are READY or ACTIVE; transitionAgent"
        " changes the status.",
    )
    await do(world, "UPDATE agents SET status = 'READY', is_active = false")
    await reason("AGENT_NOT_ACTIVE", "This agent is not active: set isActive to let it work.")
    await do(world, "UPDATE agents SET is_active = true")
    await reason(
        "PROJECT_NOT_IN_PROGRESS",
        "The project is DRAFT. Tasks are handed out only while it is IN_PROGRESS.",
    )
    await do(world, "UPDATE projects SET status = 'IN_PROGRESS'")
    await do(world, "UPDATE tasks SET type = 'WRITER' WHERE title = 'Free'")
    await reason(
        "WRONG_TYPE",
        "Tasks are ready, but none is of the type 'DEVELOPER', or without a type.",
    )
    await do(
        world,
        "UPDATE tasks SET type = NULL, available_at = '2999-01-01T00:00Z' WHERE title = 'Free'",
    )
    await reason("BACKOFF", "The tasks that are ready are not available yet.")
    await do(world, "UPDATE tasks SET available_at = now(), resource_keys = '{gpu}'")
    async with world.database.write(ADMIN) as session:
        eve = await factories.make_agent(session, world.project, "Eve")
        attempt = await factories.make_claimed(session, eve, "Busy")
        (await session.get_one(db.Task, attempt.task_id)).resource_keys = ["gpu"]
    await reason(
        "RESOURCE_RESERVED", "The tasks that are ready need resources that tasks in progress use."
    )
    await do(world, "UPDATE tasks SET resource_keys = '{}', type = 'DEVELOPER'")
    await do(world, """UPDATE projects SET max_tasks_by_type = '{"DEVELOPER": 1}'""")
    await reason(
        "PROJECT_LIMIT", "As many tasks of these types are in progress as the project allows."
    )
    await do(world, "UPDATE projects SET max_tasks_by_type = '{}', max_tasks_in_review = 1")
    waits = "UPDATE tasks SET status = 'BLOCKED', blocked_reason = 'HUMAN_INPUT' WHERE id = :id"
    await do(world, waits, id=world.parent.id)
    await reason(
        "PROJECT_LIMIT", "As many tasks of the project wait for people as may (maxTasksInReview)."
    )
    await do(world, "UPDATE projects SET max_tasks_in_review = NULL")
    await do(world, "UPDATE tasks SET status = 'COMPLETED' WHERE title = 'Free'")
    await reason("NOTHING_READY", "No task is ready: all wait, are in progress, or have ended.")
    async with world.database.write(ADMIN) as session:
        await factories.make_claimed(session, world.ada, "Hers")
    await reason(
        "AGENT_AT_CAPACITY", "This agent works on as many tasks as it may at once: 1 of 1."
    )
    await do(world, "UPDATE projects SET max_tasks_per_agent = 1")
    await do(world, "UPDATE agents SET max_concurrent_tasks = 2")
    await reason("PROJECT_LIMIT", "This agent works on as many tasks as its project allows: 1.")


async def test_a_claim_of_no_types_is_one_of_the_type_of_the_agent(world: World) -> None:
    await work(world)
    await do(world, "UPDATE tasks SET type = 'WRITER'")
    claimed = await world.agent.change("claimTask { reason message }", types=[])
    assert claimed == await world.agent.change("claimTask { reason message }")
    assert "'DEVELOPER'" in claimed["message"]


async def test_the_reason_that_keeps_an_agent_from_many_tasks_is_found_in_few_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle, "MOST_READ", 10)
    monkeypatch.setattr(idle, "MOST_COMPARED", 5)
    types = value("types", ARRAY(String))
    statement = compiled(idle.why_idle(ADMIN, Right.WORK, value("agent_id", Uuid), types))
    arguments = statement.arguments(
        Values(ADMIN, {"agent_id": world.ada.id, "types": ["", "DEVELOPER"]})
    )
    await work(world)
    parent = f"'{world.parent.id}'::uuid"
    await make_many(world, 200, resource_keys="'{gpu}'", parent_task_id=parent)
    reserved = "UPDATE tasks SET status = 'IN_PROGRESS', resource_keys = '{gpu}' WHERE id = :id"
    await do(world, reserved, id=world.free.id)
    connection = await world.database.open()

    async def reads_few(code: str) -> bool:
        """Whether no part of the plan reads many tasks to find the reason."""
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.sql}"
        plan = json.loads(await connection.fetchval(explain, *arguments))[0]["Plan"]
        (found,) = await connection.fetch(statement.sql, *arguments)
        assert found["code"] == code
        rows: list[int] = [
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            for node in nodes(plan)
            if node.get("Relation Name") == "tasks"
        ]
        return 0 < max(rows, default=0) < 20

    try:
        assert await reads_few("RESOURCE_RESERVED")
        await do(world, "UPDATE tasks SET resource_keys = '{}'")
        await do(world, """UPDATE projects SET max_tasks_by_type = '{"DEVELOPER": 0}'""")
        await do(world, "UPDATE tasks SET type = 'DEVELOPER'")
        assert await reads_few("PROJECT_LIMIT")
        await do(world, "UPDATE projects SET max_tasks_by_type = '{}'")
        await full(world, task_id=world.parent.id)
        assert await reads_few("BUDGET")
        await do(world, "UPDATE tasks SET available_at = '2999-01-01T00:00Z'")
        assert await reads_few("BACKOFF")
    finally:
        await connection.close()


def nodes(plan: Any) -> list[Any]:
    """The nodes of a plan."""
    return [plan, *(found for below in plan.get("Plans", ()) for found in nodes(below))]


async def test_tasks_are_sorted_by_when_they_are_due(world: World, resolvers: People) -> None:
    query = """query($order: TaskOrder!, $first: Int, $after: String) {
      tasks(orderBy: $order, first: $first, after: $after) {
        totalCount nodes { title } pageInfo { endCursor hasNextPage }
      }
    }"""
    await do(world, "UPDATE tasks SET due_at = '2030-01-02T00:00Z' WHERE title = 'Free'")
    await do(world, "UPDATE tasks SET due_at = '2030-01-01T00:00Z' WHERE title = 'Parent'")
    for order, titles in (
        ("DUE_AT_ASC", ["Parent", "Free"]),
        ("DUE_AT_DESC", ["Free", "Parent"]),
    ):
        found, after = [], None
        for _ in range(2):
            page = (await both(world, resolvers, query, order=order, first=1, after=after))["tasks"]
            assert page["totalCount"] == 2
            found += [node["title"] for node in page["nodes"]]
            after = page["pageInfo"]["endCursor"]
        assert found == titles
        assert not page["pageInfo"]["hasNextPage"]
