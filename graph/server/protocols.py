"""What comes over a connection before it is a request: bounded in size and time, and unambiguous.

uvicorn waits for ever for the rest of a head, and keeps as much of it as comes: a single client who
means harm could take all of the memory with that, and some hundreds all of the connections.

A proxy sends the requests of many clients over one connection. If it and the server did not agree
where a request ends, one client could write the beginning of another's. So whatever others may read
in another way is refused here, by RFC 9112 and RFC 9110, and the connection is closed.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httptools
import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from graph.server.middleware import HEADERS
from graph.server.requests import Refused

# How many bytes of a connection may be neither of a body nor of a head that is complete: heads,
# what a chunked body has between its chunks, and what follows it. A read may bring more at once.
LARGEST_HEAD = 2**16
# How long a head may take to arrive, in seconds.
HEAD_TIMEOUT = 10
# How long a body may take to arrive, in seconds, whether somebody waits for it or not.
BODY_TIMEOUT = 30
# How long a client may go without reading anything more of its answer; the kernel sees to that.
READ_TIMEOUT = 30
# How long a client may go on sending a body that is not wanted, in seconds.
LINGER = 5

# What a request has at most once: of two, nobody knows which the other side heeds.
ONCE = (
    b"authorization",
    b"content-length",
    b"content-type",
    b"host",
    b"origin",
    b"transfer-encoding",
)
# `uri-host [":" port]`, as RFC 9110 and RFC 3986 have it.
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(?::\d*)?")
# The absolute form of a target: its host, and the rest.
ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]+)(/?.*)")
NO_HTTP = "This is not a request of HTTP/1.1, or its URL is too long."
NO_TARGET = "The target of a request is a path, or a URL with `http` or `https`."
LENGTHS = (b"content-length", b"transfer-encoding")


class Malformed(ValueError):
    """A head that the parser takes, and that is no valid head by the RFCs."""


class Together:
    """A transport that sends at once what is written at once: the head of an answer and its body.

    Each by itself is a call of the kernel, for the server and for the client.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._written: list[bytes] = []
        # Whether what still comes is read, and thrown away, for a while after the end.
        self.lingers = False
        self._is_over = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send this, together with what is written before anybody else has a turn."""
        if not self._written:
            self._loop.call_soon(self.flush)
        self._written.append(data)

    def close(self) -> None:
        """Close the connection, once everything is sent."""
        self.flush()
        if self.lingers and not self.is_closing():
            # Closed at once, the system would drop the answer of a client that is still sending.
            self._is_over = True
            self._transport.write_eof()
            self._loop.call_later(LINGER, self._transport.close)
        else:
            self._transport.close()

    def is_closing(self) -> bool:
        """Whether nothing more is read or answered."""
        return self._is_over or self._transport.is_closing()

    def flush(self) -> None:
        """Send what is written."""
        if self._written:
            self._transport.write(b"".join(self._written))
            self._written.clear()


class Connection(HttpToolsProtocol):
    """A connection that does not wait for ever, nor keep without end what comes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._between = True
        self._unused = 0
        self._arriving: asyncio.TimerHandle | None = None
        self._answering: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; somebody who makes one has something to ask."""
        super().connection_made(transport)
        self.transport: Any = Together(transport, self.loop)
        self._expect_within(HEAD_TIMEOUT)

    def eof_received(self) -> None:
        """Answer at least what is answered already; who hangs up by half hears no more."""
        self.transport.flush()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget about it, and say so to whoever is answering."""
        super().connection_lost(exc)
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()
        self._expect_nothing()

    def data_received(self, data: bytes) -> None:
        """Read on, as long as it comes to something."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._unused += len(data)
        try:
            self._parse(memoryview(data))
        except httptools.HttpParserError as error:
            fault = error.__context__
            told = str(fault) if isinstance(fault, Malformed) else NO_HTTP
            self._refuse(400, told)
            return
        if self._unused > LARGEST_HEAD:
            self._refuse(431, f"The head of a request has at most {LARGEST_HEAD} bytes.")
        elif self._arriving is None and (self._unused or not self._between):
            self._expect_within(HEAD_TIMEOUT if self._between else BODY_TIMEOUT)

    def _parse(self, data: memoryview) -> None:
        """Have the parser read it all.

        It takes any head with an `Upgrade` for the last of HTTP, and would read a body as another
        request. An offer that is not taken is to be ignored: such a head is read again without it.
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
            head = self._head_without_offer()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
            self.parser.feed_data(head)

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        first = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, version)
        rest = [b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"".join([first, *rest, b"\r\n"])

    def _should_upgrade(self) -> bool:
        """Whether the offer of another protocol that has come is taken.

        It is the handshake of a WebSocket (RFC 6455), without a body, and nothing that came before
        is still to be answered.
        """
        offers = [value.lower() for name, value in self.headers if name == b"upgrade"]
        lengths = [value for name, value in self.headers if name in LENGTHS]
        return (
            offers == [b"websocket"]
            and (self.parser.get_method(), self.parser.get_http_version()) == (b"GET", "1.1")
            and lengths in ([], [b"0"])
            and not self._is_answering
            and not self.pipeline
        )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, without the white space after its value."""
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Have the request answered."""
        self._check_head()
        if self.parser.should_upgrade() and not self._should_upgrade():
            return  # it is read again
        super().on_headers_complete()
        # What follows the body in the form of headers comes too late to be of the request.
        self.scope["headers"] = self.headers.copy()
        self._unused = 0
        self._between = False
        self._expect_nothing()  # mostly the body is there, too

    def _check_head(self) -> None:
        """See that the head means the same to everybody. Raises Malformed."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise Malformed("This server speaks HTTP/1.1.")
        given = dict(self.headers)
        expected = given.get(b"expect", b"").lower()
        self.expect_100_continue = expected == b"100-continue" and version == "1.1"
        if len(given) < len(self.headers):
            names = [name for name, _ in self.headers]
            for name in ONCE:
                if names.count(name) > 1:
                    raise Malformed(f"The header `{name.decode().title()}` comes more than once.")
        coding = given.get(b"transfer-encoding", b"chunked")
        if coding.lower() != b"chunked" or (b"transfer-encoding" in given and version == "1.0"):
            raise Malformed("The one `Transfer-Encoding` is `chunked`, in HTTP/1.1.")
        host = given.get(b"host", b"" if version == "1.0" else None)
        if host is None:
            raise Malformed("The header `Host` is missing.")
        if method == b"CONNECT" or b"#" in self.url:
            raise Malformed(NO_TARGET)
        if self.url[:1] != b"/" and (method, self.url) != (b"OPTIONS", b"*"):
            absolute = ABSOLUTE.fullmatch(self.url)
            if absolute is None:
                raise Malformed(NO_TARGET)
            host, path = absolute.groups()
            # The host of the target counts, whatever the header says.
            others = [header for header in self.headers if header[0] != b"host"]
            self.headers[:] = [(b"host", host), *others]
            self.url = path if path[:1] == b"/" else b"/" + path
        if not HOST.fullmatch(host):
            raise Malformed("The host is not a name or an address, with or without a port.")

    def on_body(self, body: bytes) -> None:
        """Hand on a part of the body."""
        self._unused = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next request, if there is one."""
        if self.parser.should_upgrade():
            return  # it goes on in another way: see `_parse`
        self._unused = 0
        self._between = True
        self._expect_nothing()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection on, to somebody with times of their own."""
        self._between = True
        self._unused = 0
        self._expect_nothing()
        super().handle_websocket_upgrade()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        # uvicorn knows only the last one that has come, for which others may be waited.
        self._answering = cycle
        if cycle.waiting_for_100_continue:
            app = _closing_unless_continued(app, cycle)
        super()._start_asgi_task(cycle, app)

    def _expect_within(self, seconds: float) -> None:
        self._expect_nothing()
        self._arriving = self.loop.call_later(seconds, self._late)

    def _expect_nothing(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _late(self) -> None:
        self._arriving = None
        if self.flow.read_paused:  # it waits for an answer before it
            self._expect_within(BODY_TIMEOUT)
        elif self._between and not self._unused:
            # Browsers connect before they have anything to ask.
            self.transport.close()
        elif not (self._between and self._is_answering):
            self._refuse(408, "The request did not arrive in time.")

    @property
    def _is_answering(self) -> bool:
        return not getattr(self.cycle, "response_complete", True)

    @property
    def _can_be_told(self) -> bool:
        """Whether what is said now is understood as an answer to what is arriving."""
        if self._between:
            return not self._is_answering
        # What waits in the pipeline does so because one before it is not answered yet.
        return not self.pipeline and not getattr(self.cycle, "response_started", False)

    def _refuse(self, status: int, message: str) -> None:
        self._expect_nothing()
        if self.transport.is_closing():
            return
        if self._can_be_told:
            body = orjson.dumps({"errors": [Refused(message, status).formatted]})
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
    """Close the connection after an answer to a client that waits for `100 (Continue)`.

    Whether it still sends the body nobody can know, so what comes may be that or another request.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if cycle.waiting_for_100_continue and cycle.more_body and not cycle.body:
                cycle.keep_alive = False
                cycle.transport.lingers = True
            await send(message)

        await app(scope, receive, sent)

    return answer


class WebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, which does not listen to a client that does not read.

    Else the answers to its pings would pile up in memory. Whoever answers none is hung up on, and
    so is who sends a handshake that cannot be read.
    """

    # What came before the handshake was answered.
    _early = b""

    def data_received(self, data: bytes) -> None:
        """Take what the client sends, once its handshake is answered."""
        if self.handshake_initiated and not self.handshake_complete:
            self._early += data
            self.transport.pause_reading()
            return
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # The answer is there; without this it would be kept, and the connection with it.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    async def send(self, message: Any) -> None:
        """Send a message."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            # A refusal ends the handshake, too, and is no fault to be logged.
            self.handshake_complete = True
        if self._early and self.handshake_complete and not self.transport.is_closing():
            early, self._early = self._early, b""
            self.transport.resume_reading()
            self.data_received(early)

    def pause_writing(self) -> None:
        """Wait until the client has read what it was sent."""
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()

    async def receive(self) -> Any:
        """The next message."""
        await self.writable.wait()
        return await super().receive()

    def keepalive_timeout(self) -> None:
        """Close the connection, without waiting for the client to read what is left."""
        super().keepalive_timeout()
        self.transport.abort()
