"""`/graphql` over HTTP.

It follows https://http-spec.graphql.org/September2026/, and where this leaves a choice, the audits
of `graphql-http`.
"""

from __future__ import annotations

from graphql import OperationType
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from graph.core.context import Context
from graph.execution.logs import LogEntry
from graph.execution.masking import masked
from graph.execution.pipeline import Pipeline
from graph.execution.responses import Response
from graph.execution.tokens import bearer_token
from graph.server.disconnects import Disconnect
from graph.server.requests import (
    JSON,
    Headers,
    HTTPError,
    check_kind,
    headers_of,
    negotiate,
    read_request,
    traceparent,
    with_written,
)
from graph.server.responses import WRITTEN_HEADER, HTTPResponse
from graph.server.sse import EventStreams
from graph.server.state import AppState
from graph.settings import Mode

SUBSCRIBE = (
    "Send a subscription over a WebSocket, or with `Accept: text/event-stream` for an event stream."
)


class Endpoint:
    """`/graphql`: operations over POST and GET, and event streams."""

    def __init__(self, pipeline: Pipeline, streams: EventStreams) -> None:
        self.pipeline = pipeline
        self.streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and log it."""
        headers = headers_of(scope)
        if self.streams.are_requested(scope, headers):
            await self.streams(scope, headers, receive, send)
            return
        with LogEntry("http", traceparent(headers)) as entry:
            try:
                response = await self._respond(scope, headers, receive, entry)
            except ClientDisconnect:
                return
            entry.answer(response)
            response.headers.append((b"server-timing", entry.timing()))
            await response(send)

    async def _respond(
        self, scope: Scope, headers: Headers, receive: Receive, entry: LogEntry
    ) -> HTTPResponse:
        pipeline, client, media = self.pipeline, scope.get("client"), JSON
        state: AppState = scope["app"].state
        try:
            media = negotiate(headers.get(b"accept"))
            limit = pipeline.limits.settings.max_body_bytes
            request = entry.request = await read_request(scope, headers, receive, limit)
            with Disconnect(state, receive) as disconnect:
                pipeline.timer.add(disconnect)
                token = bearer_token(headers.get(b"authorization", b"").decode("latin-1"))
                context = await pipeline.context(state.tokens, token, client[0] if client else None)
                explains = headers.get(b"x-troupe-explain") == b"1" and self._may_explain(context)
                if explains:
                    entry.explain()
                if written := headers.get(WRITTEN_HEADER):
                    request = with_written(request, written)
                run = disconnect.run = entry.run = pipeline.begin(request, context)
                check_kind(run.kind, scope["method"])
                if run.kind is OperationType.SUBSCRIPTION:
                    raise HTTPError(SUBSCRIBE)
                response = await pipeline.answer(run)
            if explains:
                response.body.setdefault("extensions", {})["explain"] = entry.explanation()
            return HTTPResponse(response, media)
        except ClientDisconnect:
            raise
        except HTTPError as error:
            return HTTPResponse.refusal(error, media)
        except Exception as error:
            return HTTPResponse(Response.refusal(masked(error)), media, 500)

    def _may_explain(self, context: Context) -> bool:
        """Whether a viewer may see how an operation was read."""
        in_development = self.pipeline.limits.settings.mode is Mode.DEVELOPMENT
        return context.viewer.is_administrator or (in_development and not context.is_anonymous)
