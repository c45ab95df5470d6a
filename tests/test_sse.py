"""Operations over Server-Sent Events, by the protocol of graphql-sse."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, func, update

import db
from graph.settings import Settings
from tests import factories
from tests.conftest import People
from tests.event_streams import Asking, Event
from tests.following import all_numbered, numbering
from tests.patience import becomes
from tests.sockets import Listening, handshake, listening, received, small_connection, text_frame
from tests.test_interaction_answers import execute
from tests.test_logs import Lines, lines
from tests.test_sessions import locked, waiting
from tests.world import World, make_world

__all__ = ["lines"]

TASK = """subscription Watch($id: ID!, $after: String) {
  taskUpdated(id: $id, after: $after) { cursor gap { after } event { position } task { title } }
}"""
RENAME = """mutation($id: ID!, $title: String!) {
  updateTask(input: {id: $id, title: $title}) { userErrors { message } }
}"""

DESCRIBE = """mutation($id: ID!, $text: String!) {
  updateTask(input: {id: $id, description: $text}) { userErrors { message } }
}"""


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


@asynccontextmanager
async def numbered(database: db.Database, **settings: Any) -> AsyncIterator[Listening]:
    """A server with these settings, whose events get positions."""
    async with numbering(database), listening(database, Settings(**settings)) as server:
        # Else a stream that begins before that also shows what was there.
        await becomes(lambda: all_numbered(database))
        yield server


@pytest.fixture
async def live(database: db.Database) -> AsyncIterator[Listening]:
    """A server with the default settings."""
    async with numbered(database) as server:
        yield server


@pytest.fixture
async def owner(live: Listening, people: People) -> AsyncIterator[Asking]:
    """The owner, as a client of the server."""
    async with Asking.of(url(live), people.owner.token) as asking:
        yield asking


def url(server: Listening) -> str:
    """The address of a server."""
    return f"http://127.0.0.1:{server.port}"


async def rename(world: World, title: str) -> None:
    """Change the title of a task."""
    answer = await world.owner.ask(RENAME, id=str(world.free.id), title=title)
    assert answer.data == {"updateTask": {"userErrors": []}}


def title(event: Event | None) -> str:
    """The title in a message of a task."""
    assert event is not None
    assert event.type == "next"
    message = event.data["data"]["taskUpdated"]
    assert message["cursor"] == event.id
    assert message["gap"] is None
    return str(message["task"]["title"])


def codes(event: Event | None) -> list[str]:
    """The codes of the errors in a result."""
    assert event is not None
    return [error["extensions"]["code"] for error in event.data["errors"]]


async def first_title(asking: Asking, world: World, **options: Any) -> str:
    """The title in the first message of the subscription of a task."""
    async with asking.stream(TASK, variables={"id": str(world.free.id)}, **options) as events:
        return title(await events.next())


def position(event: Event | None) -> int:
    """The position of the event in a message."""
    assert event is not None
    return int(event.data["data"]["taskUpdated"]["event"]["position"])


async def positions(asking: Asking, world: World, count: int, **options: Any) -> list[int]:
    """The positions in the first messages of the subscription of a task."""
    variables = {"id": str(world.free.id), **options.pop("variables", {})}
    async with asking.stream(TASK, variables=variables, **options) as events:
        return [position(await events.next()) for _ in range(count)]


# Distinct connections


async def test_a_subscription_is_a_stream_of_events(owner: Asking, world: World) -> None:
    async with owner.stream(TASK, variables={"id": str(world.free.id)}) as events:
        found = [title(await events.next())]
        for name in ("Second", "Third"):
            await rename(world, name)
            found.append(title(await events.next()))

        assert found == [world.free.title, "Second", "Third"]
        headers = events.response.headers
        assert events.response.status_code == 200
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-store, no-transform"
        assert headers["x-accel-buffering"] == "no"
        assert headers["vary"] == "Accept, Origin"
        assert "content-encoding" not in headers
        assert headers["x-request-id"]


async def test_queries_and_mutations_have_one_event(owner: Asking, world: World) -> None:
    variables = {"id": str(world.free.id), "title": "Renamed"}

    assert await owner.ask("{ me { username } }") == [
        Event("next", {"data": {"me": {"username": "owner"}}}),
        Event("complete"),
    ]
    assert await owner.ask(RENAME, variables=variables) == [
        Event("next", {"data": {"updateTask": {"userErrors": []}}}),
        Event("complete"),
    ]
    query = "query($id: ID!) { task(id: $id) { title metadata } }"
    (result, _) = await owner.ask(query, variables=variables)
    assert result.data["data"]["task"]["title"] == "Renamed"


async def test_a_stream_is_asked_for_by_get_as_well(live: Listening, owner: Asking) -> None:
    query = "{ me { username } }"
    async with owner.stream(params={"query": query}) as events:
        assert [event.type for event in await events.rest()] == ["next", "complete"]
    mutation = 'mutation { createProject(input: {name: "By a link"}) { project { id } } }'
    async with owner.stream(params={"query": mutation}) as events:
        await events.response.aread()
        assert events.response.status_code == 405
        assert events.response.headers["allow"] == "POST"
    assert len(live.app.state.streams) == 0


@pytest.mark.parametrize(
    ("accept", "is_stream"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream", True),
        ("text/event-stream, multipart/mixed", True),
        ("text/event-stream, application/json", True),
        ("application/json;q=0.5, text/event-stream", True),
        (
            "application/graphql-response+json, application/graphql+json, application/json,"
            " text/event-stream, multipart/mixed",
            False,
        ),
        ("application/json, text/event-stream", False),
        ("text/event-stream;q=0.5, application/json", False),
        ("*/*", False),
        ("", False),
    ],
)
async def test_only_who_asks_for_a_stream_first_gets_one(
    owner: Asking, accept: str, is_stream: bool
) -> None:
    async with owner.stream("{ me { username } }", headers={"accept": accept}) as events:
        await events.response.aread()
        kind = events.response.headers["content-type"]
        assert ("event-stream" in kind, "json" in kind) == (is_stream, not is_stream)


async def test_who_reconnects_goes_on_after_the_last_event(owner: Asking, world: World) -> None:
    variables = {"id": str(world.free.id)}
    async with owner.stream(TASK, variables=variables) as events:
        first = await events.next()
        assert first is not None
        for name in ("Second", "Third", "Fourth"):
            await rename(world, name)
        second = await events.next()
        assert second is not None

    third = position(second) + 1
    assert await positions(owner, world, 2, last=second.id) == [third, third + 1]
    assert await positions(owner, world, 3, last=first.id) == [third - 1, third, third + 1]
    # An EventSource sends the URL with which it began again: the later place counts.
    for after, last in ((first.id, second.id), (second.id, first.id)):
        found = positions(owner, world, 2, variables={"after": after}, last=last)
        assert await found == [third, third + 1]
    await rename(world, "Fifth")
    assert await positions(owner, world, 3, last=second.id) == [third, third + 1, third + 2]


@pytest.mark.parametrize("last", ["nonsense", "RVZFTlQKLTEKMA==", "%00"])
async def test_an_id_of_no_event_is_refused(owner: Asking, world: World, last: str) -> None:
    events = await owner.ask(TASK, variables={"id": str(world.free.id)}, last=last)

    assert [event.type for event in events] == ["next", "complete"]
    assert codes(events[0]) == ["BAD_USER_INPUT"]


REFUSED = {
    "{": "BAD_REQUEST",
    "{ nothing }": "BAD_REQUEST",
    "subscription { nothing }": "BAD_REQUEST",
    "subscription { __typename }": "BAD_REQUEST",
    "subscription { taskUpdated(id: 1) { cursor } inbox { cursor } }": "BAD_REQUEST",
    'subscription { taskUpdated(id: "?") { cursor } }': "BAD_USER_INPUT",
    'subscription { events(after: "?") { cursor } }': "BAD_USER_INPUT",
    "subscription($id: ID!) { taskUpdated(id: $id) { cursor } }": "BAD_USER_INPUT",
}


@pytest.mark.parametrize("query", REFUSED)
async def test_an_operation_that_is_refused_says_so_in_an_event(
    live: Listening, owner: Asking, query: str
) -> None:
    events = await owner.ask(query)

    assert [event.type for event in events] == ["next", "complete"]
    assert codes(events[0]) == [REFUSED[query]]
    assert events[0].data.keys() == {"errors"}
    assert len(live.app.state.streams) == 0


async def test_without_a_token_nothing_is_followed(live: Listening, people: People) -> None:
    for token in (None, "troupe_unknown"):
        async with Asking.of(url(live), token) as nobody:
            events = await nobody.ask("subscription { inbox { cursor } }")
            assert codes(events[0]) == ["UNAUTHENTICATED"]
            response = await nobody.http.put("/graphql", headers=nobody.headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
    assert len(live.app.state.streams) == 0


@pytest.mark.parametrize(
    ("method", "options", "status"),
    [
        ("POST", {"content": b"{"}, 400),
        ("POST", {"content": b"null"}, 400),
        ("POST", {"content": b"{}"}, 400),
        ("POST", {"content": b'{"query": 1}'}, 400),
        ("POST", {"content": b"{}", "headers": {"content-type": "text/plain"}}, 415),
        ("POST", {"content": b" " * (2**20 + 1)}, 413),
        ("GET", {}, 400),
        ("GET", {"params": {"query": "{ __typename }", "variables": "["}}, 400),
        ("PATCH", {"content": b"{}"}, 405),
        ("HEAD", {"params": {"query": "{ __typename }"}}, 406),
        ("DELETE", {}, 404),
        ("DELETE", {"params": {"operationId": "1", "token": "unknown"}}, 404),
        ("GET", {"params": {"token": "unknown"}}, 404),
        ("POST", {"content": b"{}", "params": {"token": "unknown"}}, 404),
    ],
)
async def test_a_malformed_request_is_refused(
    live: Listening, owner: Asking, method: str, options: Any, status: int
) -> None:
    headers = {"content-type": "application/json", "accept": "text/event-stream"}
    headers |= owner.headers | options.get("headers", {})
    response = await owner.http.request(method, "/graphql", **{**options, "headers": headers})

    assert response.status_code == status
    if method != "HEAD":
        assert response.headers["content-type"] == "application/json; charset=utf-8"
        assert response.json()["errors"]
    assert len(live.app.state.streams) == 0


async def test_a_client_of_http_1_0_is_told_what_is_missing(live: Listening) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
    writer.write(b"GET /graphql?query={__typename} HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"proxy_http_version 1.1" in answer


# Single connection


async def test_results_of_several_operations_share_a_stream(
    live: Listening, owner: Asking, world: World
) -> None:
    stream = await owner.reserve()
    variables = {"id": str(world.free.id)}
    # What is sent before the stream is open waits for it.
    assert (await owner.send(stream, "task", TASK, variables)).status_code == 202
    async with owner.stream(params={"token": stream}) as events:
        first = await events.next()
        assert first is not None
        assert (first.type, first.data["id"]) == ("next", "task")
        message = first.data["payload"]["data"]["taskUpdated"]
        assert (message["task"]["title"], message["cursor"]) == (world.free.title, first.id)
        accepted = await owner.send(stream, "me", "{ me { username } }")
        assert (accepted.status_code, accepted.content) == (202, b"")
        assert await events.next() == Event(
            "next", {"id": "me", "payload": {"data": {"me": {"username": "owner"}}}}
        )
        assert await events.next() == Event("complete", {"id": "me"})
        again = await owner.send(stream, "task", TASK, variables)
        assert (again.status_code, again.json()["errors"][0]["extensions"]["code"]) == (
            409,
            "CONFLICT",
        )
        cancelled = await owner.cancel(stream, "task")
        assert (cancelled.status_code, cancelled.content) == (200, b"")
        await becomes(lambda: not len(live.app.state.streams.subscriptions))
        # Its id is free, and it goes on after the last event.
        await rename(world, "Renamed")
        headers = {"last-event-id": str(first.id)}
        assert (await owner.send(stream, "task", TASK, variables, **headers)).status_code == 202
        second = await events.next()
        assert second is not None
        assert second.data["payload"]["data"]["taskUpdated"]["task"]["title"] == "Renamed"
        assert (await owner.cancel(stream, "unknown")).status_code == 200
    await becomes(lambda: not len(live.app.state.streams))
    assert (await owner.send(stream, "me", "{ __typename }")).status_code == 404


async def test_the_token_of_a_stream_can_be_in_the_url(owner: Asking) -> None:
    """Whatever the client accepts, and for each method."""
    stream = await owner.reserve()
    params = {"token": stream}
    me, typename = {"me": {"username": "owner"}}, {"__typename": "Query"}
    async with owner.stream(params=params) as events:
        for number, accept in enumerate(("*/*", "application/json", "text/html, */*")):
            body = {"query": "{ me { username } }", "extensions": {"operationId": f"{number}"}}
            headers = owner.headers | {"accept": accept}
            accepted = await owner.http.post("/graphql", json=body, params=params, headers=headers)
            assert (accepted.status_code, accepted.content) == (202, b"")
            result = {"id": f"{number}", "payload": {"data": me}}
            assert await events.next() == Event("next", result)
            assert await events.next() == Event("complete", {"id": f"{number}"})
        query = params | {"query": "{ __typename }", "extensions": '{"operationId": "get"}'}
        accepted = await owner.http.get("/graphql", params=query, headers=owner.headers)
        assert accepted.status_code == 202
        result = {"id": "get", "payload": {"data": typename}}
        assert await events.next() == Event("next", result)
    unknown = await owner.http.post(
        "/graphql", params={"token": "unknown"}, json={"query": "{ a }"}
    )
    assert unknown.status_code == 404


async def test_an_operation_of_a_stream_is_refused_over_http(owner: Asking) -> None:
    stream = await owner.reserve()
    async with owner.stream(params={"token": stream}) as events:
        for query, code in REFUSED.items():
            if "after" in query or '"?"' in query:
                continue
            response = await owner.send(stream, "1", query)
            assert response.status_code == 400
            assert response.json()["errors"][0]["extensions"]["code"] == code
        for id in (None, "", 1, ["1"], "x" * 129):
            response = await owner.send(stream, id, "{ __typename }")
            assert response.status_code == 400, id
            assert "operationId" in response.text
        response = await owner.http.delete(
            "/graphql", headers={**owner.headers, "x-graphql-event-stream-token": stream}
        )
        assert response.status_code == 400
        # The arguments of a subscription are read when it begins.
        assert (await owner.send(stream, "2", REFUSED_BY_ITS_CURSOR)).status_code == 202
        event = await events.next()
        assert event is not None
        assert event.data["id"] == "2"
        assert event.data["payload"]["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
        assert await events.next() == Event("complete", {"id": "2"})
        # An event stream is opened once.
        async with owner.stream(params={"token": stream}) as second:
            await second.response.aread()
            assert second.response.status_code == 409


REFUSED_BY_ITS_CURSOR = 'subscription { events(after: "?") { cursor } }'


async def test_a_stream_belongs_to_the_access_token_that_reserved_it(
    live: Listening, owner: Asking, people: People
) -> None:
    stream = await owner.reserve()
    async with (
        Asking.of(url(live), people.stranger.token) as stranger,
        Asking.of(url(live)) as nobody,
    ):
        async with stranger.stream(params={"token": stream}) as events:
            assert events.response.status_code == 404
        for other in (stranger, nobody):
            assert (await other.send(stream, "1", "{ __typename }")).status_code == 404
            assert (await other.cancel(stream, "1")).status_code == 404
        # The EventSource of browsers sends no access token; the token in the URL is enough.
        async with nobody.stream(params={"token": stream}) as events:
            assert (await owner.send(stream, "1", "{ me { username } }")).status_code == 202
            event = await events.next()
            assert event is not None
            assert event.data["payload"] == {"data": {"me": {"username": "owner"}}}


async def test_a_stream_that_nobody_opens_is_dropped(
    live: Listening, owner: Asking, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.server.event_streams.OPEN_TIMEOUT", 2)
    stream = await owner.reserve()
    assert (await owner.send(stream, "1", TASK, {"id": str(world.free.id)})).status_code == 202
    variables = {"id": str(world.free.id), "title": "Renamed"}
    assert (await owner.send(stream, "2", RENAME, variables)).status_code == 202
    streams = live.app.state.streams
    assert (len(streams), len(streams.subscriptions)) == (1, 1)
    await becomes(lambda: (len(streams), len(streams.subscriptions)) == (0, 0))
    assert (await owner.send(stream, "3", "{ __typename }")).status_code == 404
    assert not streams._reserved


# Limits


async def test_there_are_only_so_many_streams(
    database: db.Database, people: People, world: World
) -> None:
    variables = {"id": str(world.free.id)}
    async with (
        numbered(database, max_event_streams=3, max_event_streams_per_viewer=2) as server,
        Asking.of(url(server), people.owner.token) as owner,
        Asking.of(url(server), people.admin.token) as admin,
    ):
        async with owner.stream(TASK, variables=variables) as events:
            await events.next()
            await owner.reserve()
            refused = await owner.http.put("/graphql", headers=owner.headers)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "TROUPE_MAX_EVENT_STREAMS_PER_VIEWER" in refused.text
            async with owner.stream("{ me { username } }") as second:
                await second.response.aread()
                assert second.response.status_code == 503
                assert second.response.headers["retry-after"] == "1"
            async with admin.stream(TASK, variables=variables) as third:
                await third.next()
                refused = await admin.http.put("/graphql", headers=admin.headers)
                assert refused.status_code == 503
                assert "(TROUPE_MAX_EVENT_STREAMS)" in refused.text
        streams = server.app.state.streams
        await becomes(lambda: len(streams) == 1)
        assert [*streams._by_client.values()] == [1]
        assert await first_title(owner, world) == world.free.title


async def test_only_so_many_operations_are_open_on_a_stream(
    database: db.Database, people: People, world: World
) -> None:
    variables = {"id": str(world.free.id)}
    async with (
        numbered(database, max_subscriptions_per_connection=2) as server,
        Asking.of(url(server), people.owner.token) as owner,
    ):
        stream = await owner.reserve()
        async with owner.stream(params={"token": stream}) as events:
            for id in ("1", "2"):
                assert (await owner.send(stream, id, TASK, variables)).status_code == 202
                await events.next()
            refused = await owner.send(stream, "3", TASK, variables)
            assert refused.status_code == 400
            (error,) = refused.json()["errors"]
            assert error["extensions"]["limit"] == "max_subscriptions_per_connection"
            await owner.cancel(stream, "1")
            await becomes(lambda: len(server.app.state.streams.subscriptions) == 1)
            assert (await owner.send(stream, "3", TASK, variables)).status_code == 202


async def test_who_asks_too_often_is_told_when_to_come_back(
    database: db.Database, people: People
) -> None:
    async with (
        numbered(database, max_cost=10, rate_burst=40, rate_per_second=1) as server,
        Asking.of(url(server), people.owner.token) as owner,
    ):
        for _ in range(200):
            async with owner.stream("{ __typename }") as events:
                await events.response.aread()
                if events.response.status_code != 200:
                    break
        assert events.response.status_code == 429
        assert int(events.response.headers["retry-after"]) > 0
        refused = await owner.http.put("/graphql", headers=owner.headers)
        assert refused.status_code == 429


# The end of a stream


@pytest.mark.parametrize("is_revoked", [True, False])
async def test_a_stream_ends_within_a_second_of_its_tokens_end(
    live: Listening,
    database: db.Database,
    owner: Asking,
    people: People,
    world: World,
    is_revoked: bool,
) -> None:
    id = people.users["owner"].id
    revoke = update(db.AccessToken).where(db.AccessToken.user_id == id)
    revoke = revoke.values(revoked_at=func.now())
    deactivate = update(db.User).where(db.User.id == id).values(is_active=False)
    single = await owner.reserve()
    reserved = await owner.reserve()
    async with (
        owner.stream(TASK, variables={"id": str(world.free.id)}) as events,
        owner.stream(params={"token": single}) as idle,
    ):
        await events.next()
        async with database.write(db.Viewer()) as session:
            await session.execute(revoke if is_revoked else deactivate)
        await execute(world, "UPDATE tasks SET title = 'Secret'")
        async with asyncio.timeout(1.5):
            last, complete = await events.rest()
            assert await idle.rest() == []
    assert codes(last) == ["UNAUTHENTICATED"]
    assert "was revoked" in last.data["errors"][0]["message"]
    assert complete == Event("complete")
    assert (await owner.send(reserved, "1", "{ __typename }")).status_code == 404


async def test_who_is_no_longer_a_member_gets_nothing_more(
    live: Listening, database: db.Database, people: People, world: World
) -> None:
    async with database.write(db.Viewer(is_administrator=True)) as session:
        stranger = people.users["stranger"]
        member = await factories.make_member(session, world.project, stranger)
    await becomes(lambda: all_numbered(database))
    follow = "subscription { events { event { entityType action } } }"
    async with (
        Asking.of(url(live), people.stranger.token) as asking,
        asking.stream(follow) as events,
    ):
        await events.next()
        await rename(world, "Seen")
        seen = await events.next()
        assert seen is not None
        remove = delete(db.ProjectMember).where(db.ProjectMember.user_id == member.user_id)
        async with database.write(db.Viewer(is_administrator=True)) as session:
            await session.execute(remove)
        await rename(world, "Hidden")
        # What is of another project comes next.
        created = await people.stranger.ask(
            'mutation { createProject(input: {name: "Own"}) { userErrors { message } } }'
        )
        assert created.data == {"createProject": {"userErrors": []}}
        own = await events.next()
        assert own is not None
        changes = [each.data["data"]["events"]["event"] for each in (seen, own)]
        assert changes == [
            {"entityType": "Task", "action": "UPDATED"},
            {"entityType": "Project", "action": "CREATED"},
        ]


async def test_an_idle_stream_is_kept_alive(
    owner: Asking, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The limits of time of a request do not end it.
    monkeypatch.setattr("graph.server.event_streams.KEEP_ALIVE_SECONDS", 0.1)
    for name in ("HEAD_TIMEOUT", "BODY_TIMEOUT"):
        monkeypatch.setattr(f"graph.server.protocols.{name}", 0.2)
    async with owner.stream(TASK, variables={"id": str(world.free.id)}) as events:
        assert title(await events.next()) == world.free.title
        before = events.comments
        await asyncio.sleep(1)
        await rename(world, "Late")
        assert title(await events.next()) == "Late"
        assert events.comments >= before + 5


async def test_a_client_that_leaves_leaves_nothing_behind(
    live: Listening, owner: Asking, world: World
) -> None:
    streams = live.app.state.streams

    async def leave() -> None:
        variables = {"id": str(world.free.id)}
        async with Asking.of(url(live), world.owner.token) as client:
            stream = await client.reserve()
            await client.send(stream, "1", TASK, variables)
            async with (
                client.stream(TASK, variables=variables) as one,
                client.stream(params={"token": stream}) as two,
            ):
                assert await one.next()
                assert await two.next()
                assert len(streams.subscriptions) == 2
        await becomes(lambda: (len(streams), len(streams.subscriptions)) == (0, 0))

    async def counts() -> tuple[int, int]:
        await becomes(lambda: live.app.state.tokens._checking is None)
        gc.collect()
        kinds = ("EventStream", "StreamOperation", "QueueSink", "Subscription", "Exchange")
        left = sum(type(each).__name__ in kinds for each in gc.get_objects())
        return len(asyncio.all_tasks()), left

    await leave()
    before = await counts()
    for _ in range(20):
        await leave()
    after = await counts()
    assert after == before


def raw(world: World, query: str, **variables: Any) -> bytes:
    """A request for the stream of an operation, as bytes."""
    request = httpx.Request("POST", "http://x", json={"query": query, "variables": variables})
    head = (
        "POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {world.owner.token}\r\nAccept: text/event-stream\r\n"
        f"Content-Length: {len(request.content)}\r\n\r\n"
    )
    return head.encode() + request.content


async def test_a_mutation_ends_whole_although_its_client_has_left(
    live: Listening, database: db.Database, world: World, lines: Lines
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", live.port)
    variables = {"id": str(world.free.id), "title": "Without me"}
    async with locked(database.url, "tasks"):
        writer.write(raw(world, RENAME, **variables))
        await waiting(database, 1)
        writer.transport.abort()
        await asyncio.sleep(0.3)
        assert len(await waiting(database, 1)) == 1
    await becomes(lambda: len(live.app.state.streams) == 0)
    found = await world.owner.ask("query($id: ID!) { task(id: $id) { title } }", **variables)
    assert found.data["task"]["title"] == "Without me"
    assert lines.objects[0]["kind"] == "mutation"


async def test_a_client_that_does_not_read_is_ended_and_goes_on_later(
    live: Listening, owner: Asking, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.server.sinks.SLOW_SECONDS", 0.3)
    long = """subscription($id: ID!) {
      taskUpdated(id: $id) { cursor event { position } task { title description } }
    }"""
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port, limit=2**12)
    writer.write(raw(world, long, id=str(world.free.id)))
    await reader.readuntil(b"event: next\n")
    line = await reader.readline()
    assert line.startswith(b"id: ")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    streams = live.app.state.streams
    assert len(streams) == 1
    async with owner.stream(TASK, variables={"id": str(world.free.id)}) as other:
        await other.next()
        count = 0
        while len(streams) == 2 and count < 300:
            text = str(count % 10) * 90_000
            answer = await world.owner.ask(DESCRIBE, id=str(world.free.id), text=text)
            assert answer.data == {"updateTask": {"userErrors": []}}
            count += 1
        # It slows nobody.
        for _ in range(count):
            assert title(await other.next()) == world.free.title
        await becomes(lambda: len(streams) == 1)
        assert len(streams.subscriptions) == 1
    writer.transport.abort()
    # With the cursor of its last message, it gets all the others.
    variables = {"id": str(world.free.id)}
    last = line.removeprefix(b"id: ").strip().decode()
    async with owner.stream(TASK, variables=variables, last=last) as again:
        found = [position(await again.next()) for _ in range(count)]
    assert found == list(range(found[0], found[0] + count))


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_who_reads_long_messages_slowly_gets_all_of_them(
    live: Listening, world: World, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """A client is slow if it reads nothing, not if it has not read everything."""
    monkeypatch.setattr("graph.server.sinks.SLOW_SECONDS", 0.4)
    id = str(world.free.id)
    await world.owner.ask(DESCRIBE, id=id, text="x" * 90_000)
    aliases = " ".join(f"a{number}: description" for number in range(40))
    query = f"subscription($id: ID!) {{ taskUpdated(id: $id) {{ task {{ {aliases} }} }} }}"
    loop = asyncio.get_running_loop()
    async with small_connection(live.port) as connection:
        if transport == "sse":
            begins = b"event: next\n"
            await loop.sock_sendall(connection, raw(world, query, id=id))
        else:
            begins = b'"type":"next"'
            await loop.sock_sendall(connection, handshake())
            await received(connection, b"\r\n\r\n", 1)
            token = {"Authorization": f"Bearer {world.owner.token}"}
            await loop.sock_sendall(connection, text_frame(type="connection_init", payload=token))
            await received(connection, b"connection_ack", 1)
            payload = {"query": query, "variables": {"id": id}}
            frame = text_frame(type="subscribe", id="1", payload=payload)
            await loop.sock_sendall(connection, frame)
        await received(connection, begins, 1)
        for name in ("Second", "Third", "Fourth"):
            await rename(world, name)
        began = loop.time()
        await received(connection, begins, 3, pause=0.01)
        assert loop.time() - began > 0.8


async def test_who_reads_a_long_result_slowly_gets_all_of_it(
    live: Listening, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.server.event_streams.END_TIMEOUT", 0.1)
    id = str(world.free.id)
    await world.owner.ask(DESCRIBE, id=id, text="x" * 90_000)
    aliases = " ".join(f"a{number}: description" for number in range(90))
    query = f"query($id: ID!) {{ task(id: $id) {{ {aliases} }} }}"
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port, limit=2**12)
    writer.write(raw(world, query, id=id))
    await reader.readuntil(b"event: next\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(1)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    received = 0
    end = b""
    while not end.endswith(b"0\r\n\r\n"):
        data = await reader.read(2**16)
        assert data
        received += len(data)
        end = (end + data)[-100:]
    assert received > 90 * 90_000
    assert b"event: complete\ndata:\n\n" in end
    writer.close()
    await becomes(lambda: len(live.app.state.streams) == 0)


async def test_a_server_that_stops_ends_its_streams_so_that_clients_connect_again(
    database: db.Database, people: People, world: World
) -> None:
    variables = {"id": str(world.free.id)}
    async with (
        numbering(database),
        Asking.of("http://127.0.0.1", people.owner.token) as owner,
    ):
        async with listening(database) as server:
            owner.http.base_url = httpx.URL(url(server))
            stream = await owner.reserve()
            async with (
                owner.stream(TASK, variables=variables) as events,
                owner.stream(params={"token": stream}) as single,
            ):
                first = await events.next()
                assert first is not None
                server.server.should_exit = True
                # Not complete: an EventSource and graphql-sse connect again.
                async with asyncio.timeout(5):
                    assert await events.rest() == []
                    assert await single.rest() == []
        await rename(world, "Meanwhile")
        async with listening(database) as server:
            owner.http.base_url = httpx.URL(url(server))
            assert await first_title(owner, world, last=first.id) == "Meanwhile"


async def test_a_subscription_that_begins_delays_no_shutdown(
    live: Listening, owner: Asking, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins = asyncio.Event()

    async def slow(*_: Any) -> None:
        begins.set()
        await asyncio.sleep(60)

    monkeypatch.setattr("graph.execution.pipeline.Pipeline.prepare", slow)

    async def ask() -> tuple[int, list[Event]]:
        async with owner.stream(TASK, variables={"id": str(world.free.id)}) as events:
            return events.response.status_code, await events.rest()

    asking = asyncio.create_task(ask())
    await begins.wait()
    async with asyncio.timeout(5):
        await live.app.state.streams.shut_down(60)
        # Not complete, so its client connects again.
        assert await asking == (200, [])
    await becomes(lambda: len(live.app.state.streams) == 0)


async def test_while_a_server_stops_no_stream_begins(live: Listening, owner: Asking) -> None:
    await live.app.state.streams.shut_down(1)
    async with owner.stream("{ __typename }") as events:
        await events.response.aread()
        assert events.response.status_code == 503
        assert events.response.headers["retry-after"] == "1"


async def test_an_error_in_the_middle_is_masked_and_ends_the_operation(
    owner: Asking, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with owner.stream(TASK, variables={"id": str(world.free.id)}) as events:
        await events.next()

        async def fail(*_: object) -> None:
            raise RuntimeError("secret")

        monkeypatch.setattr("graph.execution.pipeline.Pipeline.messages", fail)
        await rename(world, "Second")
        last, complete = await events.rest()
    assert codes(last) == ["FAULT"]
    assert "secret" not in str(last)
    assert complete == Event("complete")
    assert "secret" in caplog.text


async def test_what_cannot_begin_now_is_to_be_tried_again(
    owner: Asking, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise ConnectionRefusedError

    stream = await owner.reserve()
    monkeypatch.setattr("graph.execution.tokens.Tokens.look_up", away)
    async with owner.stream(TASK, variables={"id": str(world.free.id)}) as events:
        await events.response.aread()
    response = await owner.send(stream, "1", "{ me { username } }")
    for refused in (events.response, response):
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["errors"][0]["extensions"]["code"] == "UNAVAILABLE"


# The log, and other sites


async def test_an_operation_is_a_line(owner: Asking, world: World, lines: Lines) -> None:
    async with owner.stream(
        TASK, variables={"id": str(world.free.id)}, headers={"x-request-id": "mine"}
    ) as events:
        await events.next()
    await owner.ask("query Me { me { username } }", headers={"x-request-id": "mine"})
    await owner.ask("query Bad { nothing }", headers={"x-request-id": "mine"})
    await becomes(lambda: len([line for line in lines.objects if line["request"] == "mine"]) == 3)
    shown = ("transport", "kind", "operation", "status", "codes", "viewer")
    found = [[line[name] for name in shown] for line in lines.objects if line["request"] == "mine"]
    viewer = found[0][-1]
    assert sorted(found, key=str) == sorted(
        [
            ["sse", "subscription", "Watch", 200, [], viewer],
            ["sse", "query", "Me", 200, [], viewer],
            ["sse", None, None, 400, ["BAD_REQUEST"], viewer],
        ],
        key=str,
    )


async def test_pages_of_allowed_sites_may_use_streams(
    database: db.Database, people: People
) -> None:
    site = "https://app.example.org"
    async with (
        numbered(database, allowed_origins=(site,)) as server,
        Asking.of(url(server), people.owner.token) as owner,
    ):
        for method in ("PUT", "DELETE", "POST", "GET"):
            preflight = await owner.http.options(
                "/graphql",
                headers={
                    "origin": site,
                    "access-control-request-method": method,
                    "access-control-request-headers": "authorization, last-event-id,"
                    " x-graphql-event-stream-token",
                },
            )
            assert preflight.status_code == 200, method
        async with owner.stream("{ __typename }", headers={"origin": site}) as events:
            assert events.response.headers["access-control-allow-origin"] == site
            assert "Accept" in events.response.headers["vary"]
            assert len(await events.rest()) == 2
        other = {"origin": "https://evil.example.org"}
        async with owner.stream("{ __typename }", headers=other) as events:
            assert "access-control-allow-origin" not in events.response.headers
