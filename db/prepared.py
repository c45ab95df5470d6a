"""A pool of connections for SQL that is compiled already, without SQLAlchemy in between."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from asyncpg import OutdatedSchemaCacheError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db import statistics
from db.connections import OUTCOME_UNKNOWN, Behind, Generations, OutcomeUnknown, is_refusal

# How long PostgreSQL may take to confirm that it has cancelled a statement, in seconds.
CANCELLED_WITHIN = 2

# How long PostgreSQL may take to confirm that it has committed or cancelled a write, in seconds.
CONFIRMED_WITHIN = 10

Prepare = Callable[[Any], Awaitable[None]]
"""What is done with a connection before a statement."""


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
        self.in_use = 0
        """How many connections are used, or being opened or closed."""
        self.waiting = 0
        """How many callers wait for a free connection."""
        self._free = asyncio.Semaphore(size)
        self._wait = wait
        # PostgreSQL keeps some 40 bytes for each character of a prepared statement: at most 36 MB
        # for a connection. A claim that returns its payload has some 9,000 characters, and takes
        # longer to plan than to run.
        caches = {
            "statement_cache_size": 64,
            "max_cacheable_statement_size": 14_000,
            "max_cached_statement_lifetime": 0,
        }
        self._connect = partial(connect, **caches)
        self._generations = generations
        # The connections that nobody uses, each with its generation.
        self._idle: list[tuple[Any, int]] = []
        self._background: set[asyncio.Task[None]] = set()
        # The backends that were asked to cancel a statement.
        self._cancelled: set[int] = set()

    def value(
        self, statement: str, arguments: Sequence[Any], prepare: Prepare | None = None
    ) -> Coroutine[Any, Any, Any]:
        """The one value that a statement returns. Raises what the driver raises.

        `prepare` is done with the connection first. Raises SQLAlchemy's TimeoutError if no
        connection becomes free.
        """
        return self._run("fetchval", statement, arguments, prepare=prepare)

    def rows(self, statement: str, arguments: Sequence[Any]) -> Coroutine[Any, Any, Sequence[Any]]:
        """The rows that a statement returns; otherwise the same."""
        return self._run("fetch", statement, arguments)

    def write(
        self, statement: str, arguments: Sequence[Any], seconds: float
    ) -> Coroutine[Any, Any, Sequence[Any]]:
        """The rows of a statement that is a transaction of its own.

        PostgreSQL is asked to cancel it after so many seconds, and its answer says whether it did.
        Raises what the driver raises if PostgreSQL refuses the statement, and OutcomeUnknown if the
        connection is lost, or if there is no answer.
        """
        return self._run("fetch", statement, arguments, seconds)

    async def _run(
        self,
        method: str,
        statement: str,
        arguments: Sequence[Any],
        seconds: float | None = None,
        prepare: Prepare | None = None,
    ) -> Any:
        await (self._wait_until_free() if self._free.locked() else self._free.acquire())
        self.in_use += 1
        connection, generation = self._open()
        timer = longest = None
        try:
            connection = connection or await self._connect()
            if prepare is not None:
                await prepare(connection)
            if seconds is not None:
                longest = seconds + CONFIRMED_WITHIN
                if connection.is_pooled:
                    connection.limit_next(seconds)
                else:
                    timer = self._cancel_after(seconds, connection.get_server_pid())
            result = await getattr(connection, method)(statement, *arguments, timeout=longest)
        except BaseException as error:
            is_refused = isinstance(error, Behind) or is_refusal(error)
            if is_refused and connection is not None and not connection.is_closed():
                self._release(connection, generation)
                raise
            # The statement may still be running, or the connection is broken.
            self._close(connection)
            is_lost = connection is not None and isinstance(error, Exception)
            if is_lost and seconds is not None:
                raise OutcomeUnknown(OUTCOME_UNKNOWN) from error
            raise
        finally:
            if timer is not None:
                timer.cancel()
        self._release(connection, generation)
        return result

    def _cancel_after(self, seconds: float, pid: int) -> asyncio.TimerHandle:
        """Ask PostgreSQL after so many seconds to cancel what a backend runs."""

        def cancel() -> None:
            self._cancelled.add(pid)
            self._in_background(self._cancel(pid))

        return asyncio.get_running_loop().call_later(seconds, cancel)

    async def _cancel(self, pid: int) -> None:
        """Ask PostgreSQL to cancel the statement that a backend runs."""
        with contextlib.suppress(Exception):
            connection = await self._connect()
            try:
                await connection.fetchval("SELECT pg_cancel_backend($1)", pid)
            finally:
                await connection.close(timeout=CANCELLED_WITHIN)

    async def _wait_until_free(self) -> None:
        self.waiting += 1
        try:
            # Not wait_for: before Python 3.12 it can swallow the cancellation of its caller.
            async with asyncio.timeout(self._wait):
                await self._free.acquire()
        except TimeoutError:
            raise PoolTimeout(f"no connection became free within {self._wait} s") from None
        finally:
            self.waiting -= 1

    def _set_free(self) -> None:
        self.in_use -= 1
        self._free.release()

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
        # PostgreSQL may still be about to cancel what this connection runs next.
        is_cancelled = bool(self._cancelled) and connection.get_server_pid() in self._cancelled
        if generation == self._generations.current and not is_cancelled:
            self._idle.append((connection, generation))
            self._set_free()
        else:
            self._close(connection)

    def _close(self, connection: Any) -> None:
        """Close a connection; only then may another one be opened in its place."""
        if connection is not None and self._cancelled:
            self._cancelled.discard(connection.get_server_pid())
        if connection is None:
            self._set_free()
        else:
            self._close_later(connection).add_done_callback(lambda _: self._set_free())

    def _close_later(self, connection: Any) -> asyncio.Task[None]:
        return self._in_background(_close(connection))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def close(self) -> None:
        """Close all connections."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_close(connection) for connection, _ in idle), *self._background)


async def _close(connection: Any) -> None:
    with contextlib.suppress(Exception):
        await connection.close(timeout=CANCELLED_WITHIN)


async def counted(
    run: Callable[[str, Sequence[Any]], Awaitable[Any]], statement: str, arguments: Sequence[Any]
) -> Any:
    """The result of a statement, which is counted and may be repeated."""
    began = time.perf_counter()
    try:
        try:
            result = await run(statement, arguments)
        except OutdatedSchemaCacheError:
            # The driver itself repeats what PostgreSQL refuses as outdated, but not this.
            result = await run(statement, arguments)
    except Exception as error:
        statistics.add_failure(statement, began, error)
        raise
    statistics.add(statement, len(result) if isinstance(result, list) else 1, began)
    return result
