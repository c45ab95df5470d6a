"""Operations over WebSocket, by the protocol graphql-transport-ws.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import orjson
from graphql import GraphQLError
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from strawberry.schema.exceptions import InvalidOperationTypeError
from strawberry.types.graphql import OperationType

from db.access import hash_token
from db.text import decimal_json
from graph.core.context import Context
from graph.core.errors import AGAIN, LimitExceeded, Unauthenticated, masked, of_the_database
from graph.execution.logs import request_id
from graph.execution.operations import Entry, Operations, Told, refused
from graph.execution.tokens import bearer_token
from graph.limits.guard import asker_of, guard_of, network
from graph.server.disconnects import Departure, stopping
from graph.server.requests import JSON, Asked, Gone, Refused, asked_in, object_in, refuse_unusable
from graph.settings import Settings

if TYPE_CHECKING:
    from graph.server.state import State

P = ParamSpec("P")
T = TypeVar("T")

PROTOCOL = "graphql-transport-ws"
SINGLE = {OperationType.QUERY, OperationType.MUTATION}
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

    def __init__(self, settings: Settings, state: State) -> None:
        self.settings = settings
        self.is_ending = False
        self._state = state
        self._open: set[Socket] = set()
        self._watcher: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def check_room(self, place: Hashable) -> None:
        """Raise Refused where no further socket can be opened, or none from this address."""
        if self.is_ending:
            raise stopping()
        most, most_of_one = self.settings.max_sockets, self.settings.max_sockets_per_viewer
        if len(self) >= most:
            raise _full(f"{len(self)} WebSockets are open, and {most} may be (TROUPE_MAX_SOCKETS).")
        # Else whoever opens them without a word would keep everybody out.
        silent = sum(socket.asker is None and socket.place == place for socket in self._open)
        if silent >= most_of_one:
            raise _full(
                f"{silent} WebSockets of your address have not said yet whose they are, and"
                f" {most_of_one} may at once (TROUPE_MAX_SOCKETS_PER_VIEWER)."
            )

    def check_room_of(self, asker: Hashable) -> None:
        """Raise Closing where somebody can open no further socket."""
        most = self.settings.max_sockets_per_viewer
        if sum(socket.asker == asker for socket in self._open) >= most:
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
            body = orjson.dumps(Told(refused(refusal)).body)
            response = Response(body, refusal.status, media_type=JSON)
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

    def __init__(self, id: str, asked: Asked, request: str, state: State) -> None:
        self.id = id
        self.asked = asked
        self.request = request
        self.departure = Departure(state)
        self.is_left = False
        self.is_stream = False

    def leave(self) -> None:
        """Answer nothing any more, and stop unless it is a mutation."""
        self.is_left = True
        self.departure.leave()


class Socket:
    """One connection: whose it is, and what is asked over it."""

    asker: Hashable = None
    """For whom it counts, once that is known."""

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
        self.place = network(self._address)
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
            if operation.is_stream and operation.departure.context is not None:
                operation.departure.context.become(viewer)

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
            async with asyncio.timeout_at(self._patience if self.asker is None else None):
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
        if self.asker is not None:
            raise Closing(TOO_MANY, "Too many initialisation requests")
        for name, value in payload.items():
            if name.lower() == "authorization":
                if not isinstance(value, str):
                    raise Closing(BAD_REQUEST, "`Authorization` is a string: Bearer <token>.")
                self.token = bearer_token(value)
        context = await self._context()
        if isinstance(context.refusal, Unauthenticated):
            raise _over()
        asker = asker_of(context)
        self._sockets.check_room_of(asker)
        self.asker = asker
        await self._send({"type": "connection_ack"})

    async def _context(self) -> Context:
        return await self._operations.context(self._state, self.token, self._address)

    # Operations

    async def _subscribe(self, id: str, payload: dict[str, Any]) -> None:
        if self.asker is None:
            raise Closing(UNAUTHORIZED, "Unauthorized: wait for connection_ack.")
        if id in self._by_id:
            raise Closing(TAKEN, f"Subscriber for {id} already exists")
        asked = _understood(asked_in, payload, may_change=True)
        self._count += 1
        operation = Ongoing(id, asked, f"{request_id.get()}-{self._count}", self._state)
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

    async def _run(self, operation: Ongoing, refusal: GraphQLError | None = None) -> None:
        """Answer an operation, and write into the log what it was."""
        previous = request_id.set(operation.request)
        try:
            with Entry("websocket") as entry:
                entry.asked = operation.asked
                try:
                    if refusal is not None:
                        raise refusal
                    await self._answer(operation, entry)
                except Gone:
                    pass
                except GraphQLError as error:
                    await self._end(operation, entry, Told(refused(error)))
                except Exception as fault:
                    told = of_the_database(fault) or masked(fault)
                    await self._end(operation, entry, Told(refused(told)))
        finally:
            self.running.discard(operation)
            self._forget(operation)
            request_id.reset(previous)

    async def _answer(self, operation: Ongoing, entry: Entry) -> None:
        with operation.departure as departure:
            context = departure.context = entry.context = await self._context()
            try:
                result = await self._operations.answer(operation.asked, context, SINGLE)
            except InvalidOperationTypeError:
                operation.is_stream = True
                await self._stream(operation, context, entry)
            else:
                await self._end(operation, entry, Told(result))

    async def _stream(self, operation: Ongoing, context: Context, entry: Entry) -> None:
        """Answer each event as it comes."""
        entry.status = 200  # it is for its client to leave
        async with aclosing(await self._operations.stream(operation.asked, context)) as results:
            async for result in results:
                outcome = Told(result)
                if outcome.is_refused:
                    await self._end(operation, entry, outcome)
                    return
                await self._look_again(context)
                guard_of(context).rates.use(asker_of(context), context.cost)
                entry.codes = outcome.codes
                await self._send(_next(operation, outcome), operation)
        self._forget(operation)
        await self._send({"id": operation.id, "type": "complete"}, operation)

    async def _look_again(self, context: Context) -> None:
        """See that an event still is for the one who gets it."""
        if self.token is None:
            return
        try:
            context.become(await self._state.tokens.viewer(self.token))
        except Unauthenticated:
            self.shut(_over())
            raise Gone from None

    async def _end(self, operation: Ongoing, entry: Entry, outcome: Told) -> None:
        """Send the only answer, or the last one."""
        entry.status, entry.codes = outcome.status, outcome.codes
        self._forget(operation)
        if outcome.is_refused:
            error = {"id": operation.id, "type": "error", "payload": outcome.body["errors"]}
            await self._send(error, operation)
        else:
            await self._send(_next(operation, outcome), operation)
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


def _next(operation: Ongoing, outcome: Told) -> dict[str, Any]:
    return {"id": operation.id, "type": "next", "payload": outcome.body}


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
