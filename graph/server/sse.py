"""`/graphql` over Server-Sent Events, by the protocol of graphql-sse.

https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md

With distinct connections, the response to an operation is a stream of its results. With a single
connection, a client reserves a stream (PUT) and opens it (GET); it sends operations (POST), whose
results are events of the stream, and cancels them (DELETE).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Hashable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import orjson
from graphql import OperationType
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from db import Viewer
from db.events.topics import Place
from db.text import decimal_json
from graph.core.context import Context
from graph.core.errors import AGAIN, LimitExceeded, Unauthenticated, Unavailable
from graph.core.updates import encode_place
from graph.execution.logs import LogEntry
from graph.execution.masking import reported
from graph.execution.pipeline import Pipeline
from graph.execution.responses import Response
from graph.execution.run import GraphQLRequest, Run
from graph.execution.subscriptions import SlowClient, Subscriptions
from graph.execution.tokens import INVALID, bearer_token
from graph.limits.cost import COST_OF_REQUEST
from graph.server.disconnects import Disconnect, shutdown_error
from graph.server.protocols import ABORT
from graph.server.requests import (
    EVENT_STREAM,
    JSON,
    Headers,
    HTTPError,
    check_kind,
    prefers_event_stream,
    read_request,
    wrong_method,
)
from graph.server.responses import HTTPResponse
from graph.server.sinks import QueueSink
from graph.server.state import AppState

STREAM_TOKEN = b"x-graphql-event-stream-token"

# How long a stream may be reserved before it is opened, in seconds.
OPEN_TIMEOUT = 10

# The interval of comments, which keep proxies from ending an idle stream, in seconds.
KEEP_ALIVE_SECONDS = 12
# Without the empty line of a whole event, at which some clients would expect an event.
COMMENT = b":\n"

# How long the end of a stream may take, in seconds, before its connection is closed.
END_TIMEOUT = 1

LONGEST_ID = 128

HEADERS = [
    (b"content-type", f"{EVENT_STREAM}; charset=utf-8".encode()),
    # Proxies neither store nor compress it, and pass each event on at once (nginx).
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"vary", b"Accept"),
]

NO_STREAM = "There is no such event stream of this access token: reserve one with PUT."


@dataclass(slots=True)
class Exchange:
    """A request over HTTP, and how it is answered."""

    scope: Scope
    headers: Headers
    receive: Receive
    send: Send

    @property
    def method(self) -> str:
        """The method of the request."""
        return str(self.scope["method"])

    @property
    def token(self) -> str | None:
        """The access token."""
        return bearer_token(self._header(b"authorization"))

    @property
    def stream_token(self) -> str | None:
        """The token of a reserved stream; browsers can only send it as a part of the URL."""
        return self._header(STREAM_TOKEN) or self.parameter("token")

    @property
    def last_id(self) -> str | None:
        """The id of the last event that the client has."""
        return self._header(b"last-event-id")

    @property
    def address(self) -> str | None:
        """The address of the client."""
        client = self.scope.get("client")
        return client[0] if client else None

    def _header(self, name: bytes) -> str | None:
        return self.headers.get(name, b"").decode("latin-1") or None

    def parameter(self, name: str) -> str | None:
        """The value of a parameter in the URL."""
        found = parse_qs(self.scope["query_string"].decode("latin-1")).get(name)
        return found[0] if found else None

    async def answer(self, status: int, text: str = "") -> None:
        """Send a response with a text."""
        body = text.encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


@dataclass(eq=False)
class StreamOperation:
    """An operation whose results are events of a stream, and that has not ended."""

    id: str | None
    """None if the stream is of this operation alone."""
    request: GraphQLRequest
    context: Context
    method: str
    token: str | None
    last_id: str | None
    disconnect: Disconnect
    is_cancelled: bool = False
    is_subscription: bool = False
    sink: QueueSink | None = None
    """What its messages are sent over, if it is a subscription."""
    accepted: asyncio.Future[HTTPResponse | None] = field(init=False)
    """Done when it is known whether it is refused, and then with the response."""
    task: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        self.accepted = asyncio.get_running_loop().create_future()

    def accept(self, refusal: HTTPResponse | None = None) -> None:
        """Say that its results are sent as events, or that it is refused."""
        if not self.accepted.done():
            self.accepted.set_result(refusal)

    @property
    def refused(self) -> bool:
        """Whether the response says that it is refused."""
        accepted = self.accepted
        return accepted.done() and not accepted.cancelled() and accepted.result() is not None

    def cancel(self) -> None:
        """Send no more events of it, and cancel it unless it is a mutation."""
        self.is_cancelled = True
        if self.sink is not None:
            self.sink.close()
        self.disconnect.client_disconnected()

    def next(self, body: bytes, place: Place | None = None) -> bytes:
        """The event with a result, given as JSON."""
        id = b"" if place is None else b"id: %b\n" % encode_place(place).encode()
        if self.id is not None:
            body = b'{"id":%b,"payload":%b}' % (orjson.dumps(self.id), body)
        return b"event: next\n%bdata: %b\n\n" % (id, body)

    def complete(self) -> bytes:
        """The event after its last result."""
        data = b"" if self.id is None else b' {"id":%b}' % orjson.dumps(self.id)
        return b"event: complete\ndata:%b\n\n" % data


class EventStream:
    """A stream of events: it is reserved, then open, and then ended."""

    def __init__(self, streams: EventStreams, client: Hashable, token: str | None) -> None:
        self.client, self.token = client, token
        self.stream_token = ""
        self.operations: set[StreamOperation] = set()
        self._streams = streams
        self._by_id: dict[str | None, StreamOperation] = {}
        self._send: Send | None = None
        self._abort: Any = None
        self._ended = asyncio.Event()
        self._writable = asyncio.Event()
        self._has_started = False
        self._deadline: asyncio.TimerHandle | None = None
        self._sending = asyncio.Lock()
        self._watching = ExitStack()

    @property
    def is_open(self) -> bool:
        """Whether a request has opened it."""
        return self._send is not None

    @property
    def is_ended(self) -> bool:
        """Whether it sends no more events."""
        return self._ended.is_set()

    # Its connection

    async def serve(self, exchange: Exchange) -> None:
        """Send events until the client disconnects or the stream ends."""
        self._send = exchange.send
        self._abort = exchange.scope.get("extensions", {}).get(ABORT)
        self._writable.set()
        if not self.is_ended:
            self._set_deadline(None)
        try:
            with suppress(HTTPError), Disconnect(self._streams.state, exchange.receive):
                while not self.is_ended:
                    await self.write(COMMENT)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                            await self._ended.wait()
            self.end()
            async with self._sending:
                await self._send_body(b"", more=False)
            self._abort = None  # the next request of the connection is not its own
        finally:
            await self.close()

    async def write(self, event: bytes) -> None:
        """Send an event once the stream is open and the client has read those before it."""
        await self._writable.wait()
        async with self._sending:
            if not self.is_ended:
                await self._send_body(event)

    async def _send_body(self, body: bytes, *, more: bool = True) -> None:
        assert self._send is not None
        if not self._has_started:
            await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            self._has_started = True
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    def reserve(self) -> str:
        """Wait until a request opens it, while its access token is valid; return its own token."""
        self.stream_token = secrets.token_urlsafe(32)
        self._set_deadline(OPEN_TIMEOUT)

        def check(viewer: Viewer | None) -> None:
            if viewer is None:
                self.end()

        self._watching.enter_context(self._streams.state.tokens.watched(self.token, check))
        return self.stream_token

    def end(self, seconds: float | None = END_TIMEOUT) -> None:
        """End it; the connection is closed if the client does not read the rest in this time."""
        if not self.is_ended:
            self._ended.set()
            self._writable.set()
            self._set_deadline(seconds)

    def _set_deadline(self, seconds: float | None) -> None:
        """Set how long it may take to open the stream, or to end it."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._on_deadline)

    def _on_deadline(self) -> None:
        if self.is_open:
            self.abort()
        else:
            self._streams.drop(self)

    def abort(self) -> None:
        """Close the connection at once, with what the client has not read."""
        self.end()
        if self._abort is not None:
            self._abort()

    async def close(self) -> None:
        """Cancel its operations, and wait for mutations, which are not cancelled."""
        self.end()
        self._set_deadline(None)
        self._watching.close()
        for operation in self.operations:
            operation.cancel()
        if self.operations:
            await asyncio.wait([operation.task for operation in self.operations])
        self._streams.discard(self)

    async def shut_down(self, seconds: float) -> None:
        """End it after its queries and mutations, but without waiting for subscriptions."""
        tasks = [each.task for each in self.operations if not each.is_subscription]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=END_TIMEOUT)
        self.end()

    # Its operations

    def start(self, operation: StreamOperation) -> None:
        """Run an operation in a task."""
        self._by_id[operation.id] = operation
        self.operations.add(operation)
        operation.task = asyncio.create_task(self._run(operation))

    def check_id(self, id: object) -> str:
        """The id of a new operation. Raises HTTPError or LimitExceeded."""
        if not isinstance(id, str) or not 0 < len(id) <= LONGEST_ID:
            raise HTTPError(f"`operationId` is a string of 1 to {LONGEST_ID} characters.")
        if id in self._by_id:
            raise HTTPError("An operation with this `operationId` is open.", 409)
        most = self._streams.settings.max_subscriptions_per_connection
        found = len(self.operations) + 1
        if found > most:
            setting = "max_subscriptions_per_connection"
            raise LimitExceeded("operations open on this event stream", setting, found, most)
        return id

    def cancel(self, id: str) -> None:
        """Cancel the operation with an id, if there is one."""
        operation = self._by_id.pop(id, None)
        if operation is not None:
            operation.cancel()

    async def _run(self, operation: StreamOperation) -> None:
        """Send the results of an operation, and log it."""
        try:
            with LogEntry("sse") as entry:
                entry.request = operation.request
                try:
                    await self._respond(operation, entry)
                except ClientDisconnect:
                    pass
                except SlowClient:
                    self.abort()
                except Unauthenticated:  # the token of a subscription is no longer valid
                    refusal = Response.refusal(Unauthenticated(INVALID))
                    await self._finish(operation, entry, refusal)
                except HTTPError as error:
                    entry.status, entry.codes = error.status, [error.code]
                    operation.accept(HTTPResponse.refusal(error))
                except Exception as error:
                    await self._finish(operation, entry, Response.refusal(reported(error)))
        finally:
            self.operations.discard(operation)
            self._release_id(operation)
            operation.accept()
            if operation.id is None:
                # The result of a query may be long, and its client slow.
                self.end(END_TIMEOUT if operation.is_subscription else None)

    async def _respond(self, operation: StreamOperation, entry: LogEntry) -> None:
        pipeline, context = self._streams.pipeline, operation.context
        with operation.disconnect as disconnect:
            run = disconnect.run = entry.run = pipeline.begin(operation.request, context)
            check_kind(run.kind, operation.method)
            try:
                await pipeline.prepare(run)
            except Exception as error:
                await self._finish(operation, entry, pipeline.refused(run, error))
                return
            if run.kind is OperationType.SUBSCRIPTION:
                operation.accept()
                await self._stream(operation, run, entry)
                return
            if operation.id is not None:
                operation.accept()
            await self._finish(operation, entry, await pipeline.answer(run))

    async def _stream(self, operation: StreamOperation, run: Run, entry: LogEntry) -> None:
        """Send the messages of a subscription until it ends."""
        operation.is_subscription = True
        entry.status = 200  # also if the client ends it

        async def send(body: bytes, place: Place) -> None:
            await self.write(operation.next(body, place))

        sink = operation.sink = QueueSink(send)
        serve, tokens = self._streams.subscriptions.serve, self._streams.state.tokens
        try:
            response = await serve(run, sink, operation.token, tokens, operation.last_id)
        finally:
            sink.close()
        if _is_retried(response):
            entry.status, entry.codes = response.status, response.codes
            self.end()  # the client connects again, because the operation is not complete
        else:
            await self._finish(operation, entry, response)

    async def _finish(
        self, operation: StreamOperation, entry: LogEntry, response: Response
    ) -> None:
        """Send the only or the last response, as an event if the protocol does not forbid it."""
        entry.status, entry.codes = response.status, response.codes
        self._release_id(operation)
        if _is_retried(response) or (response.is_refused and operation.id is not None):
            operation.accept(HTTPResponse(response, JSON, response.status))
            if operation.refused:
                return
        operation.accept()
        if not operation.is_cancelled:
            # The JSON of PostgreSQL is a fragment of the event.
            body = orjson.dumps(response.body, default=decimal_json)
            await self.write(operation.next(body) + operation.complete())

    def _release_id(self, operation: StreamOperation) -> None:
        # Before the last event, after which the client may use the id again.
        if self._by_id.get(operation.id) is operation:
            del self._by_id[operation.id]


def _is_retried(response: Response) -> bool:
    """Whether a client has to send the same request again."""
    errors = [error.extensions or {} for error in response.errors]
    return response.is_refused and any("retryAfter" in error for error in errors)


class EventStreams:
    """The event streams of a process, and the requests that concern them."""

    def __init__(self, pipeline: Pipeline, subscriptions: Subscriptions, state: AppState) -> None:
        self.pipeline = pipeline
        self.subscriptions = subscriptions
        self.settings = pipeline.limits.settings
        self.state = state
        self.is_shutting_down = False
        self.open: set[EventStream] = set()
        """The streams that are open or reserved."""
        self._reserved: dict[str, EventStream] = {}
        """Those of single connections, by their tokens."""
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self.open)

    def are_requested(self, method: str, headers: Headers) -> bool:
        """Whether a request is for them, because its client asks for event streams first."""
        return (
            method in ("PUT", "DELETE")
            or STREAM_TOKEN in headers
            or (method != "HEAD" and prefers_event_stream(headers.get(b"accept")))
        )

    async def __call__(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Answer a request."""
        exchange = Exchange(scope, headers, receive, send)
        try:
            response = await self._respond(exchange)
        except ClientDisconnect:
            return
        except HTTPError as error:
            response = HTTPResponse.refusal(error)
        except Exception as error:
            refusal = Response.refusal(reported(error))
            response = HTTPResponse(refusal, JSON, refusal.status)
        if response is not None:
            await response(send)

    async def _respond(self, exchange: Exchange) -> HTTPResponse | None:
        """Answer a request; a response that is returned is still to be sent."""
        if self.is_shutting_down:
            raise shutdown_error()
        if exchange.scope["http_version"] == "1.0":
            raise HTTPError("Event streams need HTTP/1.1 (nginx: `proxy_http_version 1.1`).")
        match exchange.method:
            case "PUT":
                await self._reserve(exchange)
            case "DELETE":
                id = exchange.parameter("operationId")
                stream = self._stream_of(exchange)
                if id is None:
                    raise HTTPError("Name the operation in the URL: ?operationId=…")
                stream.cancel(id)
                await exchange.answer(200)
            case "GET" | "POST":
                is_stream = prefers_event_stream(exchange.headers.get(b"accept"))
                if exchange.stream_token is None:
                    return await self._serve_one(exchange)
                if not is_stream:
                    return await self._operate(exchange)
                await self._open(exchange)
            case _:
                raise wrong_method()
        return None

    # Distinct connections

    async def _serve_one(self, exchange: Exchange) -> HTTPResponse | None:
        """Answer an operation with a stream of its own."""
        request = await self._read(exchange)
        with Disconnect(self.state, exchange.receive):
            context = await self._context(exchange)
        stream = self._add(context.client, exchange.token)
        operation = self._operation(exchange, None, request, context)
        stream.start(operation)
        try:
            with Disconnect(self.state, exchange.receive):
                response = await operation.accepted
        except BaseException:
            await stream.close()
            raise
        if response is None:
            await stream.serve(exchange)
        else:
            await stream.close()
        return response

    # Single connections

    async def _reserve(self, exchange: Exchange) -> None:
        """Reserve a stream, and answer with its token."""
        context = await self._context(exchange)
        self.pipeline.limits.rates.charge(context.client, COST_OF_REQUEST)
        if context.refusal is not None:
            raise context.refusal
        if context.is_anonymous:
            raise Unauthenticated
        stream = self._add(context.client, exchange.token)
        self._reserved[stream.reserve()] = stream
        await exchange.answer(201, stream.stream_token)

    def drop(self, stream: EventStream) -> None:
        """Close a stream that nobody has opened."""
        closing = asyncio.create_task(stream.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _open(self, exchange: Exchange) -> None:
        """Open a stream that is reserved."""
        # The EventSource of browsers cannot send the access token.
        stream = self._stream_of(exchange, or_without=True)
        if stream.is_open:
            raise HTTPError("This event stream is open already.", 409)
        await stream.serve(exchange)

    async def _operate(self, exchange: Exchange) -> HTTPResponse | None:
        """Run an operation, with its results in a stream."""
        self._stream_of(exchange)
        request = await self._read(exchange)
        context = await self._context(exchange)
        stream = self._stream_of(exchange)  # it may have ended meanwhile
        id = stream.check_id((request.extensions or {}).get("operationId"))
        operation = self._operation(exchange, id, request, context)
        stream.start(operation)
        response = await operation.accepted
        if response is None:
            await exchange.answer(202)
        return response

    def _stream_of(self, exchange: Exchange, *, or_without: bool = False) -> EventStream:
        """The stream that a request names, which belongs to an access token. Raises HTTPError."""
        stream = self._reserved.get(exchange.stream_token or "")
        if stream is None or stream.is_ended:
            raise HTTPError(NO_STREAM, 404)
        if stream.token != exchange.token and not (or_without and exchange.token is None):
            raise HTTPError(NO_STREAM, 404)
        return stream

    # Both

    async def _read(self, exchange: Exchange) -> GraphQLRequest:
        limit = self.settings.max_body_bytes
        return await read_request(exchange.scope, exchange.headers, exchange.receive, limit)

    async def _context(self, exchange: Exchange) -> Context:
        return await self.pipeline.context(self.state.tokens, exchange.token, exchange.address)

    def _operation(
        self, exchange: Exchange, id: str | None, request: GraphQLRequest, context: Context
    ) -> StreamOperation:
        return StreamOperation(
            id,
            request,
            context,
            exchange.method,
            exchange.token,
            exchange.last_id,
            Disconnect(self.state),
        )

    def _add(self, client: Hashable, token: str | None) -> EventStream:
        """A new stream, unless there are too many. Raises HTTPError."""
        most, most_per_client = (
            self.settings.max_event_streams,
            self.settings.max_event_streams_per_viewer,
        )
        if len(self) >= most:
            raise _full(f"{most} event streams are open (TROUPE_MAX_EVENT_STREAMS).")
        if sum(stream.client == client for stream in self.open) >= most_per_client:
            setting = "TROUPE_MAX_EVENT_STREAMS_PER_VIEWER"
            raise _full(f"{most_per_client} event streams of yours are open ({setting}).")
        stream = EventStream(self, client, token)
        self.open.add(stream)
        return stream

    def discard(self, stream: EventStream) -> None:
        """Forget a stream that is closed."""
        self.open.discard(stream)
        self._reserved.pop(stream.stream_token, None)

    async def shut_down(self, seconds: float) -> None:
        """Refuse new streams and operations, and end every stream once its operations have ended.

        A stream ends before its subscriptions are complete, so clients connect again. Operations
        that take longer than this number of seconds are cancelled.
        """
        self.is_shutting_down = True
        tasks = [asyncio.create_task(stream.shut_down(seconds)) for stream in self.open]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds + END_TIMEOUT)


def _full(sentence: str) -> HTTPError:
    return HTTPError(f"{sentence}{AGAIN}", 503, retry_after=Unavailable.retry_after)
