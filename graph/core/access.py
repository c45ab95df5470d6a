"""The access of an operation to the database, with limits on its sessions and its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    nullcontext,
)
from contextvars import ContextVar
from functools import cached_property
from typing import Any, Self, TypeVar

from db import Database, ReadSession, Right, Viewer, WriteSession
from db.idempotency import ChangedKeys, Key
from db.replicas import Reading
from graph.core.timers import SharedTimer

Result = TypeVar("Result")

# Enough to run the statements of sibling fields at once; connections are shared with others.
SESSIONS_AT_ONCE = 4

_holding: ContextVar[bool] = ContextVar("holding", default=False)


class HoldingSession(RuntimeError):
    """A loader was awaited inside a session. Close the session first.

    Otherwise many such requests at once deadlock: each holds a connection and waits for another.
    """


class DeadlineExceeded(RuntimeError):
    """The operation has exceeded its time limit."""


def refuse_while_holding() -> None:
    """Raise HoldingSession if called inside a session."""
    if _holding.get():
        raise HoldingSession(HoldingSession.__doc__)


class Deadline:
    """The time at which an operation is stopped."""

    def __init__(self, seconds: int, timer: SharedTimer) -> None:
        """A deadline in this number of seconds."""
        self.seconds = seconds
        self.timer = timer
        self.moment = time.monotonic() + seconds

    def left(self) -> float:
        """The seconds that are left. Raises DeadlineExceeded if there are none."""
        left = self.moment - time.monotonic()
        if left <= 0:
            raise self.over()
        return left

    def over(self) -> DeadlineExceeded:
        """The error to raise when the time is over."""
        return DeadlineExceeded(
            f"The operation took longer than {self.seconds} s, which is as long as one may take"
            " (TROUPE_MAX_SECONDS). Ask for less at once."
        )


class EnforcedDeadline:
    """Cancels the block, and a statement that it awaits, when the time of a deadline is over.

    It does what `asyncio.timeout` does, which takes three times as long to begin and end. Only a
    slow block gets a timer of its own, so one that began just before the deadline ends a little
    after it.
    """

    _timer: asyncio.TimerHandle | None = None
    _is_over = False

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self.left = deadline.left

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self.resume()
        return self

    def resume(self) -> None:
        """Cancel the block when the time is over. Raises DeadlineExceeded if it is over now."""
        self.left()
        self._is_limited = True
        self._deadline.timer.add(self)

    def on_slow(self) -> None:
        """Start a timer, unless there is one or the block may take any time."""
        if self._is_limited and self._timer is None:
            left = self._deadline.moment - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(max(0, left), self._cancel)

    def pause(self) -> None:
        """Let the block take any time, until `resume`."""
        self._is_limited = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cancel(self) -> None:
        self._is_over = True
        self._task.cancel()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.pause()
        if not self._is_over:
            return
        # If others have cancelled the task too, it stays cancelled.
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._deadline.over() from None


class Access:
    """The access of one operation to the database, for one viewer."""

    deadline: Deadline | None = None
    """When the operation has to be over."""
    reading: Reading | None = None
    """The replica that the operation reads from; None if it reads from the primary."""
    connections: asyncio.Semaphore | None = None
    """Limits the connections that the operations of the viewer use at once."""

    def __init__(self, database: Database, viewer: Viewer | None) -> None:
        self.database = database
        self.is_anonymous = viewer is None
        """Whether the request names no valid token."""
        self.viewer = viewer or Viewer()
        """The viewer of the request. An anonymous viewer sees nothing."""

    def become(self, viewer: Viewer) -> None:
        """Change the viewer, after a login or when a token was read again."""
        self.viewer, self.is_anonymous = viewer, False

    @cached_property
    def sessions(self) -> asyncio.Semaphore:
        """Limits how many sessions for reading the operation has at once."""
        return asyncio.Semaphore(SESSIONS_AT_ONCE)

    def in_time(self) -> AbstractContextManager[EnforcedDeadline | None]:
        """Enforces the deadline of the operation in a block."""
        return nullcontext() if self.deadline is None else EnforcedDeadline(self.deadline)

    def _connection(self) -> AbstractAsyncContextManager[None]:
        """Wait until the viewer may take a connection."""
        return nullcontext() if self.connections is None else self.connections

    async def json(
        self, statement: str, arguments: Sequence[Any], *, by_key: bool = False
    ) -> bytes:
        """The result of a statement, on one of the viewer's connections, before the deadline."""
        with self.in_time():
            async with self._connection():
                source = self.reading or self.database
                return await source.json(statement, arguments, by_key=by_key)

    async def outcome(self, key: Key) -> ChangedKeys | None:
        """What was done with an idempotency key; None if nothing was. Raises KeyReused."""
        with self.in_time():
            async with self._connection():
                return await self.database.outcome(key)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """A short session for reading; an operation has at most four at once."""
        refuse_while_holding()
        with self.in_time():
            source = self.reading or self.database
            async with self.sessions, self._connection(), source.read() as session:
                held = _holding.set(True)
                try:
                    yield session
                finally:
                    _holding.reset(held)

    async def write(
        self, right: Right, work: Callable[[WriteSession], Awaitable[Result]]
    ) -> Result:
        """Do work in a transaction of the viewer with this right, and commit it."""
        refuse_while_holding()
        viewer = self.viewer
        with self.in_time() as limit:
            async with self._connection(), self.database.write(viewer, right) as session:
                session.time_limit = limit
                held = _holding.set(True)
                try:
                    result = await work(session)
                finally:
                    _holding.reset(held)
        if session.viewer is not viewer:  # a login
            self.become(session.viewer)
        return result
