"""Connections of clients who send what is no request, or take their time."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from graph.app import create_app
from graph.serve import allow_many_connections, listen
from graph.server import protocols
from graph.server.protocols import HTTPProtocol, WebSocketProtocol
from graph.settings import Settings
from tests import raw

BODY = b'{"query": "{ __typename }"}'
ANSWER = b'{"data":{"__typename":"Query"}}'
POST = b"POST /graphql HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = POST + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
OTHER = POST.replace(b"json", b"xml") + b"Content-Length: 100000\r\n\r\n"

# Longer than this no answer takes here.
PATIENCE = 20


class Line:
    """A connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def received(self) -> bytes:
        """All that comes until the server hangs up, however it does."""
        received = b""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                while piece := await self.reader.read(65536):
                    received += piece
        return received

    async def answers(self) -> list[tuple[int, bytes]]:
        """The statuses and bodies of all that is answered until the server hangs up."""
        received = await self.received()
        found = []
        while received:
            head, _, rest = received.partition(b"\r\n\r\n")
            (length,) = (
                int(line[16:])
                for line in head.split(b"\r\n")
                if line.startswith(b"content-length:")
            )
            found.append((int(head.split()[1]), rest[:length]))
            received = rest[length:]
        return found

    async def sends(self, piece: bytes, pause: float = 0.0) -> None:
        """Send this again and again, until the server hangs up."""
        async with asyncio.timeout(PATIENCE):
            while not self.reader.at_eof():
                self.writer.write(piece)
                try:
                    await self.writer.drain()
                except ConnectionError:
                    return
                await asyncio.sleep(pause)


class Server:
    """A server in this process."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._lines: list[Line] = []

    async def call(self, *sent: bytes) -> Line:
        """A new connection over which something is sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for piece in sent:
            writer.write(piece)
        self._lines.append(Line(reader, writer))
        return self._lines[-1]

    def hang_up(self) -> None:
        """Close all connections to it."""
        for line in self._lines:
            line.writer.close()

    async def is_well(self) -> bool:
        """Whether an operation is answered."""
        line = await self.call(WHOLE.replace(b"Host", b"Connection: close\r\nHost"))
        async with asyncio.timeout(PATIENCE):
            return await line.answers() == [(200, ANSWER)]


@asynccontextmanager
async def serving(
    app: ASGIApp, connection: type[HTTPProtocol] = HTTPProtocol
) -> AsyncIterator[Server]:
    """An application on a port of its own, in this process."""
    listening = listen(Settings(port=0))
    config = uvicorn.Config(
        app,
        http=connection,
        ws=WebSocketProtocol,
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    uvicorns = uvicorn.Server(config)
    task = asyncio.create_task(uvicorns._serve([listening]))
    server = Server(listening.getsockname()[1])
    try:
        yield server
    finally:
        server.hang_up()
        uvicorns.should_exit = True
        await task
        listening.close()


def nowhere() -> ASGIApp:
    """The application over a database that is not there."""
    return create_app(
        Settings(console=False, graphiql=False), "postgresql://nobody@127.0.0.1:1/nothing"
    )


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server whose database is not there; nobody asks for it."""
    async with serving(nowhere()) as server:
        yield server
        assert await server.is_well()


def told(answer: tuple[int, bytes]) -> tuple[int, str]:
    """The status and the code of an answer that is one error, as the API words it."""
    status, body = answer
    (error,) = orjson.loads(body)["errors"]
    return status, error["extensions"]["code"]


NO_HTTP = {
    "nothing known": b"\x00\x01\x02 what is this\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\n\r\n",
    "another protocol": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method in small letters": b"post" + WHOLE[4:],
    "a method that is none": b"BREW /graphql HTTP/1.1\r\n\r\n",
    "a long URL": b"GET /graphql?query=%s HTTP/1.1\r\n\r\n" % (b"a" * 66_000),
    "a folded header": POST + b"X-A: a\r\n b\r\n\r\n",
    "NUL in a header": POST + b"X-A: a\0b\r\n\r\n",
    "no carriage returns": WHOLE.replace(b"\r\n", b"\n"),
    "two lengths": POST + b"Content-Length: 26\r\nContent-Length: 5\r\n\r\n" + BODY,
    "a length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a negative length": POST + b"Content-Length: -5\r\n\r\n" + BODY,
    "a length of 400 digits": POST + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n",
    "a length over 64 bits": POST + b"Content-Length: 18446744073709551617\r\n\r\n",
}


@pytest.mark.parametrize("kind", NO_HTTP)
async def test_what_is_no_http_is_refused(server: Server, kind: str) -> None:
    line = await server.call(NO_HTTP[kind])

    (answer,) = await line.answers()

    assert told(answer) == (400, "BAD_REQUEST")


# A proxy may answer this by itself.
OF_THE_SERVER = {"an asterisk": (raw.get(b"*").replace(b"GET", b"OPTIONS"), [404, 200])}


class Bytewise(HTTPProtocol):
    """A connection over which every byte arrives by itself, but those in the middle of a lot."""

    def data_received(self, data: bytes) -> None:
        """Read the bytes one by one."""
        first, middle, last = data[:5000], data[5000:-5000], data[5000:][-5000:]
        for piece in (
            *(bytes([byte]) for byte in first),
            middle,
            *(bytes([byte]) for byte in last),
        ):
            protocol = self.transport.get_protocol()
            if protocol is not self:
                protocol.data_received(piece)
            elif piece and not self.transport.is_closing():
                super().data_received(piece)


@pytest.mark.parametrize("connection", [HTTPProtocol, Bytewise])
async def test_one_request_has_one_answer(connection: type[HTTPProtocol]) -> None:
    wrong = {}
    async with serving(nowhere(), connection) as server:
        for kind, (request, expected) in (raw.REQUESTS | OF_THE_SERVER).items():
            received = await (await server.call(request, raw.LAST)).received()
            is_last_answered = raw.LASTS in received
            if (
                raw.statuses(received) != expected
                or is_last_answered != (len(expected) > 1)
                or b"inner" in received
            ):
                wrong[kind] = received

    assert wrong == {}


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        (b"GET / HTTP/1.1\r\n", "The header `Host` is missing."),
        (raw.GET + b"Host: b\r\n", "The header `Host` comes more than once."),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n", "The host is not a name or an address, "),
        (b"GET * HTTP/1.1\r\nHost: a\r\n", "The target of a request is a path, or a URL "),
        (raw.POST + b"Transfer-Encoding: gzip, chunked\r\n", "The one `Transfer-Encoding` is "),
        (b"GET / HTTP/2.0\r\nHost: a\r\n", "This server speaks HTTP/1.1."),
    ],
)
async def test_a_head_that_is_refused_is_told_why(server: Server, head: bytes, fault: str) -> None:
    ((status, body),) = await (await server.call(head + b"\r\n")).answers()

    assert status == 400
    assert orjson.loads(body)["errors"][0]["message"].startswith(fault)


async def test_who_is_told_not_to_send_a_body_is_hung_up_on(server: Server) -> None:
    line = await server.call(OTHER.replace(b"Host", b"Expect: 100-continue\r\nHost"))
    head = await line.reader.readuntil(b"\r\n\r\n")
    line.writer.write(WHOLE)  # as if it were the next request, or the body
    rest = await line.received()

    assert b"\r\nconnection: close\r\n" in head
    assert told((int(head.split()[1]), rest)) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_the_host_of_an_absolute_target_is_that_of_the_request() -> None:
    scopes: list[Scope] = []

    async def seen(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scopes.append(scope)
            await Response()(scope, receive, send)

    async with serving(seen) as server:
        target = b"GET http://there:81/a?b HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
        await (await server.call(target)).received()

    ((path, query, headers),) = ((s["path"], s["query_string"], s["headers"]) for s in scopes)
    assert (path, query) == ("/a", b"b")
    assert headers == [(b"host", b"there:81"), (b"connection", b"close")]


@pytest.mark.parametrize("connection", [HTTPProtocol, Bytewise])
async def test_the_handshake_of_a_websocket_is_taken(
    connection: type[HTTPProtocol],
) -> None:
    handshake = raw.HANDSHAKE + b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
    message = b'{"type": "ping"}'
    frame = bytes([0x81, 0x80 + len(message), 0, 0, 0, 0]) + message
    async with serving(nowhere(), connection) as server:
        for before in (b"", raw.GET + b"\r\n"):
            line = await server.call()
            if before:
                line.writer.write(before)
                assert (await line.reader.readuntil(b"}}")).startswith(b"HTTP/1.1 200 ")
            line.writer.write(handshake + frame)
            async with asyncio.timeout(PATIENCE):
                head = await line.reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 101 ")
                assert b'{"type":"pong"}' in await line.reader.readuntil(b"}")


@pytest.mark.parametrize(
    "first",
    [b"", b"GET /", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX-A: ", b"GET / HTTP/1.1\r\nX-"],
)
async def test_a_head_that_does_not_end_is_refused(server: Server, first: bytes) -> None:
    line = await server.call(first)

    piece = b"\r\n" * 8_000 if first == b"" else b"a" * 16_000
    if first.endswith(b"1.1\r\n"):
        piece = b"X-A: b\r\n" * 2_000
    _, answers = await asyncio.gather(line.sends(piece), line.answers())

    # One that is still sending may have lost the answer.
    assert [told(answer) for answer in answers] in ([], [(431, "TOO_LARGE")])


async def test_a_head_may_have_so_many_bytes(server: Server) -> None:
    head = POST + b"Connection: close\r\n"
    padding = b"X-A: " + b"a" * (protocols.MOST_HEAD_BYTES - len(head) - 200) + b"\r\n"
    rest = b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)

    line = await server.call(head, padding, rest)

    assert await line.answers() == [(200, ANSWER)]


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (CHUNKED + b"1;", b"a" * 16_000),
        (CHUNKED + b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY), b"X-A: b\r\n" * 2_000),
        (CHUNKED + b"%x\r\n%s\r\n0\r\nX-A: " % (len(BODY), BODY), b"a" * 16_000),
    ],
    ids=["in a chunk's line", "in trailers", "in a trailer"],
)
async def test_what_goes_on_beside_a_body_is_hung_up_on(
    server: Server, first: bytes, piece: bytes
) -> None:
    line = await server.call(first)

    await line.sends(piece)


async def test_what_follows_a_body_is_no_header_of_the_request(server: Server) -> None:
    body = b"%x\r\n%s\r\n0\r\nX-Request-Id: mine\r\n\r\n" % (len(BODY), BODY)

    line = await server.call(CHUNKED.replace(b"Host", b"Connection: close\r\nHost") + body)
    received = await line.received()

    assert received.endswith(ANSWER)
    assert b"mine" not in received


async def test_who_says_nothing_is_hung_up_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "HEAD_TIMEOUT", 0.1)

    assert await (await server.call()).answers() == []


@pytest.mark.parametrize("before", [b"", WHOLE], ids=["at first", "after a request"])
async def test_a_head_has_to_arrive_in_time(
    server: Server, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr(protocols, "HEAD_TIMEOUT", 0.2)
    line = await server.call(before, b"GET / HTTP/1.1\r\n")

    _, answers = await asyncio.gather(line.sends(b"X-A: b\r\n", 0.03), line.answers())

    assert told(answers[-1]) == (408, "TIMEOUT")
    assert answers[:-1] == ([(200, ANSWER)] if before else [])


async def test_a_body_has_to_arrive_in_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "BODY_TIMEOUT", 0.2)
    line = await server.call(WHOLE, WHOLE.removesuffix(BODY) + BODY[:3])

    first, late = await line.answers()

    assert first == (200, ANSWER)
    assert told(late) == (408, "TIMEOUT")


async def test_a_body_that_nobody_waits_for_has_to_end(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "BODY_TIMEOUT", 0.2)
    line = await server.call(OTHER)

    _, answers = await asyncio.gather(line.sends(b" ", 0.03), line.answers())

    assert [told(answer) for answer in answers] == [(415, "UNSUPPORTED_MEDIA_TYPE")]


async def test_an_answer_comes_in_one_piece(server: Server) -> None:
    line = await server.call(WHOLE)

    async with asyncio.timeout(PATIENCE):
        piece = await line.reader.read(65536)

    assert piece.startswith(b"HTTP/1.1 200 ")
    assert piece.endswith(ANSWER)


async def test_a_request_may_follow_another_at_once(server: Server) -> None:
    last = WHOLE.replace(b"Host", b"Connection: close\r\nHost")

    line = await server.call(WHOLE * 50 + last)

    assert await line.answers() == [(200, ANSWER)] * 51


class Waiting:
    """An application that answers when it may, and sees who leaves."""

    def __init__(self) -> None:
        self.asked = 0
        self.began = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.asked += 1
            self.began.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            self.left.set()


ASKS = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_who_leaves_is_seen_to_leave_whatever_follows() -> None:
    app = Waiting()
    async with serving(app) as server:
        line = await server.call(ASKS * 2)
        async with asyncio.timeout(PATIENCE):
            await app.began.wait()
            line.writer.close()
            await app.left.wait()

    assert app.asked == 1


async def test_what_is_wrong_with_the_next_request_is_no_answer_to_one_before_it() -> None:
    async with serving(Waiting()) as server:
        line = await server.call(ASKS + CHUNKED + b"no number\r\n")

        assert await line.answers() == []


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux sees to that")
async def test_who_does_not_read_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.serve.READ_TIMEOUT", 1)
    size = 30_000_000
    async with serving(Response(bytes(size))) as server:
        line = await server.call(WHOLE)
        await asyncio.sleep(3)
        cut = await line.received()
        whole = await (await server.call(WHOLE)).reader.readexactly(size)

    assert 0 < len(cut) < size
    assert len(whole) == size


def test_as_many_files_may_be_open_as_the_system_lets() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        allow_many_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
