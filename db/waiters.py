"""Waiting until people have answered, without a connection to the database for each who waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from db.events.follower import Fetch, Follower
from db.events.topics import Change

# Which of some requests are no longer pending.
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
        self.wake_all()

    def wake_all(self) -> None:
        """Wake all who wait."""
        for key in self._waiting:
            self.wake(key)


class Answers:
    """Waits for answers of people, which the event log shows."""

    def __init__(self, follower: Follower, fetch: Fetch) -> None:
        """`fetch` runs a statement."""
        self._follower, self._fetch = follower, fetch
        self.waiters = Waiters()
        follower.listeners.append(self)

    async def wait(
        self, id: UUID, is_pending: Callable[[], Awaitable[bool]], seconds: float
    ) -> None:
        """Wait until a request is no longer pending, at most so many seconds.

        Whether it is pending at all is read after the registration, so that no answer is missed.
        """
        end = asyncio.get_running_loop().time() + seconds
        with self.waiters.registered(id) as woken:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await self._follower.started()
            if await is_pending():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(end):
                        await woken

    @property
    def is_listening(self) -> bool:
        """Whether anybody waits."""
        return bool(self.waiters.keys)

    async def receive(self, changes: Sequence[Change]) -> None:
        """Wake those whose requests are no longer pending."""
        changed = {c.entity_id for c in changes if c.entity_type == "HumanInteraction"}
        keys: list[Any] = [key for key in self.waiters.keys if str(key) in changed]
        if keys:
            for row in await self._fetch(ENDED, [keys]):
                self.waiters.wake(row["id"])

    def reset(self) -> None:
        """Wake all, because nobody knows what they missed."""
        self.waiters.wake_all()
