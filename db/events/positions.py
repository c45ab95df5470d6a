"""Positions: committed events are numbered without gaps, by one process at a time.

A number that is given before the commit would be seen late if its transaction takes long, so that a
reader who goes by numbers would miss it. Here, a reader of position 7 has seen 1 to 6.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

from asyncpg import LockNotAvailableError, PostgresError

from db.connections import reason
from db.events import partitions

if TYPE_CHECKING:
    from db.engine import Database

log = logging.getLogger("troupe")

LOCK = int.from_bytes(b"events")
"""The key of the advisory lock of the process that numbers."""

BATCH = 2_000
"""The largest number of events that are numbered in one transaction."""

# The shortest time between two batches, unless the last one was full, in seconds.
PACE = 0.02

# How long to wait for events of other processes, in seconds: longer each time that there are none.
SHORTEST_WAIT, LONGEST_WAIT = 0.02, 0.5

# Transactions that run at once commit in another order than they insert. An event whose id is lower
# by more than this is found by the search through all events, which happens once a second.
SLACK = 1_000
SEARCH_ALL_SECONDS = 1.0

# How often another process tries to take over, and how long to wait after an error, in seconds.
RETRY_SECONDS = 1.0

# How often partitions are made and dropped and idempotency keys deleted, in seconds; and how soon
# again if a table was in use.
MAINTENANCE_SECONDS, MAINTENANCE_RETRY_SECONDS = 3600.0, 60.0


async def number(connection: Any, above: int = 0, most: int = BATCH) -> tuple[int, int]:
    """Number committed events with ids above this one, at most so many, in the order of their ids.

    Returns how many were numbered, and the highest id among them. Any number of processes may do
    this at once.
    """
    row = await connection.fetchrow("SELECT * FROM number_events($1, $2)", above, most)
    return row["numbered"], row["newest"] or 0


async def number_all(database: Database) -> None:
    """Number all events that are committed now."""
    connection = await database.open()
    try:
        while (await number(connection))[0] == BATCH:
            pass
    finally:
        await connection.close()


class Numbering:
    """The background task that numbers events while no other process does.

    It has a connection of its own, which holds the advisory lock. If the connection is lost, this
    process or another one takes over.
    """

    def __init__(self, database: Database, days: int) -> None:
        """Events are kept for so many days."""
        self._database = database
        self._days = days
        self._newest = 0
        self._searched_all = 0.0
        self._failed = False

    async def run(self) -> None:
        """Number events until the task is cancelled."""
        while True:
            try:
                await self._connected()
            except Exception as error:
                # Logged once, until it works again.
                if not self._failed:
                    log.warning("events get no positions for now: %s", reason(error))
                self._failed = True
            await asyncio.sleep(RETRY_SECONDS)

    async def _connected(self) -> None:
        connection = await self._database.open()
        try:
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
                self._failed = False
                await asyncio.sleep(RETRY_SECONDS)
            await self._number(connection)
        finally:
            # At the latest the end of the connection releases the lock.
            with contextlib.suppress(Exception):
                await connection.close(timeout=RETRY_SECONDS)

    async def _number(self, connection: Any) -> None:
        maintenance, wait = 0.0, SHORTEST_WAIT
        self._searched_all = 0.0
        while True:
            began = time.monotonic()
            if began >= maintenance:
                maintenance = began + await self._maintain(connection)
            self._database.committed.clear()
            count = await self._batch(connection)
            self._failed = False
            if count == BATCH:
                continue
            wait = SHORTEST_WAIT if count else min(2 * wait, LONGEST_WAIT)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._database.committed.wait()
            await asyncio.sleep(began + PACE - time.monotonic())

    async def _batch(self, connection: Any) -> int:
        """Number a batch, and return how many there were."""
        now = time.monotonic()
        if now - self._searched_all >= SEARCH_ALL_SECONDS:
            self._searched_all, above = now, 0
        else:
            above = max(0, self._newest - SLACK)
        count, newest = await number(connection, above)
        self._newest = max(self._newest, newest)
        return count

    async def _maintain(self, connection: Any) -> float:
        """Make and drop partitions, delete old keys, and return the seconds until the next time."""
        try:
            await partitions.create(connection)
            await partitions.drop(connection, self._days)
            await self._database.delete_expired_keys()
        except LockNotAvailableError:
            return MAINTENANCE_RETRY_SECONDS
        except PostgresError as error:  # positions are given all the same
            log.warning("partitions of the event log are not maintained: %s", reason(error))
        return MAINTENANCE_SECONDS
