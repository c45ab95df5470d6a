"""`/graphql` over WebSocket, by the protocol graphql-transport-ws.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Hashable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from db import Viewer
from db.events.topics import Place
from db.text import decimal_json
from graph.core.context import Context
from graph.core.errors import AGAIN, LimitExceeded, RequestError, Unauthenticated
from graph.execution.logs import LogEntry, log_refusal, request_id
from graph.execution.masking import masked, reported
from graph.execution.pipeline import Pipeline
from graph.execution.responses import Response
from graph.execution.run import GraphQLRequest, Run
from graph.execution.subscription import SlowClient
from graph.execution.subscriptions import Subscriptions
from graph.execution.tokens import Watch, bearer_token
from graph.limits.concurrency import ClientCounts
from graph.limits.limits import network
from graph.server.disconnects import Disconnect, finish, shutdown_error
from graph.server.protocols import FRAMES
from graph.server.requests import HTTPError, check_storable, parse_object, parse_request
from graph.server.sinks import Frames, FrameSink, QueueSink
from graph.server.state import AppState

PROTOCOL = "graphql-transport-ws"

# The timeout of `connection_init`, in seconds.
INIT_TIMEOUT = 5
LONGEST_ID = 128
# The maximum length of the reason in a close frame, in bytes.
LONGEST_REASON = 123

# The timeout of sending close frames at shutdown, in seconds.
CLOSE_TIMEOUT = 1

# The errors for which a subscription that cannot begin is tried again, and the limits of the random
# pause before that, in seconds.
RETRIED = {"OVERLOADED", "UNAVAILABLE"}
RETRY_SECONDS = (0.5, 2)
SLOW = "You read too slowly. Connect again, with the cursor of your last message."

# What sending raises when the connection is closed, which receiving reports too.
CLOSED = (WebSocketDisconnect, RuntimeError)

# Close codes of WebSocket, and of the protocol.
SERVICE_RESTART, TRY_AGAIN_LATER = 1012, 1013
BAD_REQUEST, UNAUTHORIZED, FORBIDDEN = 4400, 4401, 4403
INIT_TIMED_OUT, ID_IN_USE, TOO_MANY_INITS = 4408, 4409, 4429
INTERNAL_ERROR = 1011
# Their names in the log.
CODES = {
    INTERNAL_ERROR: "FAULT",
    TRY_AGAIN_LATER: "OVERLOADED",
    BAD_REQUEST: "BAD_REQUEST",
    UNAUTHORIZED: "UNAUTHENTICATED",
    FORBIDDEN: "UNAUTHENTICATED",
    INIT_TIMED_OUT: "TIMEOUT",
    ID_IN_USE: "CONFLICT",
    TOO_MANY_INITS: "BAD_REQUEST",
}


class CloseSocket(Exception):
    """The socket is to be closed with this code and reason."""

    def __init__(self, code: int, reason: str, limit: str | None = None) -> None:
        """`limit` is the setting of the limit that is the reason."""
        super().__init__(reason)
        self.code = code
        self.limits = [] if limit is None else [limit]
        self.reason = reason.encode()[:LONGEST_REASON].decode(errors="ignore")


class Sockets:
    """The ASGI application of `/graphql` over WebSocket, with the open sockets of the process."""

    def __init__(self, pipeline: Pipeline, subscriptions: Subscriptions, state: AppState) -> None:
        self.pipeline = pipeline
        self.subscriptions = subscriptions
        self.settings = pipeline.limits.settings
        self.state = state
        self.is_shutting_down = False
        self._open: set[Socket] = set()
        self._by_client = ClientCounts()
        """Those of each client, and of each network that have not said whose they are."""

    def __len__(self) -> int:
        return len(self._open)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the handshake, and serve the socket until it is closed."""
        websocket = WebSocket(scope, receive, send)
        socket = Socket(websocket, self)
        try:
            self._check_handshake(websocket, socket)
        except HTTPError as error:
            refusal = Response.refusal(error)
            log_refusal("websocket", error.status, refusal.codes, refusal.limits)
            response = JSONResponse(refusal.body, error.status)
            response.raw_headers += error.headers
            await websocket.send_denial_response(response)
            return
        self._open.add(socket)
        self._by_client.add(socket.counts_for)
        try:
            await socket.serve()
        finally:
            self._open.discard(socket)
            self._by_client.remove(socket.counts_for)

    def _check_handshake(self, websocket: WebSocket, socket: Socket) -> None:
        headers = websocket.headers
        origin, host = headers.get("origin"), headers.get("host", "")
        if not self.state.origins.allows_handshake(origin, host):
            raise HTTPError("Pages of this origin may not connect (TROUPE_ALLOWED_ORIGINS).", 403)
        if PROTOCOL not in websocket.scope["subprotocols"]:
            raise HTTPError(f"Ask for the subprotocol {PROTOCOL} (Sec-WebSocket-Protocol).")
        if self.is_shutting_down:
            raise shutdown_error()
        most, most_per_client = self.settings.max_sockets, self.settings.max_sockets_per_viewer
        if len(self) >= most:
            raise _full(
                f"{len(self)} WebSockets are open, and {most} may be (TROUPE_MAX_SOCKETS).",
                "max_sockets",
            )
        # Without this limit, sockets that never send `connection_init` could take all places.
        anonymous = self._by_client[socket.counts_for]
        if anonymous >= most_per_client:
            raise _full(
                f"{anonymous} WebSockets of your address have not said yet whose they are, and"
                f" {most_per_client} may at once (TROUPE_MAX_SOCKETS_PER_VIEWER).",
                "max_sockets_per_viewer",
            )

    def set_client(self, socket: Socket, client: Hashable) -> None:
        """Count a socket for its client. Raises CloseSocket if they have too many open ones."""
        most = self.settings.max_sockets_per_viewer
        if self._by_client[client] >= most:
            sentence = f"{most} WebSockets of yours are open (TROUPE_MAX_SOCKETS_PER_VIEWER)."
            raise CloseSocket(TRY_AGAIN_LATER, sentence, "max_sockets_per_viewer")
        self._by_client.remove(socket.counts_for)
        socket.client = client
        self._by_client.add(socket.counts_for)

    async def shut_down(self, seconds: float) -> None:
        """Refuse new operations, and close every socket once its operations have ended.

        Operations that take longer than this number of seconds are cancelled.
        """
        self.is_shutting_down = True
        tasks = [asyncio.create_task(socket.shut_down(seconds)) for socket in self._open]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds + CLOSE_TIMEOUT)


def _full(sentence: str, limit: str) -> HTTPError:
    return HTTPError(f"{sentence}{AGAIN}", 503, headers=[(b"retry-after", b"1")], limit=limit)


def _invalid_token() -> CloseSocket:
    reason = "Forbidden: the access token is unknown, has expired or was revoked."
    return CloseSocket(FORBIDDEN, reason)


@dataclass(eq=False)
class SocketOperation:
    """An operation on a socket that has not ended."""

    id: str
    request: GraphQLRequest
    request_id: str
    disconnect: Disconnect
    is_cancelled: bool = False
    is_subscription: bool = False
    sink: FrameSink | QueueSink | None = None
    """What its messages are sent over, if it is a subscription."""
    task: asyncio.Task[None] = field(init=False)

    def cancel(self) -> None:
        """Send no more messages of it, and cancel it unless it is a mutation."""
        self.is_cancelled = True
        if self.sink is not None:
            self.sink.close()
        self.disconnect.client_disconnected()


class Socket:
    """One WebSocket, with its client and its operations."""

    client: Hashable = None
    """The client that its operations count for, after `connection_init`."""

    def __init__(self, websocket: WebSocket, sockets: Sockets) -> None:
        self.token = bearer_token(websocket.headers.get("authorization"))
        self._traceparent = websocket.headers.get("traceparent")
        self.operations: set[SocketOperation] = set()
        self._address = websocket.client.host if websocket.client else None
        self._sockets = sockets
        self._websocket = websocket
        self._frames: Frames | None = websocket.scope.get("extensions", {}).get(FRAMES)
        self._watching = ExitStack()
        self._watch: Watch | None = None
        self._sending = asyncio.Lock()
        self._by_id: dict[str, SocketOperation] = {}
        self._count = 0
        self._closing: asyncio.Task[None] | None = None
        self._init_deadline = asyncio.get_running_loop().time() + INIT_TIMEOUT

    @property
    def counts_for(self) -> Hashable:
        """The client that the socket counts for: a network, until it says whose it is."""
        return ("unknown", network(self._address)) if self.client is None else self.client

    async def serve(self) -> None:
        """Accept the socket, and handle its messages in order until it is closed."""
        try:
            await self._websocket.accept(PROTOCOL)
            while self._websocket.application_state is WebSocketState.CONNECTED:
                await self._handle(await self._receive())
        except ClientDisconnect:
            pass
        except CloseSocket as closing:
            await self._close(closing)
        except HTTPError as error:  # of a malformed message
            await self._close(CloseSocket(BAD_REQUEST, error.message))
        except Exception as error:
            await self._close(CloseSocket(INTERNAL_ERROR, masked(error).message))
        finally:
            self._watching.close()
            for operation in self.operations:
                operation.cancel()
            if self.operations:  # mutations
                await asyncio.wait([operation.task for operation in self.operations])

    def _check_viewer(self, viewer: Viewer | None) -> None:
        """Close it if its token is no longer valid."""
        if viewer is None:
            self.start_closing(_invalid_token())

    def _close_now(self, closing: CloseSocket) -> None:
        """Close it, even if the client does not read."""
        if self._frames is None:
            self.start_closing(closing)
        else:
            self._frames.close_now(closing.code, closing.reason)

    def start_closing(self, closing: CloseSocket) -> asyncio.Task[None]:
        """Close it in a task."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(closing))
        return self._closing

    async def shut_down(self, seconds: float) -> None:
        """Close it after its queries and mutations, but without waiting for subscriptions."""
        await finish((each.task for each in self.operations if not each.is_subscription), seconds)
        closing = self.start_closing(CloseSocket(SERVICE_RESTART, "Service Restart"))
        await asyncio.wait([closing], timeout=CLOSE_TIMEOUT)

    async def _close(self, closing: CloseSocket) -> None:
        if closing.code != SERVICE_RESTART:
            log_refusal("websocket", closing.code, [CODES[closing.code]], closing.limits)
        for operation in self.operations:
            operation.cancel()
        async with self._sending:
            with suppress(*CLOSED):
                await self._websocket.close(closing.code, closing.reason)

    # Messages

    async def _receive(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout_at(self._init_deadline if self.client is None else None):
                received = await self._websocket.receive()
        except TimeoutError:
            raise CloseSocket(INIT_TIMED_OUT, "Connection initialisation timeout") from None
        if received["type"] == "websocket.disconnect":
            raise ClientDisconnect
        text = received.get("text")
        if text is None:
            raise CloseSocket(BAD_REQUEST, "Send text, not binary data.")
        message = parse_object("The message", text.encode())
        # Errors in an operation are reported in its response.
        has_operation = message.get("type") == "subscribe"
        check_storable("The message", message | {"payload": None} if has_operation else message)
        return message

    async def _handle(self, message: dict[str, Any]) -> None:
        payload = message.get("payload")
        if not isinstance(payload, dict | None):
            raise CloseSocket(BAD_REQUEST, "`payload` is an object.")
        match message.get("type"):
            case "connection_init":
                await self._initialize(payload or {})
            case "ping":
                await self._send({"type": "pong"} | ({"payload": payload} if payload else {}))
            case "pong":
                pass
            case "subscribe":
                await self._subscribe(_id(message), payload or {})
            case "complete":
                operation = self._by_id.pop(_id(message), None)
                if operation is not None:
                    operation.cancel()
            case _:
                kinds = "connection_init, ping, pong, subscribe or complete"
                raise CloseSocket(BAD_REQUEST, f"`type` is {kinds}.")

    async def _initialize(self, payload: Mapping[str, Any]) -> None:
        if self.client is not None:
            raise CloseSocket(TOO_MANY_INITS, "Too many initialisation requests")
        for name, value in payload.items():
            if name.lower() == "authorization":
                if not isinstance(value, str):
                    raise CloseSocket(BAD_REQUEST, "`Authorization` is a string: Bearer <token>.")
                self.token = bearer_token(value)
        self._traceparent = _trace_of(payload, self._traceparent)
        context = await self._context()
        if isinstance(context.refusal, Unauthenticated):
            raise _invalid_token()
        self._sockets.set_client(self, context.client)
        tokens = self._sockets.state.tokens
        self._watch = self._watching.enter_context(tokens.watched(self.token))
        self._watching.enter_context(self._watch.telling(self._check_viewer))
        await self._send({"type": "connection_ack"})

    async def _context(self) -> Context:
        tokens = self._sockets.state.tokens
        return await self._sockets.pipeline.context(tokens, self.token, self._address)

    # Operations

    async def _subscribe(self, id: str, payload: dict[str, Any]) -> None:
        if self.client is None:
            raise CloseSocket(UNAUTHORIZED, "Unauthorized: wait for connection_ack.")
        if id in self._by_id:
            raise CloseSocket(ID_IN_USE, f"Subscriber for {id} already exists")
        request, sockets = parse_request(payload), self._sockets
        self._count += 1
        disconnect = Disconnect(sockets.state)
        operation = SocketOperation(id, request, f"{request_id.get()}-{self._count}", disconnect)
        setting = "max_subscriptions_per_connection"
        found, most = len(self.operations) + 1, sockets.settings.max_subscriptions_per_connection
        if sockets.is_shutting_down:
            await self._run(operation, shutdown_error())
        elif found > most:
            what = "operations open on this connection"
            await self._run(operation, LimitExceeded(what, setting, found, most))
        else:
            self._by_id[id] = operation
            self.operations.add(operation)
            operation.task = asyncio.create_task(self._run(operation))

    async def _run(self, operation: SocketOperation, refusal: RequestError | None = None) -> None:
        """Answer an operation, and log it."""
        previous = request_id.set(operation.request_id)
        try:
            extensions = operation.request.extensions or {}
            with LogEntry("websocket", _trace_of(extensions, self._traceparent)) as entry:
                entry.request = operation.request
                try:
                    if refusal is not None:
                        raise refusal
                    await self._respond(operation, entry)
                except ClientDisconnect:
                    pass
                except Unauthenticated:  # the token of a subscription is no longer valid
                    self.start_closing(_invalid_token())
                except SlowClient:
                    self._close_now(CloseSocket(TRY_AGAIN_LATER, SLOW))
                except CloseSocket as closing:
                    self.start_closing(closing)
                except Exception as error:
                    await self._end(operation, entry, Response.refusal(reported(error)))
        finally:
            self.operations.discard(operation)
            self._release_id(operation)
            request_id.reset(previous)

    async def _respond(self, operation: SocketOperation, entry: LogEntry) -> None:
        with operation.disconnect:
            response = await self._answer(operation, entry)
            while operation.is_subscription and RETRIED.intersection(response.codes):
                if self.operations == {operation}:
                    raise CloseSocket(TRY_AGAIN_LATER, response.errors[0].message)
                # Closing the socket would end other operations.
                await asyncio.sleep(random.uniform(*RETRY_SECONDS))
                response = await self._answer(operation, entry)
            await self._end(operation, entry, response)

    async def _answer(self, operation: SocketOperation, entry: LogEntry) -> Response:
        """The response to an operation; of a subscription, the one after its messages."""
        pipeline, context = self._sockets.pipeline, await self._context()
        run = operation.disconnect.run = entry.run = pipeline.begin(operation.request, context)
        operation.is_subscription = run.is_subscription
        if not operation.is_subscription:
            return await pipeline.answer(run)
        if self._sockets.is_shutting_down:  # the client subscribes again when the socket is closed
            raise ClientDisconnect
        return await self._stream(operation, run, entry)

    async def _stream(self, operation: SocketOperation, run: Run, entry: LogEntry) -> Response:
        """Send the messages of a subscription until it ends; the response is the error."""
        entry.status = 200  # also if the client ends it
        sink = operation.sink = self._sink(operation)
        try:
            assert self._watch is not None
            return await self._sockets.subscriptions.serve(run, sink, self._watch)
        finally:
            sink.close()

    def _sink(self, operation: SocketOperation) -> FrameSink | QueueSink:
        before, after = b'{"id":%b,"type":"next","payload":' % orjson.dumps(operation.id), b"}"
        if self._frames is not None:
            return FrameSink(self._frames, before, after)

        async def send(body: bytes, place: Place) -> None:
            await self._send_text((before + body + after).decode(), operation)

        return QueueSink(send, lambda: 0)  # the server of this application does not say

    async def _end(self, operation: SocketOperation, entry: LogEntry, response: Response) -> None:
        """Send the only or the last response."""
        entry.answer(response)
        self._release_id(operation)
        if response.is_refused:
            error = {"id": operation.id, "type": "error", "payload": response.body["errors"]}
            await self._send(error, operation)
        else:
            await self._send(_next(operation, response), operation)
            await self._send({"id": operation.id, "type": "complete"}, operation)

    def _release_id(self, operation: SocketOperation) -> None:
        # Before the last message, after which the client may use the id again.
        if self._by_id.get(operation.id) is operation:
            del self._by_id[operation.id]

    # Sending

    async def _send(
        self, message: dict[str, Any], operation: SocketOperation | None = None
    ) -> None:
        # The JSON of PostgreSQL is a fragment of the message.
        await self._send_text(orjson.dumps(message, default=decimal_json).decode(), operation)

    async def _send_text(self, text: str, operation: SocketOperation | None = None) -> None:
        # One message at a time, so that messages for a slow client do not fill the memory.
        async with self._sending:
            if not (operation and operation.is_cancelled):
                with suppress(*CLOSED):
                    await self._websocket.send_text(text)


def _next(operation: SocketOperation, response: Response) -> dict[str, Any]:
    return {"id": operation.id, "type": "next", "payload": response.body}


def _trace_of(named: Mapping[str, Any], otherwise: str | None) -> str | None:
    """The place in a trace that a client names. One that is no text is ignored, as a wrong one."""
    value = named.get("traceparent")
    return value if isinstance(value, str) else otherwise


def _id(message: Mapping[str, Any]) -> str:
    id = message.get("id")
    if not isinstance(id, str) or not 0 < len(id) <= LONGEST_ID:
        raise CloseSocket(BAD_REQUEST, f"`id` is a string of 1 to {LONGEST_ID} characters.")
    return id
