"""Following the event log: each process reads it once, by position, for all who listen in it.

The process that numbers events notifies after each batch. A notification only wakes the follower,
which reads what comes after its place: so nothing is missed if notifications are lost, and nothing
is read twice. It also reads at intervals, which shows whether its connection still works.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from db.connections import reason
from db.events.topics import Change, Place, Topic, all_changes, changes_of_topics

log = logging.getLogger("troupe")

CHANNEL = "events"
"""The channel on which a process that has numbered events notifies of the last position."""

# The largest number of events that are read at once.
PAGE = 1_000

# How many positions are searched at once for the changes of topics.
WINDOW = 100_000

# How often the log is read without a notification, in seconds; how long PostgreSQL may take for it;
# how soon a lost connection is opened again; and how long it is kept when nobody listens any more.
POLL_SECONDS, TIMEOUT, RETRY_SECONDS, IDLE_SECONDS = 0.4, 0.5, 0.2, 60.0

MOMENT = "(extract(epoch FROM created_at) * 1000000)::bigint"

LAST = f"""
    SELECT p.last_position, coalesce(
      (SELECT {MOMENT} FROM events WHERE position = p.last_position), 0)
    FROM event_positions p
"""

# The last position, the last one that was dropped, and the moment of the event at a position. Only
# `drop_events` notes what it dropped: what is deleted by hand is not known to be missing.
BOUNDS = f"""
    SELECT p.last_position, p.dropped_position,
      (SELECT {MOMENT} FROM events WHERE position = $1)
    FROM event_positions p
"""


class Listener(Protocol):
    """Who gets the changes of a process."""

    @property
    def is_listening(self) -> bool:
        """Whether anything waits for changes; else the log need not be read."""

    async def receive(self, changes: Sequence[Change]) -> None:
        """Get changes in the order of their positions."""

    def reset(self) -> None:
        """Changes are missing: `receive` failed, or the log does not continue where it was read."""


class Follower:
    """Reads the event log for the listeners of a process, while there are any."""

    place: Place | None = None
    """Everything up to here was read; None while it is not known, and while nobody listens."""

    def __init__(self, open: Callable[[], Awaitable[Any]]) -> None:
        """`open` opens a connection of its own."""
        self._open = open
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._known = asyncio.Event()
        # Smaller after PostgreSQL took too long for a page.
        self._most = PAGE
        self.listeners: list[Listener] = []

    async def started(self) -> Place:
        """The place up to which the log was read. It is read from there on."""
        if self._task is None or self._task.done():
            self.place = None
            self._known.clear()
            # In an empty context, because the task outlives what calls this.
            self._task = asyncio.create_task(self._run(), context=contextvars.Context())
        while self.place is None:
            await self._known.wait()
        return self.place

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        has_failed = False
        while True:
            try:
                async with self._connected() as connection:
                    await self._begin(connection)
                    has_failed = False
                    await self._follow(connection)
                # The log goes on without being read.
                self.place = None
                return
            except Exception as error:
                if isinstance(error, TimeoutError):
                    self._most = max(1, self._most // 4)
                # Logged once, until it works again.
                if not has_failed:
                    log.warning("changes are not noticed at once: %s", reason(error))
                has_failed = True
            await asyncio.sleep(RETRY_SECONDS)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        connection = await self._open()
        try:
            async with asyncio.timeout(TIMEOUT):
                await connection.add_listener(CHANNEL, lambda *_: self._woken.set())
            connection.add_termination_listener(lambda _: self._woken.set())
            yield connection
        finally:
            connection.terminate()

    async def _begin(self, connection: Any) -> None:
        """Begin at the end of the log, or go on where it was read."""

        async def fetch(statement: str, arguments: Sequence[Any]) -> Any:
            return await connection.fetch(statement, *arguments, timeout=TIMEOUT)

        if self.place is not None and await continues(fetch, self.place):
            return
        last = Place(*await connection.fetchrow(LAST, timeout=TIMEOUT))
        if self.place is None:
            self.place = last
            self._known.set()
        else:
            self._reset(last)

    async def _follow(self, connection: Any) -> None:
        """Read until the connection is lost, or until nobody has listened for some time."""
        listened = time.monotonic()
        while time.monotonic() < listened + IDLE_SECONDS:
            self._woken.clear()
            if not await self._read(connection):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._woken.wait()
            if any(listener.is_listening for listener in self.listeners):
                listened = time.monotonic()

    async def _read(self, connection: Any) -> bool:
        """Read the next page, and hand it on; whether there may be more."""
        assert self.place is not None
        most = self._most
        rows = await connection.fetch(all_changes(), self.place.position, most, timeout=TIMEOUT)
        if not rows:
            return False
        changes = [Change(*row) for row in rows]
        if changes[0].position != self.place.position + 1:  # positions have no gaps
            self._reset(Place(changes[0].position - 1))
        # Before they are handed on: whoever registers meanwhile reads them from the log.
        self.place = changes[-1].place
        for listener in self.listeners:
            try:
                await listener.receive(changes)
            except Exception as error:
                log.warning("changes are read again by those who follow: %s", reason(error))
                listener.reset()
        self._most = min(PAGE, 2 * most)
        return len(changes) == most

    def _reset(self, place: Place) -> None:
        log.warning("the event log does not continue after position %s", self.place)
        self.place = place
        for listener in self.listeners:
            listener.reset()


Fetch = Callable[[str, Sequence[Any]], Awaitable[Any]]
"""Runs a statement with the values of its parameters, and returns its rows."""


async def continues(fetch: Fetch, place: Place) -> bool:
    """Whether the log has this place, and everything after it."""
    ((last, dropped, moment),) = await fetch(BOUNDS, [place.position])
    is_same = not place.moment or moment in (None, place.moment)
    return is_same and bool(dropped <= place.position <= last)


async def changes_after(
    fetch: Fetch, topics: Sequence[Topic], after: int, until: int
) -> tuple[list[Change], int]:
    """The next changes of some topics after a position, at most a page; and up to where they are.

    At most WINDOW positions are searched at once, because there may be no change for long.
    """
    until = min(until, after + WINDOW)
    statement = changes_of_topics(tuple(topic.shape for topic in topics))
    values = [value for topic in topics for value in topic if value is not None]
    changes = [Change(*row) for row in await fetch(statement, [after, PAGE, until, *values])]
    return changes, until
