"""Positions: committed events are numbered without gaps, by one process at a time.

A number that is given before the commit would be seen late if its transaction takes long, so that a
reader who goes by numbers would miss it. Here, a reader of position 7 has seen 1 to 6.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

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

# The shortest time between two batches, unless the last one was full, in seconds. It is longer if a
# batch takes long, so that PostgreSQL numbers for half of the time at most.
PACE = 0.02

# How long to wait for events of other processes, in seconds: longer each time that there are none.
SHORTEST_WAIT, LONGEST_WAIT = 0.02, 0.5

# How often another process tries to take over, and how long to wait after an error, in seconds.
RETRY_SECONDS = 1.0

# After how many seconds without a statement PostgreSQL ends the connection of the process that
# numbers, so that another one takes over: the process hangs, or its machine is gone. It gives its
# connection up if PostgreSQL is silent for so long.
SILENT_SECONDS = 60

# How often partitions are made and dropped and idempotency keys deleted, in seconds; and how soon
# again if a table was in use.
MAINTENANCE_SECONDS, MAINTENANCE_RETRY_SECONDS = 3600.0, 60.0

# How soon again if there are more expired idempotency keys than are deleted at once.
MORE_KEYS_SECONDS = 1.0


# The snapshot is the one of this statement, which is older than those inside the function. The
# function gives the transaction an id if there are events to number.
NUMBER = """
    SELECT numbered, coalesce(newest, 0), pg_snapshot_xmin(pg_current_snapshot())::text,
      coalesce(pg_current_xact_id_if_assigned()::text, '0')
    FROM number_events($1, $2, $3)
"""


class Batch(NamedTuple):
    """What was numbered by one transaction."""

    numbered: int
    """How many events."""
    newest: int
    """The highest id among them."""
    oldest_running: int
    """All transactions with lower ids had ended before."""
    transaction: int
    """The id of its own transaction; 0 if it has none, because there was nothing to number."""


async def number(
    connection: Any, above: int = 0, most: int = BATCH, days: int | None = None
) -> Batch:
    """Number committed events with ids above this one, at most so many, in the order of their ids.

    If events are kept for so many days, those that are older get the present time, so that they are
    not dropped at once. Any number of processes may do this at once.
    """
    row = await connection.fetchrow(NUMBER, above, most, days)
    return Batch(*map(int, row))


async def number_all(database: Database, days: int | None = None) -> None:
    """Number all events that are committed now. Events are kept for so many days, else forever."""
    connection = await database.open()
    try:
        while (await number(connection, days=days)).numbered == BATCH:
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
        self._failed = False
        self._newest = 0
        # Events are searched above an id below which none can appear any more.
        self._above = 0
        # The next such id, and a transaction that began later than all that have inserted events
        # up to it: it is the next one as soon as all transactions before that have ended.
        self._mark = (0, 0)

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
        connection = await self._database.open(command_timeout=SILENT_SECONDS)
        try:
            await connection.execute(f"SET idle_session_timeout = '{SILENT_SECONDS}s'")
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
        self._newest, self._above, self._mark = 0, 0, (0, 0)
        while True:
            began = time.monotonic()
            if began >= maintenance:
                maintenance = began + await self._maintain(connection)
                began = time.monotonic()
            self._database.committed.clear()
            count = await self._batch(connection)
            took = time.monotonic() - began
            self._failed = False
            if count == BATCH:
                continue
            wait = SHORTEST_WAIT if count else min(2 * wait, LONGEST_WAIT)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._database.committed.wait()
            await asyncio.sleep(began + max(PACE, 2 * took) - time.monotonic())

    async def _batch(self, connection: Any) -> int:
        """Number a batch, and return how many there were.

        Transactions commit in another order than they insert. So the search begins below the events
        of all that are running: it finds the events of a transaction together, and before those of
        others that have seen them. It does not begin at the first event, because the index of
        events without a position keeps the entries of those that have one now for a while.
        """
        batch = await number(connection, self._above, days=self._days)
        mark, transaction = self._mark
        is_complete = batch.numbered < BATCH or batch.newest >= mark
        if is_complete and batch.oldest_running >= transaction:
            # What had ended was visible to this batch.
            self._above = mark
            if batch.transaction:
                # A transaction has its id before its events have theirs. So those that have events
                # up to the newest one before this batch have lower ids than this transaction.
                self._mark = (self._newest, batch.transaction)
        self._newest = max(self._newest, batch.newest)
        return batch.numbered

    async def _maintain(self, connection: Any) -> float:
        """Make and drop partitions, delete old keys, and return the seconds until the next time."""
        try:
            await partitions.create(connection)
            await partitions.drop(connection, self._days)
            if not await self._database.delete_expired_keys():
                return MORE_KEYS_SECONDS
        except LockNotAvailableError:
            return MAINTENANCE_RETRY_SECONDS
        except PostgresError as error:  # positions are given all the same
            log.warning("partitions of the event log are not maintained: %s", reason(error))
        return MAINTENANCE_SECONDS
