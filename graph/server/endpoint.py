"""The HTTP edge of the API: requests are read, and answers written.

As https://http-spec.graphql.org/September2026/ says, and where that leaves a choice, as the audits
of `graphql-http` do.
"""

from __future__ import annotations

import orjson
from starlette.types import Receive, Scope, Send
from strawberry.schema.exceptions import InvalidOperationTypeError
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from graph.core.context import Context
from graph.core.errors import masked
from graph.execution.operations import Entry, Operations, Told, refused
from graph.execution.tokens import bearer_token
from graph.limits.guard import guard_of
from graph.server.disconnects import Watched
from graph.server.requests import (
    JSON,
    RESPONSE,
    Asked,
    Gone,
    Headers,
    Refused,
    acceptable,
    headers_of,
    received,
)
from graph.settings import Mode

CONTENT_TYPES = {
    media: (b"content-type", f"{media}; charset=utf-8".encode()) for media in (JSON, RESPONSE)
}

SAFE = {OperationType.QUERY}
ALL = {OperationType.QUERY, OperationType.MUTATION}


class Answer:
    """What goes back over HTTP."""

    def __init__(self, result: ExecutionResult, media: str, status: int | None = None) -> None:
        told = Told(result)
        self.codes = told.codes
        # A client that takes plain JSON cannot tell our answer from a proxy's but by its status.
        self.status = status or (200 if media == JSON else told.status)
        # JSON as PostgreSQL writes it too: no spaces, and its own text passed on untouched.
        self.body = orjson.dumps(told.body)
        self.headers = [
            CONTENT_TYPES[media],
            (b"content-length", b"%d" % len(self.body)),
            (b"vary", b"Accept"),
        ]
        if not told.errors:
            return
        if "UNAUTHENTICATED" in self.codes:
            self.headers.append((b"www-authenticate", b"Bearer"))
        waits = [(error.extensions or {}).get("retryAfter") for error in told.errors]
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
        with Entry("http") as entry:
            try:
                answer = await self._answer(scope, receive, entry)
                entry.status, entry.codes = answer.status, answer.codes
                answer.headers.append((b"server-timing", entry.timing()))
                await answer(send)
            except Gone:
                pass

    async def _answer(self, scope: Scope, receive: Receive, entry: Entry) -> Answer:
        media = JSON
        try:
            headers = headers_of(scope)
            media = acceptable(headers.get(b"accept"))
            entry.asked = await received(scope, headers, receive, self.max_body_bytes)
            result = await self._execute(scope, headers, receive, entry.asked, entry)
            return Answer(result, media)
        except Gone:
            raise
        except Refused as refusal:
            answer = Answer(refused(refusal), media, refusal.status)
            answer.headers += refusal.headers
            return answer
        except Exception as error:
            return Answer(refused(masked(error)), media, 500)

    async def _execute(
        self, scope: Scope, headers: Headers, receive: Receive, asked: Asked, entry: Entry
    ) -> ExecutionResult:
        state, client = scope["app"].state, scope.get("client")
        token = bearer_token(headers.get(b"authorization", b"").decode("latin-1"))
        address = client[0] if client else None
        with Watched(receive, state) as departure:
            context = await self.operations.context(state, token, address)
            departure.context = entry.context = context
            explains = headers.get(b"x-troupe-explain") == b"1" and _may_know(context)
            if explains:
                entry.explain()
            try:
                result = await self.operations.answer(
                    asked, context, ALL if asked.may_change else SAFE
                )
                if explains:
                    result.extensions = {**(result.extensions or {}), "explain": entry.explained()}
                return result
            except InvalidOperationTypeError as error:
                if error.operation_type is OperationType.MUTATION:
                    allow = [(b"allow", b"POST")]
                    raise Refused("Send a mutation by POST.", 405, headers=allow) from None
                raise Refused(self._no_subscription) from None

    @property
    def _no_subscription(self) -> str:
        if self.operations.schema._schema.subscription_type is None:
            return "There are no subscriptions; send a query or a mutation."
        return "Send a subscription over a WebSocket."


def _may_know(context: Context) -> bool:
    """Whether somebody may know how the server reads what they ask."""
    in_development = guard_of(context).settings.mode is Mode.DEVELOPMENT
    return context.viewer.is_administrator or (in_development and not context.is_anonymous)
