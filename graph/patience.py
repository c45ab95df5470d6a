"""How long a server waits for requests, and how many connections it can wait on at once."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if sys.platform != "win32":
    import resource

# How long a connection may take to bring the head of a request, in seconds; and the rest of one
# that has been refused already.
HEAD_SECONDS = 30

# How many bytes of a head may come before it is complete.
LONGEST_HEAD = 2**16

# How long a connection may be silent between two requests, in seconds: longer than proxies keep
# theirs (mostly 60), because one that sends on what is just being closed tells its client 502.
IDLE_SECONDS = 75

TOO_LONG = b"The head of the request is too long."


class Patience(HttpToolsProtocol):
    """A connection that is closed if the head of a request is too long, or too long in coming.

    Uvicorn waits for it as long as the client likes, and keeps whatever comes.
    """

    _timer: asyncio.TimerHandle | None = None
    _unread = 0
    _in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Answer the request whose head came."""
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Hand on that the request is all there."""
        self._in_body = False
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Take what came; and see whether the head of a request is still to come."""
        super().data_received(data)
        is_answering = bool(self.cycle) and not self.cycle.response_complete
        if is_answering or self not in self.connections:  # which a WebSocket is not
            self._stop_waiting()
            return
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)
        if self._in_body:  # of a request that was answered before it was all there
            return
        self._unread += len(data)
        if self._unread > LONGEST_HEAD and not self.transport.is_closing():
            head = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
            kind = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(head + kind % len(TOO_LONG) + TOO_LONG)
            self.transport.close()

    def _stop_waiting(self) -> None:
        self._unread = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def allow_many_connections() -> None:
    """Let this process have as many files open as it may.

    Most systems start processes with 1,024, for the sake of old programs: so many idle connections
    would keep everybody else out.
    """
    if sys.platform == "win32":  # which has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # macOS calls it unlimited, and means fewer
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
