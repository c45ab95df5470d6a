"""Several tasks are completed at once: all of them or none, and what waits for them is counted."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from uuid import UUID

import httpx
import pytest

import db
from db import AgentStatus, ProjectStatus, Right, claims, dependencies
from db.errors import Rejected
from tests import factories
from tests.conftest import ADMIN, People
from tests.test_claims import change, claim, count, make_agents, make_tasks, titles
from tests.world import World, make_world, stored

ROUNDS = 50
COMPLETE = """mutation($input: CompleteTasksInput!) { completeTasks(input: $input) {
  attempts { id status result task { title } } userErrors { code message path } } }"""


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    """The project is in progress, and Ada is ready for many tasks. One is free."""
    world = await make_world(database, http, people)
    await change(world, world.project, status=ProjectStatus.IN_PROGRESS)
    await change(world, world.ada, status=AgentStatus.READY, max_concurrent_tasks=1000)
    return world


async def claimed(world: World, *names: str, agent: db.Agent | None = None) -> list[UUID]:
    """Attempts at new tasks with these titles, in their order."""
    await make_tasks(world, *({"title": name, "priority": 5} for name in names))
    found = await claim(world, agent, limit=len(names))
    assert await titles(world, found) == list(names)
    return found.attempts


async def complete(world: World, *attempts: UUID, result: Any = 1) -> None:
    async with world.database.write(ADMIN, Right.WORK) as session:
        await claims.complete_all(session, [(id, result) for id in attempts])


def given(*attempts: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"attemptId": str(id)} | more for id in attempts]


async def tasks_of(world: World, attempts: list[UUID]) -> list[db.Task]:
    """The tasks of attempts, in their order."""
    async with world.database.write(ADMIN) as session:
        found = [await session.get_one(db.TaskAttempt, id) for id in attempts]
        return [await session.get_one(db.Task, each.task_id) for each in found]


async def wait_for(world: World, task: db.Task, *others: db.Task) -> None:
    """Let a task wait for others."""
    async with world.database.write(ADMIN) as session:
        for other in others:
            await factories.make_dependency(session, task, other)
        await dependencies.recount(session, [task.id])


async def state(world: World) -> list[Any]:
    """All that completing could change."""
    query = (
        "SELECT t.id::text, t.status, t.version, t.unmet_dependency_count, t.result::text,"
        " a.status, a.result::text, l.expires_at, (SELECT count(*) FROM events)"
        " FROM tasks t LEFT JOIN task_attempts a ON a.task_id = t.id"
        " LEFT JOIN task_leases l ON l.attempt_id = a.id ORDER BY t.id, a.id"
    )
    return await stored(world.database, query)


async def test_tasks_are_completed_by_one_statement_and_what_waits_is_counted(
    world: World,
) -> None:
    ids = await claimed(world, "a", "b", "c")
    a, b, c = await tasks_of(world, ids)
    both, one, free = await make_tasks(
        world, {"title": "both"}, {"title": "also open"}, {"title": "open"}
    )
    await wait_for(world, both, a, b)
    await wait_for(world, one, a, c, free)

    attempts = [
        {"attemptId": str(id), "result": {"number": number}} for number, id in enumerate(ids)
    ]
    answer = await world.agent.ask(COMPLETE, input={"attempts": attempts})

    assert len(answer.statements) == 1
    found = answer.data["completeTasks"]
    assert found["userErrors"] == []
    assert [each.pop("id") is not None for each in found["attempts"]] == [True] * 3
    assert found["attempts"] == [
        {"status": "SUCCEEDED", "result": {"number": number}, "task": {"title": title}}
        for number, title in enumerate("abc")
    ]
    tasks = await stored(
        world.database,
        "SELECT title, status, result->>'number', unmet_dependency_count, version,"
        " current_attempt_id IS NULL, completed_at IS NOT NULL FROM tasks"
        " WHERE title IN ('a', 'b', 'c', 'both', 'also open') ORDER BY title",
    )
    assert tasks == [
        ("a", "COMPLETED", "0", 0, 3, True, True),
        ("also open", "PENDING", None, 1, 1, True, False),
        ("b", "COMPLETED", "1", 0, 3, True, True),
        ("both", "PENDING", None, 0, 1, True, False),
        ("c", "COMPLETED", "2", 0, 3, True, True),
    ]
    assert await count(world, "task_leases") == 0
    events = await stored(
        world.database,
        "SELECT entity_type, actor_id, after->>'status' FROM events WHERE action = 'UPDATED'"
        " AND after->>'status' IN ('SUCCEEDED', 'COMPLETED') AND actor_id IS NOT NULL",
    )
    assert sorted(map(tuple, events)) == [
        *[("Task", world.ada.id, "COMPLETED")] * 3,
        *[("TaskAttempt", world.ada.id, "SUCCEEDED")] * 3,
    ]


async def test_a_subtask_is_completed_with_its_parent(world: World) -> None:
    ids = await claimed(world, "parent")
    (above,) = await tasks_of(world, ids)
    below = {"title": "sub", "priority": 5, "parent_task_id": above.id}
    await make_tasks(world, below)
    async with world.database.write(ADMIN) as session:
        await dependencies.recount(session, [above.id])
    child = (await claim(world)).attempts

    await complete(world, *ids, *child)

    tasks = await stored(
        world.database,
        "SELECT title, status, unmet_dependency_count FROM tasks"
        " WHERE title IN ('parent', 'sub') ORDER BY title",
    )
    assert tasks == [("parent", "COMPLETED", 0), ("sub", "COMPLETED", 0)]


async def test_if_one_has_ended_nothing_is_completed(world: World) -> None:
    first, second, third = await claimed(world, "a", "b", "c")
    async with world.database.write(ADMIN, Right.WORK) as session:
        await claims.release(session, second, None)
    before = await state(world)
    unknown = db.new_id()

    answer = await world.agent.ask(
        COMPLETE, input={"attempts": given(first, second, unknown, third, result=1)}
    )

    found = answer.data["completeTasks"]
    assert found["attempts"] == []
    assert [(each["code"], each["path"]) for each in found["userErrors"]] == [
        ("LEASE_LOST", ["attempts", "1", "attemptId"]),
        ("NOT_FOUND", ["attempts", "2", "attemptId"]),
    ]
    assert await state(world) == before


async def test_an_agent_completes_no_tasks_of_another(world: World) -> None:
    (own,) = await claimed(world, "a")
    (eve,) = await make_agents(world, 1)
    (hers,) = await claimed(world, "b", agent=eve)
    before = await state(world)

    answer = await world.agent.ask(COMPLETE, input={"attempts": given(own, hers)})

    assert answer.code == "FORBIDDEN"
    assert await state(world) == before


async def test_the_same_once_more_changes_nothing(world: World) -> None:
    first, second = await claimed(world, "a", "b")
    input = {"attempts": given(first, second, result={"x": 1.0})}
    answers = [await world.agent.ask(COMPLETE, input=input)]
    before = await state(world)

    answers.append(await world.agent.ask(COMPLETE, input=input))

    assert answers[0].data == answers[1].data
    assert await state(world) == before
    other = await world.agent.ask(COMPLETE, input={"attempts": given(first, result={"x": 2})})
    (error,) = other.data["completeTasks"]["userErrors"]
    assert error["code"] == "LEASE_LOST"
    assert await state(world) == before


async def test_what_was_completed_before_does_not_keep_the_rest_back(world: World) -> None:
    first, second = await claimed(world, "a", "b")
    await complete(world, first)

    answer = await world.agent.ask(
        COMPLETE,
        input={"attempts": given(first, second, result=1), "idempotencyKey": "k"},
    )
    again = await world.agent.ask(
        COMPLETE,
        input={"attempts": given(first, second, result=1), "idempotencyKey": "k"},
    )

    found = answer.data["completeTasks"]
    assert [each["status"] for each in found["attempts"]] == ["SUCCEEDED"] * 2
    assert again.data == answer.data
    assert await count(world, "task_attempts WHERE status = 'SUCCEEDED'") == 2


@pytest.mark.parametrize("number", [0, 101])
async def test_a_list_is_neither_empty_nor_long(world: World, number: int) -> None:
    ids = [db.new_id() for _ in range(number)]
    found = await world.refused(world.agent, "completeTasks", attempts=given(*ids))
    assert found == [("INVALID", "attempts")]


async def test_an_attempt_is_given_once(world: World) -> None:
    (first,) = await claimed(world, "a")
    before = await state(world)

    found = await world.refused(world.agent, "completeTasks", attempts=given(first, first))

    assert found == [("INVALID", "attempts")]
    assert await state(world) == before


async def test_of_many_who_complete_the_same_tasks_each_task_is_completed_once(
    world: World,
) -> None:
    """They name them in different orders, while heartbeats and releases concern them too."""
    chosen = random.Random(0)
    for number in range(ROUNDS):
        names = [f"{number}-{place}" for place in range(6)]
        ids = await claimed(world, *names)
        waiting = (await make_tasks(world, {"title": "waiting", "priority": 1}))[0]
        await wait_for(world, waiting, *await tasks_of(world, ids))
        groups = [chosen.sample(ids, 4) for _ in range(3)]

        async def lose(id: UUID) -> None:
            async with world.database.write(ADMIN, Right.WORK) as session:
                await claims.release(session, id, "gone")

        async def beat(order: list[UUID]) -> None:
            async with world.database.write(ADMIN, Right.WORK) as session:
                await claims.heartbeat(session, [claims.Heartbeat(id, 5) for id in order])

        lost = chosen.choice(ids)
        ended = await asyncio.gather(
            *(complete(world, *group, result=place) for place, group in enumerate(groups)),
            beat(chosen.sample(ids, 6)),
            lose(lost),
            return_exceptions=True,
        )

        outcomes = ended[:3]
        assert all(each is None or isinstance(each, Rejected) for each in outcomes), ended
        assert ended[3] is None
        done = {
            id for each, group in zip(outcomes, groups, strict=True) if not each for id in group
        }
        found = await stored(
            world.database, "SELECT id FROM task_attempts WHERE status = 'SUCCEEDED'"
        )
        assert set(found) & set(ids) == done
        (unmet,) = await stored(
            world.database,
            "SELECT unmet_dependency_count FROM tasks WHERE id = :id",
            id=waiting.id,
        )
        assert unmet == len(ids) - len(done)
        for task in await tasks_of(world, ids):  # none of them is claimed in the next round
            await change(world, task, priority=1)
