"""Claims while an old transaction keeps what earlier claims have left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest

import db
from db import ProjectStatus, Right
from db.claims import claiming, starts
from db.claims.starts import FRONT, Start, Starts
from db.statements import Values
from tests.conftest import ADMIN, People
from tests.patience import becomes
from tests.test_claims import (
    change,
    claim,
    make_agents,
    make_tasks,
    titles,
    values_of_claim,
)
from tests.world import World, make_world

CLAIMED = 60


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    """The project is in progress, and one task is free."""
    world = await make_world(database, http, people)
    await change(world, world.project, status=ProjectStatus.IN_PROGRESS)
    return world


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few claims are many, and the process knows no queue of another test."""
    monkeypatch.setattr(starts, "of_this_process", Starts())
    monkeypatch.setattr(starts, "CLAIMS", 50)
    monkeypatch.setattr(starts, "FEW", 5)
    monkeypatch.setattr(starts, "MANY", 20)


@asynccontextmanager
async def old_transaction(world: World) -> AsyncIterator[None]:
    """A transaction that keeps the versions of all rows that are replaced in the block."""
    connection = await world.database.open()
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetchval("SELECT count(*) FROM tasks")
            yield
    finally:
        await connection.close()


async def entries_read(world: World, agent: db.Agent, start: Start) -> int:
    """How many entries of the index a claim reads, which is rolled back."""
    statement = claiming._claimed.compiled(ADMIN, Right.WORK, 0, True)
    values = values_of_claim(agent, start=start)
    read = "SELECT pg_stat_get_xact_tuples_returned('ix_tasks_claimable'::regclass)"
    connection = await world.database.open()
    try:
        transaction = connection.transaction()
        await transaction.start()
        before = await connection.fetchval(read)
        await connection.fetch(statement.sql, *statement.arguments(Values(ADMIN, values)))
        found: int = await connection.fetchval(read) - before
        await transaction.rollback()
        return found
    finally:
        await connection.close()


async def found_start(world: World, agent: db.Agent, *types: str) -> Start:
    """Where the next claim of an agent begins."""
    async with world.database.write(ADMIN, Right.WORK) as session:
        return await starts.of_this_process.find(session, agent.id, types)


@asynccontextmanager
async def claimed_many(world: World, *more: dict[str, Any]) -> AsyncIterator[list[db.Agent]]:
    """Two agents, of which one has claimed many tasks while an old transaction is open."""
    agents = await make_agents(world, 2, max_concurrent_tasks=1000)
    await make_tasks(world, *({"title": f"{number}"} for number in range(CLAIMED)), *more)
    async with old_transaction(world):
        for number in range(CLAIMED):
            assert await titles(world, await claim(world, agents[0])) == [f"{number}"]
        yield agents


async def test_a_claim_skips_what_was_claimed_before(world: World) -> None:
    async with claimed_many(world, {"title": "next"}, {"title": "last"}) as (ada, eve):
        assert await entries_read(world, ada, FRONT) > CLAIMED
        start = await found_start(world, ada)
        assert await entries_read(world, ada, start) < CLAIMED - starts.CLAIMS + starts.FEW + 5
        # The process knows it for all agents of the queue, once it knows the agent's.
        found = [await found_start(world, eve) for _ in range(starts.FEW)]
        assert found == [FRONT] * (starts.FEW - 1) + [start]
        assert await titles(world, await claim(world, ada)) == ["next"]
        assert await titles(world, await claim(world, eve)) == ["last"]
        assert await titles(world, await claim(world, eve)) == ["Free"]


async def test_without_an_old_transaction_claims_begin_at_the_front(world: World) -> None:
    (agent,) = await make_agents(world, 1, max_concurrent_tasks=1000)
    await make_tasks(world, *({"title": f"{number}"} for number in range(CLAIMED)))
    for _ in range(CLAIMED):
        await claim(world, agent)
    # Claims mark the entries that they pass over, so that the next ones do not.
    assert await found_start(world, agent) == FRONT


@pytest.mark.parametrize(("priority", "seconds"), [(4, 0), (5, 0), (5, 5)])
async def test_a_new_task_is_claimed_in_its_place(
    world: World, priority: int, seconds: int
) -> None:
    """Also if its transaction has taken some seconds."""
    async with claimed_many(world, {"title": "next"}) as (agent, _):
        assert await found_start(world, agent) != FRONT
        (task,) = await make_tasks(world, {"title": "new", "priority": priority})
        await change(world, task, available_at=task.available_at - timedelta(seconds=seconds))
        order = ["next", "new"] if priority == 4 else ["new", "next"]
        for title in order:
            assert await titles(world, await claim(world, agent)) == [title]


async def test_a_task_that_came_back_is_claimed_when_the_start_is_no_longer_valid(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with claimed_many(world, {"title": "next"}, {"title": "last"}) as (agent, _):
        (back,) = await make_tasks(world, {"title": "back"})
        await change(world, back, available_at=back.available_at - timedelta(days=1))

        assert await titles(world, await claim(world, agent)) == ["next"]
        now = time.monotonic()
        monkeypatch.setattr(starts, "monotonic", lambda: now + 2 * starts.SECONDS)
        assert await titles(world, await claim(world, agent)) == ["back"]
        assert await titles(world, await claim(world, agent)) == ["last"]


async def test_a_claim_of_many_begins_at_the_front(world: World) -> None:
    async with claimed_many(world, {"title": "next"}) as (agent, _):
        (back,) = await make_tasks(world, {"title": "back"})
        await change(world, back, available_at=back.available_at - timedelta(days=1))
        assert await found_start(world, agent) != FRONT
        assert await titles(world, await claim(world, agent, limit=2)) == ["back", "next"]


async def test_a_start_that_cannot_be_looked_up_is_none_and_the_claim_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with claimed_many(world, {"title": "next"}) as (agent, _):
        assert await found_start(world, agent) != FRONT
        run = starts._run

        async def fail(session: Any, statement: Any, *options: Any, **values: Any) -> Any:
            if statement is starts._start:
                raise asyncpg.QueryCanceledError("too slow")
            return await run(session, statement, *options, **values)

        monkeypatch.setattr(starts, "_run", fail)
        monkeypatch.setattr(starts, "CLAIMS", 1)
        now = time.monotonic()
        monkeypatch.setattr(starts, "monotonic", lambda: now + starts.SECONDS)
        assert await titles(world, await claim(world, agent)) == ["next"]
        monkeypatch.setattr(starts, "CLAIMS", 50)
        assert await found_start(world, agent) == FRONT
        assert "it is not known where the ready tasks begin: too slow" in caplog.text


async def test_a_start_is_looked_up_once_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with claimed_many(world, {"title": "next"}) as (agent, _):
        start = await found_start(world, agent)
        looked_up, go_on = 0, asyncio.Event()

        async def look_up(*_: Any, **values: Any) -> Any:
            nonlocal looked_up
            looked_up += 1
            await go_on.wait()
            return [(0, *start)]

        monkeypatch.setattr(starts, "CLAIMS", 1)
        monkeypatch.setattr(starts, "_run", look_up)
        # So that the agent itself is not looked up.
        starts.of_this_process._agents[agent.id, ()].claims = -100
        now = time.monotonic()
        monkeypatch.setattr(starts, "monotonic", lambda: now + starts.SECONDS)
        first = asyncio.create_task(found_start(world, agent))
        await becomes(lambda: looked_up)
        # Until it is no longer valid.
        assert await found_start(world, agent) == start
        monkeypatch.setattr(starts, "monotonic", lambda: now + 2 * starts.SECONDS)
        assert await found_start(world, agent) == FRONT
        go_on.set()
        assert await first == FRONT
        assert looked_up == 1


async def test_a_task_that_came_back_is_claimed_if_there_is_no_other(world: World) -> None:
    async with claimed_many(world) as (agent, _):
        (back,) = await make_tasks(world, {"title": "back"})
        await change(world, back, available_at=back.available_at - timedelta(days=1))
        assert await titles(world, await claim(world, agent)) == ["Free"]
        assert await titles(world, await claim(world, agent)) == ["back"]
        assert (await claim(world, agent)).attempts == []


async def test_the_start_is_that_of_the_agents_type(world: World) -> None:
    tester = {"type": "TESTER", "title": "of another type", "priority": 1}
    async with claimed_many(world, {"title": "next"}, tester) as (agent, _):
        assert await found_start(world, agent) != FRONT
        await change(world, agent, type="TESTER")
        (old,) = await make_tasks(world, {"title": "old", "type": "TESTER"})
        await change(world, old, available_at=old.available_at - timedelta(days=1))
        assert await titles(world, await claim(world, agent)) == ["old"]


async def test_an_agent_of_another_type_has_another_queue(world: World) -> None:
    async with claimed_many(world, {"title": "next"}) as (ada, eve):
        developers = await found_start(world, ada)
        await change(world, ada, type="TESTER")
        for _ in range(2 * starts.CLAIMS):
            await found_start(world, ada)
        assert (await found_start(world, ada)).type == "TESTER"
        for _ in range(starts.FEW):
            start = await found_start(world, eve)
        assert start == developers


async def test_a_claim_that_names_types_has_a_start_of_its_own(world: World) -> None:
    async with claimed_many(world, {"title": "next"}) as (agent, _):
        assert await found_start(world, agent, "TESTER") == FRONT
        for _ in range(starts.CLAIMS + starts.FEW):
            start = await found_start(world, agent, "TESTER")
        assert start.project_id == world.project.id
        assert start.type is None
        assert await titles(world, await claim(world, agent, types=["TESTER"])) == ["next"]


async def test_agents_that_claim_once_are_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "MOST_KNOWN", 3)
    async with world.database.write(ADMIN, Right.WORK) as session:
        for _ in range(10):
            await starts.of_this_process.find(session, db.new_id(), ())
    assert len(starts.of_this_process._agents) <= 4
