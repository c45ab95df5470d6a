"""Why tasks of a project do not go on until somebody does something."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Uuid, text

import db
from db import OnFailure, TaskStatus, obstacles
from db.dependencies import recount
from db.statements import Values, compiled, value
from tests import factories
from tests.conftest import ADMIN, People
from tests.test_readiness import nodes
from tests.world import World, gid, make_world

STUCK = """query($id: ID!, $first: Int) { project(id: $id) { whyStuck(first: $first) {
  code message type until taskCount task { title } agent { name } budget { id }
} } }"""
MANUAL = db.BlockedReason.MANUAL


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    world = await make_world(database, http, people)
    await do(world, "UPDATE projects SET status = 'IN_PROGRESS'")
    await do(world, "UPDATE agents SET status = 'ACTIVE'")
    return world


async def do(world: World, statement: str, **values: Any) -> None:
    """Change rows past the rules."""
    async with world.database.write(ADMIN) as session:
        await session.execute(text(statement), values)


async def stuck(world: World, resolvers: People, first: int | None = None) -> list[tuple[Any, ...]]:
    """The reasons, with what they are about and how many tasks; the same both ways."""
    asked = {"id": gid(world.project), "first": first}
    answer = await world.owner.ask(STUCK, **asked)
    assert answer.text == (await resolvers.owner.ask(STUCK, **asked)).text
    assert len(answer.statements) == 1
    found = []
    for each in answer.data["project"]["whyStuck"]:
        assert each["message"].endswith(".")
        about = [each["task"] and each["task"]["title"], each["type"]]
        about.append(each["agent"] and each["agent"]["name"])
        found.append((each["code"], *filter(None, about), each["taskCount"]))
    return found


async def make(
    world: World, *edges: tuple[str, str, OnFailure], **tasks: dict[str, Any]
) -> dict[str, db.Task]:
    """Tasks by title, each of which may name its parent, and what they wait for."""
    made: dict[str, db.Task] = {}
    async with world.database.write(ADMIN) as session:
        for title, values in tasks.items():
            given = dict(values)
            if "parent" in given:
                given["parent_task_id"] = made[given.pop("parent")].id
            made[title] = await factories.make_task(session, world.project, title, **given)
        for dependent, dependency, on_failure in edges:
            await factories.make_dependency(
                session, made[dependent], made[dependency], on_failure=on_failure
            )
        await recount(session, [task.id for task in made.values()])
    return made


async def test_what_goes_on_by_itself_is_not_stuck(world: World, resolvers: People) -> None:
    assert await stuck(world, resolvers) == []
    # What a person is asked goes on with the answer, and what has an hour to wait goes on then.
    asked = await make(world, A={"status": TaskStatus.BLOCKED, "blocked_reason": "HUMAN_INPUT"})
    async with world.database.write(ADMIN) as session:
        await db.ApprovalRequest.create(
            session,
            project_id=world.project.id,
            task_id=asked["A"].id,
            title="?",
            content={},
            blocks_task=True,
        )
    await do(world, "UPDATE tasks SET available_at = '2999-01-01T00:00Z'")
    assert await stuck(world, resolvers) == []
    await do(world, "UPDATE human_interactions SET status = 'CANCELLED' WHERE blocks_task")
    assert await stuck(world, resolvers) == [("APPROVAL", "A", 1)]


async def test_all_that_waits_for_what_has_ended_is_stuck(world: World, resolvers: People) -> None:
    """B waits for the cancelled A, so do its subtask, what waits for that, and its parent."""
    hold, skip, ignore = OnFailure.HOLD, OnFailure.SKIP, OnFailure.IGNORE
    made = await make(
        world,
        ("B", "A", hold),
        ("D", "C", skip),
        ("F", "A", ignore),
        ("G", "E", hold),
        A={"status": TaskStatus.CANCELLED},
        P={},
        B={"parent": "P"},
        C={"parent": "B"},
        D={},
        E={"status": TaskStatus.SKIPPED},
        F={},
        G={"status": TaskStatus.COMPLETED},
    )
    assert await stuck(world, resolvers) == [("CANCELLED", "A", 4)]
    # A subtask of what was completed waits for what that has waited for.
    await make(world, H={"parent_task_id": made["G"].id})
    assert await stuck(world, resolvers) == [("CANCELLED", "A", 4), ("SKIPPED", "E", 1)]
    await do(world, "UPDATE tasks SET status = 'FAILED' WHERE title = 'A'")
    assert await stuck(world, resolvers) == [("FAILED", "A", 4), ("SKIPPED", "E", 1)]
    assert await stuck(world, resolvers, first=1) == [("FAILED", "A", 4)]


async def test_a_task_waits_for_what_ended_ancestors_waited_for(
    world: World, resolvers: People
) -> None:
    done, hold = {"status": TaskStatus.COMPLETED}, OnFailure.HOLD
    await make(
        world,
        ("B", "A", hold),
        A={"status": TaskStatus.CANCELLED},
        B=done,
        C=done | {"parent": "B"},
        D=done | {"parent": "C"},
        E={"parent": "D"},
        F={"parent": "D"},
    )
    assert await stuck(world, resolvers) == [("CANCELLED", "A", 2)]
    await do(world, "UPDATE task_dependencies SET on_failure = 'IGNORE'")
    assert await stuck(world, resolvers) == []


async def test_what_many_depend_on_is_found_by_what_waits(world: World, resolvers: People) -> None:
    """Of 100 cancelled tasks on which 200 each depend, two have one dependent that waits."""
    project, done = world.project.id, "unmet_dependency_count, status) SELECT"
    each = f"INSERT INTO tasks (project_id, title, {done} '{project}', 't' || n,"
    await do(world, f"{each} 0, 'CANCELLED' FROM generate_series(1, 100) n")
    await do(world, f"{each} 1, 'COMPLETED' FROM generate_series(101, 300) n")
    await do(
        world,
        "INSERT INTO task_dependencies (dependent_id, dependency_id, on_failure)"
        " SELECT d.id, c.id, 'HOLD' FROM tasks d, tasks c"
        " WHERE d.title LIKE 't%' AND d.status = 'COMPLETED' AND c.status = 'CANCELLED'",
    )
    assert await stuck(world, resolvers) == []
    # By its id, it is the last of the dependents.
    await make(world, Last={"id": UUID(int=2**128 - 1)})
    await do(
        world,
        "INSERT INTO task_dependencies (dependent_id, dependency_id, on_failure)"
        " SELECT d.id, c.id, 'HOLD' FROM tasks d, tasks c"
        " WHERE d.title = 'Last' AND c.title IN ('t7', 't70')",
    )
    await do(world, "UPDATE tasks SET unmet_dependency_count = 2 WHERE title = 'Last'")
    found = await stuck(world, resolvers)
    assert sorted(found) == [("CANCELLED", "t7", 1), ("CANCELLED", "t70", 1)]


async def test_what_waits_for_many_is_found_whatever_it_waits_for_besides(
    world: World, resolvers: People
) -> None:
    """The last of 150 dependents waits, and 150 of what it depends on are completed."""
    project = world.project.id
    each = (
        f"INSERT INTO tasks (project_id, title, unmet_dependency_count, status) SELECT '{project}',"
    )
    await do(world, f"{each} 'before', 0, 'COMPLETED' FROM generate_series(1, 150)")
    await do(world, f"{each} 'after', 1, 'COMPLETED' FROM generate_series(1, 150)")
    await make(world, X={"status": TaskStatus.CANCELLED}, Last={"id": UUID(int=2**128 - 1)})
    edges = (
        "INSERT INTO task_dependencies (dependent_id, dependency_id, on_failure)"
        " SELECT d.id, c.id, 'HOLD' FROM tasks d, tasks c WHERE"
    )
    await do(world, f"{edges} d.title = 'after' AND c.title = 'X'")
    await do(world, f"{edges} d.title = 'Last' AND c.title IN ('before', 'X')")
    await do(world, "UPDATE tasks SET unmet_dependency_count = 1 WHERE title = 'Last'")

    assert await stuck(world, resolvers) == [("CANCELLED", "X", 1)]

    # Many wait, each for several, and one that is older than these waits for what was cancelled.
    await do(world, f"{each} 'more', 1, 'PENDING' FROM generate_series(1, 4000)")
    await do(
        world,
        f"{edges} d.title = 'more' AND c.id IN (SELECT id FROM tasks"
        " WHERE title = 'before' ORDER BY id LIMIT 3)",
    )
    assert ("CANCELLED", "X", 1) in await stuck(world, resolvers)


async def test_what_failed_or_is_held_is_stuck_with_what_waits_for_it(
    world: World, resolvers: People
) -> None:
    held = {"status": TaskStatus.BLOCKED, "blocked_reason": MANUAL}
    await make(
        world,
        ("B", "A", OnFailure.IGNORE),
        A=held,
        B={},
        C={"status": TaskStatus.BLOCKED, "blocked_reason": db.BlockedReason.EXTERNAL},
        D={"status": TaskStatus.FAILED},
    )
    assert await stuck(world, resolvers) == [
        ("FAILED", "D", 0),
        ("HELD", "A", 2),
        ("EXTERNAL", "C", 1),
    ]
    # Where nothing is to go on, nothing is stuck.
    await do(world, "UPDATE projects SET status = 'COMPLETED'")
    assert await stuck(world, resolvers) == []


async def test_what_no_agent_takes_is_stuck(world: World, resolvers: People) -> None:
    await make(
        world,
        ("B", "A", OnFailure.SKIP),
        A={"type": "DEPLOY"},
        B={"type": "REVIEW"},
        C={"type": "DEPLOY"},
        D={"type": "DEVELOPER"},
        E={},
    )
    assert await stuck(world, resolvers) == [("WRONG_TYPE", "DEPLOY", 3)]
    await do(world, """UPDATE projects SET max_tasks_by_type = '{"DEVELOPER": 0, "DEPLOY": 1}'""")
    assert await stuck(world, resolvers) == [
        ("WRONG_TYPE", "DEPLOY", 3),
        ("PROJECT_LIMIT", "DEVELOPER", 1),
    ]
    async with world.database.write(ADMIN) as session:
        await factories.make_agent(
            session, world.project, "Bo", type="DEPLOY", status=db.AgentStatus.PAUSED
        )
    assigned = (
        "UPDATE tasks SET status = 'ASSIGNED', type = NULL, agent_id = (SELECT id FROM agents"
    )
    await do(world, f"{assigned} WHERE name = 'Bo') WHERE title = 'D'")
    assert await stuck(world, resolvers) == [
        ("WRONG_TYPE", "DEPLOY", 3),
        ("AGENT_NOT_ACTIVE", "Bo", 1),
    ]
    await do(world, "UPDATE agents SET is_active = false")
    # These, and those of the world: what is ready, and what waits for that.
    assert await stuck(world, resolvers) == [("NO_AGENT", 8)]
    await do(world, "UPDATE projects SET status = 'PAUSED'")
    assert await stuck(world, resolvers) == [("PROJECT_NOT_IN_PROGRESS", None), ("NO_AGENT", 8)]
    await do(world, "UPDATE tasks SET status = 'COMPLETED'")
    assert await stuck(world, resolvers) == []


async def test_a_budget_that_is_used_up_is_why(world: World, resolvers: People) -> None:
    async def budget(**values: Any) -> None:
        await do(world, "DELETE FROM budgets")
        new = {"limit_cost": Decimal(1), "claim_reserve": Decimal(2), "period": "EVER"}
        async with world.database.write(ADMIN) as session:
            await db.Budget.create(session, project_id=world.project.id, **new | values)

    await budget()
    assert await stuck(world, resolvers) == [("BUDGET", None)]
    await budget(is_hard=False)
    assert await stuck(world, resolvers) == []
    await budget(claim_reserve=Decimal(1))
    assert await stuck(world, resolvers) == []
    await budget(task_id=world.free.id)
    assert await stuck(world, resolvers) == [("BUDGET", "Free", None)]
    await do(world, f"UPDATE tasks SET status = 'COMPLETED' WHERE id = '{world.free.id}'")
    assert await stuck(world, resolvers) == []
    await do(world, f"UPDATE tasks SET status = 'PENDING' WHERE id = '{world.free.id}'")
    await budget(model_name="unused")
    assert await stuck(world, resolvers) == []
    await budget(agent_id=world.ada.id, period="HOUR")
    assert await stuck(world, resolvers) == [("BUDGET", "Ada", None)]
    (found,) = (await world.owner.ask(STUCK, id=gid(world.project))).data["project"]["whyStuck"]
    assert found["until"] is not None
    await do(world, "UPDATE agents SET status = 'TERMINATED'")
    assert await stuck(world, resolvers) == [("NO_AGENT", 3)]


async def test_strangers_learn_nothing(world: World) -> None:
    await make(world, A={"status": TaskStatus.FAILED})
    answer = await world.people.stranger.ask(STUCK, id=gid(world.project))
    assert answer.data == {"project": None}
    # Nor does the statement by itself tell them.
    users = world.people.users
    for name, number in (("owner", 1), ("stranger", 0)):
        viewer = db.Viewer(users[name].id)
        statement = compiled(obstacles.why_stuck(viewer, value("project_id", Uuid)))
        arguments = statement.arguments(Values(viewer, {"project_id": world.project.id}))
        connection = await world.database.open()
        try:
            found = await connection.fetch(statement.sql, *arguments)
        finally:
            await connection.close()
        assert len(found) == number


async def test_it_reads_few_of_many_tasks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obstacles, "MOST_COUNTED", 10)
    statement = compiled(obstacles.why_stuck(ADMIN, value("project_id", Uuid)).limit(3))
    arguments = statement.arguments(Values(ADMIN, {"project_id": world.project.id}))
    await make(world, A={"status": TaskStatus.CANCELLED})
    for columns in (
        "title, type, status) SELECT 'x', 'DEVELOPER', 'PENDING'",
        "title, type, status) SELECT 'y', 'DEPLOY', 'PENDING'",
        "title, type, status) SELECT 'z', NULL, 'COMPLETED'",
        "title, unmet_dependency_count) SELECT 'w', 1",
    ):
        target, _, values = columns.partition(") SELECT ")
        await do(
            world,
            f"INSERT INTO tasks (project_id, {target}) SELECT '{world.project.id}', {values}"
            " FROM generate_series(1, 2000)",
        )
    await do(
        world,
        "INSERT INTO task_dependencies (dependent_id, dependency_id, on_failure)"
        " SELECT w.id, a.id, 'HOLD' FROM tasks w, tasks a WHERE w.title = 'w' AND a.title = 'A'",
    )
    connection = await world.database.open()
    try:
        await connection.execute("ANALYZE")
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        found = await connection.fetch(statement.sql, *arguments)
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.sql}"
        plan = json.loads(await connection.fetchval(explain, *arguments))[0]["Plan"]
    finally:
        await connection.close()
    assert [(each["code"], each["task_count"]) for each in found] == [
        ("WRONG_TYPE", 10),
        ("CANCELLED", 10),
    ]
    rows = [
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes(plan)
        if node.get("Relation Name") == "tasks"
    ]
    assert 0 < max(rows) <= 20
    # What is counted in functions is not in the plan: all pages that the statement reads.
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 600
