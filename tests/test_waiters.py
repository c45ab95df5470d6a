"""Waiting for the answers of people: nothing is missed, and nobody who waits takes a connection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import URL, text

import db
from db import interaction_answers
from db.events import follower
from db.events.follower import Follower
from db.waiters import Answers, Waiters
from graph.settings import Settings
from tests.conftest import WITHOUT_LIMITS, People, serving
from tests.following import numbering
from tests.patience import becomes
from tests.test_interaction_answers import ROUNDS, ask, execute, respond
from tests.world import World, make_world, stored

AWAIT = (
    "query($id: ID!, $seconds: Int) { awaitInteraction(id: $id, timeoutSeconds: $seconds)"
    " { id status task { title } answers { outcome user { username } } } }"
)
PENDING: dict[str, Any] = {"status": "PENDING", "task": None, "answers": []}
APPROVED = {
    "status": "APPROVED",
    "task": None,
    "answers": [{"outcome": "APPROVED", "user": {"username": "owner"}}],
}


@pytest.fixture
async def world(
    database: db.Database, http: httpx.AsyncClient, people: People
) -> AsyncIterator[World]:
    """The world, and the numbering of its events."""
    async with numbering(database):
        yield await make_world(database, http, people)


@pytest.fixture
async def other(database_url: URL) -> AsyncIterator[db.Database]:
    """The engines of another server on the same database."""
    database = db.Database(database_url)
    yield database
    await database.dispose()


async def wait(world: World, request: dict[str, Any], seconds: int = 20) -> Any:
    """What `awaitInteraction` answers to Ada."""
    answer = await world.agent.ask(AWAIT, id=request["id"], seconds=seconds)
    return answer.data["awaitInteraction"]


async def waiting(database: db.Database, count: int = 1) -> None:
    """Return when so many wait in a process."""
    await becomes(lambda: sum(map(len, database.answers.waiters._waiting.values())) == count)


async def test_what_is_answered_already_is_returned_at_once(
    world: World, resolvers: People
) -> None:
    request = await ask(world)
    await respond(world.owner, request)

    texts = set()
    for client in (world.agent, world.agent.through(resolvers.owner._http)):
        answer = await client.ask(AWAIT, id=request["id"])
        texts.add(answer.text)
        assert answer.data["awaitInteraction"] == {"id": request["id"]} | APPROVED
    assert len(texts) == 1
    # Whether it is pending; the token again; the interaction.
    answer = await world.agent.ask(AWAIT, id=request["id"])
    assert len(answer.statements) == 3


async def test_who_waits_is_woken_by_the_answer(world: World, other: db.Database) -> None:
    settings = WITHOUT_LIMITS
    request = await ask(world)
    async with serving(other, settings) as elsewhere:
        client = world.agent.through(elsewhere)
        for asked in (world.agent, client):
            request = await ask(world)
            database = other if asked is client else world.database
            task = asyncio.create_task(asked.ask(AWAIT, id=request["id"], seconds=20))
            await waiting(database)
            await becomes(lambda: database.follower.place is not None)  # noqa: B023

            began = time.monotonic()
            assert await respond(world.owner, request) == []
            answer = await task

            assert time.monotonic() - began < 1
            assert answer.data["awaitInteraction"] == {"id": request["id"]} | APPROVED


@pytest.mark.parametrize("how", ["cancel", "expire", "by hand"])
async def test_any_end_of_a_request_wakes(world: World, how: str) -> None:
    request = await ask(world)
    task = asyncio.create_task(wait(world, request))
    await waiting(world.database)

    if how == "cancel":
        await world.agent.change("cancelInteraction { userErrors { code } }", id=request["id"])
    elif how == "expire":
        await execute(world, "UPDATE human_interactions SET expires_at = now()")
        await interaction_answers.expire(world.database)
    else:
        await execute(world, "DELETE FROM human_interactions")

    expected = {"cancel": "CANCELLED", "expire": "EXPIRED", "by hand": None}[how]
    found = await asyncio.wait_for(task, 5)
    assert (found and found["status"]) == expected


async def test_when_the_time_is_over_the_request_is_returned_as_it_is(world: World) -> None:
    request = await ask(world)
    for seconds in (0, 1):
        began = time.monotonic()
        assert await wait(world, request, seconds) == {"id": request["id"]} | PENDING
        assert seconds <= time.monotonic() - began < seconds + 1
    assert world.database.answers.waiters.keys == []


async def test_what_one_may_not_see_is_not_waited_for(world: World) -> None:
    request = await ask(world)
    began = time.monotonic()
    for client, id in (
        (world.people.stranger, request["id"]),
        (world.owner, str(db.new_id())),
    ):
        answer = await client.ask(AWAIT, id=id, seconds=20)
        assert answer.data == {"awaitInteraction": None}
    assert time.monotonic() - began < 5
    for seconds in (-1, 56):
        answer = await world.owner.ask(AWAIT, id=request["id"], seconds=seconds)
        assert answer.code == "BAD_USER_INPUT"
    assert (await world.owner.ask(AWAIT, id="x", seconds=1)).code == "BAD_USER_INPUT"
    assert (await world.people.nobody.ask(AWAIT, id=request["id"])).code == "UNAUTHENTICATED"


async def test_an_answer_that_comes_before_who_waits_listens_is_not_missed(world: World) -> None:
    for number in range(ROUNDS):
        request = await ask(world)

        async def later(request: dict[str, Any] = request, number: int = number) -> None:
            await asyncio.sleep(0.001 * (number % 10))
            assert await respond(world.owner, request) == []

        found, _ = await asyncio.wait_for(asyncio.gather(wait(world, request), later()), 10)

        assert found["status"] == "APPROVED"


async def test_several_wait_for_several_in_one_operation(world: World) -> None:
    first, second = await ask(world), await ask(world)
    query = "query($a: ID!, $b: ID!) { a: awaitInteraction(id: $a) { status }"
    query += " b: awaitInteraction(id: $b) { status } }"
    task = asyncio.create_task(world.agent.ask(query, a=first["id"], b=second["id"]))
    await waiting(world.database, 2)
    await respond(world.owner, second)
    await waiting(world.database, 1)
    await respond(world.owner, first, approved=False)

    answer = await asyncio.wait_for(task, 5)
    assert answer.data == {"a": {"status": "REJECTED"}, "b": {"status": "APPROVED"}}


async def test_a_token_that_is_revoked_meanwhile_reads_nothing(world: World) -> None:
    request = await ask(world)
    task = asyncio.create_task(world.agent.ask(AWAIT, id=request["id"], seconds=20))
    await waiting(world.database)

    await execute(world, "UPDATE access_tokens SET revoked_at = now() WHERE agent_id IS NOT NULL")
    await respond(world.owner, request)

    assert (await asyncio.wait_for(task, 5)).code == "UNAUTHENTICATED"


async def test_a_thousand_wait_without_a_connection_and_are_woken_within_a_second(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await ask(world)
    is_pending, found_pending = interaction_answers.is_pending, []

    async def counted(*arguments: Any) -> bool:
        found_pending.append(await is_pending(*arguments))
        return found_pending[-1]

    monkeypatch.setattr(interaction_answers, "is_pending", counted)
    connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    # With the limits that a server has: a thousand are more than may run.
    async with serving(world.database, Settings()) as client:
        agent = world.agent.through(client)
        body = {"query": AWAIT, "variables": {"id": request["id"], "seconds": 55}}
        tasks = [asyncio.create_task(agent.send(body)) for _ in range(1000)]
        await waiting(world.database, 1000)
        await becomes(lambda: len(found_pending) == 1000)
        (before,) = await stored(world.database, connections)
        owner = world.owner.through(client)
        assert (await owner.ask("{ me { username } }")).data == {"me": {"username": "owner"}}

        assert await respond(owner, request) == []
        began = time.process_time()
        answers = await asyncio.gather(*tasks)

    # Those of the pools, the one that listens, and the one that numbers.
    assert before <= 2 * 10 + 2 * 10 + 2
    # By the processor, since the machine may be busy: 0.5 s, with the clients.
    assert time.process_time() - began < 1
    assert {answer.status_code for answer in answers} == {200}
    found = [answer.json()["data"]["awaitInteraction"]["status"] for answer in answers]
    assert found == ["APPROVED"] * 1000


async def test_so_many_may_wait_and_no_more(world: World) -> None:
    request = await ask(world)
    settings = WITHOUT_LIMITS.model_copy(update={"max_waiting": 3, "max_waiting_per_viewer": 2})
    async with serving(world.database, settings) as client:
        agent, owner = world.agent.through(client), world.owner.through(client)
        asked = {"id": request["id"], "seconds": 20}
        tasks = [asyncio.create_task(agent.ask(AWAIT, **asked)) for _ in range(2)]
        await waiting(world.database, 2)
        mine = await agent.ask(AWAIT, **asked)
        tasks.append(asyncio.create_task(owner.ask(AWAIT, **asked)))
        await waiting(world.database, 3)
        all_of_us = await world.people.admin.through(client).ask(AWAIT, **asked)
        await respond(world.owner, request)
        await asyncio.gather(*tasks)

    assert (mine.code, all_of_us.code) == ("OVERLOADED", "OVERLOADED")
    limits = [answer.errors[0]["extensions"]["limit"] for answer in (mine, all_of_us)]
    assert limits == ["max_waiting_per_viewer", "max_waiting"]


async def test_a_client_that_goes_waits_no_longer(world: World) -> None:
    request = await ask(world)
    task = asyncio.create_task(world.agent.ask(AWAIT, id=request["id"], seconds=20))
    await waiting(world.database)

    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    assert world.database.answers.waiters.keys == []


async def test_an_answer_is_noticed_though_the_connection_that_listens_is_lost(
    world: World,
) -> None:
    request = await ask(world)
    task = asyncio.create_task(wait(world, request))
    await waiting(world.database)
    listening = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND (query LIKE 'LISTEN%' OR query LIKE '%e.entity_type%')"
        " AND query NOT LIKE '%pg_terminate_backend%'"
    )

    async def is_listening() -> bool:
        async with world.database.read() as session:
            found = await session.execute(text(listening))
        return bool(found.all())

    await becomes(is_listening)
    await respond(world.owner, request)

    found = await asyncio.wait_for(task, 10)
    assert found["status"] == "APPROVED"


async def test_without_notifications_an_answer_is_found_by_asking(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "CHANNEL", "nothing")
    request = await ask(world)
    task = asyncio.create_task(wait(world, request))
    await waiting(world.database)

    await respond(world.owner, request)

    assert (await asyncio.wait_for(task, 5))["status"] == "APPROVED"


async def test_a_server_that_stops_lets_nobody_wait(world: World) -> None:
    request = await ask(world)
    task = asyncio.create_task(wait(world, request))
    await waiting(world.database)

    world.database.answers.waiters.close()

    assert (await asyncio.wait_for(task, 5))["status"] == "PENDING"
    assert (await asyncio.wait_for(wait(world, request), 5))["status"] == "PENDING"


async def test_nobody_is_forgotten_and_nothing_is_left_behind() -> None:
    found = Waiters()
    first, second = db.new_id(), db.new_id()
    with found.registered(first) as one, found.registered(first) as two:
        with found.registered(second) as other:
            found.wake(first)
            found.wake(first)
            found.wake(db.new_id())
            assert (one.done(), two.done(), other.done()) == (True, True, False)
        assert found.keys == [first]
    assert found.keys == []


async def test_the_connection_is_closed_when_nobody_waits(
    database: db.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(follower, "POLL_SECONDS", 0.1)
    opened = []

    async def open() -> Any:
        connection = await database.open()
        opened.append(connection)
        return connection

    async def is_pending() -> bool:
        return True

    reader = Follower(open)
    answers = Answers(reader, database.fetch)
    for _ in range(2):  # it is opened again
        await answers.wait(db.new_id(), is_pending, 0.5)
        await becomes(lambda: reader._task is not None and reader._task.done())
    assert [connection.is_closed() for connection in opened] == [True, True]
