"""An HTTP server that receives what webhooks are sent, and answers what a test tells it to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from standardwebhooks import Webhook


@dataclass
class Received:
    """A request."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The id of the message."""
        return self.headers["webhook-id"]

    @property
    def data(self) -> Any:
        """The data of the message."""
        return orjson.loads(self.body)["data"]

    def verified(self, secret: str) -> Any:
        """The message, whose signature is verified by the library of Standard Webhooks."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """What was received, and what is answered: `OK` unless `answer` says something else."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    answer: Callable[[Received], bytes | None] = lambda _: response(200)
    """The response to a request; None for none at all."""

    @property
    def url(self) -> str:
        """The address of this server."""
        return f"http://127.0.0.1:{self.port}/hook?to=me"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *rest = head.strip().split("\r\n")
                headers = {}
                for each in rest:
                    name, _, value = each.partition(": ")
                    headers[name.lower()] = value
                body = await reader.readexactly(int(headers["content-length"]))
                request = Received(line, headers, body)
                self.received.append(request)
                answer = self.answer(request)
                if answer is None:
                    await asyncio.sleep(60)
                    return
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.tasks.discard(task)
            writer.close()


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    """A response with this status."""
    given = {"content-length": str(len(body))} | headers
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {given[name]}" for name in given)]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def receiving(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A server that receives messages, while the block runs."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in list(receiver.tasks):
            task.cancel()
        await asyncio.gather(*receiver.tasks, return_exceptions=True)
