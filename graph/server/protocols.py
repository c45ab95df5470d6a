"""uvicorn's protocols of HTTP and WebSocket, with limits of size and time, and stricter parsing.

uvicorn has no timeout for the head of a request, and no limit for its size: one client could fill
the memory, and a few hundred could use all connections.

A proxy sends the requests of many clients over one connection. If the proxy and the server
disagreed where a request ends, one client could write the start of another client's request
(request smuggling). So every ambiguous request is refused, by RFC 9112 and RFC 9110, and the
connection is closed.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httptools
import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from graph.execution.logs import log_refusal
from graph.server.middleware import HEADERS
from graph.server.requests import HTTPError

if sys.platform == "linux":
    import fcntl
    import termios

# The maximum number of bytes that are neither part of a body nor of a complete head: incomplete
# heads, and the extensions and trailers of a chunked body. A single read may exceed it.
MOST_HEAD_BYTES = 2**16
# The timeout of receiving a head, in seconds.
HEAD_TIMEOUT = 10
# The timeout of receiving a body, in seconds.
BODY_TIMEOUT = 30
# The timeout of a client that does not read its response, in seconds (TCP_USER_TIMEOUT).
READ_TIMEOUT = 30
# How often it is checked, in the time that a client has for it, whether it reads anything.
CHECKS = 10
# The time for which the body of a refused request is still read and discarded, in seconds.
CLOSE_DELAY = 5

# Headers that a request may have only once: a proxy and the server could use different ones.
SINGLE_HEADERS = (
    b"authorization",
    b"content-length",
    b"content-type",
    b"host",
    b"origin",
    b"transfer-encoding",
)
# `uri-host [":" port]` of RFC 9110 and RFC 3986.
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(?::\d*)?")
# The absolute form of a request target: its host, and the rest.
ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]+)(/?.*)")
INVALID_HTTP = "This is not a request of HTTP/1.1, or its URL is too long."
INVALID_TARGET = "The target of a request is a path, or a URL with `http` or `https`."
BODY_HEADERS = (b"content-length", b"transfer-encoding")


# Where the application finds a WebSocketProtocol in the `extensions` of its scope.
FRAMES = "troupe.frames"
# Where it finds the HTTPProtocol of a request.
CONNECTION = "troupe.connection"


class InvalidHead(ValueError):
    """A head that the parser accepts, and that the RFCs forbid."""


class BufferedTransport:
    """A transport that sends the head and the body of a response together, with one system call."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._buffer: list[bytes] = []
        # Whether the rest of the request is read and discarded before the connection is closed.
        self.delays_close = False
        self._is_closing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send data together with all other data of this iteration of the event loop."""
        if not self._buffer:
            self._loop.call_soon(self.flush)
        self._buffer.append(data)

    def close(self) -> None:
        """Send the buffer, and close the connection."""
        self.flush()
        if self.delays_close and not self.is_closing():
            # An immediate close would reset the connection of a client that still sends, and the
            # response would be lost.
            self._is_closing = True
            self._transport.write_eof()
            self._loop.call_later(CLOSE_DELAY, self._transport.close)
        else:
            self._transport.close()

    def is_closing(self) -> bool:
        """Whether no more requests are read."""
        return self._is_closing or self._transport.is_closing()

    def flush(self) -> None:
        """Send the buffer."""
        if self._buffer:
            self._transport.write(b"".join(self._buffer))
            self._buffer.clear()


class HTTPProtocol(HttpToolsProtocol):
    """An HTTP connection with timeouts, limits of size, and strict parsing."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._is_between_requests = True
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._active_cycle: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout of the first head."""
        super().connection_made(transport)
        self.transport: Any = BufferedTransport(transport, self.loop)
        self._start_timer(HEAD_TIMEOUT)

    def eof_received(self) -> None:
        """Send the buffered response, before uvicorn closes the connection."""
        self.transport.flush()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the disconnection to the request that is being answered."""
        super().connection_lost(exc)
        if self._active_cycle is not None:
            self._active_cycle.disconnected = True
            self._active_cycle.message_event.set()
            self._active_cycle.scope["extensions"].clear()  # else it would form a reference cycle
        self._stop_timer()

    def data_received(self, data: bytes) -> None:
        """Parse the data, and check the limits."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._head_bytes += len(data)
        try:
            self._parse(memoryview(data))
        except httptools.HttpParserError as error:
            fault = error.__context__
            self._refuse(400, str(fault) if isinstance(fault, InvalidHead) else INVALID_HTTP)
            return
        if self._head_bytes > MOST_HEAD_BYTES:
            self._refuse(431, f"The head of a request has at most {MOST_HEAD_BYTES} bytes.")
        elif self._timer is None and (self._head_bytes or not self._is_between_requests):
            self._start_timer(HEAD_TIMEOUT if self._is_between_requests else BODY_TIMEOUT)

    def _parse(self, data: memoryview) -> None:
        """Pass the data to the parser.

        The parser ends HTTP at any head with an `Upgrade`, and would parse its body as a request.
        An upgrade that the server does not support is ignored: the head is parsed again without it.
        """
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as stop:
                (end,) = stop.args
            data = data[end:]
            if self._should_upgrade():
                self.handle_websocket_upgrade()
                if data:
                    self.transport.get_protocol().data_received(bytes(data))
                return
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
            self.parser.feed_data(head)

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        first = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, version)
        rest = [b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"".join([first, *rest, b"\r\n"])

    def _should_upgrade(self) -> bool:
        """Whether the head is the handshake of a WebSocket (RFC 6455).

        It has no body, and all requests before it are answered.
        """
        upgrades = [value.lower() for name, value in self.headers if name == b"upgrade"]
        lengths = [value for name, value in self.headers if name in BODY_HEADERS]
        return (
            upgrades == [b"websocket"]
            and (self.parser.get_method(), self.parser.get_http_version()) == (b"GET", "1.1")
            and lengths in ([], [b"0"])
            and not self._is_answering
            and not self.pipeline
        )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, without the white space after its value."""
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Check the head, and start the request."""
        self._check_head()
        if self.parser.should_upgrade() and not self._should_upgrade():
            return  # the head is parsed again
        super().on_headers_complete()
        # A copy, to which the trailers of a chunked body are not added.
        self.scope["headers"] = self.headers.copy()
        extensions: dict[Any, Any] = {CONNECTION: self}
        self.scope["extensions"] = extensions
        self._head_bytes = 0
        self._is_between_requests = False
        self._stop_timer()  # mostly the body is here too

    @property
    def unsent(self) -> int:
        """How many bytes the client has not received."""
        return _unsent(self.transport)

    def abort(self) -> None:
        """Close the connection of a client that does not read."""
        self.transport.abort()

    def _check_head(self) -> None:
        """Check that proxies read the head in the same way. Raises InvalidHead."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise InvalidHead("This server speaks HTTP/1.1.")
        headers = dict(self.headers)
        expected = headers.get(b"expect", b"").lower()
        self.expect_100_continue = expected == b"100-continue" and version == "1.1"
        if len(headers) < len(self.headers):
            names = [name for name, _ in self.headers]
            for name in SINGLE_HEADERS:
                if names.count(name) > 1:
                    raise InvalidHead(f"The header `{name.decode().title()}` comes more than once.")
        coding = headers.get(b"transfer-encoding", b"chunked")
        if coding.lower() != b"chunked" or (b"transfer-encoding" in headers and version == "1.0"):
            raise InvalidHead("The one `Transfer-Encoding` is `chunked`, in HTTP/1.1.")
        host = headers.get(b"host", b"" if version == "1.0" else None)
        if host is None:
            raise InvalidHead("The header `Host` is missing.")
        if method == b"CONNECT" or b"#" in self.url:
            raise InvalidHead(INVALID_TARGET)
        if self.url[:1] != b"/" and (method, self.url) != (b"OPTIONS", b"*"):
            absolute = ABSOLUTE.fullmatch(self.url)
            if absolute is None:
                raise InvalidHead(INVALID_TARGET)
            host, path = absolute.groups()
            # By RFC 9112, the host of the target replaces the header.
            others = [header for header in self.headers if header[0] != b"host"]
            self.headers[:] = [(b"host", host), *others]
            self.url = path if path[:1] == b"/" else b"/" + path
        if not HOST.fullmatch(host):
            raise InvalidHead("The host is not a name or an address, with or without a port.")

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body to the request."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        if self.parser.should_upgrade():
            return  # `_parse` continues
        self._expect_request()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Pass the connection to the WebSocket protocol, which has its own timeouts."""
        self._expect_request()
        super().handle_websocket_upgrade()

    def _expect_request(self) -> None:
        self._is_between_requests = True
        self._head_bytes = 0
        self._stop_timer()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        # `self.cycle` of uvicorn is the last request received, which may still wait for this one.
        self._active_cycle = cycle
        if cycle.waiting_for_100_continue:
            app = _closing_unless_continued(app, cycle)
        super()._start_asgi_task(cycle, app)

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._on_timeout)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        self._timer = None
        if self.flow.read_paused:  # until the requests before it are answered
            self._start_timer(BODY_TIMEOUT)
        elif self._is_between_requests and not self._head_bytes:
            # Nothing was sent: browsers open connections in advance.
            self.transport.close()
        elif not (self._is_between_requests and self._is_answering):
            self._refuse(408, "The request did not arrive in time.")

    @property
    def _is_answering(self) -> bool:
        return not getattr(self.cycle, "response_complete", True)

    @property
    def _can_respond(self) -> bool:
        """Whether the client would read a response now as the one to the incomplete request."""
        if self._is_between_requests:
            return not self._is_answering
        # Requests in the pipeline wait for the response to one before them.
        return not self.pipeline and not getattr(self.cycle, "response_started", False)

    def _refuse(self, status: int, message: str) -> None:
        self._stop_timer()
        if self.transport.is_closing():
            return
        log_refusal("http", status, [HTTPError.CODES[status]])
        if self._can_respond:
            body = orjson.dumps({"errors": [HTTPError(message, status).formatted]})
            head = [
                *HEADERS,
                (b"content-type", b"application/json; charset=utf-8"),
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"close"),
            ]
            lines = [b"%s: %s\r\n" % header for header in head]
            self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.transport.close()


def _closing_unless_continued(app: ASGIApp, cycle: Any) -> ASGIApp:
    """Close the connection after the response to a client that waits for `100 (Continue)`.

    The client may or may not send the body, so the next data could be the body or another request.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if cycle.waiting_for_100_continue and cycle.more_body and not cycle.body:
                cycle.keep_alive = False
                cycle.transport.delays_close = True
            await send(message)

        await app(scope, receive, sent)

    return answer


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket connection that reads nothing from a client that does not read.

    Otherwise the pongs for such a client would fill the memory. The connection is closed if the
    client does not answer pings, or sends an invalid handshake.
    """

    # The data received before the response to the handshake.
    _early_data = b""

    def data_received(self, data: bytes) -> None:
        """Parse the data, after the response to the handshake."""
        if self.handshake_initiated and not self.handshake_complete:
            self._early_data += data
            self.transport.pause_reading()
            return
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # uvicorn neither sends the response to an invalid handshake nor closes the connection.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    async def run_asgi(self) -> None:
        """Run the application, which finds the connection in the scope."""
        extensions: dict[Any, Any] = self.scope["extensions"]
        extensions[FRAMES] = self
        await super().run_asgi()

    @property
    def unsent(self) -> int:
        """How many bytes the client has not received."""
        return _unsent(self.transport)

    def write_text(self, text: bytes) -> None:
        """Send a text message at once, even if the client does not read.

        `send` waits for the client, and copies the message several times.
        """
        if not (self.close_sent or self.transport.is_closing()):
            self.transport.write(_text_head(len(text)) + text)

    def close_now(self, code: int, reason: str) -> None:
        """Close the connection, without waiting for what the client has not read.

        TCP_USER_TIMEOUT ends it if the client never reads.
        """
        if not (self.close_sent or self.transport.is_closing()):
            self.conn.send_close(code, reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": code})
            self.writable.set()
            self.transport.close()

    async def send(self, message: Any) -> None:
        """Send a message."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            # The handshake is refused; otherwise uvicorn would log an error.
            self.handshake_complete = True
        if self._early_data and self.handshake_complete and not self.transport.is_closing():
            data, self._early_data = self._early_data, b""
            self.transport.resume_reading()
            self.data_received(data)

    def pause_writing(self) -> None:
        """Stop reading until the client has read the data sent to it."""
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Continue reading."""
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()

    async def receive(self) -> Any:
        """The next message."""
        await self.writable.wait()
        return await super().receive()

    def send_keepalive_ping(self) -> None:
        """Send a ping, which the client receives after everything before it."""
        super().send_keepalive_ping()
        if self.pong_timer is not None:
            self.pong_timer.cancel()
            self._wait_for_pong(Progress(lambda: self.unsent))

    def _wait_for_pong(self, progress: Progress) -> None:
        def check() -> None:
            if progress.has_stopped():
                self.keepalive_timeout()
            else:
                self._wait_for_pong(progress)

        self.pong_timer = self.loop.call_later((self.ping_timeout or 0) / CHECKS, check)

    def keepalive_timeout(self) -> None:
        """Close the connection, without waiting for the client to read what is left."""
        super().keepalive_timeout()
        self.transport.abort()


class Progress:
    """Whether a client reads what is sent to it. It stopped if CHECKS checks have found nothing."""

    def __init__(self, unsent: Callable[[], int]) -> None:
        """`unsent` is the number of bytes that the client has not received."""
        self._unsent = unsent
        self._left = unsent()
        self._checks = 0

    def has_stopped(self) -> bool:
        """Check it once more."""
        before, self._left = self._left, self._unsent()
        self._checks = 0 if self._left < before else self._checks + 1
        return self._checks >= CHECKS


def _unsent(transport: Any) -> int:
    """How many bytes the client has not received: of the buffer, and of the kernel's (Linux)."""
    size: int = transport.get_write_buffer_size()
    if sys.platform == "linux":
        with suppress(OSError, ValueError):  # it is closed
            descriptor = transport.get_extra_info("socket").fileno()
            queued = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
            size += int.from_bytes(queued, sys.byteorder)
    return size


def _text_head(length: int) -> bytes:
    """The head of a whole, unmasked text message of this many bytes (RFC 6455, 5.2)."""
    if length < 126:
        return bytes((0x81, length))
    if length < 2**16:
        return b"\x81\x7e" + length.to_bytes(2)
    return b"\x81\x7f" + length.to_bytes(8)
