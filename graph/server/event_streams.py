"""Event streams: responses over HTTP, whose events are the results of operations."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Hashable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
from graphql import OperationType
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from db import Viewer
from db.events.topics import Place
from db.text import decimal_json
from graph.core.context import Context
from graph.core.errors import LimitExceeded, Unauthenticated
from graph.core.updates import encode_place
from graph.execution.logs import LogEntry
from graph.execution.masking import reported
from graph.execution.responses import Response
from graph.execution.run import GraphQLRequest, Run
from graph.execution.subscription import SlowClient
from graph.execution.subscriptions import Subscriptions
from graph.execution.tokens import INVALID, Watch
from graph.server.disconnects import Disconnect, finish
from graph.server.protocols import CONNECTION
from graph.server.requests import EVENT_STREAM, JSON, HTTPError, check_kind
from graph.server.responses import HTTPResponse
from graph.server.sinks import QueueSink
from graph.server.state import AppState

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


@dataclass(eq=False)
class StreamOperation:
    """An operation whose results are events of a stream, and that has not ended."""

    id: str | None
    """None if the stream is of this operation alone."""
    request: GraphQLRequest
    context: Context
    method: str
    last_id: str | None
    traceparent: str | None
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

    def __init__(
        self,
        subscriptions: Subscriptions,
        state: AppState,
        client: Hashable,
        token: str | None,
        on_closed: Callable[[EventStream], None],
    ) -> None:
        """`on_closed` is called when it is closed and its operations have ended."""
        self.client, self.token = client, token
        self.stream_token = ""
        self.operations: set[StreamOperation] = set()
        self._pipeline, self._subscriptions = subscriptions.pipeline, subscriptions
        self._state, self._on_closed = state, on_closed
        self._closing: asyncio.Task[None] | None = None
        self._by_id: dict[str | None, StreamOperation] = {}
        self._send: Send | None = None
        self._connection: Any = None
        self._ended = asyncio.Event()
        self._writable = asyncio.Event()
        self._has_started = False
        self._deadline: asyncio.TimerHandle | None = None
        self._sending = asyncio.Lock()
        self._watching = ExitStack()
        self._watch: Watch | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request has opened it."""
        return self._send is not None

    @property
    def is_ended(self) -> bool:
        """Whether it sends no more events."""
        return self._ended.is_set()

    # Its connection

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client disconnects or the stream ends."""
        self._send = send
        self._connection = scope.get("extensions", {}).get(CONNECTION)
        self._writable.set()
        if not self.is_ended:
            self._set_deadline(None)
        try:
            with suppress(HTTPError), Disconnect(self._state, receive) as disconnect:
                disconnect.on_slow()  # as it is by nature
                while not self.is_ended:
                    await self.write(COMMENT)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                            await self._ended.wait()
            self.end()
            async with self._sending:
                await self._send_body(b"", more=False)
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

        self._watching.enter_context(self._watched().telling(check))
        return self.stream_token

    def _watched(self) -> Watch:
        """The watch of its access token, which begins with its first use."""
        if self._watch is None:
            watched = self._state.tokens.watched(self.token)
            self._watch = self._watching.enter_context(watched)
        return self._watch

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
            self._closing = asyncio.create_task(self.close())

    def abort(self) -> None:
        """Close the connection at once, with what the client has not read."""
        self.end()
        if self._connection is not None:
            self._connection.abort()

    def unsent(self) -> int:
        """How many bytes the client has not received."""
        return 0 if self._connection is None else int(self._connection.unsent)

    async def close(self) -> None:
        """Cancel its operations, and wait for mutations, which are not cancelled."""
        self.end()
        self._set_deadline(None)
        self._watching.close()
        for operation in self.operations:
            operation.cancel()
        if self.operations:
            await asyncio.wait([operation.task for operation in self.operations])
        self._on_closed(self)

    async def shut_down(self, seconds: float) -> None:
        """End it after its queries and mutations, but without waiting for subscriptions."""
        await finish((each.task for each in self.operations if not each.is_subscription), seconds)
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
        most = self._pipeline.limits.settings.max_subscriptions_per_connection
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
            with LogEntry("sse", operation.traceparent) as entry:
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
                    refused = HTTPResponse.refusal(error)
                    entry.answer(refused)
                    operation.accept(refused)
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
        pipeline, context = self._pipeline, operation.context
        with operation.disconnect as disconnect:
            run = disconnect.run = entry.run = pipeline.begin(operation.request, context)
            check_kind(run.kind, operation.method)
            # At once, because a shutdown does not wait for subscriptions.
            operation.is_subscription = run.kind is OperationType.SUBSCRIPTION
            try:
                await pipeline.prepare(run)
            except Exception as error:
                await self._finish(operation, entry, pipeline.refused(run, error))
                return
            if operation.is_subscription:
                operation.accept()
                await self._stream(operation, run, entry)
                return
            if operation.id is not None:
                operation.accept()
            await self._finish(operation, entry, await pipeline.answer(run))

    async def _stream(self, operation: StreamOperation, run: Run, entry: LogEntry) -> None:
        """Send the messages of a subscription until it ends."""
        entry.status = 200  # also if the client ends it

        async def send(body: bytes, place: Place) -> None:
            await self.write(operation.next(body, place))

        sink = operation.sink = QueueSink(send, self.unsent)
        serve, watch = self._subscriptions.serve, self._watched()
        try:
            response = await serve(run, sink, watch, operation.last_id)
        finally:
            sink.close()
        if _is_retried(response):
            entry.answer(response)
            self.end()  # the client connects again, because the operation is not complete
        else:
            await self._finish(operation, entry, response)

    async def _finish(
        self, operation: StreamOperation, entry: LogEntry, response: Response
    ) -> None:
        """Send the only or the last response, as an event if the protocol does not forbid it."""
        entry.answer(response)
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
