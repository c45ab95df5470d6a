"""Clients that go away before they are answered: what they asked for stops, in PostgreSQL too."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any, Self

import httpx
import pytest
from sqlalchemy import URL, text
from starlette.types import Message

import db
from graph.settings import Settings
from tests import factories, processes
from tests.client import Client
from tests.conftest import People, serving
from tests.patience import becomes, until
from tests.processes import Serving, sql
from tests.test_sessions import locked, waiting


class Leaving:
    """A client that goes away while it waits for its answer; it speaks ASGI itself."""

    def __init__(self, http: httpx.AsyncClient, asker: Client, query: str) -> None:
        headers = {"content-type": "application/json", "authorization": f"Bearer {asker.token}"}
        self._ask(http, "/graphql", headers, json.dumps({"query": query}).encode())

    def _ask(
        self, http: httpx.AsyncClient, path: str, headers: dict[str, str], body: bytes
    ) -> None:
        self._left = asyncio.Event()
        self.sent: list[Message] = []
        self._messages = [{"type": "http.request", "body": body, "more_body": False}]
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        app: Any = http._transport.app  # type: ignore[attr-defined]
        self._answered = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._messages:
            return self._messages.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def leave(self) -> Self:
        """Go away."""
        self._left.set()
        return self

    @property
    def is_answered(self) -> bool:
        """Whether the application is done with it."""
        return self._answered.done()

    async def ended(self) -> list[Message]:
        """Wait until the application is done with it, and see what it sent."""
        await asyncio.wait_for(self._answered, 10)
        return self.sent


@pytest.fixture
async def small(database_url: URL) -> AsyncIterator[db.Database]:
    """A database that is reached over a single connection for reading, and one for writing."""
    database = db.Database(database_url, pool_size=1)
    yield database
    await database.dispose()


async def none_waits(database: db.Database) -> None:
    """Wait until no statement waits for a lock any more."""
    statement = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    async def is_free() -> bool:
        async with database.read() as session:
            return bool(await session.scalar(statement) == 0)

    await becomes(is_free)


READS = {
    "one statement": (True, "projects", "{ projects { totalCount } }"),
    "a resolver": (False, "projects", "{ projects { nodes { id } } }"),
    "a loader": (False, "tasks", "{ projects { nodes { tasks { nodes { id } } } } }"),
    "several fields": (
        False,
        "projects",
        "{ a: projects { totalCount } b: projects { nodes { id } } }",
    ),
    "who asks": (True, "access_tokens", "{ me { id } }"),
}


@pytest.mark.parametrize("kind", READS)
async def test_a_query_stops_when_its_client_has_left(
    database: db.Database, database_url: URL, small: db.Database, people: People, kind: str
) -> None:
    compiler, table, query = READS[kind]
    async with database.write(db.Viewer()) as session:
        await factories.make_plan(session, people.users["owner"], projects=2)
    async with serving(small, Settings(compiler=compiler)) as http:
        owner = people.owner.through(http)
        for _ in range(3):
            async with locked(database_url, table):
                client = Leaving(http, owner, query)
                await waiting(database, 1)
                assert await client.leave().ended() == []
                await none_waits(database)
            # The only connection is free again, and in order.
            assert (await owner.ask("{ me { username } projects { totalCount } }")).data


CREATE = """mutation {
  a: createProject(input: {name: "First"}) { project { name } }
  b: createProject(input: {name: "Second"}) { project { name } }
}"""


async def test_a_mutation_ends_whole_although_its_client_has_left(
    database: db.Database, database_url: URL, small: db.Database, people: People
) -> None:
    async with serving(small, Settings()) as http:
        owner = people.owner.through(http)
        async with locked(database_url, "projects"):
            client = Leaving(http, owner, CREATE)
            await waiting(database, 1)
            client.leave()
            await asyncio.sleep(0.2)
            assert len(await waiting(database, 1)) == 1
        await client.ended()

        assert (await owner.ask("{ projects { nodes { name } } }")).data == {
            "projects": {"nodes": [{"name": "First"}, {"name": "Second"}]}
        }


async def test_a_client_that_never_sends_all_of_its_body_is_forgotten(
    http: httpx.AsyncClient, people: People
) -> None:
    client = Leaving(http, people.owner, "{ me { id } }")
    client._messages = [{"type": "http.request", "body": b'{"query"', "more_body": True}]

    assert await client.leave().ended() == []


def test_a_socket_that_is_closed_stops_its_query() -> None:
    with processes.place() as folder:
        data_dir = folder / "data"
        with Serving(folder, data_dir=data_dir) as server:
            server.ready()
            host, _, port = server.url.removeprefix("http://").partition(":")
            body = json.dumps({"query": "{ projects { totalCount } }"})
            request = (
                f"POST /graphql HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {server.token}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            )
            with processes.locked(data_dir, "projects"):
                with socket.create_connection((host, int(port))) as connection:
                    connection.sendall(request.encode())
                    until(lambda: processes.waits(data_dir))
                until(lambda: not processes.waits(data_dir), 5)
                # The one who holds the lock goes on, and so does the server.
                assert "errors" not in server.ask("{ me { username } }")
            until(lambda: "status=499" in server.out, 5)
            assert server.ask("{ projects { totalCount } }")["data"]
            states = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'"
            assert sql(data_dir, states) == "0"
            assert server.stop().clean
