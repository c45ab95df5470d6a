"""Connections that bring nothing: what a server waits for, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from graph import patience
from graph.patience import LONGEST_HEAD, Patience, allow_many_connections

# How long the server of these tests waits for the head of a request, and how long it answers.
WAIT, WORK = 0.2, 0.4

REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
HALVES = [b"\r\n", b"GET /a", b"GET / HTTP/1.1\r\nhost: a"]
POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n"
TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 36\r\n\r\n"
    b"The head of the request is too long."
)


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that takes its time, and looks at no body."""
    await asyncio.sleep(WORK if scope["path"] == "/slow" else 0)
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


class Echo(asyncio.Protocol):
    """A protocol that takes over from HTTP, as that of WebSockets does."""

    def __init__(self, **_: object) -> None:
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Send back what came."""
        self._transport.write(data)


class Client:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        """Send something."""
        self._writer.write(data)

    async def answered(self) -> bool:
        """Wait for an answer."""
        return (await self._reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")

    async def echoed(self, data: bytes) -> bytes:
        """Send something, and wait for as much."""
        self.send(data)
        return await self._reader.readexactly(len(data))

    async def rest(self) -> bytes:
        """What comes before the server hangs up."""
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionResetError):  # it was sent more after that
                return await self._reader.read()
        return b""

    async def trickle(self, data: bytes) -> float:
        """Send it byte by byte until the server hangs up, and then the last again and again."""
        began, end = time.monotonic(), asyncio.create_task(self.rest())
        while not end.done():
            self.send(data[:1])
            data = data[1:] or data
            await asyncio.sleep(0.01)
        assert await end == b""
        return time.monotonic() - began

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """A client of a server that has little patience."""
    monkeypatch.setattr(patience, "HEAD_SECONDS", WAIT)
    async with serving() as client:
        yield client


@asynccontextmanager
async def serving() -> AsyncIterator[Client]:
    """A client of a server in this process."""
    config = uvicorn.Config(
        slow, port=0, http=Patience, ws=Echo, lifespan="off", log_config=None, access_log=False
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    client = Client(*await asyncio.open_connection(*server.servers[0].sockets[0].getsockname()))
    try:
        yield client
    finally:
        client.close()
        await server.shutdown()


@pytest.mark.parametrize("sent", [b"", *HALVES])
async def test_who_sends_no_request_is_not_waited_for(client: Client, sent: bytes) -> None:
    assert await client.trickle(sent) < 5


@pytest.mark.parametrize("sent", HALVES)
async def test_who_sent_one_has_to_send_the_next_as_soon(client: Client, sent: bytes) -> None:
    client.send(REQUEST)
    assert await client.answered()
    assert WAIT <= await client.trickle(sent) < 4


async def test_the_rest_of_what_was_answered_already_is_not_waited_for(client: Client) -> None:
    client.send(POST)
    assert await client.answered()
    assert WAIT <= await client.trickle(b"x") < 4


async def test_an_answer_may_take_longer_than_a_request(client: Client) -> None:
    for _ in range(2):
        client.send(REQUEST.replace(b"/", b"/slow", 1))
        assert await client.answered()


async def test_between_two_requests_a_connection_may_rest(client: Client) -> None:
    client.send(REQUEST)
    assert await client.answered()
    await asyncio.sleep(2 * WAIT)
    client.send(REQUEST)
    assert await client.answered()


async def test_a_websocket_may_be_silent(client: Client) -> None:
    upgrade = REQUEST[:-2] + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert await client.echoed(upgrade) == upgrade
    await asyncio.sleep(2 * WAIT)
    assert await client.echoed(b"still here") == b"still here"


@pytest.mark.parametrize("long", [b"GET /", b"GET / HTTP/1.1\r\nx: ", b"GET / HTTP/1.1\r\n"])
async def test_a_head_without_an_end_is_refused(long: bytes) -> None:
    async with serving() as client:
        line = b"x: y\r\n" if long.endswith(b"\n") else b"xxxxxx"
        client.send(long + line * (LONGEST_HEAD // len(line)))
        assert await client.rest() == TOO_LONG


async def test_a_long_head_is_taken() -> None:
    async with serving() as client:
        client.send(REQUEST[:-2] + b"x: y\r\n" * 10_000 + b"\r\n")
        assert await client.answered()


async def test_a_long_body_is_no_head() -> None:
    async with serving() as client:
        client.send(POST)
        assert await client.answered()
        for _ in range(100):
            client.send(b"x" * 10_000)
            await asyncio.sleep(0)
        client.send(REQUEST)
        assert await client.answered()


def test_as_many_files_may_be_open_as_the_system_lets() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        allow_many_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
