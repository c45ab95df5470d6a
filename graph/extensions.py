"""What happens to every operation on its way: who asks, what it holds, and what it selects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
from graphql import (
    ExecutionResult,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    StringValueNode,
    Visitor,
    visit,
)
from sqlalchemy import Select
from strawberry.extensions import SchemaExtension
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.execution import PreExecutionError
from strawberry.utils.await_maybe import await_maybe

from db.text import storable
from graph.context import Context, Deadline, OutOfTime
from graph.cost import cost_of
from graph.documents import Document, hash_of, read, validated
from graph.errors import BadInput, BadRequest, Forbidden, LimitExceeded, Unauthenticated
from graph.guard import Guard, asker_of, guard_of
from graph.limits import LARGEST
from graph.loaders import Loaders
from graph.planner import planned
from graph.rights import ANYBODY, MUTATIONS
from graph.selections import Operation, Unreadable

# https://www.postgresql.org/docs/current/errcodes-appendix.html
PROGRAM_LIMIT_EXCEEDED = "54"

OPEN_MUTATIONS = {name for name, right in MUTATIONS.items() if right is ANYBODY}
INTROSPECTION = {"__schema", "__type"}

# Every request costs this, so that asking without end for what is refused has an end, too.
COST_OF_ASKING = 1


class Checked(SchemaExtension):
    """Reads and validates the document unless it is known, and lets only those in who may ask.

    What is cheap comes first, so that refusing costs little: the rate, the limits of what can be
    counted in the document, who may ask, and only then the rules of validation.
    """

    document: Document

    def on_parse(self) -> Iterator[None]:
        execution = self.execution_context
        context: Context = execution.context
        guard, text = guard_of(context), execution.query or ""
        guard.rates.use(asker_of(context), COST_OF_ASKING)
        settings = guard.unknown if context.is_anonymous else guard.settings
        known = None
        if len(text) <= settings.max_document_length:
            known = guard.documents.get(hash_of(text))
        try:
            self.document = known or read(text, settings)
        except LimitExceeded:
            if context.is_anonymous:
                raise context.refusal or Unauthenticated() from None
            raise
        refusal = context.refusal or _refusal(context, guard, self.document)
        if refusal is not None:
            raise refusal
        execution.graphql_document = self.document.node
        yield

    def on_validate(self) -> Iterator[None]:
        # Before the yield: otherwise the whole document would be validated each time.
        execution, document = self.execution_context, self.document
        context: Context = execution.context
        guard = guard_of(context)
        if document.is_valid:
            execution.pre_execution_errors = []
        else:
            shows = guard.settings.shows_schema(anonymous=context.is_anonymous)
            valid, errors = validated(document, execution.schema._schema, suggest=shows)
            execution.pre_execution_errors = errors
            # What anybody can send in any number is not worth to be kept.
            if valid is not None and not context.is_anonymous:
                guard.documents.keep(valid)
        yield


def _refusal(context: Context, guard: Guard, document: Document) -> GraphQLError | None:
    """Without a token only `__typename`, `login`, and introspection where all are shown it.

    What @skip and @include leave out counts as well: who may not ask is told nothing of the rest.
    """
    names = document.size.root_names - {"__typename"}
    shows = guard.settings.shows_schema(anonymous=context.is_anonymous)
    if context.is_anonymous and names - OPEN_MUTATIONS - (INTROSPECTION if shows else set()):
        return Unauthenticated()
    if names & INTROSPECTION and not shows:
        return Forbidden("This server shows its schema to nobody (TROUPE_INTROSPECTION).")
    return None


class Storable(SchemaExtension):
    """Refuses text that PostgreSQL cannot store, in variables and in the document's literals."""

    def on_validate(self) -> Iterator[None]:
        # Before the yield: errors that are found after it come too late to be looked at.
        context = self.execution_context
        try:
            storable(context.variables)
            # Only an escape can bring such a character: as itself it is a syntax error.
            if context.graphql_document is not None and "\\u" in (context.query or ""):
                visit(context.graphql_document, _Literals())
        except ValueError as error:
            if not context.pre_execution_errors:
                context.pre_execution_errors = [BadInput(f"Unusable input: {error}.")]
        yield


class _Literals(Visitor):
    def enter_string_value(self, node: StringValueNode, *_: object) -> None:
        storable(node.value)


def _begin(context: Context) -> None:
    """Give an operation, or an event, what it reads with, and its time."""
    context.loaders = Loaders(context)
    context.deadline = Deadline(guard_of(context).settings.max_seconds)


class Executor(StrawberryGraphQLCoreExecutionContext):
    """Executes each event of a stream like an operation of its own, with so many others at once."""

    is_event = False

    def build_per_event_executor(self, payload: Any) -> Any:
        """The executor of an event."""
        executor: Any = super().build_per_event_executor(payload)
        executor.is_event = True
        return executor

    def execute_operation(self, serially: bool | None = None) -> Any:
        """Execute the operation, or the event."""
        return self._in_turn(serially) if self.is_event else super().execute_operation(serially)

    async def _in_turn(self, serially: bool | None) -> Any:
        async with guard_of(self.context_value).events:
            self.context_value = self.context_value.for_event()
            _begin(self.context_value)
            return await await_maybe(super().execute_operation(serially))


class Prepared(SchemaExtension):
    """Reads the operation as a tree, counts its cost, and gives it its time."""

    async def on_execute(self) -> AsyncIterator[None]:
        execution = self.execution_context
        context: Context = execution.context
        assert execution.graphql_document is not None
        if self._is_ambiguous():
            several = BadRequest("The document has several operations; say which by operationName.")
            execution.result = PreExecutionError(data=None, errors=[several])
            yield
            return
        guard = guard_of(context)
        try:
            operation = Operation(
                execution.schema._schema,
                execution.graphql_document,
                execution.operation_name,
                execution.variables,
                suggest=guard.settings.shows_schema(anonymous=context.is_anonymous),
            )
        except Unreadable as unreadable:
            # Without errors, the executor comes upon the same fault before it resolves anything.
            if unreadable.errors:
                execution.result = ExecutionResult(None, unreadable.errors)
            yield
            return
        context.operation = operation
        context.cost = cost_of(operation)
        self._charge(context, guard)
        if operation.node.operation is OperationType.SUBSCRIPTION:
            context.loaders = Loaders(context)
            yield  # for as long as events come
            return
        with guard.running.one_more(asker_of(context)):
            _begin(context)
            plan = planned(operation, context.viewer) if context.planner else None
            if plan is not None:
                execution.result = await self._run(context, plan)
            yield
        if operation.node.operation is OperationType.QUERY:
            self._end_late()

    def _charge(self, context: Context, guard: Guard) -> None:
        """Let nothing run that costs too much, or more than the viewer has left."""
        cost = context.cost
        execution, most, asker = self.execution_context, guard.settings.max_cost, asker_of(context)
        try:
            if cost > most:
                raise LimitExceeded("rows", "max_cost", min(cost, LARGEST), most)
            guard.rates.use(asker, cost - COST_OF_ASKING)
        finally:
            if (execution.operation_extensions or {}).get("cost"):
                execution.extensions_results["cost"] = {
                    "cost": min(cost, LARGEST),
                    "limit": most,
                    "left": guard.rates.left(asker),
                    "perSecond": guard.rates.per_second,
                }

    def _end_late(self) -> None:
        """Answer a query whose time was over with that, and not with half a page of errors.

        Of a mutation it is told what was done.
        """
        result: Any = self.execution_context.result
        for error in (result and result.errors) or ():
            if isinstance(error.original_error, OutOfTime):
                # In place, because it is this object that is handed on.
                result.data = None
                result.errors = [GraphQLError(error.message, original_error=error.original_error)]
                return

    def _is_ambiguous(self) -> bool:
        """Whether several operations could be meant, of which Strawberry would run the first."""
        document = self.execution_context.graphql_document
        if self.execution_context._provided_operation_name is not None or document is None:
            return False
        kinds = [isinstance(node, OperationDefinitionNode) for node in document.definitions]
        return sum(kinds) > 1

    async def _run(self, context: Context, plan: Select[Any]) -> ExecutionResult | None:
        """What a plan's statement answers: JSON that passes through as it is.

        None where it is too complex for SQLAlchemy or PostgreSQL: the resolvers then answer.
        """
        try:
            async with context.read() as session:
                data: Any = orjson.Fragment(await session.scalar(plan))
            return ExecutionResult(data, None)
        except RecursionError:
            return None
        except Exception as error:
            state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
            if state.startswith(PROGRAM_LIMIT_EXCEEDED):
                return None
            # As an error of the result it is worded; raised, it would reach the client as it is.
            return ExecutionResult(None, [GraphQLError(str(error), original_error=error)])
