"""A pool of connections for SQL that is compiled already, without SQLAlchemy in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import asyncpg
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.connections import Generations

# How long PostgreSQL may take to confirm that it has cancelled a statement, in seconds.
CANCELLED_WITHIN = 2


class PreparedPool:
    """Connections that run one statement at a time each, and keep it prepared.

    The pools of SQLAlchemy and of the driver add more time to a short statement than it takes.
    """

    def __init__(
        self,
        size: int,
        wait: float,
        connect: Callable[..., Awaitable[Any]],
        generations: Generations,
    ) -> None:
        """A caller waits for a free connection for `wait` seconds; `connect` opens a new one."""
        self.size = size
        self._free = asyncio.Semaphore(size)
        self._wait = wait
        # PostgreSQL keeps some 40 bytes for each character of a prepared statement: at most 32 MB
        # for a connection. Longer statements take only a few milliseconds to prepare.
        caches = {
            "statement_cache_size": 100,
            "max_cacheable_statement_size": 8_000,
            "max_cached_statement_lifetime": 0,
        }
        self._connect = partial(connect, **caches)
        self._generations = generations
        # The connections that nobody uses, each with its generation.
        self._idle: list[tuple[Any, int]] = []
        self._closing: set[asyncio.Task[None]] = set()

    async def value(self, statement: str, arguments: Sequence[Any]) -> Any:
        """The one value that a statement returns. Raises what the driver raises.

        Raises SQLAlchemy's TimeoutError if no connection becomes free.
        """
        await (self._wait_until_free() if self._free.locked() else self._free.acquire())
        connection, generation = self._open()
        try:
            connection = connection or await self._connect()
            value = await connection.fetchval(statement, *arguments)
        except BaseException as error:
            if isinstance(error, asyncpg.PostgresError) and connection is not None:
                self._release(connection, generation)
            else:
                # The statement may still be running, or the connection is broken.
                self._close(connection)
            raise
        self._release(connection, generation)
        return value

    async def _wait_until_free(self) -> None:
        try:
            # Not wait_for: before Python 3.12 it can swallow the cancellation of its caller.
            async with asyncio.timeout(self._wait):
                await self._free.acquire()
        except TimeoutError:
            raise PoolTimeout(f"no connection became free within {self._wait} s") from None

    def _open(self) -> tuple[Any, int]:
        """An open connection that nobody uses, or None; and the generation that it is of."""
        current = self._generations.current
        while self._idle:
            connection, generation = self._idle.pop()
            if generation != current:
                self._close_later(connection)
            # The driver notices when PostgreSQL ends a connection that nobody uses.
            elif not connection.is_closed():
                return connection, generation
        return None, current

    def _release(self, connection: Any, generation: int) -> None:
        if generation == self._generations.current:
            self._idle.append((connection, generation))
            self._free.release()
        else:
            self._close(connection)

    def _close(self, connection: Any) -> None:
        """Close a connection; only then may another one be opened in its place."""
        if connection is None:
            self._free.release()
        else:
            self._close_later(connection).add_done_callback(lambda _: self._free.release())

    def _close_later(self, connection: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(_close(connection))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    async def close(self) -> None:
        """Close all connections."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_close(connection) for connection, _ in idle), *self._closing)


async def _close(connection: Any) -> None:
    with contextlib.suppress(Exception):
        await connection.close(timeout=CANCELLED_WITHIN)
