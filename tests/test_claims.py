"""Claims: who gets which task, how it is kept and ended, and that each happens once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Executable, select, text, update
from sqlalchemy.exc import IntegrityError

import db
from db import AgentStatus, ProjectStatus, Right, TaskStatus, Viewer, claims, sweeper
from db.claims import IdleReason, claiming, completions, endings, heartbeats
from db.claims.starts import FRONT, Start, values_of
from db.engine import BY_KEY
from db.errors import LeaseLost
from db.scopes import scope
from db.statements import Compiled, Statement, Values
from tests import factories
from tests.client import Client
from tests.conftest import ADMIN, People
from tests.test_races import waiting
from tests.world import Case, WholeWorld, World, at, faults, gid, make_world, stored

ROUNDS = 50
ERRORS = "userErrors { __typename code message path }"
ATTEMPT = "attempt { id number status task { title status } } reason message availableAt"
CLAIM = f"mutation($input: ClaimTaskInput!) {{ claimTask(input: $input) {{ {ATTEMPT} {ERRORS} }} }}"


def _held(name: str) -> Callable[[WholeWorld], dict[str, Any]]:
    return lambda world: {"attemptId": gid(world.held[name])}


CASES = {
    "claimTask": Case(lambda w: {"agentId": gid(w.ada)}, at("agentId")),
    "claimTasks": Case(lambda w: {"agentId": gid(w.ada), "limit": 1}, at("agentId")),
    "heartbeat": Case(
        lambda w: {"attempts": [_held("heartbeat")(w) | {"progressPercent": 7}]},
        at("attempts.0.attemptId"),
    ),
    "completeTask": Case(_held("completeTask"), at("attemptId")),
    "completeTasks": Case(
        lambda w: {"attempts": [_held("completeTasks")(w)]}, at("attempts.0.attemptId")
    ),
    "failTask": Case(lambda w: _held("failTask")(w) | {"error": "No."}, at("attemptId")),
    "releaseTask": Case(_held("releaseTask"), at("attemptId")),
    "extendLease": Case(
        lambda w: _held("extendLease")(w) | {"leaseSeconds": 86400}, at("attemptId")
    ),
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    """The project is in progress, and Ada, a DEVELOPER, is ready for 100 tasks. One is free."""
    world = await make_world(database, http, people)
    await change(world, world.project, status=ProjectStatus.IN_PROGRESS)
    await change(world, world.ada, status=AgentStatus.READY, max_concurrent_tasks=100)
    return world


async def change(world: World, row: Any, **values: Any) -> None:
    """Set values of a row, past the rules."""
    async with world.database.write(ADMIN) as session:
        await session.execute(update(type(row)).where(type(row).id == row.id).values(**values))


async def make_tasks(world: World, *values: dict[str, Any]) -> list[db.Task]:
    """Tasks of the owner's project, more urgent than the one that is there."""
    async with world.database.write(ADMIN) as session:
        return [
            await factories.make_task(session, world.project, **{"priority": 4} | each)
            for each in values
        ]


async def make_agents(world: World, count: int, **values: Any) -> list[db.Agent]:
    """Colleagues of Ada's, who are ready."""
    values = {"status": AgentStatus.READY} | values
    async with world.database.write(ADMIN) as session:
        return [
            await factories.make_agent(session, world.project, f"Agent {number}", **values)
            for number in range(count)
        ]


async def claim(world: World, agent: db.Agent | None = None, **options: Any) -> claims.Claimed:
    """What an agent claims, by default Ada."""
    async with world.database.write(ADMIN, Right.WORK) as session:
        return await claims.claim(session, (agent or world.ada).id, **options)


def values_of_claim(agent: db.Agent, number: int = 1, start: Start = FRONT) -> dict[str, Any]:
    """The values of the statement of a claim."""
    return {
        "attempt_ids": [db.new_id() for _ in range(number)],
        "agent_id": agent.id,
        "lease_seconds": timedelta(seconds=60),
        "traceparent": None,
        **values_of(start),
    }


async def titles(world: World, claimed: claims.Claimed) -> list[str]:
    """The tasks of attempts, in their order."""
    query = (
        "SELECT title FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS given(id, number)"
        " JOIN task_attempts a USING (id) JOIN tasks t ON t.id = a.task_id ORDER BY given.number"
    )
    return await stored(world.database, query, ids=claimed.attempts)


async def reason(world: World, agent: db.Agent | None = None, **options: Any) -> IdleReason | None:
    """Why an agent gets nothing."""
    claimed = await claim(world, agent, **options)
    assert (claimed.idle is None) is bool(claimed.attempts)
    return claimed.idle and claimed.idle.reason


async def end(
    world: World, how: Callable[..., Awaitable[Any]], attempt_id: UUID, *values: Any, **more: Any
) -> Any:
    """End an attempt, as somebody who may."""
    async with world.database.write(ADMIN, Right.WORK) as session:
        return await how(session, attempt_id, *values, **more)


async def beat(world: World, *beats: claims.Heartbeat) -> list[UUID]:
    """Send a heartbeat, as somebody who may."""
    async with world.database.write(ADMIN, Right.WORK) as session:
        return await claims.heartbeat(session, beats)


async def task_of(world: World, attempt_id: UUID, columns: str = "t.status") -> Any:
    """What is stored of the task of an attempt, and of the attempt."""
    query = (
        f"SELECT {columns} FROM task_attempts a JOIN tasks t ON t.id = a.task_id WHERE a.id = :id"
    )
    (found,) = await stored(world.database, query, id=attempt_id)
    return found


async def run_out(world: World) -> None:
    """Let all leases run out."""
    async with world.database.write(ADMIN) as session:
        await session.execute(text("UPDATE task_leases SET expires_at = now() - interval '1 s'"))


async def count(world: World, query: str) -> int:
    (number,) = await stored(world.database, f"SELECT count(*) FROM {query}")
    return int(number)


async def outcome(ending: Awaitable[Any]) -> str:
    """How an operation of a worker has ended: done, or refused."""
    try:
        await ending
    except LeaseLost:
        return "lost"
    return "done"


# What a claim gives


async def test_an_agent_claims_a_task_and_completes_it(world: World) -> None:
    claimed = await world.agent.ask(CLAIM, input={"leaseSeconds": 90})

    assert len(claimed.statements) == 2
    payload = claimed.data["claimTask"]
    id = payload["attempt"].pop("id")
    assert payload == {
        "attempt": {
            "number": 1,
            "status": "RUNNING",
            "task": {"title": "Free", "status": "IN_PROGRESS"},
        },
        "reason": None,
        "message": None,
        "availableAt": None,
        "userErrors": [],
    }
    (lease,) = await stored(
        world.database,
        "SELECT expires_at - heartbeat_at = interval '90 s', l.agent_id = a.agent_id,"
        " l.task_id = a.task_id, t.current_attempt_id = a.id, t.agent_id = a.agent_id,"
        " t.started_at = a.started_at, t.attempt_count, t.version"
        " FROM task_leases l JOIN task_attempts a ON a.id = attempt_id"
        " JOIN tasks t ON t.id = l.task_id",
    )
    assert lease == (True, True, True, True, True, True, 1, 2)

    query = (
        "mutation($input: CompleteTaskInput!) { completeTask(input: $input) { attempt { status"
        " result leaseLost task { status result completedAt leaseExpiresAt currentAttempt { id } }"
        " } userErrors { code } } }"
    )
    completed = await world.agent.ask(query, input={"attemptId": id, "result": {"depth": 2}})

    found = completed.data["completeTask"]
    assert found["attempt"]["task"].pop("completedAt") is not None
    assert found == {
        "attempt": {
            "status": "SUCCEEDED",
            "result": {"depth": 2},
            "leaseLost": True,
            "task": {
                "status": "COMPLETED",
                "result": {"depth": 2},
                "leaseExpiresAt": None,
                "currentAttempt": None,
            },
        },
        "userErrors": [],
    }
    assert len(completed.statements) == 2
    assert await count(world, "task_leases") == 0
    # What waited for it can be claimed, and then what waited for that.
    assert await titles(world, await claim(world)) == ["Subtask"]


async def test_the_most_urgent_task_comes_first(world: World) -> None:
    early, late = factories.minutes(1), factories.minutes(2)
    ids = [db.new_id() for _ in range(2)]
    await make_tasks(
        world,
        {"title": "later", "available_at": late, "priority": 5},
        {"title": "second id", "available_at": early, "id": ids[1], "priority": 5},
        {"title": "first id", "available_at": early, "id": ids[0], "priority": 5},
        {"title": "typed", "available_at": early, "type": "DEVELOPER"},
        {"title": "least", "priority": 1},
        {"title": "own", "priority": 1, "status": TaskStatus.ASSIGNED, "agent_id": world.ada.id},
        {
            "title": "own and of another type",
            "priority": 2,
            "status": TaskStatus.ASSIGNED,
            "agent_id": world.ada.id,
            "type": "TESTER",
        },
    )

    found = await claim(world, limit=100)

    expected = ["own and of another type", "own", "first id", "second id", "later", "typed"]
    assert await titles(world, found) == [*expected, "Free", "least"]


async def test_one_by_one_they_come_in_the_same_order(world: World) -> None:
    await make_tasks(
        world,
        *(
            {"title": f"{p}{t}", "priority": p, "type": t or None}
            for t in ("", "DEVELOPER")
            for p in (2, 5, 4)
        ),
    )
    found = [await titles(world, await claim(world)) for _ in range(7)]

    assert found == [["5"], ["5DEVELOPER"], ["4"], ["4DEVELOPER"], ["Free"], ["2"], ["2DEVELOPER"]]


async def test_an_agent_gets_what_fits(world: World) -> None:
    (eve,) = await make_agents(world, 1, type="TESTER")
    await make_tasks(
        world,
        {"title": "test", "type": "TESTER"},
        {"title": "write", "type": "WRITER"},
        {"title": "Ada's", "status": TaskStatus.ASSIGNED, "agent_id": world.ada.id},
        {"title": "waits", "unmet_dependency_count": 1},
        {"title": "blocked", "status": TaskStatus.BLOCKED, "blocked_reason": "MANUAL"},
        {"title": "done", "status": TaskStatus.COMPLETED},
    )
    async with world.database.write(ADMIN) as session:
        later = text("UPDATE tasks SET available_at = now() + interval '1 h' WHERE title = 'Free'")
        await session.execute(later)

    assert await reason(world, eve, types=["COOK"]) is IdleReason.BACKOFF
    assert await titles(world, await claim(world, eve, types=["COOK", "WRITER"])) == ["write"]
    await change(world, eve, max_concurrent_tasks=9)
    assert await titles(world, await claim(world, eve, limit=9)) == ["test"]
    assert await titles(world, await claim(world, limit=9)) == ["Ada's"]


async def test_a_worker_gets_what_it_needs(world: World) -> None:
    async with world.database.write(ADMIN) as session:
        free = await session.get_one(db.Task, world.free.id)
        free.input, free.acceptance_criteria = {"where": "here"}, "It is deep."
        free.resource_keys = ["spade"]
        await db.ClarificationRequest.create(
            session, project_id=free.project_id, title="How deep?", content={}, task_id=free.id
        )
    (first,) = (await claim(world)).attempts
    await end(world, claims.release, first, "Half of it.", {"depth": 1})

    query = """mutation { claimTask(input: {}) { attempt { number task {
      input acceptanceCriteria resourceKeys
      attempts { nodes { number status checkpoint handover } }
      interactions { nodes { title ... on ClarificationRequest { answer } } }
    } } } }"""
    answer = await world.agent.ask(query)

    assert answer.data["claimTask"]["attempt"] == {
        "number": 2,
        "task": {
            "input": {"where": "here"},
            "acceptanceCriteria": "It is deep.",
            "resourceKeys": ["spade"],
            "attempts": {
                "nodes": [
                    {
                        "number": 1,
                        "status": "RELEASED",
                        "checkpoint": {"depth": 1},
                        "handover": "Half of it.",
                    },
                    {"number": 2, "status": "RUNNING", "checkpoint": None, "handover": None},
                ]
            },
            "interactions": {"nodes": [{"title": "How deep?", "answer": None}]},
        },
    }
    assert len(answer.statements) == 2


# Nothing to claim


async def test_nothing_to_claim_is_no_error(world: World) -> None:
    await claim(world)

    answer = await world.agent.ask(CLAIM, input={"idempotencyKey": "k"})

    assert answer.data["claimTask"] == {
        "attempt": None,
        "reason": "NOTHING_READY",
        "message": "No task is ready: all wait, are in progress, or have ended.",
        "availableAt": None,
        "userErrors": [],
    }
    # The key can be used for what becomes ready later.
    await make_tasks(world, {"title": "new"})
    later = await world.agent.ask(CLAIM, input={"idempotencyKey": "k"})
    assert later.data["claimTask"]["attempt"]["task"]["title"] == "new"


async def test_a_reason_says_why_there_is_nothing(world: World) -> None:
    for status in set(AgentStatus) - {AgentStatus.READY, AgentStatus.ACTIVE}:
        await change(world, world.ada, status=status)
        assert await reason(world) is IdleReason.AGENT_NOT_ACTIVE
    await change(world, world.ada, status=AgentStatus.ACTIVE, is_active=False)
    assert await reason(world) is IdleReason.AGENT_NOT_ACTIVE
    await change(world, world.ada, is_active=True)
    for phase in set(ProjectStatus) - {ProjectStatus.IN_PROGRESS}:
        await change(world, world.project, status=phase)
        assert await reason(world) is IdleReason.PROJECT_NOT_IN_PROGRESS
    await change(world, world.project, status=ProjectStatus.IN_PROGRESS)
    await change(world, world.free, type="TESTER")
    assert await reason(world) is IdleReason.WRONG_TYPE
    await change(world, world.free, type=None, resource_keys=["spade"])
    await make_tasks(world, {"title": "busy", "resource_keys": ["spade", "cart"]})
    assert await titles(world, await claim(world, limit=5)) == ["busy"]
    assert await reason(world) is IdleReason.RESOURCE_RESERVED
    await change(world, world.ada, max_concurrent_tasks=1)
    assert await reason(world) is IdleReason.AGENT_AT_CAPACITY
    await change(world, world.ada, max_concurrent_tasks=9)
    await change(world, world.project, max_tasks_per_agent=1)
    assert await reason(world) is IdleReason.PROJECT_LIMIT
    await change(world, world.project, max_tasks_per_agent=None, max_tasks_by_type={"deploy": 1})
    await change(world, world.free, type="deploy", resource_keys=[])
    await make_tasks(world, *({"title": "deploy", "type": "deploy"} for _ in range(3)))
    assert await titles(world, await claim(world, types=["deploy"], limit=3)) == ["deploy"]
    assert await reason(world, types=["deploy"]) is IdleReason.PROJECT_LIMIT
    await change(world, world.project, max_tasks_by_type={})
    assert await reason(world, types=["deploy"]) is None
    await change(world, world.project, max_tasks_in_review=1)
    assert await reason(world, types=["deploy"]) is None
    (attempt, *_) = await stored(world.database, "SELECT attempt_id FROM task_leases")
    await end(world, claims.park, attempt)
    await make_tasks(world, {"title": "next"})
    assert await reason(world) is IdleReason.PROJECT_LIMIT


async def test_a_task_that_comes_later_says_when(world: World) -> None:
    (attempt,) = (await claim(world)).attempts
    await end(world, claims.fail, attempt, "No.")

    found = (await claim(world)).idle

    (at,) = await stored(world.database, "SELECT available_at FROM tasks WHERE title = 'Free'")
    assert found is not None
    assert (found.reason, found.available_at) == (IdleReason.BACKOFF, at)


async def test_who_may_not_claim_is_told_so(world: World, http: httpx.AsyncClient) -> None:
    async with world.database.write(ADMIN) as session:
        await factories.make_token(session, "token of Bob", world.bob)
    bob = Client(http, world.database, "token of Bob")
    ada = {"agentId": gid(world.ada)}
    assert await world.refused(world.people.stranger, "claimTask", **ada) == at("agentId")
    assert await world.error(bob, "claimTask", **ada) == "FORBIDDEN"
    assert await world.refused(world.owner, "claimTask") == [("INVALID", "agentId")]
    (attempt,) = (await claim(world)).attempts
    (eve,) = await make_agents(world, 1)
    async with world.database.write(ADMIN) as session:
        await factories.make_token(session, "token of Eve", eve)
    colleague = Client(http, world.database, "token of Eve")
    input = {"attemptId": str(attempt)}
    for name, more in (
        ("completeTask", {}),
        ("releaseTask", {}),
        ("extendLease", {"leaseSeconds": 9}),
    ):
        assert await world.error(colleague, name, **input, **more) == "FORBIDDEN"
    assert await world.error(colleague, "heartbeat", attempts=[input]) == "FORBIDDEN"


# Races


async def test_an_agent_never_has_more_tasks_than_it_may(world: World) -> None:
    agents = await make_agents(world, ROUNDS, max_concurrent_tasks=2)
    await make_tasks(world, *({} for _ in range(3 * ROUNDS)))
    for agent in agents:
        found = await asyncio.gather(*(claim(world, agent) for _ in range(10)))

        assert sum(len(each.attempts) for each in found) == 2
        reasons = {each.idle.reason for each in found if each.idle}
        assert reasons == {IdleReason.AGENT_AT_CAPACITY}


async def test_a_task_is_claimed_once(world: World) -> None:
    agents = await make_agents(world, 8, max_concurrent_tasks=1000)
    for number in range(ROUNDS):
        await make_tasks(world, *({"title": f"{number}"} for _ in range(3)))
        found = await asyncio.gather(*(claim(world, agent) for agent in agents))

        taken = [title for each in found for title in await titles(world, each)]
        assert sorted(taken) == [str(number)] * 3 + ["Free"] * (number == 0)
        assert await count(world, "task_attempts WHERE number > 1") == 0


async def test_no_attempt_waits_for_what_refers_to_its_task(world: World) -> None:
    """Whoever inserts a row that refers to a task locks its key until the transaction ends."""
    async with world.database.write(ADMIN) as session:
        await session.execute(text("SELECT FROM tasks FOR KEY SHARE"))
        async with asyncio.timeout(10):
            for how in (claims.release, claims.fail, claims.complete):
                (attempt,) = (await claim(world)).attempts
                await end(world, how, attempt, "Done.")
                await change(world, world.free, available_at=text("now()"))


async def test_what_many_claim_at_once_is_all_claimed_once(world: World) -> None:
    agents = await make_agents(world, 8, max_concurrent_tasks=1000)
    await make_tasks(world, *({} for _ in range(399)))
    found = await asyncio.gather(
        *(claim(world, agent, limit=limit) for agent in agents for limit in (1, 50, 7))
    )

    assert sum(len(each.attempts) for each in found) == 400
    assert await count(world, "task_leases") == 400


async def test_two_tasks_that_share_a_resource_never_run_at_once(world: World) -> None:
    await change(world, world.free, status=TaskStatus.COMPLETED)
    agents = await make_agents(world, 6, max_concurrent_tasks=1000)
    for number in range(ROUNDS):
        names = [f"{number}a", f"{number}b", f"{number}c"]
        shared = [names[:2], names[1:], names[:1], names[2:], names]
        await make_tasks(world, *({"resource_keys": each} for each in shared))
        while await count(world, "tasks WHERE status = 'PENDING' AND priority = 4"):
            found = await asyncio.gather(
                *(claim(world, agent, limit=1 + place % 3) for place, agent in enumerate(agents))
            )
            keys = await stored(
                world.database,
                "SELECT unnest(resource_keys) FROM tasks WHERE status = 'IN_PROGRESS'",
            )
            assert len(keys) == len(set(keys))
            for attempt in [id for each in found for id in each.attempts]:
                await end(world, claims.complete, attempt, None)


async def test_a_task_in_progress_gets_only_resources_that_are_free(world: World) -> None:
    taken, other = await make_tasks(
        world, {"resource_keys": ["x"]}, {"resource_keys": ["y"], "title": "other"}
    )
    await claim(world, limit=2)

    found = await world.refused(
        world.owner, "updateTask", id=gid(other), resourceKeys=["y", "x"], title="New"
    )
    assert found == [("INVALID", "resourceKeys")]

    async def keys(*names: str) -> Any:
        return await world.owner.change(
            "updateTask { task { resourceKeys } userErrors { code } }",
            id=gid(other),
            resourceKeys=names,
        )

    for names in (("y", "z"), ("z",), ("z", "y"), ()):
        assert await keys(*names) == {"task": {"resourceKeys": list(names)}, "userErrors": []}
    await change(world, taken, status=TaskStatus.PENDING, current_attempt_id=None)
    assert (await keys("x"))["userErrors"] == []
    assert "x" not in await titles(world, await claim(world, limit=10))


async def test_a_resource_is_not_given_to_a_task_in_progress_and_claimed_at_once(
    world: World,
) -> None:
    await change(world, world.free, status=TaskStatus.COMPLETED)
    for number in range(ROUNDS):
        (running,) = await make_tasks(world, {})
        begun = await claim(world)
        await make_tasks(world, {"resource_keys": [f"{number}"]})
        found = await asyncio.gather(
            claim(world),
            world.owner.change(
                "updateTask { userErrors { code } }", id=gid(running), resourceKeys=[f"{number}"]
            ),
        )
        keys = await stored(
            world.database, "SELECT unnest(resource_keys) FROM tasks WHERE status = 'IN_PROGRESS'"
        )
        assert keys.count(f"{number}") == 1
        for attempt in found[0].attempts + begun.attempts:
            await end(world, claims.complete, attempt, None)


async def test_of_tasks_that_share_a_resource_one_claim_takes_one(world: World) -> None:
    await make_tasks(
        world,
        {"title": "a", "priority": 5, "resource_keys": ["x"]},
        {"title": "b", "resource_keys": ["x", "y"]},
        {"title": "c", "resource_keys": ["y"], "priority": 3},
        {"title": "d", "resource_keys": ["z"], "priority": 2},
    )
    found = await titles(world, await claim(world, limit=10))

    assert found[0] == "a"
    assert "b" not in found
    assert "d" in found


async def test_what_needs_a_resource_in_use_is_neither_locked_nor_in_the_way(world: World) -> None:
    waiting = [{"title": "waits", "resource_keys": ["x"]}] * 300
    await make_tasks(world, {"title": "uses", "priority": 5, "resource_keys": ["x"]})
    assert await titles(world, await claim(world)) == ["uses"]
    await make_tasks(world, *waiting, {"title": "free", "resource_keys": ["y"]})
    await change(world, world.ada, max_concurrent_tasks=10)

    assert await titles(world, await claim(world)) == ["free"]

    locked = "tasks WHERE title = 'waits' AND xmax <> 0"
    assert await count(world, locked) == 0


async def test_an_assigned_task_of_a_full_type_does_not_stop_its_agent(world: World) -> None:
    await change(world, world.project, max_tasks_by_type={"deploy": 1})
    await change(world, world.ada, max_concurrent_tasks=10)
    assigned = {"status": TaskStatus.ASSIGNED, "agent_id": world.ada.id, "type": "deploy"}
    await make_tasks(world, *[{"priority": 5, **assigned}] * 2, {"title": "free"})
    await claim(world)

    assert await titles(world, await claim(world)) == ["free"]


async def test_resources_of_other_projects_do_not_matter(world: World) -> None:
    async with world.database.write(ADMIN) as session:
        keys: dict[str, Any] = {"resource_keys": ["main"], "status": TaskStatus.IN_PROGRESS}
        await factories.make_task(session, world.elsewhere, **keys)
    await change(world, world.free, resource_keys=["main"])

    assert await titles(world, await claim(world)) == ["Free"]


async def test_a_type_never_has_more_tasks_than_it_may(world: World) -> None:
    agents = await make_agents(world, 6, type="deploy", max_concurrent_tasks=1000)
    await change(world, world.free, status=TaskStatus.COMPLETED)
    await change(world, world.project, max_tasks_by_type={"deploy": 2})
    for _ in range(ROUNDS):
        await make_tasks(world, *({"type": "deploy"} for _ in range(5)))
        found = await asyncio.gather(*(claim(world, agent, limit=3) for agent in agents))
        attempts = [id for each in found for id in each.attempts]

        assert len(attempts) == 2
        for attempt in attempts:
            await end(world, claims.complete, attempt, None)


async def test_a_claim_whose_answer_was_lost_is_the_first_one(world: World) -> None:
    await make_tasks(world, *({} for _ in range(2 * ROUNDS)))
    for number in range(ROUNDS):
        input = {"idempotencyKey": f"{number}"}
        answers = await asyncio.gather(*(world.agent.ask(CLAIM, input=input) for _ in range(3)))

        assert answers[0].data == answers[1].data == answers[2].data
        assert await count(world, "task_leases") == number + 1


async def test_the_last_task_that_is_claimed_again_with_the_key_is_the_same(world: World) -> None:
    input = {"idempotencyKey": "k"}
    first, *others = await asyncio.gather(*(world.agent.ask(CLAIM, input=input) for _ in range(4)))

    assert first.data["claimTask"]["attempt"]["task"]["title"] == "Free"
    assert [other.data for other in others] == [first.data] * 3


async def test_many_tasks_that_are_claimed_again_with_the_key_are_the_same(world: World) -> None:
    await make_tasks(world, {"title": "a"}, {"title": "b"})
    query = "claimTasks { attempts { id task { title } } reason userErrors { code } }"
    first, again = [await world.agent.change(query, limit=50, idempotencyKey="k") for _ in range(2)]
    assert first == again
    assert [each["task"]["title"] for each in first["attempts"]] == ["a", "b", "Free"]


async def test_a_worker_that_restarts_under_its_name_does_not_get_its_task_twice(
    world: World,
) -> None:
    await change(world, world.free, status=TaskStatus.COMPLETED)
    for number in range(ROUNDS):
        await make_tasks(world, {"title": f"{number}"})
        (first,) = (await claim(world)).attempts
        # The old worker is still there when the new one asks.
        found, ended = await asyncio.gather(
            claim(world), outcome(end(world, claims.complete, first, number))
        )

        assert found.attempts == []
        assert ended == "done"
        assert await task_of(world, first, "t.status, t.attempt_count, t.result::text") == (
            "COMPLETED",
            1,
            str(number),
        )


async def test_who_has_lost_the_task_changes_nothing(world: World) -> None:
    (eve,) = await make_agents(world, 1, max_concurrent_tasks=1000)
    for number in range(ROUNDS):
        (lost,) = (await claim(world)).attempts
        await run_out(world)
        assert await sweeper.sweep(world.database) == 1
        (held,) = (await claim(world, eve)).attempts
        ways: list[Any] = [
            (claims.complete, "old"),
            (claims.fail, "old"),
            (claims.release, "old"),
            (claims.extend, 9),
            (claims.park,),
        ]
        how, *values = ways[number % 5]

        ends = await asyncio.gather(
            outcome(end(world, how, lost, *values)), outcome(end(world, claims.complete, held, 1))
        )

        assert list(ends) == ["lost", "done"]
        assert await task_of(world, lost, "t.status, t.result::text, t.error::text, a.status") == (
            "COMPLETED",
            "1",
            None,
            "LEASE_LOST",
        )
        await make_tasks(world, {})


async def test_a_lease_that_runs_out_and_a_completion_at_once_have_one_winner(
    world: World,
) -> None:
    seen = set()
    await change(world, world.free, max_attempts=1000)
    for _ in range(ROUNDS):
        (attempt,) = (await claim(world)).attempts
        await run_out(world)
        *swept, ended = await asyncio.gather(
            sweeper.sweep(world.database),
            sweeper.sweep(world.database),
            outcome(end(world, claims.complete, attempt, 1)),
        )

        assert [sum(swept), ended] in ([0, "done"], [1, "lost"])
        seen.add(ended)
        status = await task_of(world, attempt, "t.status, a.status")
        expected = ("COMPLETED", "SUCCEEDED") if ended == "done" else ("PENDING", "LEASE_LOST")
        assert status == expected
        assert await count(world, "task_leases") == 0
        await make_tasks(world, {"max_attempts": 1000})


async def test_a_heartbeat_and_the_sweeper_at_once_agree(world: World) -> None:
    await make_tasks(world, *({"max_attempts": 1000} for _ in range(5)))
    for number in range(ROUNDS):
        attempts = (await claim(world, limit=5)).attempts
        await run_out(world)
        beats = [
            claims.Heartbeat(id, progress_percent=50 if number % 2 else None) for id in attempts
        ]
        await asyncio.gather(
            sweeper.sweep(world.database),
            beat(world, *beats),
            sweeper.sweep(world.database),
        )
        for attempt in attempts:
            # Either it runs and has a lease that lasts, or it has ended and has none.
            (held,) = await stored(
                world.database,
                "SELECT count(*) FROM task_leases WHERE attempt_id = :id AND expires_at > now()",
                id=attempt,
            )
            found = await task_of(world, attempt, "t.status, a.status")
            assert found == (("IN_PROGRESS", "RUNNING") if held else ("PENDING", "LEASE_LOST"))
            if held:
                await end(world, claims.release, attempt, None)


async def test_a_heartbeat_and_a_completion_at_once_do_not_deadlock(world: World) -> None:
    for _ in range(ROUNDS):
        await make_tasks(world, {}, {})
        attempts = (await claim(world, limit=2)).attempts
        beats = [claims.Heartbeat(id, 50) for id in attempts]
        ends = await asyncio.gather(
            *(beat(world, *each) for each in (beats, beats[::-1])),
            *(outcome(end(world, claims.complete, id, 1)) for id in attempts),
        )
        assert ends[2:] == ["done", "done"]


async def test_a_lease_that_was_prolonged_since_does_not_end(world: World) -> None:
    (attempt,) = (await claim(world)).attempts
    await run_out(world)
    await beat(world, claims.Heartbeat(attempt))  # after a sweeper has read it

    assert await end(world, claims.expire, attempt) is False
    assert await task_of(world, attempt, "t.status, a.status") == ("IN_PROGRESS", "RUNNING")


@pytest.mark.parametrize("limit", [1, 2])
async def test_an_attempt_begins_after_the_locks_that_its_claim_has_waited_for(
    world: World, limit: int
) -> None:
    """So it does not begin before what had to end first, by its times, and has its whole lease."""
    async with world.database.write(ADMIN) as session:
        await session.execute(text("SELECT FROM agents FOR NO KEY UPDATE"))
        waits = asyncio.create_task(claim(world, limit=limit, seconds=30))
        await waiting(world)
        row = await session.execute(text("SELECT clock_timestamp()"))
        freed = row.scalar_one()

    assert len((await waits).attempts) == 1
    query = "SELECT a.started_at, t.started_at, l.heartbeat_at, l.expires_at FROM task_leases l"
    query += " JOIN task_attempts a ON a.id = l.attempt_id JOIN tasks t ON t.id = a.task_id"
    ((begun, *same, expires),) = await stored(world.database, query)
    assert begun > freed
    assert same == [begun, begun]
    assert expires - begun == timedelta(seconds=30)


async def test_the_attempts_of_one_claim_begin_at_the_same_moment(world: World) -> None:
    await make_tasks(world, {"title": "a"}, {"title": "b"}, {"title": "c"})
    assert len((await claim(world, limit=3)).attempts) == 3
    query = "SELECT a.started_at, l.expires_at FROM task_attempts a, task_leases l"
    assert len(set(await stored(world.database, f"{query} WHERE l.attempt_id = a.id"))) == 1


async def test_a_heartbeat_waits_for_the_attempt_without_its_lease(world: World) -> None:
    """Whoever ends an attempt locks the attempt first and then the lease."""
    (attempt,) = (await claim(world)).attempts
    async with world.database.write(ADMIN) as session:
        lock = "SELECT FROM task_attempts WHERE id = :id FOR NO KEY UPDATE"
        await session.execute(text(lock), {"id": attempt})
        beating = asyncio.create_task(beat(world, claims.Heartbeat(attempt, 50)))
        await waiting(world)
        lock = "SELECT FROM task_leases WHERE attempt_id = :id FOR UPDATE NOWAIT"
        await session.execute(text(lock), {"id": attempt})

    assert await beating == [attempt]


@pytest.mark.parametrize("way", [claims.complete, claims.fail, claims.release])
async def test_an_end_sees_what_was_changed_while_it_waited(world: World, way: Any) -> None:
    """It waits for the project, the task and the attempt, each of which was changed meanwhile."""
    (attempt,) = (await claim(world)).attempts
    async with world.database.write(ADMIN) as session:
        await session.execute(text("UPDATE projects SET name = 'changed'"))
        await session.execute(text("UPDATE tasks SET cancel_requested = true WHERE title = 'Free'"))
        await session.execute(text("UPDATE task_attempts SET progress_percent = 7"))
        ending = asyncio.create_task(end(world, way, attempt, "It waited."))
        await waiting(world)
    await ending

    done = way is claims.complete
    expected = ("COMPLETED", "SUCCEEDED") if done else ("CANCELLED", "CANCELLED")
    found = await task_of(world, attempt, "t.status, a.status, a.progress_percent")
    assert found == (*expected, 7)
    (subtask,) = await stored(world.database, "SELECT status FROM tasks WHERE title = 'Subtask'")
    assert subtask == ("PENDING" if done else "SKIPPED")


@pytest.mark.parametrize("way", [claims.complete, claims.fail, claims.release])
async def test_an_end_finds_nothing_if_the_lease_has_ended_while_it_waited(
    world: World, way: Any
) -> None:
    (attempt,) = (await claim(world)).attempts
    await run_out(world)
    async with world.database.write(ADMIN, Right.WORK) as session:
        await session.execute(text("SELECT 1"))
        assert await claims.expire(session, attempt)
        ending = asyncio.create_task(outcome(end(world, way, attempt, "It waited.")))
        await waiting(world)

    assert await ending == "lost"
    columns = "t.status, a.status, t.result, t.error, a.handover"
    assert await task_of(world, attempt, columns) == ("PENDING", "LEASE_LOST", None, None, None)


# Heartbeats


async def test_a_heartbeat_reports_and_prolongs(world: World) -> None:
    await make_tasks(world, {"title": "a"}, {"title": "b"}, {"title": "c"})
    first, second, third = (await claim(world, limit=3)).attempts
    await end(world, claims.release, third, None)
    query = """mutation($input: HeartbeatInput!) { heartbeat(input: $input) {
      attempts { progressPercent statusMessage checkpoint leaseLost cancelRequested pauseRequested
        leaseExpiresAt heartbeatAt task { title } } userErrors { code } } }"""
    await change(world, world.project, status=ProjectStatus.PAUSED)
    async with world.database.write(ADMIN) as session:
        await session.execute(text("UPDATE tasks SET cancel_requested = true WHERE title = 'b'"))
        await session.execute(text("UPDATE task_leases SET expires_at = now()"))
    report = {"progressPercent": 40, "statusMessage": "Digging.", "checkpoint": {"depth": 1}}
    beats = [
        {"attemptId": str(first)} | report,
        {"attemptId": str(third)} | report,
        {"attemptId": str(second)},
        {"attemptId": str(db.new_id())},
    ]

    answer = await world.agent.ask(query, input={"attempts": beats, "leaseSeconds": 600})

    assert len(answer.statements) == 3  # the second one finds the attempts that are lost
    found = answer.data["heartbeat"]["attempts"]
    expires = [each.pop("leaseExpiresAt") for each in found]
    beat = [each.pop("heartbeatAt") for each in found]
    assert [each is None for each in expires] == [False, True, False]
    assert beat[0] == beat[2] < expires[0] == expires[2]
    nothing = dict.fromkeys(report)
    asked = {"leaseLost": False, "cancelRequested": False, "pauseRequested": True}
    assert found == [
        {"task": {"title": "a"}} | report | asked,
        {"task": {"title": "c"}} | nothing | asked | {"leaseLost": True, "pauseRequested": False},
        {"task": {"title": "b"}} | nothing | asked | {"cancelRequested": True},
    ]

    # What is omitted stays, and so does a lease that lasts longer.
    later = await world.agent.ask(
        query,
        input={"attempts": [beats[2], {"attemptId": str(first)}]},
    )

    found = later.data["heartbeat"]["attempts"]
    assert [each["leaseExpiresAt"] for each in found] == expires[:1] * 2
    assert {name: found[1][name] for name in report} == report


SIGNALS = "leaseLost cancelRequested pauseRequested"


@pytest.mark.parametrize("is_paused", [False, True])
@pytest.mark.parametrize("reports", [False, True])
async def test_a_heartbeat_whose_attempts_are_all_held_is_one_statement(
    world: World, is_paused: bool, reports: bool
) -> None:
    await make_tasks(world, {"title": "a"}, {"title": "b"}, {"title": "c"})
    attempts = (await claim(world, limit=3)).attempts
    async with world.database.write(ADMIN) as session:
        await session.execute(text("UPDATE tasks SET cancel_requested = true WHERE title = 'b'"))
    if is_paused:
        await change(world, world.project, status=ProjectStatus.PAUSED)
    beats = [{"attemptId": str(id)} for id in reversed(attempts)]
    if reports:
        beats[0]["statusMessage"] = "Digging."

    def query(selection: str) -> str:
        return (
            "mutation($input: HeartbeatInput!) { heartbeat(input: $input) { attempts {"
            f" {selection} }} userErrors {{ code }} }} }}"
        )

    answer = await world.agent.ask(query(f"task {{ title }} {SIGNALS}"), input={"attempts": beats})

    assert len(answer.statements) == 1
    assert answer.data["heartbeat"]["attempts"] == [
        {
            "task": {"title": title},
            "leaseLost": False,
            "cancelRequested": title == "b",
            "pauseRequested": is_paused,
        }
        for title in "cba"
    ]
    # What it changes is read after it.
    changed = "statusMessage" if reports else "heartbeatAt"
    later = await world.agent.ask(query(changed), input={"attempts": beats})
    assert len(later.statements) == 2
    moment = (await stored(world.database, "SELECT DISTINCT heartbeat_at FROM task_leases"))[0]
    values = [each[changed] for each in later.data["heartbeat"]["attempts"]]
    if reports:
        assert values == ["Digging.", None, None]
    else:
        assert [datetime.fromisoformat(each) for each in values] == [moment] * 3


async def test_a_heartbeat_tells_what_is_lost_while_it_waits(world: World) -> None:
    await make_tasks(world, {"title": "a"}, {"title": "b"})
    first, second = (await claim(world, limit=2)).attempts
    beats = [{"attemptId": str(id)} for id in (first, second)]
    query = """mutation($input: HeartbeatInput!) { heartbeat(input: $input) {
      attempts { task { title } leaseLost } userErrors { code } } }"""
    async with world.database.write(ADMIN, Right.WORK) as session:
        await session.begin()  # else the release is a transaction of its own
        await claims.release(session, second, None)
        beating = asyncio.create_task(world.agent.ask(query, input={"attempts": beats}))
        await waiting(world)
    found = (await beating).data["heartbeat"]["attempts"]

    assert found == [
        {"task": {"title": "a"}, "leaseLost": False},
        {"task": {"title": "b"}, "leaseLost": True},
    ]


@pytest.mark.parametrize(
    ("values", "pauses"),
    [
        ({}, False),
        ({"status": AgentStatus.ACTIVE}, False),
        ({"status": AgentStatus.PAUSED}, True),
        ({"status": AgentStatus.ERROR}, True),
        ({"status": AgentStatus.TERMINATED}, True),
        ({"is_active": False}, True),
    ],
    ids=str,
)
async def test_a_heartbeat_tells_that_the_agent_is_paused(
    world: World, values: dict[str, Any], pauses: bool
) -> None:
    await make_tasks(world, {"title": "a"})
    (attempt,) = (await claim(world)).attempts
    await change(world, world.ada, **values)
    query = """mutation($input: HeartbeatInput!) { heartbeat(input: $input) {
      attempts { pauseRequested leaseLost } userErrors { code } } }"""

    answer = await world.owner.ask(query, input={"attempts": [{"attemptId": str(attempt)}]})

    expected = [{"pauseRequested": pauses, "leaseLost": False}]
    assert answer.data["heartbeat"] == {"attempts": expected, "userErrors": []}


async def test_a_heartbeat_takes_one_report_of_an_attempt(world: World) -> None:
    (attempt,) = (await claim(world)).attempts
    beats = [{"attemptId": str(attempt), "progressPercent": number} for number in (1, 2)]

    found = await world.refused(world.agent, "heartbeat", attempts=beats)

    assert found == [("INVALID", "attempts")]


async def test_a_heartbeat_that_the_database_refuses_is_no_success(world: World) -> None:
    (attempt,) = (await claim(world)).attempts

    with pytest.raises(IntegrityError, match="progress_percent_range"):
        await beat(world, claims.Heartbeat(attempt, 101))

    assert await task_of(world, attempt, "a.progress_percent") is None


async def test_a_heartbeat_without_a_report_writes_leases_alone(world: World) -> None:
    (attempt,) = (await claim(world)).attempts
    events = await count(world, "events")
    before = await task_of(world, attempt, "a.xmin::text, t.xmin::text")
    world.database.committed.clear()

    await beat(world, claims.Heartbeat(attempt))

    assert await task_of(world, attempt, "a.xmin::text, t.xmin::text") == before
    assert await count(world, "events") == events
    assert not world.database.committed.is_set()  # no event needs a position

    await beat(world, claims.Heartbeat(attempt, 50))

    assert await count(world, "events") == events + 1
    assert world.database.committed.is_set()


async def test_a_lease_is_extended(world: World) -> None:
    (attempt,) = (await claim(world)).attempts
    payload = await world.agent.change(
        "extendLease { attempt { leaseLost } userErrors { code } }",
        attemptId=str(attempt),
        leaseSeconds=7200,
    )

    assert payload == {"attempt": {"leaseLost": False}, "userErrors": []}
    query = "SELECT expires_at - now() BETWEEN '119 min' AND '2 h' FROM task_leases"
    assert await stored(world.database, query) == [True]


# Ends


async def test_an_attempt_that_fails_is_tried_again_later_and_later(world: World) -> None:
    await change(world, world.free, retry_backoff_seconds=10)
    waits = []
    for number in (1, 2, 3):
        (attempt,) = (await claim(world)).attempts
        await end(world, claims.fail, attempt, {"no": number})
        found = await task_of(
            world,
            attempt,
            "t.status, t.agent_id, t.error::text, a.status, a.number,"
            " extract(epoch FROM t.available_at - a.ended_at)::int",
        )
        if number < 3:
            assert found[:5] == ("PENDING", None, f'{{"no": {number}}}', "FAILED", number)
            waits.append(found[5])
        await change(world, world.free, available_at=factories.START)
    assert waits == [10, 20]
    assert (found[0], found[1], found[3]) == ("FAILED", world.ada.id, "FAILED")


async def test_a_wait_does_not_grow_without_end(world: World) -> None:
    await change(world, world.free, retry_backoff_seconds=2_000_000_000, max_attempts=1000)
    for wait in (2_000_000_000, 3600):
        await change(world, world.free, available_at=factories.START, retry_backoff_seconds=wait)
        async with world.database.write(ADMIN) as session:
            for number in range(100, 150):
                await factories.make_attempt(
                    session, world.free, wait + number, status=db.AttemptStatus.FAILED
                )
        (attempt,) = (await claim(world)).attempts
        await end(world, claims.fail, attempt, None)
        found = await task_of(world, attempt, "extract(epoch FROM t.available_at - a.ended_at)")
        assert found == max(wait, 86400)


async def test_what_cannot_be_retried_fails_and_so_does_what_depends_on_it(world: World) -> None:
    (attempt,) = (await claim(world)).attempts
    await end(world, claims.fail, attempt, "never", retryable=False)

    query = "SELECT title, status, unmet_dependency_count FROM tasks ORDER BY title LIMIT 4"
    found = await stored(world.database, query)
    assert [each for each in found if each[0] != "Foreign"] == [
        ("Free", "FAILED", 0),
        ("Parent", "PENDING", 0),
        ("Subtask", "SKIPPED", 1),
    ]


async def test_a_lease_that_is_lost_uses_up_an_attempt(world: World) -> None:
    await change(world, world.free, max_attempts=2)
    for number in (1, 2):
        (attempt,) = (await claim(world)).attempts
        await run_out(world)
        await sweeper.sweep(world.database)
        found = await task_of(world, attempt, "t.status, a.status, t.error->>'code'")
        expected = ("PENDING", "LEASE_LOST", None)
        assert found == (expected if number == 1 else ("FAILED", "LEASE_LOST", "LEASE_LOST"))


async def test_what_is_given_back_or_parked_uses_up_no_attempt(world: World) -> None:
    await change(world, world.free, max_attempts=1)
    for _ in range(3):
        (attempt,) = (await claim(world)).attempts
        await end(world, claims.release, attempt, "Go on.")
        found = await task_of(world, attempt, "t.status, t.agent_id, a.status, a.handover")
        assert found == ("PENDING", None, "RELEASED", "Go on.")
    for _ in range(3):
        (attempt,) = (await claim(world)).attempts
        await end(world, claims.park, attempt)
        await run_out(world)
        assert await sweeper.sweep(world.database) == 0
        assert (await claim(world)).attempts == []
        columns = "t.status, t.blocked_reason, t.agent_id, a.status"
        parked = ("BLOCKED", "HUMAN_INPUT", world.ada.id, "RELEASED")
        assert await task_of(world, attempt, columns) == parked
        async with world.database.write(ADMIN) as session:
            assert await claims.wake(session, world.free.id)
            assert not await claims.wake(session, world.free.id)
        woken = ("ASSIGNED", None, world.ada.id, "RELEASED")
        assert await task_of(world, attempt, columns) == woken


@pytest.mark.parametrize("way", ["complete", "fail", "release", "park", "lose"])
async def test_a_task_that_is_to_be_cancelled_is_so_unless_it_is_completed(
    world: World, way: str
) -> None:
    (attempt,) = (await claim(world)).attempts
    await change(world, world.free, cancel_requested=True)
    match way:
        case "complete":
            await end(world, claims.complete, attempt, 1)
        case "fail":
            await end(world, claims.fail, attempt, "no")
        case "release":
            await end(world, claims.release, attempt, None)
        case "park":
            await end(world, claims.park, attempt)
        case "lose":
            await run_out(world)
            assert await sweeper.sweep(world.database) == 1

    done = way == "complete"
    expected = ("COMPLETED", "SUCCEEDED") if done else ("CANCELLED", "CANCELLED")
    columns = "t.status, a.status, t.cancel_requested, t.current_attempt_id, t.blocked_reason"
    assert await task_of(world, attempt, columns) == (*expected, False, None, None)
    (subtask,) = await stored(world.database, "SELECT status FROM tasks WHERE title = 'Subtask'")
    assert subtask == ("PENDING" if done else "SKIPPED")


async def test_ending_an_attempt_again_in_the_same_way_is_no_error(world: World) -> None:
    answers: list[Any] = []
    (attempt,) = (await claim(world)).attempts
    for result in ({"a": 1}, {"a": 1}, {"a": 2}):
        answers.append(
            await world.agent.change(
                "completeTask { attempt { status } userErrors { __typename code path message"
                " ... on LeaseLost { attempt { result task { status } } } } }",
                attemptId=str(attempt),
                result=result,
            )
        )
    done = {"attempt": {"status": "SUCCEEDED"}, "userErrors": []}
    assert answers[:2] == [done, done]
    assert answers[2] == {
        "attempt": None,
        "userErrors": [
            {
                "__typename": "LeaseLost",
                "code": "LEASE_LOST",
                "path": ["attemptId"],
                "message": "This attempt is SUCCEEDED and holds its task no longer; nothing was"
                " changed. The task is COMPLETED. Stop working on it, and claim a task again.",
                "attempt": {"result": {"a": 1}, "task": {"status": "COMPLETED"}},
            }
        ],
    }


SHOWN = f"{{ attempt {{ status error handover task {{ title }} }} {ERRORS} }}"


@pytest.mark.parametrize(
    ("name", "more", "status"),
    [
        ("completeTask", {"result": 1}, "SUCCEEDED"),
        ("failTask", {"error": "No."}, "FAILED"),
        ("releaseTask", {"handover": "Half."}, "RELEASED"),
    ],
)
async def test_an_attempt_ends_by_one_statement(
    world: World, name: str, more: dict[str, Any], status: str
) -> None:
    (attempt,) = (await claim(world)).attempts
    kind = f"{name[0].upper()}{name[1:]}Input!"
    query = f"mutation($input: {kind}) {{ {name}(input: $input) {SHOWN} }}"

    answer = await world.agent.ask(query, input={"attemptId": str(attempt), **more})

    assert len(answer.statements) == 1
    found = {"status": status, "error": more.get("error"), "handover": more.get("handover")}
    expected = {"attempt": found | {"task": {"title": "Free"}}, "userErrors": []}
    assert answer.data[name] == expected
    assert await count(world, "task_leases") == 0
    (event, *_) = await stored(
        world.database,
        "SELECT actor_id, after->>'status' FROM events"
        " WHERE entity_id = :id AND action = 'UPDATED'",
        id=str(attempt),
    )
    assert event == (world.ada.id, status)


async def test_a_claim_returns_its_payload_by_the_same_statement(world: World) -> None:
    await change(world, world.ada, max_concurrent_tasks=3)
    await make_tasks(world, {"title": "a"}, {"title": "b"})
    query = (
        "mutation($input: ClaimTasksInput!) { claimTasks(input: $input)"
        " { attempts { number status task { title priority } agent { name } } reason } }"
    )

    answer = await world.agent.ask(query, input={"limit": 3})

    assert len(answer.statements) == 1
    begun = {"number": 1, "status": "RUNNING", "agent": {"name": "Ada"}}
    assert answer.data["claimTasks"] == {
        "attempts": [
            begun | {"task": {"title": "a", "priority": 4}},
            begun | {"task": {"title": "b", "priority": 4}},
            begun | {"task": {"title": "Free", "priority": 3}},
        ],
        "reason": None,
    }


async def test_a_claim_with_its_payload_stays_prepared(world: World) -> None:
    """To plan it takes longer than to run it."""
    query = (
        "mutation($input: ClaimTaskInput!) { claimTask(input: $input) { attempt { id number"
        " startedAt task { id title description input type priority dueAt project { id name } } }"
        " reason message } }"
    )

    answer = await world.agent.ask(query, input={"types": ["DEVELOPER", "TESTER", "WRITER"]})

    assert answer.data["claimTask"]["attempt"]["task"]["title"] == "Free"
    assert len(answer.statements) == 1
    prepared = "SELECT statement FROM pg_prepared_statements WHERE statement LIKE 'WITH limited%'"
    (found,) = await world.database._by_key.rows(prepared, [])
    assert len(found["statement"]) > 9_000


async def columns(world: World) -> dict[tuple[str, UUID], str]:
    """The values of all columns of the tasks of the project, by column and id."""
    query = (
        "SELECT t.id, key, value FROM tasks t, jsonb_each_text(to_jsonb(t))"
        " WHERE t.project_id = :id"
    )
    found = await stored(world.database, query, id=world.project.id)
    return {(f"tasks.{name}", id): value for id, name, value in found}


async def test_a_claim_changes_no_other_columns_than_it_says(world: World) -> None:
    before = await columns(world)

    await claim(world)

    after = await columns(world)
    changed = {key[0] for key in before if before[key] != after[key]}
    assert {"tasks.status", "tasks.attempt_count", "tasks.started_at"} <= changed
    assert changed <= claiming.CHANGED


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("is_cancelled", [False, True])
@pytest.mark.parametrize("way", ["complete", "fail", "release", "lose"])
async def test_ending_an_attempt_changes_no_other_columns_than_it_says(
    world: World, way: str, is_cancelled: bool, is_last: bool
) -> None:
    (attempt,) = (await claim(world)).attempts
    await change(world, world.free, cancel_requested=is_cancelled)
    if is_last:
        await change(world, world.free, max_attempts=1)
    before = await columns(world)
    match way:
        case "complete":
            await end(world, claims.complete, attempt, 1)
        case "fail":
            await end(world, claims.fail, attempt, "no")
        case "release":
            await end(world, claims.release, attempt, None)
        case "lose":
            await run_out(world)
            assert await sweeper.sweep(world.database) == 1

    after = await columns(world)
    changed = {key[0] for key in before if before[key] != after[key]}
    assert "tasks.status" in changed
    assert changed <= endings.CHANGED


@pytest.mark.parametrize(
    ("name", "given", "other"),
    [
        ("failTask", {"error": "No."}, {"error": "Never."}),
        ("releaseTask", {"handover": "Half."}, {"handover": "All."}),
    ],
)
async def test_what_ended_as_cancelled_can_be_ended_again_in_the_same_way(
    world: World, name: str, given: dict[str, Any], other: dict[str, Any]
) -> None:
    (attempt,) = (await claim(world)).attempts
    await change(world, world.free, cancel_requested=True)

    first, again, wrong = [
        await world.agent.change(f"{name} {SHOWN}", attemptId=str(attempt), **each)
        for each in (given, given, other)
    ]

    assert first["attempt"]["status"] == "CANCELLED"
    assert again == first
    assert faults(wrong) == [("LEASE_LOST", "attemptId")]
    payload = await world.agent.change(f"completeTask {SHOWN}", attemptId=str(attempt))
    assert faults(payload) == [("LEASE_LOST", "attemptId")]


async def test_what_was_parked_is_not_released_again(world: World) -> None:
    attempts = []
    for number in range(2):
        (attempt,) = (await claim(world)).attempts
        attempts.append(attempt)
        await world.agent.change(
            "requestApproval { userErrors { code } }",
            projectId=gid(world.project),
            title="May I?",
            content={},
            blockTask=True,
            attemptId=str(attempt),
        )
        parked = await world.agent.change(f"releaseTask {SHOWN}", attemptId=str(attempt))
        assert faults(parked) == [("LEASE_LOST", "attemptId")]
        assert "The task is BLOCKED." in parked["userErrors"][0]["message"]
        async with world.database.write(ADMIN) as session:
            assert await claims.wake(session, world.free.id)
        woken = await world.agent.change(f"releaseTask {SHOWN}", attemptId=str(attempt))
        assert faults(woken) == [("LEASE_LOST", "attemptId")], number
    (attempt,) = (await claim(world)).attempts
    for _ in range(2):
        released = await world.agent.change(f"releaseTask {SHOWN}", attemptId=str(attempt))
        assert faults(released) == []
    parked = await world.agent.change(f"releaseTask {SHOWN}", attemptId=str(attempts[0]))
    assert faults(parked) == [("LEASE_LOST", "attemptId")]


async def test_a_heartbeat_sent_again_gives_only_own_attempts(world: World) -> None:
    (eve,) = await make_agents(world, 1)
    await make_tasks(world, {})
    (own,) = (await claim(world)).attempts
    (other,) = (await claim(world, eve)).attempts
    beats = [{"attemptId": str(id), "progressPercent": 40} for id in (other, own)]

    first, again = [
        await world.agent.change(
            "heartbeat { attempts { progressPercent } userErrors { code } }",
            attempts=beats,
            idempotencyKey="k",
        )
        for _ in range(2)
    ]

    assert [each["progressPercent"] for each in first["attempts"]] == [40]
    assert again == first
    names = "SELECT jsonb_array_elements_text(outcome->'task_attempts') FROM idempotency_keys"
    assert await stored(world.database, names) == [str(own)]
    columns = "a.progress_percent"
    assert [await task_of(world, id, columns) for id in (own, other)] == [40, None]


# The sweeper


async def test_one_lease_that_cannot_end_does_not_keep_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await make_tasks(world, {}, {})
    attempts = (await claim(world, limit=3)).attempts
    await run_out(world)
    expire = claims.expire

    async def failing(session: db.WriteSession, attempt_id: UUID) -> bool:
        if attempt_id == attempts[0]:
            raise RuntimeError("no")
        return await expire(session, attempt_id)

    monkeypatch.setattr(claims, "expire", failing)

    assert await sweeper.sweep(world.database) == 2
    assert str(attempts[0]) in caplog.text
    assert await stored(world.database, "SELECT attempt_id FROM task_leases") == attempts[:1]


async def test_sweepers_at_once_end_each_lease_once(world: World) -> None:
    await make_tasks(world, *({} for _ in range(20)))
    await claim(world, limit=20)
    await run_out(world)

    swept = await asyncio.gather(*(sweeper.sweep(world.database) for _ in range(4)))

    assert sum(swept) == 20
    assert await count(world, "task_attempts WHERE status = 'LEASE_LOST'") == 20


# What is stored for it


async def test_a_task_says_what_it_needs_and_a_project_what_it_allows(world: World) -> None:
    project = gid(world.project)
    keys = ['a, "b"', "{c}", "ü\\"]
    planned = {"title": "planned", "resourceKeys": keys, "acceptanceCriteria": "It is deep."}
    made = await world.owner.change(
        "createTasks { tasks { title resourceKeys acceptanceCriteria } userErrors { code path } }",
        projectId=project,
        tasks=[planned, {"title": "other"}],
    )
    other: dict[str, Any] = {"title": "other", "resourceKeys": [], "acceptanceCriteria": None}
    assert made == {"tasks": [planned, other], "userErrors": []}
    changed = await world.owner.change(
        "updateTask { task { resourceKeys } userErrors { code } }",
        id=gid(world.free),
        resourceKeys=keys,
    )
    assert changed == {"task": {"resourceKeys": keys}, "userErrors": []}
    for wrong in (["x"] * 21, [""], ["x" * 256]):
        found = await world.refused(
            world.owner, "updateTask", id=gid(world.free), resourceKeys=wrong
        )
        assert [(code, path.partition(".")[0]) for code, path in found] == [
            ("INVALID", "resourceKeys")
        ]
    limits = {"maxTasksPerAgent": 3, "maxTasksInReview": 2, "maxTasksByType": {"deploy": 1}}
    allowed = await world.owner.change(
        f"updateProject {{ project {{ {' '.join(limits)} }} userErrors {{ code }} }}",
        id=project,
        **limits,
    )
    assert allowed == {"project": limits, "userErrors": []}
    for name, value in (
        ("maxTasksPerAgent", 0),
        ("maxTasksInReview", -1),
        ("maxTasksByType", {"deploy": "1"}),
        ("maxTasksByType", {"deploy": -1}),
        ("maxTasksByType", {"": 1}),
        ("maxTasksByType", [1]),
    ):
        found = await world.refused(world.owner, "updateProject", id=project, **{name: value})
        assert found == [("INVALID", name)]


# Its speed


async def test_a_claim_reads_only_what_it_takes(world: World) -> None:
    """However many tasks are of other types, or come later, or are assigned to others."""
    (eve,) = await make_agents(world, 1)
    async with world.database.write(ADMIN) as session:
        for row in (
            "5, 'PENDING', 'TESTER', NULL, now()",
            "5, 'PENDING', NULL, NULL, now() + interval '1 h'",
            f"5, 'ASSIGNED', NULL, '{eve.id}', now()",
        ):
            await session.execute(
                text(
                    "INSERT INTO tasks (project_id, title, priority, status, type, agent_id,"
                    f" available_at) SELECT '{world.project.id}', 'x', {row}"
                    " FROM generate_series(1, 2000)"
                )
            )
    await make_tasks(world, {"title": "found"})
    statement = claiming._claimed.compiled(ADMIN, Right.WORK, 0, True)

    rows, every = await effort(world, statement, ADMIN, **values_of_claim(world.ada))

    assert rows == 1
    assert every < 100


async def effort(
    world: World,
    statement: Compiled,
    viewer: Viewer,
    settings: Mapping[str, str] = BY_KEY,
    **values: Any,
) -> tuple[int, float]:
    """How many rows a statement returns, and how many all parts of its plan have looked at."""
    connection = await world.database.open()
    try:
        for name, setting in settings.items():
            await connection.execute(f"SET {name} = {setting}")
        await connection.execute("ANALYZE tasks")
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.sql}"
        plan = await connection.fetchval(explain, *statement.arguments(Values(viewer, values)))
    finally:
        await connection.close()
    (found,) = json.loads(plan)
    return found["Plan"]["Actual Rows"], looked_at(found["Plan"])


def looked_at(node: dict[str, Any]) -> float:
    each = sum(value for name, value in node.items() if name.startswith("Rows Removed by"))
    own = (node["Actual Rows"] + each) * node["Actual Loops"]
    return float(own + sum(map(looked_at, node.get("Plans", ()))))


@pytest.mark.parametrize("way", ["heartbeat", "report", "complete"])
@pytest.mark.parametrize("is_agent", [True, False])
async def test_only_those_attempts_are_read_that_are_given(
    world: World, way: str, is_agent: bool
) -> None:
    """However many tasks are in their project, which has more of them than others."""
    await change(world, world.ada, max_concurrent_tasks=20)
    await make_tasks(world, *({"title": f"Task {number}"} for number in range(20)))
    claimed = await claim(world, limit=20)
    projects = "SELECT 'Project ' || n AS name FROM generate_series(1, 100) n"
    tasks = "SELECT id, 'x' FROM {}, generate_series(1, {})"
    async with world.database.write(ADMIN) as session:
        await session.execute(text(f"INSERT INTO projects (name) {projects}"))
        for found in (
            tasks.format("projects", 30),
            f"{tasks.format('projects', 5000)} WHERE id = '{world.project.id}'",
        ):
            await session.execute(text(f"INSERT INTO tasks (project_id, title) {found}"))
    (owner_id,) = await stored(
        world.database, "SELECT owner_id FROM projects WHERE id = :id", id=world.project.id
    )
    viewer = Viewer(agent_id=world.ada.id) if is_agent else Viewer(owner_id)
    ids = {"id": sorted(claimed.attempts)}
    if way == "complete":
        statement = completions._completed.compiled(viewer, Right.WORK)
        values: dict[str, Any] = ids | {"result": ["{}"] * 20}
    else:
        keeps = heartbeats._renewed_and_noted if way == "report" else heartbeats._renewed
        statement = keeps.compiled(viewer, Right.WORK)
        values = ids | {"lease_seconds": timedelta(seconds=60)}
    if way == "report":
        values |= {"checkpoint": ["{}"] * 20, "status_message": ["Digging."] * 20}
        values |= {"progress_percent": [40] * 20}

    rows, every = await effort(world, statement, viewer, **values)

    assert rows == 20
    assert every < 2000


async def test_an_attempt_that_ends_is_found_by_its_key(world: World) -> None:
    """However many others run that PostgreSQL has not counted yet."""
    (attempt,) = (await claim(world)).attempts
    async with world.database.write(ADMIN) as session:
        await session.execute(text("ANALYZE task_attempts"))
        await session.execute(
            text(
                "INSERT INTO task_attempts (task_id, number)"
                " SELECT task_id, n FROM task_attempts, generate_series(2, 2000) n"
            )
        )
    statement = endings._completed.compiled(ADMIN, Right.WORK)

    rows, every = await effort(world, statement, ADMIN, attempt_id=attempt, result=None)

    assert rows == 1
    assert every < 100


async def test_an_agent_that_searches_reads_only_its_project(world: World) -> None:
    """However many tasks of other projects are newer, and have the word."""
    own = "INSERT INTO tasks (project_id, title, created_at) SELECT id, 'Dig'"
    async with world.database.write(ADMIN) as session:
        await session.execute(
            text("INSERT INTO projects (name) SELECT 'Project ' || n FROM generate_series(1, 50) n")
        )
        await session.execute(
            text(f"{own}, now() FROM projects, generate_series(1, 100) WHERE name LIKE 'Project %'")
        )
        await session.execute(
            text(f"{own}, now() - interval '1 d' FROM projects WHERE id = '{world.project.id}'")
        )

    @Statement
    def newest(viewer: Viewer) -> Executable:
        found = select(db.Task.id).where(scope(db.Task, viewer), db.Task.title.contains("Dig"))
        return found.order_by(db.Task.created_at.desc(), db.Task.id.desc()).limit(10)

    viewer = Viewer(agent_id=world.ada.id)
    rows, every = await effort(world, newest.compiled(viewer), viewer, settings={})

    assert rows >= 1
    assert every < 200


async def test_a_task_whose_type_has_no_room_is_in_nobodys_way(world: World) -> None:
    await change(world, world.project, max_tasks_by_type={"DEVELOPER": 1})
    (bob,) = await make_agents(world, 1)
    await make_tasks(world, {"title": "First", "type": "DEVELOPER", "priority": 5})
    assert await titles(world, await claim(world)) == ["First"]
    assigned = {"agent_id": bob.id, "status": TaskStatus.ASSIGNED}
    await make_tasks(
        world, {"title": "His", "type": "DEVELOPER", **assigned}, {"title": "Other", "type": None}
    )

    assert await titles(world, await claim(world, bob)) == ["Other"]
