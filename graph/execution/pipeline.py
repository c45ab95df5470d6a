"""What happens to every operation on its way: who asks, what it holds, and what it selects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from graphql import (
    ExecutionResult,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
)
from strawberry import Schema
from strawberry.extensions import SchemaExtension
from strawberry.types.execution import PreExecutionError
from strawberry.utils.await_maybe import await_maybe

from graph.compiler import CompiledParts, Request, run
from graph.core.answers import Answer
from graph.core.context import Context, Deadline
from graph.core.errors import (
    AnswerTooLarge,
    BadInput,
    BadRequest,
    Forbidden,
    LimitExceeded,
    Overloaded,
    TooSlow,
    Unauthenticated,
    Unavailable,
    of_the_database,
)
from graph.core.filters import conditions_of
from graph.core.invalid_values import check_arguments
from graph.core.loaders import Loaders
from graph.core.rights import ANYBODY, rights_of
from graph.core.selections import Operation, Unreadable, coerced, find
from graph.core.worker import aside
from graph.execution.documents import Document, hash_of, read, validated
from graph.execution.executor import LimitedExecutor
from graph.limits.cost import COST_OF_ASKING, cost_of, costliest
from graph.limits.document_size import LARGEST, check_variables
from graph.limits.guard import Guard, asker_of, guard_of

INTROSPECTION = {"__schema", "__type"}

# What it costs to validate a document, for each token: up to 0.1 ms, in which nobody else is
# answered. A viewer who sends ever new ones gets about a tenth of that time.
COST_OF_TOKEN = 10
# A document with so many is validated at once; a longer one keeps nobody else waiting.
FEW_TOKENS = 200
# One that cannot be read costs one for each character beyond so many.
SHORT = 500

# What has to do with the moment, and not with what is asked.
PASSING = (Overloaded, Unavailable, TooSlow)
# What ends a query as a whole, because an answer in part would be of no use.
WHOLE = (*PASSING, AnswerTooLarge)


class Checked(SchemaExtension):
    """Reads and validates the document unless it is known, and lets only those in who may ask.

    What is cheap comes first, so that refusing costs little: the rate, the limits of what can be
    counted in the document, who may ask, and only then the rules of validation.
    """

    document: Document

    def on_parse(self) -> Iterator[None]:
        context: Context = self.execution_context.context
        with context.timed("parse"):
            self._read(context)
        yield

    def _read(self, context: Context) -> None:
        execution = self.execution_context
        guard, text = guard_of(context), execution.query or ""
        guard.rates.use(asker_of(context), COST_OF_ASKING)
        settings = guard.unknown if context.is_anonymous else guard.settings
        known = None
        if len(text) <= settings.max_document_length:
            known = guard.documents.get(hash_of(text))
        try:
            self.document = known or read(text, settings)
        except GraphQLError as error:
            if len(text) <= settings.max_document_length:
                guard.rates.take(asker_of(context), max(0, len(text) - SHORT))
            if context.is_anonymous and isinstance(error, LimitExceeded):
                raise context.refusal or Unauthenticated() from None
            raise
        refusal = context.refusal or _refusal(context, guard, self.document, execution.schema)
        if refusal is not None:
            raise refusal
        execution.graphql_document = self.document.node

    async def on_validate(self) -> AsyncIterator[None]:
        # Before the yield: otherwise the whole document would be validated each time.
        context: Context = self.execution_context.context
        with context.timed("parse"):
            await self._validate(context)
        yield

    async def _validate(self, context: Context) -> None:
        execution, document = self.execution_context, self.document
        guard = guard_of(context)
        if document.is_valid:
            context.document = document
            execution.pre_execution_errors = []
        else:
            context.owed = COST_OF_TOKEN * document.tokens
            shows = guard.settings.shows_schema(anonymous=context.is_anonymous)
            schema = execution.schema._schema
            validate = partial(validated, document, schema, suggest=shows)
            if document.tokens <= FEW_TOKENS:
                valid, errors = validate()
            else:
                asker = asker_of(context)
                guard.rates.owe(asker, 0)
                async with context.in_time(), guard.aside.of(asker):
                    valid, errors = await aside(validate)
            execution.pre_execution_errors, context.document = errors, valid
            if errors:
                guard.rates.take(asker_of(context), context.owed)
            # What anybody can send in any number is not worth to be kept.
            if valid is not None and not context.is_anonymous:
                with suppress(RecursionError):
                    guard.documents.put(valid.hash, valid.packed())


def _refusal(
    context: Context, guard: Guard, document: Document, schema: Schema
) -> GraphQLError | None:
    """Without a token only `__typename`, `login`, and introspection where all are shown it.

    What @skip and @include leave out counts as well: who may not ask is told nothing of the rest.
    """
    names = document.size.root_names - {"__typename"}
    shows = guard.settings.shows_schema(anonymous=context.is_anonymous)
    if context.is_anonymous:
        open_to_all = {name for name, right in rights_of(schema).items() if right is ANYBODY}
        if names - open_to_all - (INTROSPECTION if shows else set()):
            return Unauthenticated()
    if names & INTROSPECTION and not shows:
        return Forbidden("This server shows its schema to nobody (TROUPE_INTROSPECTION).")
    return None


def _begin(context: Context) -> None:
    """Give an operation, or an event, what it reads with, and its time."""
    context.loaders = Loaders(context)
    context.answer = Answer(context, guard_of(context).settings.max_answer_bytes)
    if context.deadline is None:  # otherwise it began when it was asked who asks
        context.deadline = Deadline(guard_of(context).settings.max_seconds)


class Executor(LimitedExecutor):
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
        schema = execution.schema._schema
        suggest = guard.settings.shows_schema(anonymous=context.is_anonymous)
        try:
            with context.timed("plan"):
                node = find(execution.graphql_document, execution.operation_name)
                context.node = node
                check_variables(node, execution.variables or {}, schema, guard.settings)
                variables = coerced(schema, node, execution.variables, suggest=suggest)
                operation = Operation(schema, execution.graphql_document, node, variables)
        except Unreadable as unreadable:
            # Without errors, the executor comes upon the same fault before it resolves anything.
            if unreadable.errors:
                for error in unreadable.errors:
                    error.extensions = {"code": BadInput.code}
                execution.result = ExecutionResult(None, unreadable.errors)
            yield
            return
        context.operation = operation
        context.cost = cost_of(operation)
        self._charge(context, guard)
        conditions, most = conditions_of(operation), guard.settings.max_conditions
        if conditions > most:
            raise LimitExceeded("conditions", "max_conditions", min(conditions, LARGEST), most)
        check_arguments(operation)
        if node.operation is OperationType.SUBSCRIPTION:
            context.loaders = Loaders(context)
            yield  # for as long as events come
            return
        with guard.running.one_more(asker_of(context)):
            _begin(context)
            execution.result = await self._compiled(context, operation)
            yield
        if node.operation is OperationType.QUERY:
            self._end_alone()

    async def _compiled(self, context: Context, operation: Operation) -> ExecutionResult | None:
        """The result of a query that compiles as a whole; none where resolvers have to answer.

        Of other operations, the parts that compile are left for the executor.
        """
        if context.compiler is None or context.document is None or context.is_anonymous:
            return None
        guard, asker = guard_of(context), asker_of(context)
        charge, turn = partial(guard.rates.owe, asker, owed=context.owed), guard.aside.of(asker)
        with context.timed("plan"):
            async with context.in_time():
                compiled = await context.compiler.compile(
                    context.document, operation, context.viewer, charge, turn
                )
        if compiled is None:
            return None
        variables = operation.variables.coerced
        if compiled.whole is None:
            context.compiled = CompiledParts(compiled, variables, context)
            return None
        try:
            arguments = compiled.whole.arguments(Request(variables, context.viewer))
        except (GraphQLError, ValueError):
            return None
        return await run(compiled.whole, arguments, context)

    def _charge(self, context: Context, guard: Guard) -> None:
        """Let nothing run that costs too much, or more than the viewer has left."""
        cost = context.cost
        execution, most, asker = self.execution_context, guard.settings.max_cost, asker_of(context)
        try:
            if cost > most:
                raise LimitExceeded(
                    "rows", "max_cost", min(cost, LARGEST), most, costliest(context.operation)
                )
            guard.rates.use(asker, cost - COST_OF_ASKING)
        finally:
            # It was done; whether it can be paid is seen when the next one comes.
            guard.rates.take(asker, context.owed)
            if (execution.operation_extensions or {}).get("cost"):
                execution.extensions_results["cost"] = {
                    "cost": min(cost, LARGEST),
                    "limit": most,
                    "left": guard.rates.left(asker),
                    "perSecond": guard.rates.per_second,
                }

    def _end_alone(self) -> None:
        """Answer a query with what kept it from the database, and not with half a page of errors.

        So it is one refusal, with a status of its own, whichever way the query was to be read. Of
        a mutation it is told what was done.
        """
        result: Any = self.execution_context.result
        for error in (result and result.errors) or ():
            original = error.original_error
            if isinstance(original, WHOLE) or isinstance(of_the_database(original), WHOLE):
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
