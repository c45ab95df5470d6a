"""How one operation reaches the database: few sessions at once, and only in its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from contextvars import ContextVar
from functools import cached_property
from typing import Any

from db import Database, ReadSession, Right, Viewer, WriteSession
from db.deadlines import TimedOut

# Enough to overlap the statements of sibling fields; more would only take connections from others.
SESSIONS_AT_ONCE = 4

_holding: ContextVar[bool] = ContextVar("holding", default=False)


class HoldingSession(RuntimeError):
    """A loader was awaited inside a session: enough such requests at once would wait for ever.

    Each would hold a connection while its loader waits for one. Close the session first.
    """


class DeadlineExceeded(RuntimeError):
    """The operation has used up the time that it may take."""


def refuse_while_holding() -> None:
    """Raise HoldingSession if the caller is inside a session."""
    if _holding.get():
        raise HoldingSession(HoldingSession.__doc__)


class Deadline:
    """A moment after which an operation does nothing more."""

    def __init__(self, seconds: int) -> None:
        """So many seconds from now."""
        self.seconds = seconds
        self._moment = time.monotonic() + seconds

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Cancel what the block waits for when the time is over; a statement is cancelled too."""
        try:
            async with asyncio.timeout(self.left()) as timeout:
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            raise self.over() from None

    def left(self) -> float:
        """How many seconds are left. Raises DeadlineExceeded if there are none."""
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


class Access:
    """The access of one operation to the database, for one viewer."""

    deadline: Deadline | None = None
    """When the operation has to be over."""
    connections: asyncio.Semaphore | None = None
    """What the viewer's operations wait for before they take a connection."""

    def __init__(self, database: Database, viewer: Viewer | None) -> None:
        self.database = database
        self.is_anonymous = viewer is None
        """Whether the request names no valid token."""
        self.viewer = viewer or Viewer()
        """Who asks. A viewer who is not known sees nothing."""

    def become(self, viewer: Viewer) -> None:
        """Go on as another viewer: after a login, or when a token was looked up again."""
        self.viewer, self.is_anonymous = viewer, False

    @cached_property
    def _sessions(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(SESSIONS_AT_ONCE)

    def in_time(self) -> AbstractAsyncContextManager[None]:
        """Bounds what happens in the block by the operation's time."""
        return nullcontext() if self.deadline is None else self.deadline.kept()

    def _connection(self) -> AbstractAsyncContextManager[None]:
        """Wait until the viewer may take a connection."""
        return nullcontext() if self.connections is None else self.connections

    async def json(self, statement: str, arguments: Sequence[Any]) -> bytes:
        """The JSON that a statement gives, on one of the viewer's connections, in time."""
        if self.connections is None or self.deadline is None or self.connections.locked():
            async with self.in_time(), self._connection():
                return await self.database.json(statement, arguments)
        # With nobody to wait for, only the statement is bounded, which takes less effort.
        await self.connections.acquire()
        try:
            return await self.database.json(statement, arguments, self.deadline.left())
        except TimedOut:
            raise self.deadline.over() from None
        finally:
            self.connections.release()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """A short session for reading, of which an operation has at most four at once."""
        refuse_while_holding()
        async with (
            self.in_time(),
            self._sessions,
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
        """One transaction of the viewer's for what takes this right, committed after the block."""
        refuse_while_holding()
        async with AsyncExitStack() as waited:
            async with self.in_time():
                await waited.enter_async_context(self._connection())
            # A commit is waited for, however late it is: what is answered must be what was done.
            async with self.database.write(self.viewer, right) as session, self.in_time():
                held = _holding.set(True)
                try:
                    yield session
                    await session.flush()
                finally:
                    _holding.reset(held)
