"""The access of an operation to the database, with limits on its sessions and its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from contextvars import ContextVar
from functools import cached_property
from typing import Any

from db import Database, ReadSession, Right, Viewer, WriteSession
from db.idempotency import Key, Outcome

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

    def __init__(self, seconds: int) -> None:
        """A deadline in this number of seconds."""
        self.seconds = seconds
        self._moment = time.monotonic() + seconds

    def left(self) -> float:
        """The seconds that are left. Raises DeadlineExceeded if there are none."""
        left = self._moment - time.monotonic()
        if left <= 0:
            raise self.over()
        return left

    def over(self) -> DeadlineExceeded:
        """The error to raise when the time is over."""
        return DeadlineExceeded(
            f"The operation took longer than {self.seconds} s, which is as long as one may take"
            " (TROUPE_MAX_SECONDS). Ask for less at once."
        )


class Enforced:
    """Cancels the block, and a statement that it awaits, when the time of a deadline is over."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    async def __aenter__(self) -> asyncio.Timeout:
        self._timeout = asyncio.timeout(self._deadline.left())
        return await self._timeout.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        try:
            await self._timeout.__aexit__(*error)
        except TimeoutError:
            raise self._deadline.over() from None


class Access:
    """The access of one operation to the database, for one viewer."""

    deadline: Deadline | None = None
    """When the operation has to be over."""
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

    def in_time(self) -> AbstractAsyncContextManager[asyncio.Timeout | None]:
        """Enforces the deadline of the operation in a block."""
        return nullcontext() if self.deadline is None else Enforced(self.deadline)

    def _connection(self) -> AbstractAsyncContextManager[None]:
        """Wait until the viewer may take a connection."""
        return nullcontext() if self.connections is None else self.connections

    async def json(
        self, statement: str, arguments: Sequence[Any], *, by_key: bool = False
    ) -> bytes:
        """The result of a statement, on one of the viewer's connections, before the deadline."""
        async with self.in_time(), self._connection():
            return await self.database.json(statement, arguments, by_key=by_key)

    async def outcome(self, key: Key) -> Outcome | None:
        """What was done with an idempotency key; None if nothing was. Raises KeyReused."""
        async with self.in_time(), self._connection():
            return await self.database.outcome(key)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """A short session for reading; an operation has at most four at once."""
        refuse_while_holding()
        async with (
            self.in_time(),
            self.sessions,
            self._connection(),
            self.database.read() as session,
        ):
            held = _holding.set(True)
            try:
                yield session
            finally:
                _holding.reset(held)

    @asynccontextmanager
    async def write(self, right: Right) -> AsyncIterator[WriteSession]:
        """A transaction of the viewer with this right, committed after the block."""
        refuse_while_holding()
        async with AsyncExitStack() as waited:
            async with self.in_time():
                await waited.enter_async_context(self._connection())
            # A commit has no deadline: the response must report whether it succeeded.
            async with self.database.write(self.viewer, right) as session, self.in_time() as limit:
                session.time_limit = limit
                held = _holding.set(True)
                try:
                    yield session
                    if session.has_begun:
                        await session.flush()
                finally:
                    _holding.reset(held)
