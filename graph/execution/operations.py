"""Answering an operation, whichever way it came, and the line of the log about it."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncGenerator, Iterable
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from graphql import GraphQLError
from strawberry.schema import Schema
from strawberry.schema.exceptions import CannotGetOperationTypeError
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError
from strawberry.types.graphql import OperationType

from db.engine import Tally, tally
from graph.compiler import Compiler
from graph.core.context import Context, Deadline
from graph.core.errors import BadRequest, RequestError
from graph.execution import logs
from graph.execution.documents import hash_of
from graph.execution.shortcut import shortcut
from graph.limits.guard import asker_of
from graph.server.requests import Asked
from graph.settings import Settings

if TYPE_CHECKING:
    from graph.server.state import State

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


class Operations:
    """A schema, and how operations are answered by it."""

    def __init__(self, schema: Schema, settings: Settings) -> None:
        self.schema = schema
        self.compiler = (
            Compiler(schema._schema, settings.max_answer_bytes) if settings.planner else None
        )

    async def context(self, state: State, token: str | None, address: str | None) -> Context:
        """The context of an operation: who asks, and how the database is reached."""
        tokens, guard = state.tokens, state.guard
        viewer = None
        refusal: GraphQLError | None = None
        deadline = Deadline(guard.settings.max_seconds)
        try:
            if token is not None and (viewer := tokens.known(token)) is None:
                async with deadline.kept():
                    viewer = await tokens.viewer(token)
        except RequestError as error:
            refusal = error
        except Exception as error:
            # Worded like any other error: nothing of it reaches the client as it is.
            refusal = GraphQLError(str(error), original_error=error)
        context = Context(tokens.database, viewer, refusal=refusal, compiler=self.compiler)
        context.guard, context.deadline = guard, deadline
        context.address = address
        context.turns = guard.turns.of(asker_of(context))
        return context

    async def answer(
        self, asked: Asked, context: Context, kinds: Iterable[OperationType]
    ) -> ExecutionResult:
        """The result of an operation. Raises InvalidOperationTypeError if it is of another kind."""
        known = await shortcut(self.schema._schema, asked, context)
        if known is not None:
            return known
        try:
            return await self.schema.execute(
                asked.query,
                asked.variables,
                context,
                operation_name=asked.operation_name,
                allowed_operation_types=kinds,
                operation_extensions=asked.extensions,
            )
        except CannotGetOperationTypeError:
            return refused(BadRequest("The document has no operation of that name."))

    async def stream(self, asked: Asked, context: Context) -> AsyncGenerator[ExecutionResult, None]:
        """The results of a subscription, one for each event."""
        return await self.schema.subscribe(
            asked.query,
            asked.variables,
            context,
            operation_name=asked.operation_name,
            operation_extensions=asked.extensions,
        )


def refused(error: GraphQLError) -> ExecutionResult:
    """The result of an operation that is not begun."""
    return PreExecutionError(data=None, errors=[error])


class Told:
    """A result as it is told, over whatever transport."""

    def __init__(self, result: ExecutionResult) -> None:
        self.errors = result.errors or []
        self.codes: list[str] = [(error.extensions or {}).get("code", "") for error in self.errors]
        # An error that has no place in the data is one of the request, which then has no data.
        self.is_refused = result.data is None and all(error.path is None for error in self.errors)
        self.body: dict[str, Any] = {}
        if self.errors:
            self.body["errors"] = [error.formatted for error in self.errors]
        if not self.is_refused:
            self.body["data"] = result.data
        if result.extensions:
            self.body["extensions"] = result.extensions

    @property
    def status(self) -> int:
        """What GraphQL over HTTP makes of it; the log has it for every transport."""
        if not self.codes:
            return 200
        return STATUSES.get(self.codes[0], 400) if self.is_refused else PARTIAL_SUCCESS


class Entry:
    """What the log tells of one operation: never its text nor its variables.

    It counts what the database does inside the block, and is written at its end.
    """

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self.asked: Asked | None = None
        self.context: Context | None = None
        self.status = CLIENT_LEFT
        self.codes: list[str] = []
        self.work = Tally()
        self._started = time.perf_counter()

    def __enter__(self) -> Self:
        self._counting: Token[Tally | None] = tally.set(self.work)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tally.reset(self._counting)
        self._write()

    def explain(self) -> None:
        """Note the statements, for whoever asks to have the answer explained and may be told."""
        self.work.texts = []

    def explained(self) -> dict[str, Any]:
        """How the operation was read. The statements never hold values."""
        texts = self.work.texts or []
        node = self.context and self.context.node
        return {
            "operation": node.operation.value if node else None,
            "planned": self.context is not None and self.context.is_planned,
            "cost": self.context.cost if self.context else None,
            "statements": texts,
        }

    def timing(self) -> bytes:
        """How long it took so far, in milliseconds, as the header Server-Timing tells it."""
        times = self.context.times if self.context else {}
        parse, plan = 1000 * times.get("parse", 0), 1000 * times.get("plan", 0)
        db, total = 1000 * self.work.seconds, 1000 * (time.perf_counter() - self._started)
        told = b"parse;dur=%.2f, plan;dur=%.2f, db;dur=%.2f, total;dur=%.2f"
        return told % (parse, plan, db, total)

    def _hash(self) -> str | None:
        if self.asked is None:
            return None
        if self.asked.query is None:
            persisted = (self.asked.extensions or {}).get("persistedQuery")
            named = persisted.get("sha256Hash") if isinstance(persisted, dict) else None
            # Anything else could hold a secret, or look like a line of the log.
            return named if isinstance(named, str) and HASH.fullmatch(named) else None
        if self.context is not None and self.context.document is not None:
            return self.context.document.hash
        return hash_of(self.asked.query)

    def _write(self) -> None:
        if not logs.operations.isEnabledFor(logging.INFO):
            return
        node = self.context and self.context.node
        fields = {
            "transport": self.transport,
            "kind": node.operation.value if node else None,
            "operation": node.name.value if node and node.name else None,
            "hash": self._hash(),
            "viewer": self.context and self.context.viewer.name,
            "status": self.status,
            "codes": self.codes,
            "milliseconds": round((time.perf_counter() - self._started) * 1000, 1),
            "statements": self.work.statements,
            "rows": self.work.rows,
        }
        logs.operations.info("operation", extra={"fields": fields})
