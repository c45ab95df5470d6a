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
from strawberry.types.execution import PreExecutionError

from db.text import storable
from graph.context import Context
from graph.errors import BadInput, BadRequest, Unauthenticated
from graph.loaders import Loaders
from graph.planner import planned
from graph.rights import ANYBODY, MUTATIONS
from graph.selections import Operation, Unreadable

# https://www.postgresql.org/docs/current/errcodes-appendix.html
PROGRAM_LIMIT_EXCEEDED = "54"

INTROSPECTION = {"__typename", "__schema", "__type"}
OPEN_MUTATIONS = {"__typename"} | {name for name in MUTATIONS if MUTATIONS[name] is ANYBODY}


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


class Prepared(SchemaExtension):
    """Reads the operation as a tree, and lets only those in who may ask."""

    async def on_execute(self) -> AsyncIterator[None]:
        execution = self.execution_context
        context: Context = execution.context
        assert execution.graphql_document is not None
        if self._is_ambiguous():
            several = BadRequest("The document has several operations; say which by operationName.")
            execution.result = PreExecutionError(data=None, errors=[several])
            yield
            return
        try:
            operation = Operation(
                execution.schema._schema,
                execution.graphql_document,
                execution.operation_name,
                execution.variables,
            )
        except Unreadable:
            # The executor comes upon the same fault, and words it, before it resolves anything.
            yield
            return
        context.operation = operation
        refusal = context.refusal or self._refusal(context, operation)
        if refusal is not None:
            execution.result = PreExecutionError(data=None, errors=[refusal])
            yield
            return
        context.loaders = Loaders(context)
        plan = planned(operation, context.viewer) if context.planner else None
        if plan is not None:
            execution.result = await self._run(context, plan)
        yield

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

    def _refusal(self, context: Context, operation: Operation) -> Unauthenticated | None:
        """Without a token only `__typename` is answered, and in development introspection."""
        if operation.node.operation is OperationType.MUTATION:
            open_to_all = OPEN_MUTATIONS
        else:
            open_to_all = INTROSPECTION if context.introspection else {"__typename"}
        if context.is_anonymous and any(root.name not in open_to_all for root in operation.roots):
            return Unauthenticated()
        return None
