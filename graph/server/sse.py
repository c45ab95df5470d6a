"""`/graphql` over Server-Sent Events, by the protocol of graphql-sse.

https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md

With distinct connections, the response to an operation is a stream of its results. With a single
connection, a client reserves a stream (PUT) and opens it (GET); it sends operations (POST), whose
results are events of the stream, and cancels them (DELETE).
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from graph.core.context import Context
from graph.core.errors import AGAIN, Unauthenticated, Unavailable
from graph.execution.logs import log_refusal
from graph.execution.masking import reported
from graph.execution.pipeline import Pipeline
from graph.execution.responses import Response
from graph.execution.run import GraphQLRequest
from graph.execution.subscriptions import Subscriptions
from graph.execution.tokens import bearer_token
from graph.limits.concurrency import ClientCounts
from graph.limits.cost import COST_OF_REQUEST
from graph.server.disconnects import Disconnect, shutdown_error
from graph.server.event_streams import END_TIMEOUT, EventStream, StreamOperation
from graph.server.requests import (
    JSON,
    Headers,
    HTTPError,
    prefers_event_stream,
    read_request,
    traceparent,
    wrong_method,
)
from graph.server.responses import HTTPResponse
from graph.server.state import AppState

STREAM_TOKEN = b"x-graphql-event-stream-token"

# Each request of a client may reach another process, which does not know the stream.
SEVERAL_PROCESSES = (
    "This server has several processes (TROUPE_PROCESSES), so an event stream cannot be reserved:"
    " use a stream for each operation (distinct connections), or a WebSocket."
)

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
        return _parameter(self.scope, name)

    async def answer(self, status: int, text: str = "") -> None:
        """Send a response with a text."""
        body = text.encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


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
        self._by_client = ClientCounts()
        self._reserved: dict[str, EventStream] = {}
        """Those of single connections, by their tokens."""

    def __len__(self) -> int:
        return len(self.open)

    def are_requested(self, scope: Scope, headers: Headers) -> bool:
        """Whether a request names a stream, or its client asks for event streams first."""
        method = scope["method"]
        return (
            method in ("PUT", "DELETE")
            or STREAM_TOKEN in headers
            or _parameter(scope, "token") is not None
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
            log_refusal("sse", response.status, response.codes, response.limits)
        except Exception as error:
            refusal = Response.refusal(reported(error))
            response = HTTPResponse(refusal, JSON, refusal.status)
            log_refusal("sse", response.status, response.codes, response.limits)
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
        with Disconnect(self.state, exchange.receive) as disconnect:
            self.pipeline.timer.add(disconnect)
            context = await self._context(exchange)
        stream = self._add(context.client, exchange.token)
        operation = self._operation(exchange, None, request, context)
        stream.start(operation)
        try:
            with Disconnect(self.state, exchange.receive) as disconnect:
                self.pipeline.timer.add(disconnect)
                response = await operation.accepted
        except BaseException:
            await stream.close()
            raise
        if response is None:
            await stream.serve(exchange.scope, exchange.receive, exchange.send)
        else:
            await stream.close()
        return response

    # Single connections

    async def _reserve(self, exchange: Exchange) -> None:
        """Reserve a stream, and answer with its token."""
        if self.settings.processes > 1:
            raise HTTPError(SEVERAL_PROCESSES)
        context = await self._context(exchange)
        self.pipeline.limits.rates.charge(context.client, COST_OF_REQUEST)
        if context.refusal is not None:
            raise context.refusal
        if context.is_anonymous:
            raise Unauthenticated
        stream = self._add(context.client, exchange.token)
        self._reserved[stream.reserve()] = stream
        await exchange.answer(201, stream.stream_token)

    async def _open(self, exchange: Exchange) -> None:
        """Open a stream that is reserved."""
        # The EventSource of browsers cannot send the access token.
        stream = self._stream_of(exchange, or_without=True)
        if stream.is_open:
            raise HTTPError("This event stream is open already.", 409)
        await stream.serve(exchange.scope, exchange.receive, exchange.send)

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
            exchange.last_id,
            traceparent(exchange.headers),
            Disconnect(self.state),
        )

    def _add(self, client: Hashable, token: str | None) -> EventStream:
        """A new stream, unless there are too many. Raises HTTPError."""
        if self.is_shutting_down:
            raise shutdown_error()
        most, most_per_client = (
            self.settings.max_event_streams,
            self.settings.max_event_streams_per_viewer,
        )
        if len(self) >= most:
            sentence = f"{most} event streams are open (TROUPE_MAX_EVENT_STREAMS)."
            raise _full(sentence, "max_event_streams")
        if self._by_client[client] >= most_per_client:
            setting = "max_event_streams_per_viewer"
            sentence = f"{most_per_client} event streams of yours are open"
            raise _full(f"{sentence} (TROUPE_{setting.upper()}).", setting)
        stream = EventStream(self.subscriptions, self.state, client, token, self._discard)
        self.open.add(stream)
        self._by_client.add(client)
        return stream

    def _discard(self, stream: EventStream) -> None:
        if stream in self.open:
            self.open.remove(stream)
            self._by_client.remove(stream.client)
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


def _parameter(scope: Scope, name: str) -> str | None:
    """The value of a parameter in the URL."""
    query: bytes = scope["query_string"]
    found = parse_qs(query.decode("latin-1")).get(name) if query else None
    return found[0] if found else None


def _full(sentence: str, limit: str) -> HTTPError:
    again = Unavailable.retry_after
    return HTTPError(f"{sentence}{AGAIN}", 503, retry_after=again, limit=limit)
