"""Waiting until people have answered, without a connection to the database for each who waits.

A trigger notifies of each request that is no longer pending. One connection of a process listens
for all who wait in it. It also asks at intervals, which finds what was answered while there was no
connection, and whether there still is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

from db.connections import reason

log = logging.getLogger("troupe")

CHANNEL = "interactions"
"""The channel on which the trigger notifies of the ids of requests that are no longer pending."""

# How often the requests that somebody waits for are read, in seconds, and how long this may take;
# how soon a lost connection is opened again; and how long it is kept when nobody waits any more.
POLL_SECONDS, TIMEOUT, RETRY_SECONDS, IDLE_SECONDS = 1.0, 2.0, 0.5, 60.0

ENDED = """
    SELECT asked.id FROM unnest($1::uuid[]) AS asked (id)
    LEFT JOIN human_interactions i ON i.id = asked.id
    WHERE i.status IS DISTINCT FROM 'PENDING'
"""


class Waiters:
    """Those who wait in this process, each for a key."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, set[asyncio.Future[None]]] = {}
        self._closed = False

    @property
    def keys(self) -> list[UUID]:
        """The keys that somebody waits for."""
        return list(self._waiting)

    @contextmanager
    def registered(self, key: UUID) -> Iterator[asyncio.Future[None]]:
        """A future that is done as soon as the key is woken, from the begin of the block."""
        woken = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(key, set())
        waiting.add(woken)
        if self._closed:
            woken.set_result(None)
        try:
            yield woken
        finally:
            waiting.discard(woken)
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]

    def wake(self, key: UUID) -> None:
        """Wake all who wait for a key."""
        for woken in self._waiting.get(key, ()):
            if not woken.done():
                woken.set_result(None)

    def close(self) -> None:
        """Wake all, and let nobody wait from now on."""
        self._closed = True
        for key in self._waiting:
            self.wake(key)


class Answers:
    """Waits for answers of people, and listens for them while anybody waits."""

    def __init__(self, open: Callable[[], Awaitable[Any]]) -> None:
        """`open` opens a connection of its own."""
        self._open = open
        self._listening: asyncio.Task[None] | None = None
        self.waiters = Waiters()

    async def wait(
        self, id: UUID, is_pending: Callable[[], Awaitable[bool]], seconds: float
    ) -> None:
        """Wait until a request is no longer pending, at most so many seconds.

        Whether it is pending at all is read after the registration, so that no answer is missed.
        """
        with self.waiters.registered(id) as woken:
            if self._listening is None or self._listening.done():
                self._listening = asyncio.create_task(self._listen())
            if await is_pending():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await woken

    async def close(self) -> None:
        """Wake all who wait, and close the connection."""
        self.waiters.close()
        if self._listening is not None:
            self._listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listening

    async def _listen(self) -> None:
        """Wake those whose requests are no longer pending, until nobody waits for some time."""
        has_failed = False
        while True:
            try:
                async with self._connected() as connection:
                    has_failed = False
                    if await self._follow(connection):
                        return
            except Exception as error:
                # Logged once, until it works again.
                if not has_failed:
                    log.warning("answers are not noticed at once: %s", reason(error))
                has_failed = True
            await asyncio.sleep(RETRY_SECONDS)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        connection = await self._open()
        try:
            await connection.add_listener(CHANNEL, self._notified)
            yield connection
        finally:
            connection.terminate()

    def _notified(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        self.waiters.wake(UUID(payload))

    async def _follow(self, connection: Any) -> bool:
        """Poll until the connection is lost; True if nobody has waited for some time."""
        idle = 0.0
        while idle < IDLE_SECONDS:
            keys = self.waiters.keys
            idle = 0.0 if keys else idle + POLL_SECONDS
            if keys:
                for row in await connection.fetch(ENDED, keys, timeout=TIMEOUT):
                    self.waiters.wake(row["id"])
            await asyncio.sleep(POLL_SECONDS)
        return True
