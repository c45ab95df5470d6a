"""The client: connections that each send the next request when an answer is complete.

It does little, to leave the processor to the servers: it reads the Content-Length of an answer and
counts the bytes. An answer of another length than the correct one counts as refused.

Writes are not repeated: their requests have a number, which is another one each time.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
END = b"\r\n\r\n"

NUMBER = 1_000_000_000
"""Stands in a request for a number, which always has as many digits."""
MARK = b"%d" % NUMBER
_following = itertools.count(NUMBER + 1)


def numbered(request: bytes) -> bytes:
    """The request with the next number in place of NUMBER."""
    return request.replace(MARK, b"%d" % next(_following))


class BadAnswer(Exception):
    """The answer is not HTTP that this client understands."""


@dataclass(frozen=True)
class Request:
    """A request, as the bytes that are sent."""

    wire: bytes
    length: int
    """The length of the body of its correct answer."""
    is_numbered: bool = False
    """Whether NUMBER is replaced each time it is sent."""


@dataclass(frozen=True)
class Address:
    """The address of a server, and the path of its requests."""

    port: int
    path: str
    host: str = "127.0.0.1"

    def request(self, body: bytes, headers: Mapping[str, str], length: int) -> Request:
        """A POST request, with the length of the body of its correct answer."""
        all_headers = {
            "Host": f"{self.host}:{self.port}",
            "Content-Length": str(len(body)),
            **headers,
        }
        lines = [f"POST {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in all_headers.items())]
        wire = "\r\n".join(lines).encode() + END + body
        return Request(wire, length, MARK in body)


@dataclass(frozen=True)
class Measured:
    """The measurements of a server under load."""

    per_second: float
    """Requests answered per second."""
    p50: float
    """The median duration of a request, in seconds."""
    p99: float
    answered: int
    """The number of answers, including the warm-up."""
    refused: int
    """The number of answers that were not correct; the other figures do not include them."""


class _Run:
    """The state that the connections of a run share."""

    def __init__(self, requests: Sequence[Request], until: float, connections: int) -> None:
        self.requests = requests
        self.until = until
        self.connections = connections
        self.next = 0
        self.refused = 0
        self.took: list[tuple[float, float]] = []
        """For each answer, when it was complete, and how long it took."""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        """End one connection."""
        self.connections -= 1
        if not self.connections and not self.over.done():
            self.over.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the run with an error, because its measurements are not valid."""
        if not self.over.done():
            self.over.set_exception(error)


class _Connection(asyncio.Protocol):
    """One connection of the client."""

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
        self._asked = run.requests[run.next % len(run.requests)]
        run.next += 1
        wire = self._asked.wire
        self._transport.write(numbered(wire) if self._asked.is_numbered else wire)

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self._head += data
            head, end, body = self._head.partition(END)
            if not end:
                return
            self._head = b""
            length = LENGTH.search(head + b"\r\n")
            if length is None:
                said = (head + END + body)[:500].decode(errors="replace")
                self._run.fail(BadAnswer(f"an answer has no Content-Length: {said}"))
                return
            self._left = int(length[1])
            self._is_right = head.startswith(b"HTTP/1.1 200 ") and self._left == self._asked.length
            data = body
        self._left -= len(data)
        if not self._left:
            now = time.perf_counter()
            if self._is_right:
                self._run.took.append((now, now - self._began))
            else:
                self._run.refused += 1
            self._ask()


async def load(
    address: Address,
    requests: Sequence[Request],
    *,
    seconds: float,
    warm_up: float,
    connections: int = 10,
) -> Measured:
    """Send the requests in turn for this time, and measure after the warm-up. Raises BadAnswer."""
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
    # A request counts by the part of its duration that is inside the measured time. If only whole
    # requests counted, a few long ones would make a large error.
    parts = [(min(at, run.until) - max(at - took, begin), took) for at, took in run.took]
    parts = [(inside, took) for inside, took in parts if inside > 0]
    ordered = sorted(took for _, took in parts)
    done = sum(inside / took for inside, took in parts)
    p50, p99 = _quantile(ordered, 0.5), _quantile(ordered, 0.99)
    answered = len(run.took) + run.refused
    return Measured(done / seconds, p50, p99, answered, run.refused)


def _quantile(ordered: Sequence[float], part: float) -> float:
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
