"""What happens when a client goes away before it is answered, or the server has to."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from starlette.types import Receive

from graph.core.errors import AGAIN, Outcome, Unavailable
from graph.execution.run import Run
from graph.server.requests import Gone, Refused
from graph.server.state import AppState


def stopping(run: Run | None = None) -> Refused:
    """The refusal of what a server that is being stopped does not answer any more."""
    if run is None or not run.is_mutation:
        again = Unavailable.retry_after
        return Refused(f"The server is being stopped.{AGAIN}", 503, retry_after=again)
    return Refused(
        "The server is being stopped, so nobody knows how much of this was done."
        " Look before you send it again.",
        503,
        outcome=Outcome.UNKNOWN,
    )


class Disconnect:
    """Stops what happens in the block when the transport says that the client has left.

    What was being read is cancelled, and by that its statements in PostgreSQL; the tasks of loaders
    end with those who await them. Once is enough: a second cancellation would close the connection
    before PostgreSQL is told. A mutation runs to its end: its client cannot know how far it came,
    and half of its fields would be done.
    """

    run: Run | None = None
    _task: asyncio.Task[Any] | None = None
    _happened = False
    _is_over = False

    def __init__(self, state: AppState) -> None:
        self._state = state

    def __enter__(self) -> Self:
        if self._happened:
            raise Gone
        self._task = asyncio.current_task()
        return self

    def leave(self) -> None:
        """Say that the client has left."""
        if self._happened or self._is_over or (self.run and self.run.is_mutation):
            return
        self._happened = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        if not isinstance(error, asyncio.CancelledError):
            return
        assert self._task is not None
        if self._happened:
            self._task.uncancel()
            raise Gone from None
        if self._state.draining:  # and the time for it is over
            self._task.uncancel()
            raise stopping(self.run) from None


class HTTPDisconnect(Disconnect):
    """Sees by itself when the client of a request over HTTP leaves.

    Most requests have ended before that is worth a task.
    """

    _watcher: asyncio.Task[None] | None = None

    def __init__(self, receive: Receive, state: AppState) -> None:
        super().__init__(state)
        self._receive = receive

    def __enter__(self) -> Self:
        self._state.timer.add(self)
        return super().__enter__()

    def on_slow(self) -> None:
        """Look for the client from now on, if it still waits."""
        if not self._is_over:
            self._watcher = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.leave()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        super().__exit__(kind, error, traceback)
