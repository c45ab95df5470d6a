"""What happens when a client goes away before it is answered, or the server has to."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from starlette.types import Receive

from graph.context import Context
from graph.errors import AGAIN, Outcome, Unavailable
from graph.requests import Gone, Refused

# Most operations have ended before it is worth a task to look whether somebody still waits.
SOON = 0.05


class Departure:
    """Stops what happens in the block when the client goes away.

    What was being read is cancelled, and by that its statements in PostgreSQL; the tasks of loaders
    end with those who await them. Once is enough: a second cancellation would close the connection
    before PostgreSQL is told. A mutation runs to its end: its client cannot know how far it came,
    and half of its fields would be done.
    """

    context: Context | None = None

    def __init__(self, receive: Receive, state: Any) -> None:
        self._receive = receive
        self._state = state
        self._happened = False
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(SOON, self._watch)
        return self

    def _watch(self) -> None:
        self._watcher = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self.context is None or not self.context.is_mutation:
            self._happened = True
            self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if not isinstance(error, asyncio.CancelledError):
            return
        if self._happened:
            self._task.uncancel()
            raise Gone from None
        if self._state.draining:  # and the time for it is over
            self._task.uncancel()
            raise self._stopped() from None

    def _stopped(self) -> Refused:
        if self.context is None or not self.context.is_mutation:
            return Refused(
                f"The server is being stopped.{AGAIN}", 503, retry_after=Unavailable.retry_after
            )
        return Refused(
            "The server is being stopped, so nobody knows how much of this was done."
            " Look before you send it again.",
            503,
            retry_after=Unavailable.retry_after,
            outcome=Outcome.UNKNOWN,
        )
