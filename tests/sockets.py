"""A server on a socket of its own, in this process, and clients that speak graphql-transport-ws."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from strawberry.schema import Schema
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

import db
from graph.execution.pipeline import Pipeline
from graph.execution.subscriptions import Subscriptions
from graph.limits.limits import Limits
from graph.serve import DrainingServer
from graph.server.sockets import PROTOCOL, Sockets
from graph.settings import Settings
from tests.conftest import application
from tests.patience import becomes


class Listening:
    """A server that listens."""

    def __init__(self, app: Starlette, server: DrainingServer, port: int) -> None:
        self.app = app
        self.server = server
        self.port = port

    @property
    def sockets(self) -> Sockets:
        """Its open sockets."""
        sockets: Sockets = self.app.state.sockets
        return sockets

    def connect(self, **options: Any) -> connect:
        """A connection to it, on which nothing was said."""
        return opened(f"ws://127.0.0.1:{self.port}/graphql", **options)

    @asynccontextmanager
    async def talk(self, token: str | None = None, **options: Any) -> AsyncIterator[Talk]:
        """A conversation of whoever has the token, which is acknowledged."""
        async with self.connect(**options) as connection:
            yield await Talk(connection).begin(token)


def opened(
    url: str, *, origin: str | None = None, protocols: tuple[str, ...] = (PROTOCOL,), **options: Any
) -> connect:
    """A connection to a server."""
    return connect(
        url,
        origin=None if origin is None else Origin(origin),
        subprotocols=[Subprotocol(name) for name in protocols] or None,
        proxy=None,
        max_size=None,
        **options,
    )


class Talk:
    """What is said over a connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, type: str | None = None, **message: Any) -> None:
        """Send a message."""
        await self.connection.send(json.dumps(({"type": type} if type else {}) | message))

    async def heard(self) -> Any:
        """The next message."""
        async with asyncio.timeout(10):
            return json.loads(await self.connection.recv())

    async def begin(self, token: str | None = None) -> Self:
        """Say who one is."""
        payload = {"Authorization": f"Bearer {token}"} if token else None
        await self.send("connection_init", **({"payload": payload} if payload else {}))
        assert await self.heard() == {"type": "connection_ack"}
        return self

    async def subscribe(self, query: str | None, id: str = "1", **payload: Any) -> None:
        """Ask for something."""
        await self.send("subscribe", id=id, payload={"query": query} | payload)

    async def ask(self, query: str | None, id: str = "1", **payload: Any) -> Any:
        """What is answered to an operation: a body as over HTTP."""
        await self.subscribe(query, id, **payload)
        answer = await self.heard()
        assert answer.pop("id") == id
        if answer.pop("type") == "error":
            return {"errors": answer["payload"]}
        assert await self.heard() == {"id": id, "type": "complete"}
        return answer["payload"]

    async def closed(self) -> tuple[int, str]:
        """With which code and for which reason the server closes."""
        with suppress(ConnectionClosed):
            while True:
                await self.heard()
        return self.connection.close_code or 0, self.connection.close_reason or ""

    async def is_alive(self) -> bool:
        """Whether the server still answers."""
        await self.send("ping")
        return bool(await self.heard() == {"type": "pong"})


def handshake(method: str = "GET", **headers: str) -> bytes:
    """A handshake as it is sent, with these headers."""
    given = {
        "Host": "a",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "graphql-transport-ws",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} /graphql HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def text_frame(**message: Any) -> bytes:
    """A message as a frame of a client, with a mask of zeros."""
    text = json.dumps(message).encode()
    return b"\x81\xff" + len(text).to_bytes(8) + bytes(4) + text


@asynccontextmanager
async def small_connection(port: int) -> AsyncIterator[socket.socket]:
    """A connection to a server, for which the kernel of the client stores few bytes."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**15)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        yield connection


async def received(connection: socket.socket, text: bytes, count: int, pause: float = 0) -> None:
    """Read until a text has been received so many times, with a pause after each read."""
    loop, end = asyncio.get_running_loop(), b""
    while count > 0:
        data = await loop.sock_recv(connection, 2**16)
        assert data, f"closed, and {count} are missing"
        found = end + data
        count -= found.count(text)
        end = found.rpartition(text)[2][-len(text) + 1 :]
        await asyncio.sleep(pause)


@asynccontextmanager
async def listening(
    database: db.Database, settings: Settings | None = None, schema: Schema | None = None
) -> AsyncIterator[Listening]:
    """A server with these settings, and perhaps with a schema of the test's."""
    settings = settings or Settings()
    app = application(database, settings)
    if schema is not None:
        pipeline = Pipeline(schema, Limits(settings.model_copy(update={"compiler": False})))
        state: Any = app.state
        state.sockets = Sockets(pipeline, Subscriptions(pipeline), state)
        app.router.routes.insert(0, WebSocketRoute("/graphql", state.sockets))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = DrainingServer(app, settings)
    server.config.lifespan = "off"
    serving = asyncio.create_task(server.serve([listener]))
    await becomes(lambda: server.started)
    try:
        yield Listening(app, server, listener.getsockname()[1])
    finally:
        server.should_exit = True
        await serving
