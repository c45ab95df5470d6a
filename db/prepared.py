"""Connections for statements that are ready to run, with nothing between them and the driver."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import asyncpg
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.deadlines import Bounded, Watch

# How long PostgreSQL may take to say that it has cancelled a statement, in seconds.
CANCELLED_WITHIN = 2


class Direct:
    """Connections that run one statement at a time each, and keep those they have prepared.

    The pools of SQLAlchemy and of the driver do more for a statement than a short one takes.
    """

    def __init__(self, size: int, wait: float, connect: Callable[..., Awaitable[Any]]) -> None:
        """For `wait` seconds somebody waits for a connection, which `connect` opens."""
        self.size = size
        self._turns = asyncio.Semaphore(size)
        self._wait = wait
        # PostgreSQL keeps some 40 bytes for each character of a statement that is prepared: at most
        # 32 MB for a connection. Those that are longer take a few milliseconds to prepare.
        caches = {
            "statement_cache_size": 100,
            "max_cacheable_statement_size": 8_000,
            "max_cached_statement_lifetime": 0,
        }
        self._connect = partial(connect, **caches)
        self._generation = 0
        self._idle: list[Any] = []
        self._watch = Watch()
        self._closing: set[asyncio.Task[None]] = set()

    async def value(self, statement: str, arguments: Sequence[Any], seconds: float | None) -> Any:
        """The one value that a statement gives. Raises what the driver raises.

        Raises TookTooLong if it takes more than so many seconds, with what it waits for its turn,
        and SQLAlchemy's TimeoutError when all connections are busy.
        """
        if seconds is None:
            return await self._value(statement, arguments)
        # The driver has a timer for each statement, which takes longer than a short one.
        with Bounded(self._watch, time.monotonic() + seconds):
            return await self._value(statement, arguments)

    async def _value(self, statement: str, arguments: Sequence[Any]) -> Any:
        await (self._turn() if self._turns.locked() else self._turns.acquire())
        connection, generation = None, self._generation
        try:
            connection = self._open() or await self._connect()
            value = await connection.fetchval(statement, *arguments)
        except asyncpg.PostgresError:
            self._leave(connection, generation)
            raise
        except BaseException:
            # Something is still going on, or the connection is broken.
            self._close(connection)
            raise
        self._leave(connection, generation)
        return value

    async def _turn(self) -> None:
        """Wait until there is a connection for somebody."""
        try:
            # Not wait_for, which before Python 3.12 hides that somebody was told to give up.
            async with asyncio.timeout(self._wait):
                await self._turns.acquire()
        except TimeoutError:
            raise PoolTimeout(f"no connection became free within {self._wait} s") from None

    def _open(self) -> Any:
        """A connection that is open and idle, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            # The driver sees when PostgreSQL ends a connection that nobody uses.
            if not connection.is_closed():
                return connection
        return None

    def _leave(self, connection: Any, generation: int) -> None:
        if connection is None or generation != self._generation:
            self._close(connection)
            return
        self._idle.append(connection)
        self._turns.release()

    def replace(self) -> None:
        """Close the connections that there are, once nothing runs on them."""
        self._generation += 1
        while self._idle:
            self._closing_of(self._idle.pop())

    def _close(self, connection: Any) -> None:
        """Close a connection, once what runs on it is cancelled; the next may then be opened."""
        if connection is None:
            self._turns.release()
            return
        self._closing_of(connection).add_done_callback(lambda _: self._turns.release())

    def _closing_of(self, connection: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(_closed(connection))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    async def close(self) -> None:
        """Close all connections."""
        closing = [_closed(self._idle.pop()) for _ in range(len(self._idle))]
        await asyncio.gather(*closing, *self._closing)


async def _closed(connection: Any) -> None:
    with contextlib.suppress(Exception):
        await connection.close(timeout=CANCELLED_WITHIN)
