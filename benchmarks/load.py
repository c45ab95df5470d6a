"""The client: connections that each ask again as soon as they are answered.

It does next to nothing, so that it takes little of the machine from the servers: it finds the
length of an answer in its head, counts the bytes, and compares their number with what was answered
to the same request before.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
END = b"\r\n\r\n"


class BadAnswer(Exception):
    """A server answered something else than before, or not with 200."""


@dataclass(frozen=True)
class Address:
    """Where a server listens, and where it takes requests."""

    port: int
    path: str
    host: str = "127.0.0.1"

    def request(self, body: bytes, headers: dict[str, str]) -> bytes:
        """A POST of JSON, as it goes over the wire."""
        all_headers = {
            "Host": f"{self.host}:{self.port}",
            "Content-Length": str(len(body)),
            **headers,
        }
        lines = [f"POST {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in all_headers.items())]
        return "\r\n".join(lines).encode() + END + body


@dataclass(frozen=True)
class Measured:
    """What a server did under load."""

    per_second: float
    """Requests answered in a second."""
    p50: float
    """What half of the requests took at most, in seconds."""
    p99: float
    answered: int
    """How many requests there were in all, warm-up included."""


class _Run:
    """What the connections of a run have in common."""

    def __init__(self, requests: Sequence[bytes], until: float, connections: int) -> None:
        self.requests = requests
        self.until = until
        self.connections = connections
        self.next = 0
        self.lengths: dict[int, int] = {}
        self.took: list[tuple[float, float]] = []
        """When each answer was there, and how long it took."""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        """A connection has no more to ask."""
        self.connections -= 1
        if not self.connections and not self.over.done():
            self.over.set_result(None)

    def fail(self, error: Exception) -> None:
        """Nothing that is measured any more is worth anything."""
        if not self.over.done():
            self.over.set_exception(error)


class _Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._head = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._run.fail(BadAnswer("a server closed a connection"))

    def _ask(self) -> None:
        run = self._run
        self._began = time.perf_counter()
        if self._began >= run.until:
            run.end()
            return
        self._asked = run.next % len(run.requests)
        run.next += 1
        self._transport.write(run.requests[self._asked])

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self._head += data
            head, end, body = self._head.partition(END)
            if not end:
                return
            self._head = b""
            length = LENGTH.search(head + b"\r\n")
            if length is None or not head.startswith(b"HTTP/1.1 200"):
                self._run.fail(BadAnswer(self._said(head, body)))
                return
            self._left = int(length[1])
            if self._run.lengths.setdefault(self._asked, self._left) != self._left:
                self._run.fail(BadAnswer(self._said(head, body)))
                return
            data = body
        self._left -= len(data)
        if not self._left:
            now = time.perf_counter()
            self._run.took.append((now, now - self._began))
            self._ask()

    @staticmethod
    def _said(head: bytes, body: bytes) -> str:
        return f"a server answered otherwise: {(head + END + body)[:500].decode(errors='replace')}"


async def load(
    address: Address,
    requests: Sequence[bytes],
    *,
    seconds: float,
    warm_up: float,
    connections: int = 10,
) -> Measured:
    """Ask for so long, requests in turn, and measure after the warm-up. Raises BadAnswer."""
    begin = time.perf_counter() + warm_up
    run = _Run(requests, begin + seconds, connections)
    loop = asyncio.get_running_loop()
    transports = []
    try:
        for _ in range(connections):
            opened = loop.create_connection(lambda: _Connection(run), address.host, address.port)
            transports.append((await opened)[0])
        await run.over
    finally:
        for transport in transports:
            transport.abort()
    # A request counts by the part of it that fell into the time that is measured: with few and long
    # ones, whole ones would be many percent too much or too little.
    parts = [(min(at, run.until) - max(at - took, begin), took) for at, took in run.took]
    parts = [(inside, took) for inside, took in parts if inside > 0]
    ordered = sorted(took for _, took in parts)
    done = sum(inside / took for inside, took in parts)
    p50, p99 = _quantile(ordered, 0.5), _quantile(ordered, 0.99)
    return Measured(done / seconds, p50, p99, len(run.took))


def _quantile(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
