"""Attempts: read with their tasks and agents. Workers make them, and no mutation does yet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

import db
from db import AttemptStatus
from db.claims.endings import OF_ATTEMPT
from tests import factories
from tests.conftest import ADMIN, People
from tests.factories import minutes
from tests.oracle import seen_with
from tests.world import World, gid, make_world, snapshot, stored

BREAKING = {
    "task_attempts": {
        "number_positive": ["number = 0"],
        "progress_percent_range": ["progress_percent = -1", "progress_percent = 101"],
    },
}
SEEN = {db.TaskAttempt: seen_with(db.Task, "task_id")}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def make_attempt(
    world: World, task: db.Task, number: int = 1, **values: Any
) -> db.TaskAttempt:
    """An attempt at a task; a later number began earlier, so that the orders differ."""
    values = {"started_at": minutes(-number)} | values
    async with world.database.write(ADMIN) as session:
        return await db.TaskAttempt.create(session, task_id=task.id, number=number, **values)


async def run(world: World, task: db.Task, attempt: db.TaskAttempt) -> None:
    """Make an attempt the one that runs on its task."""
    async with world.database.write(ADMIN) as session:
        (await session.get_one(db.Task, task.id)).current_attempt_id = attempt.id


async def test_an_attempt_shows_how_it_goes(world: World) -> None:
    attempt = await make_attempt(
        world,
        world.free,
        2,
        agent_id=world.ada.id,
        status=AttemptStatus.FAILED,
        progress_percent=40,
        status_message="Digging.",
        result={"depth": 1},
        error=["rock", None],
        started_at=minutes(0),
        ended_at=minutes(2),
    )
    query = (
        "query($id: ID!) { taskAttempt(id: $id) { id number status heartbeatAt progressPercent"
        " statusMessage result error startedAt endedAt task { title } currentTask { title }"
        " agent { name } usageRecords { totalCount } } }"
    )

    answer = await world.owner.ask(query, id=gid(attempt))

    assert answer.data == {
        "taskAttempt": {
            "id": gid(attempt),
            "number": 2,
            "status": "FAILED",
            "heartbeatAt": None,
            "progressPercent": 40,
            "statusMessage": "Digging.",
            "result": {"depth": 1},
            "error": ["rock", None],
            "startedAt": "2026-01-01T00:00:00+00:00",
            "endedAt": "2026-01-01T00:02:00+00:00",
            "task": {"title": "Free"},
            "currentTask": None,
            "agent": {"name": "Ada"},
            "usageRecords": {"totalCount": 0},
        },
    }
    assert len(answer.statements) == 1
    node = await world.owner.ask(
        "query($id: ID!) { node(id: $id) { __typename } }", id=gid(attempt)
    )
    assert node.data == {"node": {"__typename": "TaskAttempt"}}


async def test_an_attempt_is_running_unless_said_otherwise(world: World) -> None:
    attempt = await make_attempt(world, world.free)

    answer = await world.owner.ask(
        "query($id: ID!) { taskAttempt(id: $id) { status heartbeatAt progressPercent result"
        " error endedAt agent { name } } }",
        id=str(attempt.id),
    )

    nothing = dict.fromkeys(("heartbeatAt", "progressPercent", "result", "error", "endedAt"))
    assert answer.data["taskAttempt"] == nothing | {"status": "RUNNING", "agent": None}


async def test_the_attempts_of_a_task_come_as_they_began(world: World, resolvers: People) -> None:
    for number in (2, 3, 1):
        began = datetime(2026, 1, number, tzinfo=UTC)
        await make_attempt(world, world.free, number, started_at=began)
    await make_attempt(world, world.parent)
    query = "query($id: ID!) { task(id: $id) { attempts { nodes { number task { title } } } } }"

    for people in (world.people, resolvers):
        answer = await people.owner.ask(query, id=gid(world.free))

        expected = [{"number": n, "task": {"title": "Free"}} for n in (1, 2, 3)]
        assert answer.data == {"task": {"attempts": {"nodes": expected}}}


async def test_a_task_and_the_attempt_that_runs_on_it_lead_to_each_other(
    world: World, resolvers: People
) -> None:
    began = datetime(2025, 12, 31, tzinfo=UTC)
    old = await make_attempt(
        world, world.free, 1, status=AttemptStatus.LEASE_LOST, started_at=began
    )
    current = await make_attempt(world, world.free, 2)
    await run(world, world.free, current)
    query = (
        "query($task: ID!, $old: ID!, $new: ID!) { task(id: $task) { currentAttempt { number"
        " currentTask { title currentAttempt { number } } } attempts { nodes { currentTask {"
        " title } } } }"
        " old: taskAttempt(id: $old) { currentTask { title } task { title } }"
        " new: taskAttempt(id: $new) { currentTask { title } } }"
    )
    ids = {"task": gid(world.free), "old": gid(old), "new": gid(current)}

    for people, statements in ((world.people, 1), (resolvers, 4)):
        answer = await people.owner.ask(query, **ids)

        free = {"title": "Free"}
        assert answer.data == {
            "task": {
                "currentAttempt": {
                    "number": 2,
                    "currentTask": free | {"currentAttempt": {"number": 2}},
                },
                "attempts": {"nodes": [{"currentTask": None}, {"currentTask": free}]},
            },
            "old": {"currentTask": None, "task": free},
            "new": {"currentTask": free},
        }
        assert len(answer.statements) <= statements


async def test_attempts_are_found_by_what_became_of_them(world: World) -> None:
    await make_attempt(world, world.free, 1, status=AttemptStatus.FAILED, agent_id=world.ada.id)
    await make_attempt(world, world.free, 2, progress_percent=50)
    await make_attempt(world, world.parent, 3, ended_at=minutes(1))
    query = "query($where: TaskAttemptFilter, $by: TaskAttemptOrder!) { taskAttempts("
    query += "where: $where, orderBy: $by) { totalCount nodes { number } } }"

    for where, numbers in (
        ({}, [3, 2, 1]),
        ({"status": {"in": ["RUNNING"]}}, [3, 2]),
        ({"status": {"eq": "FAILED"}}, [1]),
        ({"agent": {"name": {"eq": "Ada"}}}, [1]),
        ({"agentId": {"isNull": True}}, [3, 2]),
        ({"taskId": {"eq": gid(world.parent)}}, [3]),
        ({"task": {"title": {"startsWith": "Fr"}}}, [2, 1]),
        ({"progressPercent": {"gte": 50}}, [2]),
        ({"endedAt": {"isNull": False}}, [3]),
        ({"number": {"lt": 3}}, [2, 1]),
    ):
        for by in ("STARTED_AT_ASC", "STARTED_AT_DESC"):
            answer = await world.owner.ask(query, where=where, by=by)

            page = answer.data["taskAttempts"]
            wanted = numbers if by == "STARTED_AT_ASC" else numbers[::-1]
            assert [node["number"] for node in page["nodes"]] == wanted, where
            assert page["totalCount"] == len(numbers)
            assert len(answer.statements) == 1


async def test_attempts_are_seen_by_whoever_sees_their_tasks(
    world: World, resolvers: People
) -> None:
    mine = await make_attempt(world, world.free, 1, agent_id=world.bob.id)
    theirs = await make_attempt(world, world.foreign, 2, agent_id=world.ada.id)
    query = "query($id: ID!) { taskAttempts { nodes { number agent { name } } }"
    query += " taskAttempt(id: $id) { number } node(id: $id) { id }"
    query += " agents { nodes { name tasks { nodes { title } } } } }"

    for people in (world.people, resolvers):
        owner = await people.owner.ask(query, id=gid(theirs))
        stranger = await people.stranger.ask(query, id=gid(mine))
        admin = await people.admin.ask(query, id=gid(theirs))

        # The agent of another project, whom the rules would never let near, stays hidden.
        assert owner.data["taskAttempts"]["nodes"] == [{"number": 1, "agent": None}]
        assert stranger.data["taskAttempts"]["nodes"] == [{"number": 2, "agent": None}]
        for answer in (owner, stranger):
            assert (answer.data["taskAttempt"], answer.data["node"]) == (None, None)
        assert len(admin.data["taskAttempts"]["nodes"]) == 2
        assert admin.data["taskAttempt"] == {"number": 2}
    agent = await world.agent.ask("{ taskAttempts { nodes { number } } }")
    assert agent.data == {"taskAttempts": {"nodes": [{"number": 1}]}}


async def test_the_attempts_of_many_tasks_cost_as_many_statements_as_those_of_one(
    world: World, resolvers: People
) -> None:
    query = (
        '{ tasks(where: {title: {contains: "!"}}) { nodes { attempts { nodes { number agent'
        " { name } } }"
        " currentAttempt { number } } } }"
    )

    async def ask() -> list[int]:
        planned, resolved = await world.owner.ask(query), await resolvers.owner.ask(query)
        assert planned.text == resolved.text
        tasks = planned.data["tasks"]["nodes"]
        one = {"attempts": {"nodes": [{"number": 1, "agent": {"name": "Ada"}}]}}
        assert all(task == one | {"currentAttempt": {"number": 1}} for task in tasks)
        return [len(tasks), len(planned.statements), len(resolved.statements)]

    async def work(many: int) -> None:
        async with world.database.write(ADMIN) as session:
            for place in range(many):
                task = await factories.make_task(session, world.project, f"{place}!")
                attempt = await db.TaskAttempt.create(
                    session, task_id=task.id, number=1, agent_id=world.ada.id
                )
                task.current_attempt_id = attempt.id

    await work(1)
    few = await ask()
    await work(19)
    many = await ask()

    assert few[1:] == many[1:] == [1, 2]
    assert (few[0], many[0]) == (1, 20)


async def test_an_attempt_goes_with_its_task_and_outlives_its_agent(world: World) -> None:
    attempt = await make_attempt(world, world.free, agent_id=world.ada.id)
    await make_attempt(world, world.parent)
    await run(world, world.free, attempt)
    before = await snapshot(world.database)

    await world.owner.change("deleteAgent { deletedId }", id=gid(world.ada))
    query = "SELECT number, agent_id FROM task_attempts"
    assert await stored(world.database, query) == [(1, None), (1, None)]

    await world.owner.change("deleteTask { deletedId }", id=gid(world.free))
    query = "SELECT task_id FROM task_attempts"
    assert await stored(world.database, query) == [world.parent.id]
    after = await snapshot(world.database)
    assert len(before["tasks"]) == len(after["tasks"]) + 1


def test_an_attempt_ends_once_in_any_of_its_ways() -> None:
    ends = {*OF_ATTEMPT.values(), AttemptStatus.CANCELLED}

    table = db.TaskAttempt.transitions.table
    assert table == {AttemptStatus.RUNNING: ends, **{end: set() for end in ends}}
