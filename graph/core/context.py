"""What resolvers know of the operation: who asks, what is selected, and what loads it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import copy
from typing import Any

import strawberry

from db import ReadSession
from graph.core.access import Access
from graph.core.loaders import Compiled, Loaders
from graph.core.response_budget import ResponseBudget
from graph.core.selections import Operation


class Context(Access):
    """The context of one operation, which resolvers find in `info.context`."""

    operation: Operation
    """What is selected."""
    loaders: Loaders
    compiled: Compiled | None = None
    """What answers parts of the operation without resolvers."""
    budget: ResponseBudget | None = None
    """How large the answer is that resolvers make."""
    refusal: Exception | None = None
    """Why it is not known who asks, although a token was sent."""
    client: Hashable = None
    """The client whose limits it counts for."""
    address: str | None = None
    """Where the request comes from."""
    guess: Callable[[Hashable], Callable[[], None]]
    """Counts a password given for an account; what it returns is called if it was right."""

    def in_time(self) -> AbstractAsyncContextManager[None]:
        """Bounds what happens in the block by the operation's time and its answer's size."""
        if self.budget is not None:
            self.budget.check()
        return super().in_time()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """A short session for reading; what its rows are completed to begins a new turn."""
        async with super().read() as session:
            yield session
        if self.budget is not None:
            self.budget.begin_slice()

    def for_event(self) -> Context:
        """The context of one event of a stream, which shares nothing that was read before."""
        context = copy(self)
        context.__dict__.pop("_sessions", None)
        context.deadline = None
        return context


Info = strawberry.Info[Context, Any]
