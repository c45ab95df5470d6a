"""Operations over WebSocket, by the protocol graphql-transport-ws.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, ParamSpec, TypeVar

import orjson
from graphql import OperationType
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response as HTTPResponse
from starlette.types import Receive, Scope, Send

from db.access import hash_token
from db.text import decimal_json
from graph.core.context import Context
from graph.core.errors import AGAIN, LimitExceeded, RequestError, Unauthenticated
from graph.execution.logs import LogEntry, request_id
from graph.execution.masking import masked, reported
from graph.execution.operations import Operations
from graph.execution.responses import Response
from graph.execution.run import GraphQLRequest, Run
from graph.execution.tokens import bearer_token
from graph.limits.limits import network
from graph.server.disconnects import Disconnect, stopping
from graph.server.requests import JSON, Gone, Refused, object_in, refuse_unusable, request_in
from graph.server.state import AppState
from graph.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

PROTOCOL = "graphql-transport-ws"
PORTS = {"http": 80, "https": 443}

# How long a client may take to say who it is, in seconds.
PATIENCE = 5
LONGEST_ID = 128
# A frame that closes has room for so many bytes of text.
LONGEST_REASON = 123

# How often the tokens of all open sockets are looked up, in seconds. A socket whose token was
# revoked has to be closed within one second.
LOOK = 0.5

# How long clients may take to be told that the server stops, in seconds.
TELLING = 1

RESTART, TRY_AGAIN_LATER = 1012, 1013
BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, LATE, TAKEN, TOO_MANY = 4400, 4401, 4403, 4408, 4409, 4429


class Closing(Exception):
    """The socket has to be closed, with this code and for this reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode()[:LONGEST_REASON].decode(errors="ignore")


class Sockets:
    """The open sockets of a process."""

    def __init__(self, settings: Settings, state: AppState) -> None:
        self.settings = settings
        self.is_ending = False
        self._state = state
        self._open: set[Socket] = set()
        self._watcher: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def check_room(self, network: Hashable) -> None:
        """Raise Refused where no further socket can be opened, or none from this address."""
        if self.is_ending:
            raise stopping()
        most, most_of_one = self.settings.max_sockets, self.settings.max_sockets_per_viewer
        if len(self) >= most:
            raise _full(f"{len(self)} WebSockets are open, and {most} may be (TROUPE_MAX_SOCKETS).")
        # Else whoever opens them without a word would keep everybody out.
        silent = sum(socket.client is None and socket.network == network for socket in self._open)
        if silent >= most_of_one:
            raise _full(
                f"{silent} WebSockets of your address have not said yet whose they are, and"
                f" {most_of_one} may at once (TROUPE_MAX_SOCKETS_PER_VIEWER)."
            )

    def check_room_of(self, client: Hashable) -> None:
        """Raise Closing where a client can open no further socket."""
        most = self.settings.max_sockets_per_viewer
        if sum(socket.client == client for socket in self._open) >= most:
            sentence = f"{most} WebSockets of yours are open (TROUPE_MAX_SOCKETS_PER_VIEWER)."
            raise Closing(TRY_AGAIN_LATER, sentence)

    @contextmanager
    def one_more(self, socket: Socket) -> Iterator[None]:
        """Count a socket, and look after it, for as long as the block lasts."""
        self._open.add(socket)
        if self._watcher is None:
            # Not in the context of the one socket that happens to be the first.
            empty = contextvars.Context()
            self._watcher = asyncio.create_task(self._watch(), context=empty)
        try:
            yield
        finally:
            self._open.discard(socket)

    async def _watch(self) -> None:
        try:
            while self._open:
                await asyncio.sleep(LOOK)
                await self._look()
        finally:
            self._watcher = None

    async def _look(self) -> None:
        """Close the sockets whose tokens open nothing any more, found by one statement."""
        sockets: defaultdict[str, list[Socket]] = defaultdict(list)
        for socket in self._open:
            if socket.token is not None:
                sockets[hash_token(socket.token)].append(socket)
        if not sockets:
            return
        try:
            found = await self._state.tokens.look_up(list(sockets))
        except Exception:
            # Who cannot be looked up stays; every operation and every event looks again, and is
            # refused where it cannot.
            return
        for hashed, bearing in sockets.items():
            for socket in bearing:
                if hashed in found:
                    socket.become(found[hashed])
                else:
                    socket.shut(_over())

    async def end(self, seconds: float) -> None:
        """Close every socket as soon as nothing is under way on it, and begin nothing new.

        What takes longer than so many seconds is cancelled.
        """
        self.is_ending = True
        endings = [asyncio.create_task(socket.finish(seconds)) for socket in self._open]
        if endings:
            await asyncio.wait(endings, timeout=seconds + TELLING)


def _full(sentence: str) -> Refused:
    return Refused(f"{sentence}{AGAIN}", 503, headers=[(b"retry-after", b"1")])


def _over() -> Closing:
    return Closing(FORBIDDEN, "Forbidden: the access token is unknown, has expired or was revoked.")


class SocketEndpoint:
    """`/graphql`: operations over WebSocket."""

    def __init__(self, operations: Operations, allowed_origins: Iterable[str]) -> None:
        self.operations = operations
        self.allowed_origins = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open a socket, unless it is refused, and answer what is asked over it."""
        connection = HTTPConnection(scope)
        sockets: Sockets = connection.app.state.sockets
        await receive()  # that there is a handshake
        try:
            self._check(scope, connection.headers)
            sockets.check_room(network(_address(connection)))
        except Refused as refusal:
            body = orjson.dumps(Response.refusal(refusal).body)
            response = HTTPResponse(body, refusal.status, media_type=JSON)
            response.raw_headers += refusal.headers
            await response(scope, receive, send)
            return
        socket = Socket(connection, sockets, self.operations, receive, send)
        with sockets.one_more(socket):
            await socket.serve()

    def _check(self, scope: Scope, headers: Headers) -> None:
        # No browser lets a page see why it was refused, but programs can, and people who look.
        if not self._is_allowed(headers.get("origin"), headers.get("host", "")):
            raise Refused("Pages of this origin may not connect (TROUPE_ALLOWED_ORIGINS).", 403)
        if PROTOCOL not in scope["subprotocols"]:
            raise Refused(f"Ask for the subprotocol {PROTOCOL} (Sec-WebSocket-Protocol).")

    def _is_allowed(self, origin: str | None, host: str) -> bool:
        """Whether it is a program, or a page of this server's or of an allowed site."""
        if origin is None or not self.allowed_origins.isdisjoint(("*", origin)):
            return True
        scheme, _, place = origin.partition("://")
        return bool(place) and host.lower() in (place, f"{place}:{PORTS.get(scheme)}")


class Ongoing:
    """An operation that is open on a socket."""

    task: asyncio.Task[None]

    def __init__(self, id: str, request: GraphQLRequest, request_id: str, state: AppState) -> None:
        self.id = id
        self.request = request
        self.request_id = request_id
        self.disconnect = Disconnect(state)
        self.is_left = False
        self.is_stream = False

    def leave(self) -> None:
        """Answer nothing any more, and stop unless it is a mutation."""
        self.is_left = True
        self.disconnect.leave()


class Socket:
    """One connection: whose it is, and what is asked over it."""

    client: Hashable = None
    """The client whose limits it counts for, once that is known."""

    def __init__(
        self,
        connection: HTTPConnection,
        sockets: Sockets,
        operations: Operations,
        receive: Receive,
        send: Send,
    ) -> None:
        self.token = bearer_token(connection.headers.get("authorization"))
        self.running: set[Ongoing] = set()
        self._address = _address(connection)
        self.network = network(self._address)
        self._state = connection.app.state
        self._sockets = sockets
        self._operations = operations
        self._receive = receive
        self._transmit = send
        self._sending = asyncio.Lock()
        self._by_id: dict[str, Ongoing] = {}
        self._count = 0
        self._is_closed = False
        self._shutting: asyncio.Task[None] | None = None
        self._patience = asyncio.get_running_loop().time() + PATIENCE

    async def serve(self) -> None:
        """Take messages, one after the other, until the socket is closed."""
        try:
            await self._transmit({"type": "websocket.accept", "subprotocol": PROTOCOL})
            while not self._is_closed:
                await self._handle(await self._message())
        except Gone:
            pass
        except Closing as closing:
            await self._close(closing)
        except Exception as fault:
            await self._close(Closing(1011, masked(fault).message))
        finally:
            self._is_closed = True
            for operation in self.running:
                operation.leave()
            if self.running:  # mutations
                await asyncio.wait([operation.task for operation in self.running])

    def become(self, viewer: Any) -> None:
        """Go on as the viewer whom the token names now."""
        for operation in self.running:
            if operation.is_stream and operation.disconnect.run is not None:
                operation.disconnect.run.context.become(viewer)

    def shut(self, closing: Closing) -> asyncio.Task[None]:
        """Have it closed, whatever it is doing."""
        if self._shutting is None:
            self._shutting = asyncio.create_task(self._close(closing))
        return self._shutting

    async def finish(self, seconds: float) -> None:
        """Close it after what is under way; streams have no end, and are not waited for."""
        tasks = [operation.task for operation in self.running if not operation.is_stream]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=TELLING)
        await asyncio.wait([self.shut(Closing(RESTART, "Service Restart"))], timeout=TELLING)

    async def _close(self, closing: Closing) -> None:
        for operation in self.running:
            operation.leave()
        message = {"type": "websocket.close", "code": closing.code, "reason": closing.reason}
        async with self._sending:
            await self._try_to_send(message)
            self._is_closed = True

    # Messages

    async def _message(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout_at(self._patience if self.client is None else None):
                message = await self._receive()
        except TimeoutError:
            raise Closing(LATE, "Connection initialisation timeout") from None
        if message["type"] == "websocket.disconnect":
            raise Gone
        text = message.get("text")
        if text is None:
            raise Closing(BAD_REQUEST, "Send text, not binary data.")
        read: dict[str, Any] = _understood(object_in, "The message", text.encode())
        # Of what is in an operation it is told by its answer.
        is_asking = read.get("type") == "subscribe"
        rest = {name: value for name, value in read.items() if not is_asking or name != "payload"}
        _understood(refuse_unusable, "The message", rest)
        return read

    async def _handle(self, message: dict[str, Any]) -> None:
        payload = message.get("payload")
        if not isinstance(payload, dict | None):
            raise Closing(BAD_REQUEST, "`payload` is an object.")
        match message.get("type"):
            case "connection_init":
                await self._begin(payload or {})
            case "ping":
                await self._send({"type": "pong"} | ({"payload": payload} if payload else {}))
            case "pong":
                pass
            case "subscribe":
                await self._subscribe(_id(message), payload or {})
            case "complete":
                operation = self._by_id.pop(_id(message), None)
                if operation is not None:
                    operation.leave()
            case _:
                kinds = "connection_init, ping, pong, subscribe or complete"
                raise Closing(BAD_REQUEST, f"`type` is {kinds}.")

    async def _begin(self, payload: Mapping[str, Any]) -> None:
        if self.client is not None:
            raise Closing(TOO_MANY, "Too many initialisation requests")
        for name, value in payload.items():
            if name.lower() == "authorization":
                if not isinstance(value, str):
                    raise Closing(BAD_REQUEST, "`Authorization` is a string: Bearer <token>.")
                self.token = bearer_token(value)
        context = await self._context()
        if isinstance(context.refusal, Unauthenticated):
            raise _over()
        self._sockets.check_room_of(context.client)
        self.client = context.client
        await self._send({"type": "connection_ack"})

    async def _context(self) -> Context:
        return await self._operations.context(self._state.tokens, self.token, self._address)

    # Operations

    async def _subscribe(self, id: str, payload: dict[str, Any]) -> None:
        if self.client is None:
            raise Closing(UNAUTHORIZED, "Unauthorized: wait for connection_ack.")
        if id in self._by_id:
            raise Closing(TAKEN, f"Subscriber for {id} already exists")
        request = _understood(request_in, payload)
        self._count += 1
        operation = Ongoing(id, request, f"{request_id.get()}-{self._count}", self._state)
        found, most = len(self.running) + 1, self._sockets.settings.max_subscriptions_per_connection
        if self._sockets.is_ending:
            await self._run(operation, stopping())
        elif found > most:
            what, setting = "operations open on this connection", "max_subscriptions_per_connection"
            await self._run(operation, LimitExceeded(what, setting, found, most))
        else:
            self._by_id[id] = operation
            self.running.add(operation)
            operation.task = asyncio.create_task(self._run(operation))

    async def _run(self, operation: Ongoing, refusal: RequestError | None = None) -> None:
        """Answer an operation, and write into the log what it was."""
        previous = request_id.set(operation.request_id)
        try:
            with LogEntry("websocket") as entry:
                entry.request = operation.request
                try:
                    if refusal is not None:
                        raise refusal
                    await self._respond(operation, entry)
                except Gone:
                    pass
                except Exception as error:
                    await self._end(operation, entry, Response.refusal(reported(error)))
        finally:
            self.running.discard(operation)
            self._forget(operation)
            request_id.reset(previous)

    async def _respond(self, operation: Ongoing, entry: LogEntry) -> None:
        with operation.disconnect as disconnect:
            context = await self._context()
            run = disconnect.run = entry.run = self._operations.begin(operation.request, context)
            if run.kind is OperationType.SUBSCRIPTION:
                operation.is_stream = True
                await self._stream(operation, run, entry)
            else:
                await self._end(operation, entry, Response(await self._operations.answer(run)))

    async def _stream(self, operation: Ongoing, run: Run, entry: LogEntry) -> None:
        """Send a response for each event as it comes."""
        entry.status = 200  # it is for its client to leave
        stream = self._operations.stream(run, self._state.tokens, self.token)
        async with aclosing(stream) as responses:
            try:
                async for response in responses:
                    if response.is_refused:
                        await self._end(operation, entry, response)
                        return
                    entry.codes = response.codes
                    await self._send(_next(operation, response), operation)
            except Unauthenticated:
                self.shut(_over())
                raise Gone from None
        self._forget(operation)
        await self._send({"id": operation.id, "type": "complete"}, operation)

    async def _end(self, operation: Ongoing, entry: LogEntry, response: Response) -> None:
        """Send the only answer, or the last one."""
        entry.status, entry.codes = response.status, response.codes
        self._forget(operation)
        if response.is_refused:
            error = {"id": operation.id, "type": "error", "payload": response.body["errors"]}
            await self._send(error, operation)
        else:
            await self._send(_next(operation, response), operation)
            await self._send({"id": operation.id, "type": "complete"}, operation)

    def _forget(self, operation: Ongoing) -> None:
        # Before its client is told of the end, and may use the id again.
        if self._by_id.get(operation.id) is operation:
            del self._by_id[operation.id]

    # Sending

    async def _send(self, message: dict[str, Any], operation: Ongoing | None = None) -> None:
        # JSON as PostgreSQL writes it is passed on untouched.
        text = orjson.dumps(message, default=decimal_json).decode()
        # One after the other: what a client does not read is not piled up for it.
        async with self._sending:
            if not self._is_closed and not (operation and operation.is_left):
                await self._try_to_send({"type": "websocket.send", "text": text})

    async def _try_to_send(self, message: dict[str, Any]) -> None:
        try:
            await self._transmit(message)
        except (OSError, RuntimeError):
            # The connection broke, or the server has closed it: receiving tells so as well.
            self._is_closed = True


def _address(connection: HTTPConnection) -> str | None:
    return connection.client.host if connection.client else None


def _next(operation: Ongoing, response: Response) -> dict[str, Any]:
    return {"id": operation.id, "type": "next", "payload": response.body}


def _id(message: Mapping[str, Any]) -> str:
    id = message.get("id")
    if not isinstance(id, str) or not 0 < len(id) <= LONGEST_ID:
        raise Closing(BAD_REQUEST, f"`id` is a string of 1 to {LONGEST_ID} characters.")
    return id


def _understood(read: Callable[P, T], *given: P.args, **options: P.kwargs) -> T:
    """What a function reads out of a message."""
    try:
        return read(*given, **options)
    except Refused as refusal:
        raise Closing(BAD_REQUEST, refusal.message) from None
