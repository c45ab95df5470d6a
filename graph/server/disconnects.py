"""The cancellation of operations when the client disconnects or the server shuts down."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Self

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from graph.core.errors import AGAIN, Outcome, Unavailable
from graph.execution.run import Run
from graph.server.requests import HTTPError
from graph.server.state import AppState

# How long operations that are cancelled at shutdown may take to end, in seconds.
CANCELLED_WITHIN = 1


def shutdown_error(run: Run | None = None) -> HTTPError:
    """The error of a request that the server does not answer because it shuts down."""
    if run is None or not run.is_mutation:
        again = Unavailable.retry_after
        return HTTPError(f"The server is being stopped.{AGAIN}", 503, retry_after=again)
    return HTTPError(
        "The server is being stopped, so nobody knows how much of this was done."
        " Look before you send it again.",
        503,
        outcome=Outcome.UNKNOWN,
    )


async def finish(tasks: Iterable[asyncio.Task[None]], seconds: float) -> None:
    """Wait for tasks when the server shuts down, and cancel those that take longer than this."""
    running = list(tasks)
    if not running:
        return
    _, late = await asyncio.wait(running, timeout=seconds)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=CANCELLED_WITHIN)


class Disconnect:
    """Cancels the block when the client has disconnected.

    A WebSocket calls `client_disconnected`; of HTTP, a task receives it if the request is slow.
    Statements in PostgreSQL are cancelled too, and loaders end with the tasks that await them. It
    cancels once: a second cancellation would close the connection before the statement is cancelled
    in PostgreSQL. A mutation is not cancelled, because only some of its fields would be done.
    """

    run: Run | None = None
    _task: asyncio.Task[Any] | None = None
    """The task of the block, while it runs."""
    _watcher: asyncio.Task[None] | None = None
    _happened = False

    def __init__(self, state: AppState, receive: Receive | None = None) -> None:
        self._state = state
        self._receive = receive

    def __enter__(self) -> Self:
        if self._happened:
            raise ClientDisconnect
        self._task = asyncio.current_task()
        return self

    def on_slow(self) -> None:
        """Start to wait for the disconnection of an HTTP client."""
        if self._task is not None and self._receive is not None:
            self._watcher = asyncio.create_task(self._wait(self._receive))

    async def _wait(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.client_disconnected()

    def client_disconnected(self) -> None:
        """Cancel the block, because the client has disconnected."""
        if self._happened or (self.run and self.run.is_mutation):
            return
        self._happened = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        task, self._task = self._task, None
        watcher, self._watcher = self._watcher, None  # it refers to this object
        if watcher is not None:
            watcher.cancel()
        if not isinstance(error, asyncio.CancelledError):
            return
        assert task is not None
        if self._happened:
            task.uncancel()
            raise ClientDisconnect from None
        if self._state.draining:  # uvicorn cancels at the end of the grace period
            task.uncancel()
            raise shutdown_error(self.run) from None
