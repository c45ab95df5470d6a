"""What one operation carries along: who asks, what is selected, sessions and loaders."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from contextvars import ContextVar
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import strawberry
from graphql import GraphQLError, OperationDefinitionNode, OperationType

from db import Database, ReadSession, Right, Viewer, WriteSession
from db.deadlines import TookTooLong

if TYPE_CHECKING:
    from graph.compiler import Compiler
    from graph.core.answers import Answer
    from graph.core.loaders import Loaders
    from graph.core.selections import Operation
    from graph.execution.documents import Document
    from graph.limits.guard import Guard

# Enough to overlap the statements of sibling fields; more would only take connections from others.
SESSIONS_AT_ONCE = 4

_holding: ContextVar[bool] = ContextVar("holding", default=False)


class HoldingSession(RuntimeError):
    """A loader was awaited inside a session: enough such requests at once would wait for ever.

    Each would hold a connection while its loader waits for one. Close the session first.
    """


class OutOfTime(RuntimeError):
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
        """How many seconds are left. Raises OutOfTime if there are none."""
        left = self._moment - time.monotonic()
        if left <= 0:
            raise self.over()
        return left

    def over(self) -> OutOfTime:
        """What to say when the time is over."""
        return OutOfTime(
            f"The operation took longer than {self.seconds} s, which is as long as one may take"
            " (TROUPE_MAX_SECONDS). Ask for less at once."
        )


class Timed:
    """Adds the time that a block takes to the one that is noted under a name, in seconds."""

    __slots__ = ("_began", "_name", "_times")

    def __init__(self, times: dict[str, float], name: str) -> None:
        self._times = times
        self._name = name

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        took = time.perf_counter() - self._began
        self._times[self._name] = self._times.get(self._name, 0.0) + took


class Compiled(Protocol):
    """What answers parts of an operation by statements that were compiled for it."""

    def has(self, *place: str) -> bool:
        """Whether there is a statement for the value at a place, by the response names to it."""

    async def json(self, *place: str, keys: Sequence[Any] = ()) -> bytes | None:
        """The JSON at a place, of the rows with these keys; None where resolvers have to answer."""


class Context:
    """The context of one operation."""

    operation: Operation
    loaders: Loaders
    address: str | None = None
    """Where the request comes from: by it the rate of those without a token is limited."""
    guard: Guard | None = None
    """What the limits are, and who uses how much; the process has one."""
    deadline: Deadline | None = None
    """When the operation has to be over."""
    document: Document | None = None
    """What was sent, once it is found to be valid."""
    node: OperationDefinitionNode | None = None
    """The operation as it is written, once that has been read."""
    turns: asyncio.Semaphore | None = None
    """What the viewer's operations wait for before they have a connection."""
    is_planned = False
    """Whether one statement answers it."""
    owed = 0
    """What it has cost to validate its document."""
    compiled: Compiled | None = None
    """What answers parts of the operation without resolvers."""
    answer: Answer | None = None
    """How large the answer is that resolvers make."""
    cost = 0
    """How many rows it could return, once that was counted."""

    def __init__(
        self,
        database: Database,
        viewer: Viewer | None,
        *,
        refusal: GraphQLError | None = None,
        compiler: Compiler | None = None,
    ) -> None:
        self.database = database
        self.refusal = refusal
        self.compiler = compiler
        self.times: dict[str, float] = {}
        """How long the parts of its way have taken, in seconds."""
        self._viewer = viewer

    @cached_property
    def _sessions(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(SESSIONS_AT_ONCE)

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody is known to ask."""
        return self._viewer is None

    @property
    def viewer(self) -> Viewer:
        """Who asks; who is not known sees nothing."""
        return self._viewer or Viewer()

    def for_event(self) -> Context:
        """The context of one event of a stream, which shares nothing that was read before."""
        context = copy(self)
        context.__dict__.pop("_sessions", None)
        context.deadline = None
        return context

    def become(self, viewer: Viewer) -> None:
        """Go on as somebody who has just said who they are."""
        self._viewer = viewer

    def timed(self, part: str) -> Timed:
        """Adds the time of the block to that of a part of the operation's way."""
        return Timed(self.times, part)

    def in_time(self) -> AbstractAsyncContextManager[None]:
        """Bounds what happens in the block by the operation's time and its answer's size."""
        if self.answer is not None:
            self.answer.check()
        return nullcontext() if self.deadline is None else self.deadline.kept()

    @property
    def is_mutation(self) -> bool:
        """Whether the operation may change something; before it has been read, it has not."""
        return self.node is not None and self.node.operation is OperationType.MUTATION

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Wait until the viewer has a connection left."""
        return nullcontext() if self.turns is None else self.turns

    async def json(self, statement: str, arguments: Sequence[Any]) -> bytes:
        """The JSON that a statement gives, in the viewer's turn and in the operation's time."""
        if self.turns is None or self.deadline is None or self.turns.locked():
            async with self.in_time(), self.turn():
                return await self.database.json(statement, arguments)
        # With nobody to wait for, the statement alone is bounded, with less effort.
        await self.turns.acquire()
        try:
            return await self.database.json(statement, arguments, self.deadline.left())
        except TookTooLong:
            raise self.deadline.over() from None
        finally:
            self.turns.release()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """A short session for reading, of which an operation has at most four at once."""
        refuse_while_holding()
        async with self.in_time(), self._sessions, self.turn(), self.database.read() as session:
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
                await waited.enter_async_context(self.turn())
            # A commit is waited for, however late it is: what is answered must be what was done.
            async with self.database.write(self.viewer, right) as session, self.in_time():
                held = _holding.set(True)
                try:
                    yield session
                    await session.flush()
                finally:
                    _holding.reset(held)


Info = strawberry.Info[Context, Any]
