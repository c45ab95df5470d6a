"""`/graphql` over HTTP.

It follows https://http-spec.graphql.org/September2026/, and where this leaves a choice, the audits
of `graphql-http`.
"""

from __future__ import annotations

import orjson
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
    GRAPHQL_RESPONSE,
    JSON,
    HTTPError,
    headers_of,
    negotiate,
    read_request,
)
from graph.server.state import AppState
from graph.settings import Mode

CONTENT_TYPES = {
    media: (b"content-type", f"{media}; charset=utf-8".encode())
    for media in (JSON, GRAPHQL_RESPONSE)
}


class HTTPResponse:
    """A response over HTTP."""

    def __init__(self, response: Response, media: str, status: int | None = None) -> None:
        self.codes = response.codes
        # With plain JSON, another status than 200 would look like an error of a proxy.
        self.status = status or (200 if media == JSON else response.status)
        # No spaces, as in the JSON of PostgreSQL, which is a fragment of the body.
        self.body = orjson.dumps(response.body)
        self.headers = [
            CONTENT_TYPES[media],
            (b"content-length", b"%d" % len(self.body)),
            (b"vary", b"Accept"),
        ]
        if not response.errors:
            return
        if "UNAUTHENTICATED" in self.codes:
            self.headers.append((b"www-authenticate", b"Bearer"))
        waits = [(error.extensions or {}).get("retryAfter") for error in response.errors]
        if waits := [wait for wait in waits if wait is not None]:
            self.headers.append((b"retry-after", b"%d" % max(waits)))

    async def __call__(self, send: Send) -> None:
        """Send the response."""
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body})


class Endpoint:
    """`/graphql`: operations over POST and GET."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and log it."""
        with LogEntry("http") as entry:
            try:
                response = await self._respond(scope, receive, entry)
            except ClientDisconnect:
                return
            entry.status, entry.codes = response.status, response.codes
            response.headers.append((b"server-timing", entry.timing()))
            await response(send)

    async def _respond(self, scope: Scope, receive: Receive, entry: LogEntry) -> HTTPResponse:
        pipeline, client, media = self.pipeline, scope.get("client"), JSON
        state: AppState = scope["app"].state
        try:
            headers = headers_of(scope)
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
                run = disconnect.run = entry.run = pipeline.begin(request, context)
                self._check_kind(run.kind, scope["method"])
                response = await pipeline.answer(run)
            if explains:
                response.body.setdefault("extensions", {})["explain"] = entry.explanation()
            return HTTPResponse(response, media)
        except ClientDisconnect:
            raise
        except HTTPError as error:
            refusal = HTTPResponse(Response.refusal(error), media, error.status)
            refusal.headers += error.headers
            return refusal
        except Exception as error:
            return HTTPResponse(Response.refusal(masked(error)), media, 500)

    def _check_kind(self, kind: OperationType | None, method: str) -> None:
        """Refuse a subscription, and a mutation by GET."""
        if kind is OperationType.SUBSCRIPTION:
            if self.pipeline.schema.subscription_type is None:
                raise HTTPError("There are no subscriptions; send a query or a mutation.")
            raise HTTPError("Send a subscription over a WebSocket.")
        # Browsers send a GET request for any link or image of another site.
        if kind is OperationType.MUTATION and method != "POST":
            raise HTTPError("Send a mutation by POST.", 405, headers=[(b"allow", b"POST")])

    def _may_explain(self, context: Context) -> bool:
        """Whether a viewer may see how an operation was read."""
        in_development = self.pipeline.limits.settings.mode is Mode.DEVELOPMENT
        return context.viewer.is_administrator or (in_development and not context.is_anonymous)
