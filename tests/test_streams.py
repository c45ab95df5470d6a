"""Streams over WebSocket: each event is answered anew, for whoever has the token then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
import strawberry
from sqlalchemy import func, select, update

import db
from graph.core.context import Info
from graph.settings import Settings
from tests.conftest import People
from tests.patience import becomes
from tests.sockets import Listening, Talk, listening
from tests.test_logs import Lines, lines
from tests.test_sessions import locked

__all__ = ["lines"]


SHORT = Settings().model_copy(update={"max_seconds": 0.3})


class Source:
    """What the test's streams do, and what became of them."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[int | Exception] = asyncio.Queue()
        self.made = 0
        self.open = 0
        self.running = 0
        self.most_running = 0
        self.loaders: list[object] = []


source = Source()


@pytest.fixture(autouse=True)
def anew() -> None:
    """What was made, for each test."""
    source.__init__()  # type: ignore[misc]


@strawberry.type
class Event:
    number: int

    @strawberry.field
    async def username(self, info: Info) -> str | None:
        async with info.context.read() as session:
            mine = db.User.id == info.context.viewer.user_id
            name: str | None = await session.scalar(select(db.User.username).where(mine))
            return name

    @strawberry.field
    async def projects(self, info: Info) -> int:
        async with info.context.read() as session:
            return await session.scalar(select(func.count()).select_from(db.Project)) or 0

    @strawberry.field
    def is_administrator(self, info: Info) -> bool:
        return info.context.viewer.is_administrator

    @strawberry.field
    def loaders(self, info: Info) -> int:
        if info.context.loaders not in source.loaders:
            source.loaders.append(info.context.loaders)
        return source.loaders.index(info.context.loaders)

    @strawberry.field
    async def slow(self) -> bool:
        source.running += 1
        source.most_running = max(source.most_running, source.running)
        await asyncio.sleep(0.02)
        source.running -= 1
        return True

    @strawberry.field
    def odd(self) -> bool | None:
        if self.number % 2:
            return True
        raise RuntimeError("secret")

    @strawberry.field
    def long(self) -> str:
        return "x" * 100_000


@strawberry.type
class Query:
    @strawberry.field
    def three(self) -> int:
        return 3


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int) -> AsyncGenerator[Event, None]:
        source.open += 1
        try:
            for source.made in range(to):
                yield Event(number=source.made)
        finally:
            source.open -= 1

    @strawberry.subscription
    async def events(self) -> AsyncGenerator[Event, None]:
        source.open += 1
        try:
            while True:
                event = await source.events.get()
                if isinstance(event, Exception):
                    raise event
                yield Event(number=event)
        finally:
            source.open -= 1


schema = strawberry.Schema(query=Query, subscription=Subscription)


@pytest.fixture
async def streaming(database: db.Database) -> AsyncIterator[Listening]:
    """A server that has streams."""
    async with listening(database, schema=schema) as server:
        yield server


@pytest.fixture
async def talk(streaming: Listening, people: People) -> AsyncIterator[Talk]:
    """A conversation of the owner's."""
    async with streaming.talk(people.owner.token) as talk:
        yield talk


async def happens(talk: Talk, number: int) -> Any:
    """What is told of an event that happens now."""
    source.events.put_nowait(number)
    message = await talk.heard()
    assert message.pop("id") == "1"
    return message


def error_code(message: Any) -> str:
    """The code of the only error in a message."""
    errors = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
    (error,) = errors
    return str(error["extensions"]["code"])


async def test_events_are_told_one_by_one_until_there_are_no_more(talk: Talk) -> None:
    await talk.subscribe(
        "subscription C($to: Int!) { count(to: $to) { number } }", variables={"to": 3}
    )

    assert [await talk.heard() for _ in range(4)] == [
        *(
            {"type": "next", "id": "1", "payload": {"data": {"count": {"number": number}}}}
            for number in range(3)
        ),
        {"type": "complete", "id": "1"},
    ]
    assert source.open == 0
    assert await talk.ask("{ three }") == {"data": {"three": 3}}


async def test_a_stream_is_refused_like_any_operation(streaming: Listening, talk: Talk) -> None:
    async with streaming.talk() as nobody:
        answer = await nobody.ask("subscription { count(to: 3) { number } }")
        assert answer["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
    refused = {
        "subscription {": "BAD_REQUEST",
        "subscription { nothing }": "BAD_REQUEST",
        "subscription { count { number } }": "BAD_REQUEST",
        "subscription { count(to: 1) { number } events { number } }": "BAD_REQUEST",
        "subscription { a: count(to: 1) { number } } query { three }": "BAD_REQUEST",
        "subscription($to: Int!) { count(to: $to) { number } }": "BAD_USER_INPUT",
        "subscription { count(to: 1)" + " { a" * 30 + " }" * 31: "LIMIT_EXCEEDED",
    }
    for query, expected in refused.items():
        answer = await talk.ask(query)
        assert list(answer) == ["errors"], query
        assert answer["errors"][0]["extensions"]["code"] == expected, query
    assert source.open == 0
    assert await talk.is_alive()


async def test_each_event_is_read_anew(database: db.Database, people: People, talk: Talk) -> None:
    await talk.subscribe("subscription { events { number username a: loaders b: loaders } }")
    rename = update(db.User).where(db.User.id == people.users["owner"].id)
    for number in range(3):
        async with database.write(db.Viewer()) as session:
            await session.execute(rename.values(username=f"owner{number}"))
        message = await happens(talk, number)
        assert message["payload"]["data"]["events"] == {
            "number": number,
            "username": f"owner{number}",
            "a": number,
            "b": number,
        }


async def test_an_event_is_told_to_whom_the_token_names_then(
    database: db.Database, people: People, streaming: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.server.sockets.TOKEN_INTERVAL", 0.02)
    change = update(db.User).where(db.User.id == people.users["owner"].id)
    async with streaming.talk(people.owner.token) as talk:
        await talk.subscribe("subscription { events { isAdministrator } }")
        for role, expected in ((db.UserRole.USER, False), (db.UserRole.ADMIN, True)):
            async with database.write(db.Viewer()) as session:
                await session.execute(change.values(role=role))
            await asyncio.sleep(0.2)
            message = await happens(talk, 1)
            assert message["payload"] == {"data": {"events": {"isAdministrator": expected}}}


async def test_no_event_is_told_to_a_token_that_is_over(
    database: db.Database, people: People, streaming: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.server.sockets.TOKEN_INTERVAL", 60)  # nobody else finds out
    revoke = update(db.AccessToken).where(db.AccessToken.user_id == people.users["owner"].id)
    async with streaming.talk(people.owner.token) as talk:
        await talk.subscribe("subscription { events { number } }")
        assert (await happens(talk, 1))["type"] == "next"
        async with database.write(db.Viewer()) as session:
            await session.execute(revoke.values(revoked_at=func.now()))
        source.events.put_nowait(2)

        assert (await talk.closed())[0] == 4403
        await becomes(lambda: source.open == 0)


async def test_an_event_that_cannot_be_told_ends_the_stream(
    people: People, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk.subscribe("subscription { events { number } }")

    async def away(*_: object) -> None:
        raise ConnectionRefusedError

    await becomes(lambda: source.open)
    monkeypatch.setattr("graph.execution.tokens.Tokens.look_up", away)
    message = await happens(talk, 1)
    assert (message["type"], error_code(message)) == ("error", "UNAVAILABLE")
    assert source.open == 0


async def test_a_fault_in_an_event_is_masked_and_others_follow(
    talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    await talk.subscribe("subscription { events { number odd } }")
    for number in range(1, 5):
        message = await happens(talk, number)
        payload = message["payload"]
        if number % 2:
            assert payload == {"data": {"events": {"number": number, "odd": True}}}
        else:
            assert payload["data"] == {"events": {"number": number, "odd": None}}
            assert error_code(message) == "FAULT"
            assert "secret" not in str(message)
    await talk.send("complete", id="1")
    await becomes(lambda: source.open == 0)
    await talk.subscribe("subscription { count(to: 2) { odd } }")
    assert [(await talk.heard())["type"] for _ in range(3)] == ["next", "next", "complete"]
    # Each is logged once, also where its stream has come to its end.
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(faults) == 3


async def test_a_stream_that_breaks_ends_and_the_socket_lives_on(
    talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    await talk.subscribe("subscription { events { number } }")
    await happens(talk, 1)
    source.events.put_nowait(RuntimeError("secret"))
    message = await talk.heard()

    assert (message["type"], error_code(message)) == ("error", "FAULT")
    assert "secret" not in str(message)
    assert source.open == 0
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
    assert await talk.ask("{ three }") == {"data": {"three": 3}}


@pytest.mark.parametrize("how", ["completes", "leaves", "vanishes"])
async def test_a_stream_stops_when_its_client_wants_no_more(
    streaming: Listening, people: People, how: str, lines: Lines
) -> None:
    async with streaming.connect(additional_headers={"X-Request-Id": "mine"}) as connection:
        talk = await Talk(connection).begin(people.owner.token)
        await talk.subscribe("subscription Mine { events { number } }")
        await happens(talk, 1)
        assert source.open == 1
        match how:
            case "completes":
                await talk.send("complete", id="1")
                assert await talk.is_alive()
            case "leaves":
                await connection.close()
            case "vanishes":
                connection.transport.abort()
        await becomes(lambda: source.open == 0 and lines.objects)
    (line,) = lines.objects
    shown = ("request", "transport", "kind", "operation", "status", "codes")
    assert [line[name] for name in shown] == [
        "mine-1",
        "websocket",
        "subscription",
        "Mine",
        200,
        [],
    ]


async def test_waiting_for_events_is_not_running(database: db.Database, people: People) -> None:
    settings = Settings(max_running=2, max_running_per_viewer=1)
    async with (
        listening(database, settings, schema) as server,
        server.talk(people.owner.token) as talk,
    ):
        for id in range(10):
            await talk.subscribe("subscription { events { slow } }", f"stream {id}")
        await becomes(lambda: source.open == 10)
        assert await talk.ask("{ three }", id="q") == {"data": {"three": 3}}
        # Events wait for each other, and none is refused.
        for number in range(10):
            source.events.put_nowait(number)
        heard = [await talk.heard() for _ in range(10)]
    assert all(message["payload"] == {"data": {"events": {"slow": True}}} for message in heard)
    assert source.most_running == 2


async def test_each_event_costs(database: db.Database, people: People) -> None:
    # The document has 12 tokens, which cost 120 when it is new.
    settings = Settings(max_cost=10, rate_burst=130, rate_per_second=1)
    async with (
        listening(database, settings, schema) as server,
        server.talk(people.owner.token) as talk,
    ):
        await talk.subscribe("subscription { count(to: 100) { number } }")
        heard = [await talk.heard()]
        while heard[-1]["type"] == "next":
            heard.append(await talk.heard())
    assert 5 < len(heard) <= 10
    assert (heard[-1]["type"], error_code(heard[-1])) == ("error", "RATE_LIMITED")
    assert source.open == 0


async def test_each_event_has_its_time(database: db.Database, people: People) -> None:
    async with (
        listening(database, SHORT, schema) as server,
        server.talk(people.owner.token) as talk,
    ):
        await talk.subscribe("subscription { events { projects } }")
        await asyncio.sleep(0.4)
        told = {"events": {"projects": 0}}
        assert (await happens(talk, 1))["payload"] == {"data": told}
        # The table of the tokens is free: before each event, the token is looked up.
        async with locked(database.url, "projects"):
            source.events.put_nowait(2)
            await asyncio.sleep(0.5)
        message = await talk.heard()
        assert error_code(message) == "TIMEOUT"
        assert (await happens(talk, 3))["payload"] == {"data": told}


async def test_no_events_are_made_for_who_does_not_read(
    streaming: Listening, people: People
) -> None:
    async with streaming.connect(max_queue=1) as connection:
        talk = await Talk(connection).begin(people.owner.token)
        connection.transport.pause_reading()
        await talk.subscribe("subscription { count(to: 10000) { long } }")
        made = -1
        while made < source.made:
            made = source.made
            await asyncio.sleep(0.3)
        # What the kernel takes between the two is some megabytes.
        assert made < 500
        connection.transport.abort()
        await becomes(lambda: source.open == 0)


async def test_a_stream_ends_when_the_server_does(
    database: db.Database, people: People, lines: Lines
) -> None:
    async with listening(database, schema=schema) as server, server.connect() as connection:
        talk = await Talk(connection).begin(people.owner.token)
        await talk.subscribe("subscription { events { number } }")
        await happens(talk, 1)
        server.server.should_exit = True
        assert (await talk.closed())[0] == 1012
    assert source.open == 0
    assert [line["status"] for line in lines.objects] == [200]
