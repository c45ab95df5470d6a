"""`/graphql` over HTTP: requests are read, and responses written.

As https://http-spec.graphql.org/September2026/ says, and where that leaves a choice, as the audits
of `graphql-http` do.
"""

from __future__ import annotations

import orjson
from graphql import OperationType
from starlette.types import Receive, Scope, Send

from graph.core.context import Context
from graph.execution.logs import LogEntry
from graph.execution.masking import masked
from graph.execution.operations import Operations
from graph.execution.responses import Response
from graph.execution.run import GraphQLRequest
from graph.execution.tokens import bearer_token
from graph.server.disconnects import HTTPDisconnect
from graph.server.requests import (
    JSON,
    RESPONSE,
    Gone,
    Headers,
    Refused,
    acceptable,
    headers_of,
    received,
)
from graph.server.state import AppState
from graph.settings import Mode

CONTENT_TYPES = {
    media: (b"content-type", f"{media}; charset=utf-8".encode()) for media in (JSON, RESPONSE)
}


class HTTPResponse:
    """A response as it goes back over HTTP."""

    def __init__(self, response: Response, media: str, status: int | None = None) -> None:
        self.codes = response.codes
        # A client that takes plain JSON cannot tell our answer from a proxy's but by its status.
        self.status = status or (200 if media == JSON else response.status)
        # JSON as PostgreSQL writes it too: no spaces, and its own text passed on untouched.
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
        """Send it."""
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body})


class Endpoint:
    """`/graphql`: operations over POST and GET."""

    def __init__(self, operations: Operations, *, max_body_bytes: int) -> None:
        self.operations = operations
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and write into the log what it was."""
        with LogEntry("http") as entry:
            try:
                response = await self._respond(scope, receive, entry)
                entry.status, entry.codes = response.status, response.codes
                response.headers.append((b"server-timing", entry.timing()))
                await response(send)
            except Gone:
                pass

    async def _respond(self, scope: Scope, receive: Receive, entry: LogEntry) -> HTTPResponse:
        media = JSON
        try:
            headers = headers_of(scope)
            media = acceptable(headers.get(b"accept"))
            request = entry.request = await received(scope, headers, receive, self.max_body_bytes)
            return HTTPResponse(await self._run(scope, headers, receive, request, entry), media)
        except Gone:
            raise
        except Refused as refusal:
            response = HTTPResponse(Response.refusal(refusal), media, refusal.status)
            response.headers += refusal.headers
            return response
        except Exception as error:
            return HTTPResponse(Response.refusal(masked(error)), media, 500)

    async def _run(
        self,
        scope: Scope,
        headers: Headers,
        receive: Receive,
        request: GraphQLRequest,
        entry: LogEntry,
    ) -> Response:
        operations, client = self.operations, scope.get("client")
        state: AppState = scope["app"].state
        token = bearer_token(headers.get(b"authorization", b"").decode("latin-1"))
        address = client[0] if client else None
        with HTTPDisconnect(receive, state) as disconnect:
            context = await operations.context(state.tokens, token, address)
            explains = headers.get(b"x-troupe-explain") == b"1" and self._may_know(context)
            if explains:
                entry.explain()
            run = disconnect.run = entry.run = operations.begin(request, context)
            self._check_kind(run.kind, scope["method"])
            result = await operations.answer(run)
        if explains:
            result.extensions = {**(result.extensions or {}), "explain": entry.explained()}
        return Response(result)

    def _check_kind(self, kind: OperationType | None, method: str) -> None:
        """Refuse what is not answered in this way."""
        if kind is OperationType.SUBSCRIPTION:
            if self.operations.schema.subscription_type is None:
                raise Refused("There are no subscriptions; send a query or a mutation.")
            raise Refused("Send a subscription over a WebSocket.")
        # A link or a picture on somebody's page must not change anything.
        if kind is OperationType.MUTATION and method != "POST":
            raise Refused("Send a mutation by POST.", 405, headers=[(b"allow", b"POST")])

    def _may_know(self, context: Context) -> bool:
        """Whether somebody may know how the server reads what they ask."""
        in_development = self.operations.limits.settings.mode is Mode.DEVELOPMENT
        return context.viewer.is_administrator or (in_development and not context.is_anonymous)
