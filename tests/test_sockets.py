"""Operations over WebSocket: as safe as over POST, and answered alike."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, update
from websockets.exceptions import ConnectionClosed, InvalidStatus

import db
from db import access
from graph.execution.pipeline import Pipeline
from graph.execution.tokens import Tokens
from graph.settings import Settings
from tests import factories, processes
from tests.conftest import People
from tests.following import Following, numbering
from tests.patience import becomes, until
from tests.processes import Serving
from tests.sockets import (
    Listening,
    Talk,
    handshake,
    listening,
    opened,
    received,
    small_connection,
    text_frame,
)
from tests.test_disconnects import none_waits
from tests.test_logs import Lines, lines
from tests.test_sessions import locked, waiting

__all__ = ["lines"]


@pytest.fixture
async def served_here(database: db.Database) -> AsyncIterator[Listening]:
    """A server for a test that needs nobody there."""
    async with listening(database) as server:
        yield server


# Answers

ALIKE: dict[str, dict[str, Any]] = {
    "a query": {"query": "{ projects { totalCount nodes { name } } }"},
    "variables": {
        "query": "query P($first: Int!) { projects(first: $first) { nodes { id } } }",
        "variables": {"first": 1},
    },
    "one of two": {
        "query": "query A { a: __typename } query B { me { username } }",
        "operationName": "B",
    },
    "a partial success": {"query": '{ me { username } project(id: "?") { id } }'},
    "cost": {"query": "{ projects { totalCount } }", "extensions": {"cost": True}},
    "a user error": {
        "query": 'mutation { createProject(input: {name: ""}) { userErrors { code path } } }'
    },
}
REFUSED: dict[str, dict[str, Any]] = {
    "a syntax error": {"query": "{ projects {"},
    "an unknown field": {"query": "{ nothing }"},
    "no such operation": {"query": "query A { __typename }", "operationName": "B"},
    "which of two": {"query": "query A { __typename } query B { __typename }"},
    "a variable of the wrong type": {
        "query": "query($first: Int) { projects(first: $first) { totalCount } }",
        "variables": {"first": "x"},
    },
    "text that cannot be stored": {
        "query": "query($id: ID!) { project(id: $id) { id } }",
        "variables": {"id": "\0"},
    },
    "too deep": {"query": "{" + "a {" * 30 + " b " + "}" * 31},
    "too expensive": {
        "query": "{ projects(first: 100) { nodes { tasks(first: 100) { nodes { dependencies"
        " { nodes {"
        " dependency { title } } } } } } } }"
    },
    "an unknown hash": {
        "query": None,
        "extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}},
    },
}


async def test_what_is_answered_is_what_is_answered_over_http(
    database: db.Database, people: People, limited: People
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_plan(session, people.users["owner"], projects=3)
    for compiler in (True, False):
        async with (
            listening(database, Settings(compiler=compiler)) as server,
            server.talk(limited.owner.token) as talk,
        ):
            for kind, asked in ALIKE.items():
                over_http = (await limited.owner.request(**asked)).body
                over_socket = await talk.ask(**asked)
                for body in (over_http, over_socket):
                    body.get("extensions", {}).get("cost", {}).pop("left", None)
                assert over_socket == over_http, kind
                assert "data" in over_socket, kind


async def test_what_is_refused_is_refused_alone(
    database: db.Database, people: People, limited: People
) -> None:
    async with listening(database) as server, server.talk(limited.owner.token) as talk:
        for kind, asked in REFUSED.items():
            over_http = (await limited.owner.request(**asked)).body
            assert await talk.ask(**asked) == over_http, kind
            assert list(over_http) == ["errors"], kind
        assert await talk.ask("{ __typename }") == {"data": {"__typename": "Query"}}
        assert await talk.ask("subscription { nothing }") == {
            "errors": [
                {
                    "message": "Cannot query field 'nothing' on type 'Subscription'.",
                    "locations": [{"line": 1, "column": 16}],
                    "extensions": {"code": "BAD_REQUEST"},
                }
            ]
        }
        assert await talk.ask("{ __typename }") == {"data": {"__typename": "Query"}}


async def test_a_document_is_sent_once_and_then_named(
    database: db.Database, people: People
) -> None:
    query = "{ me { username } }"
    digest = hashlib.sha256(query.encode()).hexdigest()
    named = {"persistedQuery": {"version": 1, "sha256Hash": digest}}
    async with listening(database) as server, server.talk(people.owner.token) as talk:
        first = await talk.ask(None, extensions=named)
        answers = [await talk.ask(sent, extensions=named) for sent in (query, None)]

    assert first["errors"][0]["extensions"] == {"code": "PERSISTED_QUERY_NOT_FOUND"}
    assert answers == [{"data": {"me": {"username": "owner"}}}] * 2


async def test_operations_run_beside_each_other(database: db.Database, people: People) -> None:
    queries = {f"q{number}": f"{{ a{number}: __typename }}" for number in range(20)}
    async with listening(database) as server, server.talk(people.owner.token) as talk:
        for id, query in queries.items():
            await talk.subscribe(query, id)
        heard = [await talk.heard() for _ in range(40)]

    for id in queries:
        assert [message for message in heard if message["id"] == id] == [
            {"type": "next", "id": id, "payload": {"data": {f"a{id[1:]}": "Query"}}},
            {"type": "complete", "id": id},
        ]


@pytest.mark.parametrize(
    "place",
    [
        "graph.execution.pipeline.Context",
        "graph.execution.run.Operation",
        "graph.server.sockets.Disconnect.__enter__",
        "graph.execution.pipeline.Pipeline.answer",
    ],
)
async def test_a_fault_tells_nothing_but_the_id_under_which_it_is_logged(
    database: db.Database,
    people: People,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("cannot open /srv/troupe/secret")

    async with listening(database) as server, server.talk(people.owner.token) as talk:
        with monkeypatch.context() as patch:
            patch.setattr(place, broken)
            answer = await talk.ask("{ me { id } }")
        assert await talk.ask("{ me { username } }") == {"data": {"me": {"username": "owner"}}}

    (error,) = answer["errors"]
    assert error["extensions"] == {"code": "FAULT"}
    assert "secret" not in error["message"]
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert record.getMessage().split()[1] in error["message"].split()
    assert "secret" in caplog.text


async def test_the_documentation_shows_what_is_said(database: db.Database, people: People) -> None:
    page = Path(__file__).parents[1] / "docs" / "api.md"
    said = re.findall(r"^([<>]) (\{.*\})$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(said) > 8
    async with listening(database) as server, server.connect() as connection:
        for direction, text in said:
            if direction == ">":
                await connection.send(text.replace("troupe_…", str(people.admin.token)))
            else:
                assert await Talk(connection).heard() == json.loads(text)


# The handshake


APP = ("https://app.example.org",)


async def test_a_page_of_another_site_is_refused_at_the_handshake(database: db.Database) -> None:
    async with listening(database, Settings(allowed_origins=APP)) as server:
        for origin in (None, APP[0], f"http://127.0.0.1:{server.port}"):
            async with server.connect(origin=origin) as connection:
                await Talk(connection).begin()
        for origin in ("http://example.org", "null"):
            with pytest.raises(InvalidStatus) as caught:
                await server.connect(origin=origin)
            response = caught.value.response
            assert response.status_code == 403
            assert json.loads(response.body or b"") == {
                "errors": [
                    {
                        "message": "Pages of this origin may not connect (TROUPE_ALLOWED_ORIGINS).",
                        "extensions": {"code": "FORBIDDEN"},
                    }
                ]
            }
            assert response.headers["cache-control"] == "no-store"
            assert len(response.headers["x-request-id"]) == 16


async def test_only_one_protocol_is_spoken(served_here: Listening) -> None:
    for protocols in ((), ("graphql-ws",), ("soap", "graphql-ws")):
        with pytest.raises(InvalidStatus) as caught:
            await served_here.connect(protocols=protocols)
        response = caught.value.response
        assert response.status_code == 400
        (error,) = json.loads(response.body or b"")["errors"]
        assert error["message"] == (
            "Ask for the subprotocol graphql-transport-ws (Sec-WebSocket-Protocol)."
        )


async def test_the_protocol_is_chosen_among_others_and_nothing_is_compressed(
    served_here: Listening,
) -> None:
    async with served_here.connect(
        protocols=("graphql-ws", "graphql-transport-ws"),
        additional_headers={"X-Request-Id": "mine"},
    ) as connection:
        assert connection.subprotocol == "graphql-transport-ws"
        assert connection.protocol.extensions == []
        assert connection.response is not None
        assert connection.response.headers["x-request-id"] == "mine"


async def test_a_handshake_that_cannot_be_read_is_answered_or_ends(
    served_here: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    sent = {
        handshake(Sec_WebSocket_Key="x"): b"400",
        handshake(Sec_WebSocket_Version="8"): b"400",
        handshake(Origin="\u00e9://x"): b"403",
        handshake(Sec_WebSocket_Protocol=",,"): b"400",
        handshake(Cookie="x" * 9000): b"431",
        handshake(**{f"X_{number}": "" for number in range(200)}): b"431",
        # These are none, and answered like any other request.
        handshake("POST", Connection="Upgrade, close"): b"415",
        handshake(Connection="Upgrade, close", Content_Length="5") + b"abcde": b"400",
        handshake(Connection="Upgrade, close", Transfer_Encoding="chunked") + b"0\r\n\r\n": b"400",
    }
    for data, expected in sent.items():
        reader, writer = await asyncio.open_connection("127.0.0.1", served_here.port)
        writer.write(data)
        async with asyncio.timeout(5):
            answer = await reader.read()
        assert answer[9:12] == expected, data[:300]
        writer.close()
    await becomes(lambda: not served_here.server.server_state.connections)
    assert caplog.text == ""


async def test_there_is_one_address(database: db.Database) -> None:
    for page in (True, False):
        async with listening(database, Settings(graphiql=page)) as server:
            url = f"ws://127.0.0.1:{server.port}"
            async with opened(f"{url}/graphql") as connection:
                await Talk(connection).begin()
            for path in ("/", "/livez", "/graphql/x", "/graphiql/x"):
                with pytest.raises(InvalidStatus) as caught:
                    await opened(url + path)
                assert caught.value.response.status_code in (403, 404, 500), path


# Who asks


async def me(talk: Talk) -> Any:
    """Who the server takes one for."""
    answer = await talk.ask("{ me { username } }")
    if "errors" in answer:
        (error,) = answer["errors"]
        return error["extensions"]["code"]
    return answer["data"]["me"]["username"]


async def test_a_token_comes_with_the_first_message_or_with_the_handshake(
    database: db.Database, people: People
) -> None:
    bearer = f"Bearer {people.owner.token}"
    other = {"Authorization": f"Bearer {people.stranger.token}"}
    payloads: list[tuple[dict[str, str], Any, str]] = [
        ({}, {"Authorization": bearer}, "owner"),
        ({}, {"authorization": bearer}, "owner"),
        ({}, {"authorization": bearer, "other": {"things": 1}}, "owner"),
        (other, None, "stranger"),
        (other, {}, "stranger"),
        (other, {"Authorization": bearer}, "owner"),
        ({}, None, "UNAUTHENTICATED"),
        ({}, {"Authorization": str(people.owner.token)}, "UNAUTHENTICATED"),
        ({}, {"token": bearer}, "UNAUTHENTICATED"),
        # No cookie is ever read: a page of another site would bring it along.
        ({"Cookie": f"Authorization={bearer}; token={bearer}"}, None, "UNAUTHENTICATED"),
    ]
    async with listening(database) as server:
        for headers, payload, expected in payloads:
            async with server.connect(additional_headers=headers) as connection:
                talk = Talk(connection)
                await talk.send("connection_init", payload=payload)
                assert await talk.heard() == {"type": "connection_ack"}
                assert await me(talk) == expected


async def test_nobody_is_answered_as_over_http(
    database: db.Database, people: People, limited: People
) -> None:
    async with listening(database) as server, server.talk() as talk:
        for query in (
            "{ __typename }",
            "{ projects { totalCount } }",
            "{ __schema { __typename } }",
        ):
            assert await talk.ask(query) == (await limited.nobody.ask(query)).body


async def closing(server: Listening, *messages: Any, **headers: str) -> tuple[int, str]:
    """How the server closes after some messages; strings and bytes are sent as they are."""
    async with server.connect(additional_headers=headers) as connection:
        for message in messages:
            plain = isinstance(message, str | bytes)
            await connection.send(message if plain else json.dumps(message))
        return await Talk(connection).closed()


INIT = {"type": "connection_init"}
FORBIDDEN = (4403, "Forbidden: the access token is unknown, has expired or was revoked.")


async def test_a_token_that_opens_nothing_opens_no_socket(
    database: db.Database, people: People
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_token(session, "over", people.users["owner"], revoked_at=func.now())
    async with listening(database) as server:
        for token in ("unknown", "over", "troupe_"):
            bearer = f"Bearer {token}"
            first = INIT | {"payload": {"Authorization": bearer}}
            assert await closing(server, first) == FORBIDDEN
            assert await closing(server, INIT, authorization=bearer) == FORBIDDEN
        assert len(server.sockets) == 0


@pytest.mark.parametrize(
    "ended",
    [
        {"revoked_at": func.now()},
        {"expires_at": func.now()},
    ],
)
async def test_a_socket_is_closed_within_a_second_of_its_tokens_end(
    database: db.Database, people: People, ended: dict[str, Any]
) -> None:
    hashed = access.hash_token(str(people.owner.token))
    change = update(db.AccessToken).where(db.AccessToken.token_hash == hashed).values(**ended)
    async with (
        listening(database) as server,
        server.talk(people.owner.token) as talk,
        server.talk(people.owner.token) as asking,
        server.talk(people.stranger.token) as other,
        server.talk() as anonymous,
    ):
        async with locked(database.url, "projects"):
            await asking.subscribe("{ projects { totalCount } }")
            await waiting(database, 1)
            async with database.write(db.Viewer()) as session:
                await session.execute(change)
            assert await talk.closed() == FORBIDDEN
            # What it waited for stops as well.
            assert await asking.closed() == FORBIDDEN
            await none_waits(database)
        assert await me(other) == "stranger"
        assert await me(anonymous) == "UNAUTHENTICATED"
        assert len(server.sockets) == 2


async def test_the_tokens_of_all_sockets_are_looked_up_at_once_and_only_while_there_are_any(
    database: db.Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.execution.tokens.CHECK_SECONDS", 0.05)
    looked_up: list[int] = []
    look_up = Tokens.look_up

    async def noted(self: Tokens, hashes: list[str]) -> Any:
        looked_up.append(len(hashes))
        return await look_up(self, hashes)

    async with listening(database) as server:
        monkeypatch.setattr(Tokens, "look_up", noted)
        async with server.talk():
            await asyncio.sleep(0.2)
            assert looked_up == []
        async with (
            server.talk(people.owner.token) as talk,
            server.talk(people.owner.token),
            server.talk(people.stranger.token),
            server.talk(),
        ):
            # Subscriptions share the watch of their socket.
            for name in ("1", "2"):
                await Following(talk, EVENTS, name).begin()
            assert len(server.app.state.tokens._watched) == 3
            looked_up.clear()
            await asyncio.sleep(0.2)
            assert len(looked_up) >= 2
            assert set(looked_up) == {2}
        await asyncio.sleep(0.1)
        looked_up.clear()
        await asyncio.sleep(0.2)
        assert looked_up == []


async def test_a_database_that_is_away_closes_nobody(
    database: db.Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.execution.tokens.CHECK_SECONDS", 0.02)

    async def away(*_: object) -> None:
        raise ConnectionRefusedError

    async with listening(database) as server, server.talk(people.owner.token) as talk:
        with monkeypatch.context() as patch:
            patch.setattr(Tokens, "look_up", away)
            await asyncio.sleep(0.1)
            assert await me(talk) == "UNAVAILABLE"
            # Nor is anybody told that their token is not good.
            async with server.talk(people.stranger.token) as other:
                assert await me(other) == "UNAVAILABLE"
        assert await me(talk) == "owner"


# The protocol


async def test_who_says_nothing_is_hung_up_on(
    database: db.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.server.sockets.INIT_TIMEOUT", 0.2)
    async with listening(database) as server:
        began = time.monotonic()
        assert await closing(server) == (4408, "Connection initialisation timeout")
        assert time.monotonic() - began > 0.15
        pings = [{"type": "ping"}] * 3
        assert (await closing(server, *pings))[0] == 4408
        async with server.talk() as talk:
            await asyncio.sleep(0.3)
            assert await talk.is_alive()


SUBSCRIBE = {"type": "subscribe", "id": "1", "payload": {"query": "{ __typename }"}}
TYPES = "`type` is connection_init, ping, pong, subscribe or complete."
IDS = "`id` is a string of 1 to 128 characters."
NOT_JSON = "The message is not JSON, or nests too deeply, at line 1, column "
HALF = (
    "The message cannot be used: a text contains half of a surrogate pair (\\ud800 to \\udfff),"
    " which is no character and cannot be stored."
)[:123]
NO_OBJECT = "The message is not a JSON object."
NO_PAYLOAD = "`payload` is an object."
NO_QUERY = "`query` is the text of an operation, and cannot be left out."


def asking(**payload: Any) -> Any:
    """A message with these things in its payload."""
    return SUBSCRIBE | {"payload": {"query": "{ __typename }"} | payload}


NOTHING: list[Any] = [None, 1, "", [], {}, True]
NO_MESSAGES: list[tuple[Any, str]] = [
    *((text, NO_OBJECT) for text in ("null", "42", '"x"', "[]", "true", "[[]]", "1e400")),
    *((text, f"{NOT_JSON}{at}.") for text, at in (("", 1), ("{", 2), ("nothing", 1), ("NaN", 1))),
    ("[" * 5000, f"{NOT_JSON}1026."),
    ('{"type": "ping", "payload": {"a": "\\ud800"}}', HALF),
    ('{"type": "subscribe", "id": "\\ud800"}', HALF),
    (b"{}", "Send text, not binary data."),
    ({}, TYPES),
    *(({"type": type}, TYPES) for type in (*NOTHING, "start", "connection_ack", "next")),
    *(({"type": "ping", "payload": payload}, NO_PAYLOAD) for payload in ("x", *NOTHING[1:4])),
    *((SUBSCRIBE | {"id": id}, IDS) for id in (*NOTHING, "x" * 129)),
    ({"type": "complete"}, IDS),
    ({"type": "complete", "id": 1}, IDS),
    ({"type": "subscribe", "id": "1"}, NO_QUERY),
    (SUBSCRIBE | {"payload": "{ __typename }"}, NO_PAYLOAD),
    *((asking(query=query), NO_QUERY) for query in NOTHING),
    (asking(variables=1), "`variables` is an object."),
    (asking(operationName=1), "`operationName` is a string."),
    (asking(extensions=[]), "`extensions` is an object."),
]


async def test_what_is_no_message_closes_the_socket_and_says_why(
    served_here: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    for message, reason in NO_MESSAGES:
        assert await closing(served_here, INIT, message) == (4400, reason), message
    for payload in NOTHING[1:4]:
        assert await closing(served_here, INIT | {"payload": payload}) == (4400, NO_PAYLOAD)
    wrong = INIT | {"payload": {"Authorization": 1}}
    assert await closing(served_here, wrong) == (
        4400,
        "`Authorization` is a string: Bearer <token>.",
    )
    assert await closing(served_here, INIT, INIT) == (4429, "Too many initialisation requests")
    assert caplog.text == ""


async def test_nothing_is_answered_before_the_acknowledgement(served_here: Listening) -> None:
    unauthorized = (4401, "Unauthorized: wait for connection_ack.")
    assert await closing(served_here, SUBSCRIBE) == unauthorized
    async with served_here.connect() as connection:
        talk = Talk(connection)
        assert await talk.is_alive()
        await talk.send("complete", id="1")
        await talk.send("pong")
        await talk.begin()


async def test_a_ping_is_answered_with_its_payload(served_here: Listening) -> None:
    async with served_here.talk() as talk:
        await talk.send("ping", payload={"a": [1]})
        assert await talk.heard() == {"type": "pong", "payload": {"a": [1]}}
        await talk.send("ping", payload=None)
        assert await talk.heard() == {"type": "pong"}


async def test_a_message_may_be_as_large_as_a_body(
    database: db.Database, people: People, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(database, Settings(max_body_bytes=100_000)) as server:
        async with server.talk(people.owner.token) as talk:
            long = {"x": "x" * 99_000}
            assert "data" in await talk.ask("{ __typename }", variables=long)
            async with locked(database.url, "projects"):
                await talk.subscribe("{ projects { totalCount } }", "slow")
                await waiting(database, 1)
                await talk.subscribe("{ __typename }", variables={"x": "x" * 100_000})
                code, _ = await talk.closed()
                assert code == 1009
                await none_waits(database)
        assert len(server.sockets) == 0
    assert caplog.text == ""


async def test_an_id_names_one_operation_at_a_time(database: db.Database, people: People) -> None:
    async with listening(database) as server:
        async with server.talk(people.owner.token) as talk:
            for _ in range(3):
                assert await me(talk) == "owner"
            longest = "\u00e4" * 128
            await talk.subscribe("{ __typename }", longest)
            assert (await talk.heard())["id"] == longest
        async with server.talk(people.owner.token) as talk, locked(database.url, "projects"):
            await talk.subscribe("{ projects { totalCount } }")
            await waiting(database, 1)
            await talk.subscribe("{ __typename }", "2")
            assert (await talk.heard())["id"] == "2"
            await talk.subscribe("{ __typename }")
            assert await talk.closed() == (4409, "Subscriber for 1 already exists")
            await none_waits(database)


# Limits


async def test_only_so_many_operations_are_open_on_a_socket(
    database: db.Database, people: People
) -> None:
    settings = Settings(max_subscriptions_per_connection=2)
    async with (
        listening(database, settings) as server,
        server.talk(people.owner.token) as talk,
        server.talk(people.owner.token) as other,
    ):
        async with locked(database.url, "projects"):
            for id in ("a", "b"):
                await talk.subscribe("{ projects { totalCount } }", id)
            await waiting(database, 2)
            assert await talk.ask("{ __typename }") == {
                "errors": [
                    {
                        "message": "Too many operations open on this connection: this has 3, and"
                        " may have 2 (TROUPE_MAX_SUBSCRIPTIONS_PER_CONNECTION).",
                        "extensions": {
                            "code": "LIMIT_EXCEEDED",
                            "limit": "max_subscriptions_per_connection",
                            "found": 3,
                            "allowed": 2,
                        },
                    }
                ]
            }
            assert await me(other) == "owner"
        for _ in range(4):
            assert (await talk.heard())["id"] in ("a", "b")
        assert await me(talk) == "owner"


async def too_many(server: Listening) -> str:
    """What somebody is told for whom no further socket is opened now."""
    with pytest.raises(InvalidStatus) as caught:
        await server.connect()
    response = caught.value.response
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    (error,) = json.loads(response.body or b"")["errors"]
    return str(error["message"])


async def test_a_process_opens_only_so_many_sockets(database: db.Database, people: People) -> None:
    async with listening(database, Settings(max_sockets=2)) as server:
        async with server.connect(), server.talk(people.owner.token):
            refused = await too_many(server)
        assert refused == (
            "2 WebSockets are open, and 2 may be (TROUPE_MAX_SOCKETS). Try again in a moment."
        )
        async with server.talk(people.owner.token):
            pass


async def test_a_viewer_opens_only_so_many_sockets(database: db.Database, people: People) -> None:
    refused = (1013, "1 WebSockets of yours are open (TROUPE_MAX_SOCKETS_PER_VIEWER).")
    async with listening(database, Settings(max_sockets_per_viewer=1)) as server:
        async with server.talk(people.owner.token), server.talk():
            for token in (people.owner.token, None):
                payload = {"Authorization": f"Bearer {token}"} if token else {}
                assert await closing(server, INIT | {"payload": payload}) == refused
            async with server.talk(people.stranger.token):
                pass
        async with server.talk(people.owner.token), server.talk():
            assert len(server.sockets._by_client) == 2
        await becomes(lambda: not len(server.sockets))
        assert server.sockets._by_client == {}


async def test_an_address_has_only_so_many_sockets_that_say_nothing(
    database: db.Database, people: People
) -> None:
    settings = Settings(max_sockets_per_viewer=2)
    async with (
        listening(database, settings) as server,
        server.connect() as first,
        server.connect(),
    ):
        assert await too_many(server) == (
            "2 WebSockets of your address have not said yet whose they are, and 2 may at once"
            " (TROUPE_MAX_SOCKETS_PER_VIEWER). Try again in a moment."
        )
        await Talk(first).begin(people.owner.token)
        async with server.talk(people.owner.token):
            pass


async def test_what_is_asked_costs_as_over_http(database: db.Database, people: People) -> None:
    settings = Settings(rate_per_second=1, rate_burst=100, max_cost=100, compiler=False)
    async with listening(database, settings) as server:
        # Once it is known, only what it reads costs.
        async with server.talk(people.admin.token) as talk:
            await talk.ask("{ projects(first: 49) { nodes { id } } }")
        async with server.talk(people.owner.token) as talk:
            for _ in range(2):
                assert "data" in await talk.ask("{ projects(first: 49) { nodes { id } } }")
            answer = await talk.ask("{ projects(first: 49) { nodes { id } } }")
        async with server.talk(people.owner.token) as again:
            # The store is the viewer's, not the socket's.
            assert "errors" in await again.ask("{ projects(first: 49) { nodes { id } } }")

    (error,) = answer["errors"]
    told = error["extensions"]
    assert (told["code"], told["limit"], told["allowed"]) == ("RATE_LIMITED", "rate_burst", 100)
    assert 1 <= told["retryAfter"] <= 49


async def test_a_query_has_its_time(database: db.Database, people: People) -> None:
    async with (
        listening(database, Settings().model_copy(update={"max_seconds": 0.3})) as server,
        server.talk(people.owner.token) as talk,
        locked(database.url, "projects"),
    ):
        answer = await talk.ask("{ projects { totalCount } }")
        await none_waits(database)
        assert await me(talk) == "owner"
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == "TIMEOUT"


# Leaving

CREATE = """mutation {
  a: createProject(input: {name: "First"}) { project { name } }
  b: createProject(input: {name: "Second"}) { project { name } }
}"""
NAMES = "{ projects { nodes { name } } }"


@pytest.mark.parametrize("compiler", [True, False])
async def test_a_query_that_is_completed_stops_and_the_socket_lives_on(
    database: db.Database, people: People, compiler: bool
) -> None:
    query = "{ a: projects { totalCount } b: projects { nodes { id } } }"
    async with (
        listening(database, Settings(compiler=compiler)) as server,
        server.talk(people.owner.token) as talk,
    ):
        async with locked(database.url, "projects"):
            await talk.subscribe(query)
            await waiting(database, 1 if compiler else 2)
            await talk.send("complete", id="1")
            await none_waits(database)
            # At once, before it has begun.
            await talk.subscribe(query)
            await talk.send("complete", id="1")
            await talk.send("complete", id="unknown")
            assert await me(talk) == "owner"
        assert "data" in await talk.ask(query)


async def test_a_query_stops_when_its_client_has_vanished(
    database: db.Database, people: People
) -> None:
    async with listening(database) as server, locked(database.url, "projects"):
        async with server.connect() as connection:
            talk = await Talk(connection).begin(people.owner.token)
            await talk.subscribe("{ projects { totalCount } }")
            await waiting(database, 1)
            connection.transport.abort()
            await none_waits(database)
        await becomes(lambda: len(server.sockets) == 0)


@pytest.mark.parametrize("vanishes", [True, False])
async def test_a_mutation_ends_whole_although_nobody_waits_for_it(
    database: db.Database, people: People, lines: Lines, vanishes: bool
) -> None:
    async with listening(database) as server:
        async with server.connect() as connection:
            talk = await Talk(connection).begin(people.owner.token)
            async with locked(database.url, "projects"):
                await talk.subscribe(CREATE)
                await waiting(database, 1)
                if vanishes:
                    connection.transport.abort()
                else:
                    await talk.send("complete", id="1")
                    assert await talk.is_alive()
                await asyncio.sleep(0.2)
                assert len(await waiting(database, 1)) == 1
                assert len(server.sockets) == 1
            await becomes(lambda: lines.objects)
            if not vanishes:  # and nothing is said of it
                assert await talk.is_alive()
        answer = await people.owner.ask(NAMES)
    assert answer.data == {"projects": {"nodes": [{"name": "First"}, {"name": "Second"}]}}
    assert lines.objects[0]["kind"] == "mutation"


# What cannot begin now

EVENTS = "subscription { events { cursor gap { after } } }"


@contextmanager
def no_tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let no token be looked up in the block; the list grows with each attempt."""
    attempts: list[int] = []

    async def away(*_: object) -> None:
        attempts.append(len(attempts))
        raise ConnectionRefusedError

    with monkeypatch.context() as patch:
        patch.setattr("graph.execution.tokens.Tokens.cached", lambda *_: None)
        patch.setattr("graph.execution.tokens.Tokens.look_up", away)
        yield attempts


async def test_a_subscription_that_cannot_begin_closes_its_socket_if_it_is_alone(
    served_here: Listening, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served_here.talk(people.owner.token) as talk:
        with no_tokens(monkeypatch):
            await talk.subscribe(EVENTS)
            reason = "The database cannot be reached. Try again in a moment."
            assert await talk.closed() == (1013, reason)


async def test_a_subscription_that_cannot_begin_waits_beside_other_operations(
    database: db.Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.server.sockets.RETRY_SECONDS", (0.05, 0.1))
    async with (
        numbering(database),
        listening(database) as server,
        server.talk(people.owner.token) as talk,
    ):
        async with locked(database.url, "projects"):
            await talk.subscribe(CREATE, id="mutation")
            await waiting(database, 1)
            with no_tokens(monkeypatch) as attempts:
                await talk.subscribe(EVENTS, id="begins")
                await talk.subscribe(EVENTS, id="is completed")
                await becomes(lambda: len(attempts) > 5)
                await talk.send("complete", id="is completed")
                assert await talk.is_alive()
                # A query is not tried again.
                refused = await talk.ask("{ me { username } }", id="query")
                assert refused["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
        found: dict[tuple[str, str], Any] = {}
        expected = {("mutation", "next"), ("mutation", "complete"), ("begins", "next")}
        while found.keys() < expected:
            heard = await talk.heard()
            found[heard["id"], heard["type"]] = heard.get("payload")
        assert found.keys() == expected
        assert found["mutation", "next"]["data"]["b"] == {"project": {"name": "Second"}}
        assert found["begins", "next"]["data"]["events"]["cursor"]


# Who does not read


def buffered(server: Listening) -> int:
    """How many bytes the server keeps for its clients."""
    connections: Any = server.server.server_state.connections
    return sum(connection.transport.get_write_buffer_size() for connection in connections)


async def test_who_does_not_read_is_not_listened_to(database: db.Database, people: People) -> None:
    """Neither answers nor pongs pile up, and the others are served."""
    ping = bytes([0x89, 0x80 + 125, 0, 0, 0, 0]) + b"x" * 125
    text = json.dumps({"type": "ping", "payload": {"x": "x" * 50_000}}).encode()
    message = bytes([0x81, 0x80 + 127]) + len(text).to_bytes(8) + bytes(4) + text
    pong = b'{"type":"pong"}'
    small = bytes([0x81, 0x80 + len(pong), 0, 0, 0, 0]) + pong
    async with listening(database) as server, server.talk(people.owner.token) as other:
        for flood in (ping * 500, message, (ping * 20 + small) * 25):
            async with server.connect(max_queue=1) as connection:
                await Talk(connection).begin()
                connection.transport.pause_reading()
                sent = 0
                # What the kernel takes between the two is some megabytes.
                while sent < 40_000_000 and connection.transport.get_write_buffer_size() < 10**6:
                    connection.transport.write(flood)
                    sent += len(flood)
                    await asyncio.sleep(0)
                    if connection.transport.get_write_buffer_size():
                        await asyncio.sleep(0.002)
                assert await me(other) == "owner"
                assert sent < 40_000_000
                assert buffered(server) < 1_000_000
                connection.transport.abort()
        await becomes(lambda: len(server.sockets) == 1)


async def test_who_answers_no_ping_is_hung_up_on_whatever_is_left_to_be_read(
    database: db.Database, people: People
) -> None:
    async with listening(database) as server:
        server.server.config.ws_ping_interval = 0.1
        server.server.config.ws_ping_timeout = 0.2
        async with server.connect(max_queue=1) as connection:
            talk = await Talk(connection).begin()
            connection.transport.pause_reading()

            async def flood() -> None:
                while True:
                    await asyncio.wait_for(talk.send("ping", payload={"x": "x" * 500_000}), 5)

            with pytest.raises(ConnectionClosed):
                await flood()
            await becomes(
                lambda: not (len(server.sockets) or server.server.server_state.connections)
            )


async def test_who_is_still_reading_has_time_to_answer_a_ping(
    database: db.Database, people: People
) -> None:
    loop = asyncio.get_running_loop()
    async with listening(database) as server:
        server.server.config.ws_ping_interval = 0.1
        server.server.config.ws_ping_timeout = 0.3
        async with small_connection(server.port) as connection:
            await loop.sock_sendall(connection, handshake())
            await received(connection, b"\r\n\r\n", 1)
            frame = text_frame(type="ping", payload={"x": "x" * 900_000})
            sending = asyncio.create_task(loop.sock_sendall(connection, 8 * frame))
            began = loop.time()
            await received(connection, b'"pong"', 8, pause=0.01)
            assert loop.time() - began > 0.6
            await sending


# The log


async def test_an_operation_is_a_line(database: db.Database, people: People, lines: Lines) -> None:
    query = "query Names { projects { nodes { name } } }"
    async with listening(database) as server:
        headers = {"X-Request-Id": "mine"}
        async with server.talk(people.owner.token, additional_headers=headers) as talk:
            await talk.ask(query)
            await talk.ask("{ nothing }")
            await talk.ask('query A { me { id } project(id: "?") { id } }')
        async with server.talk(), locked(database.url, "projects"):
            async with server.talk(people.owner.token) as talk:
                await talk.subscribe("query Left { projects { totalCount } }")
                await waiting(database, 1)
            await becomes(lambda: len(lines.objects) == 4)

    first, second, third, left, _ = lines.objects
    assert first.pop("time") <= second["time"]
    assert 0 < first.pop("milliseconds") < 60_000
    assert first == {
        "level": "INFO",
        "logger": "troupe.operations",
        "message": "operation",
        "request": "mine-1",
        "transport": "websocket",
        "kind": "query",
        "operation": "Names",
        "hash": hashlib.sha256(query.encode()).hexdigest(),
        "viewer": f"user:{people.users['owner'].id}",
        "status": 200,
        "codes": [],
        # The token's row, and the answer.
        "statements": 2,
        "rows": 2,
    }
    shown = ("request", "status", "codes")
    assert [second[name] for name in shown] == ["mine-2", 400, ["BAD_REQUEST"]]
    assert [third[name] for name in shown] == ["mine-3", 294, ["BAD_USER_INPUT"]]
    assert [left[name] for name in ("operation", "status", "codes")] == ["Left", 499, []]
    assert left["request"].endswith("-1")


# The end of a server


async def said(url: str, token: str) -> tuple[Any, Talk]:
    """A conversation with a server in a process of its own."""
    connecting = opened(f"{url.replace('http', 'ws')}/graphql")
    connection = await connecting
    return connection, await Talk(connection).begin(token)


async def test_a_server_that_is_stopped_lets_what_is_under_way_end() -> None:
    with processes.place() as folder:
        data_dir = folder / "data"
        with Serving(folder, data_dir=data_dir, grace_seconds=20) as server:
            server.ready()
            _, idle = await said(server.url, server.token)
            deaf, _ = await said(server.url, server.token)
            deaf.transport.pause_reading()
            _, talk = await said(server.url, server.token)
            with processes.locked(data_dir, "projects") as release:
                await talk.subscribe(CREATE)
                await asyncio.to_thread(until, lambda: processes.waits(data_dir))
                server.send(signal.SIGTERM)
                # Who waits for nothing goes elsewhere at once.
                assert await idle.closed() == (1012, "Service Restart")
                with pytest.raises(ConnectionRefusedError):
                    await said(server.url, server.token)
                answer = await talk.ask("{ __typename }", id="late")
                assert answer["errors"] == [
                    {
                        "message": "The server is being stopped. Try again in a moment.",
                        "extensions": {"code": "UNAVAILABLE", "retryAfter": 1},
                    }
                ]
                release()
                assert (await talk.heard())["payload"]["data"] == {
                    "a": {"project": {"name": "First"}},
                    "b": {"project": {"name": "Second"}},
                }
                assert await talk.heard() == {"type": "complete", "id": "1"}
                assert await talk.closed() == (1012, "Service Restart")
                # Nor does anybody wait for the one who does not even listen.
                ended = await asyncio.to_thread(server.ended)
            assert ended.clean
            deaf.transport.abort()


async def test_a_subscription_that_begins_delays_no_shutdown(
    served_here: Listening, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks_up, goes_on, context = asyncio.Event(), asyncio.Event(), Pipeline.context

    async def slow(*arguments: Any) -> Any:
        looks_up.set()
        await goes_on.wait()
        return await context(*arguments)

    async with served_here.talk(people.owner.token) as talk:
        monkeypatch.setattr(Pipeline, "context", slow)
        await talk.subscribe(EVENTS)
        await looks_up.wait()
        async with asyncio.timeout(5):
            stopping = asyncio.create_task(served_here.sockets.shut_down(60))
            await asyncio.sleep(0.1)
            goes_on.set()
            await stopping
        # Without an error, after which clients would not subscribe again.
        with pytest.raises(ConnectionClosed):
            await talk.heard()
        assert talk.connection.close_code == 1012


async def test_what_cannot_end_in_the_grace_period_is_told_so_and_changes_nothing() -> None:
    with processes.place() as folder:
        data_dir = folder / "data"
        with Serving(folder, data_dir=data_dir, grace_seconds=1) as server:
            server.ready()
            _, talk = await said(server.url, server.token)
            with processes.locked(data_dir, "projects"):
                await talk.subscribe(CREATE)
                await asyncio.to_thread(until, lambda: processes.waits(data_dir))
                server.send(signal.SIGTERM)
                message = await talk.heard()
                assert (message["type"], message["id"]) == ("error", "1")
                assert message["payload"][0]["extensions"] == {
                    "code": "UNAVAILABLE",
                    "outcome": "UNKNOWN",
                }
                assert (await talk.closed())[0] == 1012
                ended = await asyncio.to_thread(server.ended)
            assert ended.status == 0
            assert "Traceback" not in ended.err
        assert processes.stored(data_dir, "SELECT count(*) FROM projects") == "0"
