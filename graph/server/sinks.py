"""Connections to clients, as subscriptions send messages over them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from db.events.topics import Place
from graph.execution.subscription import SlowClient
from graph.server.protocols import CHECKS, Progress

# How long a client may not read, in seconds, before its connection is closed.
SLOW_SECONDS = 10

# How many bytes may wait for a client that does not read.
MOST_WAITING = 2**16


class Frames(Protocol):
    """A WebSocket whose messages are written at once, without waiting for the client."""

    writable: asyncio.Event
    """Set while the client reads as fast as it gets messages."""

    @property
    def unsent(self) -> int:
        """How many bytes the client has not received."""

    def write_text(self, text: bytes) -> None:
        """Send a message."""

    def close_now(self, code: int, reason: str) -> None:
        """Close the connection, without waiting for what the client has not read."""


class FrameSink:
    """The messages of a subscription as frames of a WebSocket, each encoded once for all."""

    def __init__(self, frames: Frames, before: bytes, after: bytes) -> None:
        """A message begins and ends with these bytes."""
        self._frames, self._before, self._after = frames, before, after
        self._is_closed = False

    @property
    def is_ready(self) -> bool:
        """Whether the client reads as fast as it gets messages."""
        return self._frames.writable.is_set()

    async def ready(self) -> None:
        """Wait until the client has read. Raises SlowClient."""
        await _wait(self._frames.writable, lambda: self._frames.unsent)

    def write(self, body: bytes, place: Place) -> None:
        """Send a response, given as JSON."""
        if not self._is_closed:
            self._frames.write_text(b"".join((self._before, body, self._after)))

    def close(self) -> None:
        """Send nothing more."""
        self._is_closed = True


class QueueSink:
    """Messages that wait in a queue until the client has read those before."""

    def __init__(
        self, send: Callable[[bytes, Place], Awaitable[None]], unsent: Callable[[], int]
    ) -> None:
        """`send` sends a message, and returns when the client has read enough for another one.

        `unsent` is the number of bytes of its connection that the client has not received.
        """
        self._send, self._unsent = send, unsent
        self._queue: deque[tuple[bytes, Place]] = deque()
        self._waiting = 0
        self._sending: asyncio.Task[None] | None = None
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def is_ready(self) -> bool:
        """Whether the client reads as fast as it gets messages."""
        return self._has_room.is_set()

    async def ready(self) -> None:
        """Wait until the client has read. Raises SlowClient."""
        await _wait(self._has_room, self._unsent)

    def write(self, body: bytes, place: Place) -> None:
        """Send a response, given as JSON, after those before it."""
        self._queue.append((body, place))
        self._waiting += len(body)
        if self._waiting > MOST_WAITING:
            self._has_room.clear()
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())

    def close(self) -> None:
        """Send nothing more."""
        self._queue.clear()
        if self._sending is not None:
            self._sending.cancel()

    async def _send_all(self) -> None:
        try:
            while self._queue:
                body, place = self._queue.popleft()
                await self._send(body, place)
                self._waiting -= len(body)
                if self._waiting <= MOST_WAITING:
                    self._has_room.set()
        finally:
            self._sending = None


async def _wait(ready: asyncio.Event, unsent: Callable[[], int]) -> None:
    """Wait as long as the client reads anything, which takes long for a long message."""
    progress = Progress(unsent)
    while not ready.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(SLOW_SECONDS / CHECKS):
                await ready.wait()
        if not ready.is_set() and progress.has_stopped():
            raise SlowClient
