"""The HTTP edge of the API: requests are read, and answers written.

As https://http-spec.graphql.org/September2026/ says, and where that leaves a choice, as the audits
of `graphql-http` do.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import orjson
from graphql import GraphQLError
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from strawberry.schema import Schema
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError
from strawberry.types.graphql import OperationType

from db import Database, Viewer
from db.engine import Tally, tally
from graph import logs
from graph.context import Context, Deadline
from graph.departures import Departure
from graph.documents import hash_of
from graph.errors import BadRequest, RequestError, masked
from graph.planner import Planner
from graph.requests import JSON, Asked, Gone, Refused, acceptable, received
from graph.shortcut import shortcut
from graph.viewer import identify

SAFE = {OperationType.QUERY}
ALL = {OperationType.QUERY, OperationType.MUTATION}

# The status of an answer without data, by the code of its error; of any other it is 400.
STATUSES = {
    "UNAUTHENTICATED": 401,
    "FORBIDDEN": 403,
    "RATE_LIMITED": 429,
    # As Apollo's protocol has it: the client sends the document next.
    "PERSISTED_QUERY_NOT_FOUND": 200,
    "PERSISTED_QUERY_NOT_SUPPORTED": 200,
    "FAULT": 500,
    "OVERLOADED": 503,
    "UNAVAILABLE": 503,
    "TIMEOUT": 504,
}
PARTIAL_SUCCESS = 294
HASH = re.compile("[0-9a-fA-F]{64}")
CLIENT_LEFT = 499  # nobody gets to see it; the log has it, as nginx's has


class Answer:
    """What goes back over HTTP."""

    def __init__(self, result: ExecutionResult, media: str, status: int | None = None) -> None:
        errors = result.errors or []
        self.codes: list[str] = [(error.extensions or {}).get("code", "") for error in errors]
        # An error that has no place in the data is one of the request, which then has no data.
        refused = result.data is None and all(error.path is None for error in errors)
        body: dict[str, Any] = {"errors": [error.formatted for error in errors]} if errors else {}
        if not refused:
            body["data"] = result.data
        if result.extensions:
            body["extensions"] = result.extensions
        # JSON as PostgreSQL writes it too: no spaces, and its own text passed on untouched.
        self.body = orjson.dumps(body)
        self.status = status or self._status(media, refused)
        self.headers = [
            (b"content-type", media.encode() + b"; charset=utf-8"),
            (b"content-length", b"%d" % len(self.body)),
            (b"vary", b"Accept"),
        ]
        if "UNAUTHENTICATED" in self.codes:
            self.headers.append((b"www-authenticate", b"Bearer"))
        waits = [(error.extensions or {}).get("retryAfter") for error in errors]
        wait = max((wait for wait in waits if wait is not None), default=None)
        if wait is not None:
            self.headers.append((b"retry-after", b"%d" % wait))

    def _status(self, media: str, refused: bool) -> int:
        # A client that takes plain JSON cannot tell our answer from a proxy's but by its status.
        if media == JSON or not self.codes:
            return 200
        return STATUSES.get(self.codes[0], 400) if refused else PARTIAL_SUCCESS

    async def __call__(self, send: Send) -> None:
        """Send it."""
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body})


class Endpoint:
    """`/graphql`: operations over POST and GET."""

    def __init__(self, schema: Schema, *, planner: bool, max_body_bytes: int) -> None:
        self.schema = schema
        self.planner = Planner(schema._schema) if planner else None
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and write into the log what it was."""
        entry = Entry()
        counting = tally.set(entry.work)
        try:
            answer = await self._answer(HTTPConnection(scope), receive, entry)
            entry.status, entry.codes = answer.status, answer.codes
            await answer(send)
        except Gone:
            pass
        finally:
            tally.reset(counting)
            entry.write()

    async def _answer(self, request: HTTPConnection, receive: Receive, entry: Entry) -> Answer:
        media = JSON
        try:
            media = acceptable(request.headers.get("accept"))
            asked = await received(request, receive, self.max_body_bytes)
            entry.asked = asked
            result = await self._execute(request, receive, asked, entry)
            return Answer(result, media)
        except Gone:
            raise
        except Refused as refusal:
            answer = Answer(_refused(refusal), media, refusal.status)
            answer.headers += refusal.headers
            return answer
        except Exception as error:
            return Answer(_refused(masked(error)), media, 500)

    async def _execute(
        self, request: HTTPConnection, receive: Receive, asked: Asked, entry: Entry
    ) -> ExecutionResult:
        async with Departure(receive, request.app.state) as departure:
            context = departure.context = entry.context = await self._context(request)
            try:
                known = await shortcut(self.schema._schema, asked, context)
                return known or await self.schema.execute(
                    asked.query,
                    asked.variables,
                    context,
                    operation_name=asked.operation_name,
                    allowed_operation_types=ALL if asked.may_change else SAFE,
                    operation_extensions=asked.extensions,
                )
            except InvalidOperationTypeError as error:
                if error.operation_type is OperationType.MUTATION:
                    allow = [(b"allow", b"POST")]
                    raise Refused("Send a mutation by POST.", 405, headers=allow) from None
                raise Refused("A subscription cannot be answered over HTTP.") from None
            except CannotGetOperationTypeError:
                return _refused(BadRequest("The document has no operation of that name."))

    async def _context(self, request: HTTPConnection) -> Context:
        """The context of an operation: who asks, and how the database is reached."""
        database: Database = request.app.state.database
        viewer = None
        refusal: GraphQLError | None = None
        deadline = Deadline(request.app.state.guard.settings.max_seconds)
        try:
            async with deadline.kept():
                viewer = await identify(request, request.app.state.tokens)
        except RequestError as error:
            refusal = error
        except Exception as error:
            # Worded like any other error: nothing of it reaches the client as it is.
            refusal = GraphQLError(str(error), original_error=error)
        context = Context(database, viewer, refusal=refusal, planner=self.planner)
        context.guard, context.deadline = request.app.state.guard, deadline
        context.address = request.client.host if request.client else None
        return context


def _refused(error: GraphQLError) -> ExecutionResult:
    return PreExecutionError(data=None, errors=[error])


def _name(viewer: Viewer) -> str | None:
    if viewer.agent_id is not None:
        return f"agent:{viewer.agent_id}"
    return None if viewer.user_id is None else f"user:{viewer.user_id}"


class Entry:
    """What the log tells of one operation: never its text nor its variables."""

    def __init__(self) -> None:
        self.asked: Asked | None = None
        self.context: Context | None = None
        self.status = CLIENT_LEFT
        self.codes: list[str] = []
        self.work = Tally()
        self._started = time.perf_counter()

    def _hash(self) -> str | None:
        if self.asked is None:
            return None
        if self.asked.query is None:
            persisted = (self.asked.extensions or {}).get("persistedQuery")
            named = persisted.get("sha256Hash") if isinstance(persisted, dict) else None
            # Anything else could hold a secret, or look like a line of the log.
            return named if isinstance(named, str) and HASH.fullmatch(named) else None
        return hash_of(self.asked.query)

    def write(self) -> None:
        """Write it."""
        if not logs.operations.isEnabledFor(logging.INFO):
            return
        node = self.context and self.context.node
        fields = {
            "kind": node.operation.value if node else None,
            "operation": node.name.value if node and node.name else None,
            "hash": self._hash(),
            "viewer": self.context and _name(self.context.viewer),
            "status": self.status,
            "codes": self.codes,
            "milliseconds": round((time.perf_counter() - self._started) * 1000, 1),
            "statements": self.work.statements,
            "rows": self.work.rows,
        }
        logs.operations.info("operation", extra={"fields": fields})
