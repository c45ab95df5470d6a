"""Connections for statements that are ready to run, with nothing between them and the driver."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
from sqlalchemy.exc import TimeoutError as PoolTimeout


def _as_it_is(value: Any) -> Any:
    return value


async def _prepare(connection: Any) -> None:
    # JSON as the bytes that PostgreSQL sends: they go to a client as they are.
    await connection.set_type_codec(
        "json", schema="pg_catalog", encoder=_as_it_is, decoder=_as_it_is, format="binary"
    )


async def _leave(connection: Any) -> None:
    """Nothing is set on these connections, so that nothing has to be set back."""


class Direct:
    """Connections that run one statement at a time each, and keep those they have prepared.

    The driver's pool opens them and puts right what was cancelled or broke; who is well goes from
    hand to hand without it, which would take as long as a short statement.
    """

    def __init__(self, size: int, wait: float, options: dict[str, Any]) -> None:
        """For `wait` seconds somebody waits for a connection. The options are the driver's."""
        self._turns = asyncio.Semaphore(size)
        self._wait = wait
        self._idle: list[Any] = []
        self._pool: Any = None
        # Statements are cached whatever their length: preparing a long one takes longest.
        self._options = options | {
            "init_size": 0,
            "min_size": 0,
            "max_size": size,
            "init": _prepare,
            "reset": _leave,
            "max_cacheable_statement_size": 0,
            "max_cached_statement_lifetime": 0,
            "max_inactive_connection_lifetime": 0,
        }

    async def json(self, statement: str, arguments: Sequence[Any]) -> bytes | None:
        """The one JSON value that a statement gives. Raises what the driver raises.

        Raises SQLAlchemy's TimeoutError when all connections are busy.
        """
        if self._turns.locked():
            try:
                await asyncio.wait_for(self._turns.acquire(), self._wait)
            except TimeoutError:
                raise PoolTimeout(f"no connection became free within {self._wait} s") from None
        else:
            await self._turns.acquire()
        try:
            connection = await self._connection()
            try:
                value: bytes | None = await connection.fetchval(statement, *arguments)
            except BaseException:
                await self._pool.release(connection)
                raise
            self._idle.append(connection)
            return value
        finally:
            self._turns.release()

    async def _connection(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            await self._pool.release(connection)
        if self._pool is None:
            self._pool = await asyncpg.create_pool(**self._options)
        return await self._pool.acquire()

    async def close(self) -> None:
        """Close all connections."""
        while self._idle:
            await self._pool.release(self._idle.pop())
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), self._wait)
            except TimeoutError:
                pool.terminate()
