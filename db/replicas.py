"""Reading from a replica of the database that shows at least what was written before.

A place is a position in PostgreSQL's write-ahead log (an LSN). A commit is before the place that
the primary names after it, and a replica shows all commits before the place up to which it has
replayed the log. Each connection to the replica finds this place by itself before it reads: another
connection may lead to a replica that was started again, and is behind the first.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from db.connections import Behind
from db.poolers import Connection
from db.prepared import PreparedPool, counted
from db.result_limits import ResultTooLarge
from db.sessions import ReadSession

# Where the log of the primary ends. Without synchronous commits, what is not yet written is
# visible; with them, readers would wait for the commits of others.
WRITTEN = """
    SELECT (CASE current_setting('synchronous_commit') WHEN 'off'
      THEN pg_current_wal_insert_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint
"""

# Up to where a replica has replayed the log; null if it is none.
REPLAYED = "SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint"

# The place after a write, if it is not known: a read with it has to show all that is committed.
UNKNOWN = 2**64 - 1

# How long a read waits for a replica that is behind, before the primary is asked instead; the first
# pause between two looks, which doubles; and after how long a connection is looked at again.
WAIT_SECONDS, PAUSE_SECONDS, CHECK_SECONDS = 0.2, 0.001, 1.0

# How long connecting to the replica, and the wait for a free connection, may take.
REPLICA_SECONDS = 1

# How long the primary is asked at once after the replica was away, or was too far behind to wait.
AWAY_SECONDS = 1.0


class ReplicaConnection(Connection):
    """A connection to a replica, which knows up to where that has replayed the log."""

    __slots__ = ("checked", "replayed")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.replayed, self.checked = -1, 0.0

    async def catch_up(self, place: int, until: float) -> None:
        """Wait until the replica shows what was written before a place. Raises Behind."""
        pause = PAUSE_SECONDS
        while True:
            now = time.monotonic()
            if self.replayed >= place and now < self.checked + CHECK_SECONDS:
                return
            replayed = await self.fetchval(REPLAYED, timeout=WAIT_SECONDS)
            self.replayed, self.checked = -1 if replayed is None else replayed, now
            if self.replayed >= place:
                return
            if now + pause >= until:
                raise Behind(Behind.__doc__)
            await asyncio.sleep(pause)
            pause *= 2


class Replica:
    """A replica, and how it is read."""

    def __init__(
        self,
        engine: AsyncEngine,
        pools: tuple[PreparedPool, PreparedPool],
        ask_primary: Callable[[str, Sequence[Any]], Awaitable[Sequence[Any]]],
        limited: Callable[[Awaitable[Any]], Awaitable[Any]],
    ) -> None:
        """`pools` are those for any statement and for rows by their keys.

        `ask_primary` runs a statement on the primary, `limited` is for what may be too large.
        """
        self.engine = engine
        self.pools = pools
        self.limited = limited
        self.sessions = async_sessionmaker(engine, expire_on_commit=False, autoflush=False)
        self._ask_primary = ask_primary
        self._newest = 0
        self._asked: asyncio.Task[int] | None = None
        self._asked_next: asyncio.Task[int] | None = None
        self._away_until = 0.0
        self._patient_at = 0.0

    async def written(self) -> int:
        """A place after all that is committed now. Those who ask at the same time share the answer.

        A statement that runs already may have looked before a commit, so it is not shared.
        """
        if self._asked_next is None:
            # In an empty context, because the statement is of nobody.
            asking = asyncio.create_task(self._ask(self._asked), context=contextvars.Context())
            asking.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._asked_next = asking
        return await asyncio.shield(self._asked_next)

    async def _ask(self, before: asyncio.Task[int] | None) -> int:
        if before is not None:
            await asyncio.wait([before])
        self._asked, self._asked_next = self._asked_next, None
        ((place,),) = await self._ask_primary(WRITTEN, ())
        self._newest = max(self._newest, place)
        return int(place)

    async def place_after_write(self) -> int:
        """A place after all that is committed now; UNKNOWN if the primary does not name it."""
        try:
            async with asyncio.timeout(REPLICA_SECONDS):
                return await self.written()
        except Exception:  # the write may have succeeded all the same
            return UNKNOWN

    async def reading(self, place: int | None) -> Reading | None:
        """What an operation reads from; None if it has to read from the primary.

        It shows what was written before a place; without one, or after a place that the primary has
        not reached, all that is committed now.
        """
        if time.monotonic() < self._away_until:
            return None
        if place is None or place > self._newest:
            try:
                newest = await self.written()
            except Exception:  # the primary reports it better
                return None
            place = newest if place is None else min(place, newest)
        return Reading(self, place)

    def until(self) -> float:
        """Until when a read that begins now may wait."""
        now = time.monotonic()
        return now + WAIT_SECONDS if now >= self._patient_at else now

    def failed(self, error: Exception) -> None:
        """Leave the replica alone for a while, if it did not answer."""
        until = time.monotonic() + AWAY_SECONDS
        if isinstance(error, Behind):
            self._patient_at = until
        elif isinstance(error, OSError):
            self._away_until = until

    async def close(self) -> None:
        """Close all connections."""
        for pool in self.pools:
            await pool.close()
        await self.engine.dispose()


class Reading:
    """What one operation reads from a replica."""

    has_failed = False
    """Whether the operation has to be read from the primary instead."""

    def __init__(self, replica: Replica, place: int) -> None:
        self._replica = replica
        self._place = place

    async def json(
        self, statement: str, arguments: Sequence[Any], *, by_key: bool = False
    ) -> bytes:
        """The one JSON value that a statement returns, as PostgreSQL encodes it."""
        pool = self._replica.pools[by_key]
        try:
            run = partial(pool.value, prepare=self._catch_up)
            value: bytes = await self._replica.limited(counted(run, statement, arguments))
        except ResultTooLarge:
            raise
        except Exception as error:
            self._fail(error)
            raise
        return value

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """A short session for reading."""
        session: AsyncSession
        async with self._replica.sessions() as session:
            try:
                raw = await (await session.connection()).get_raw_connection()
                await self._catch_up(raw.driver_connection)
                yield session
            except ResultTooLarge:
                raise
            except Exception as error:
                self._fail(error)
                raise

    async def _catch_up(self, connection: Any) -> None:
        await connection.catch_up(self._place, self._replica.until())

    def _fail(self, error: Exception) -> None:
        self.has_failed = True
        self._replica.failed(error)


TOKEN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def token_of(place: int) -> str:
    """A place as PostgreSQL writes it."""
    return f"{place >> 32:X}/{place & 0xFFFFFFFF:X}"


def place_of(token: object) -> int | None:
    """The place that a token names; None if it is no token."""
    found = TOKEN.fullmatch(token) if isinstance(token, str) else None
    return None if found is None else int(found[1], 16) << 32 | int(found[2], 16)
