"""The context of an operation: its viewer, its selection and its loaders."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from copy import copy
from functools import cached_property
from typing import Any, Protocol

import strawberry

from db import ReadSession, Viewer
from graph.core.access import Access, EnforcedDeadline
from graph.core.loaders import Loaders
from graph.core.response_limits import ResponseLimits
from graph.core.selections import Operation


class Compiled(Protocol):
    """The compiled statements of an operation, as far as the resolvers use them."""

    def has(self, *place: str) -> bool:
        """Whether there is a statement for the value at a path of response names."""

    async def json(self, *place: str, keys: Sequence[Any] = ()) -> bytes | None:
        """The JSON at a path, of the rows with these keys; None if resolvers have to read it."""


class Context(Access):
    """The context of one operation, which resolvers find in `info.context`."""

    operation: Operation
    """The operation with its selection."""
    loaders: Loaders
    compiled: Compiled | None = None
    """The compiled statements for parts of the operation."""
    response_limits: ResponseLimits | None = None
    """The limits of the response that resolvers build."""
    authenticate: Callable[[], Awaitable[Viewer]]
    """Looks up the viewer of the token again. Raises Unauthenticated."""
    refusal: Exception | None = None
    """Why the token of the request is not valid."""
    client: Hashable = None
    """The client whose rate limit is charged."""
    address: str | None = None
    """The IP address of the client."""
    allows_http: bool = False
    """Whether the addresses of webhooks may begin with http://."""
    guess: Callable[[Hashable], Callable[[], None]]
    """Counts an attempt to log in to an account; call the result if it succeeds."""

    @cached_property
    def performed(self) -> dict[str, Callable[[], Any]]:
        """The mutations that were performed without their resolvers, by response name.

        The function returns the payload as JSON, or what was changed, or raises the error.
        """
        return {}

    def clear(self) -> None:
        """Drop all rows that loaders have read, because some may change."""
        if "loaders" in vars(self):
            self.loaders.clear()

    def in_time(self) -> AbstractContextManager[EnforcedDeadline | None]:
        """Enforces the deadline and the maximum size of the response in a block."""
        if self.response_limits is not None:
            self.response_limits.check()
        return super().in_time()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """A short session for reading; a new time slice begins after it."""
        async with super().read() as session:
            yield session
        if self.response_limits is not None:
            self.response_limits.begin_slice()

    def for_event(self) -> Context:
        """The context of one event of a subscription, without cached rows."""
        context = copy(self)
        context.__dict__.pop("sessions", None)
        context.deadline = None
        return context


Info = strawberry.Info[Context, Any]
