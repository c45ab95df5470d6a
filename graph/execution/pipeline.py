"""The steps of every operation, whichever way it came.

Admit, find the document and the kind of the operation, validate, coerce the variables, price and
charge, find or make the compiled statement, run, report. What is known already is looked up in the
same steps. What is cheap comes first, so that refusing costs little: the rate, the limits of what
can be counted in the document, who may ask, and only then the rules of validation.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

import strawberry
from graphql import ExecutionResult, GraphQLError, GraphQLSchema, OperationType, execute, subscribe
from strawberry.execution import optimized_is_awaitable
from strawberry.utils.await_maybe import await_maybe

from db.text import require_storable
from graph.compiler import CompiledOperation, CompiledParts, Compiler
from graph.compiler import run as run_statement
from graph.core.access import Deadline
from graph.core.context import Context
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
)
from graph.core.filters import conditions_of
from graph.core.invalid_values import check_arguments
from graph.core.loaders import Loaders
from graph.core.response_budget import ResponseBudget
from graph.core.rights import open_mutations
from graph.core.selections import InvalidOperation, coerce_variables, find, head_of
from graph.core.threads import in_thread
from graph.execution.documents import (
    Document,
    PersistedQueryNotFound,
    documents,
    hash_of,
    persisted_hash,
    read,
    validated,
)
from graph.execution.executor import LimitedExecutor
from graph.execution.masking import database_error, reported
from graph.execution.run import GraphQLRequest, Run, Timed
from graph.limits.cost import COST_OF_ASKING, cost_of, costliest
from graph.limits.document_size import LARGEST, check_variables
from graph.limits.limits import Limits

INTROSPECTION = {"__schema", "__type"}

# What it costs to validate a document, for each token: up to 0.1 ms, in which nobody else is
# answered. A viewer who sends ever new ones gets about a tenth of that time.
COST_OF_TOKEN = 10
# A document with so many is validated at once; a longer one keeps nobody else waiting.
FEW_TOKENS = 200
# One that cannot be read costs one for each character beyond so many.
SHORT = 500

# Errors that end a query as a whole, because an answer in part would be of no use. But for the
# last, they come from the moment and not from what is asked.
WHOLE = (Overloaded, Unavailable, TooSlow, AnswerTooLarge)


class Pipeline:
    """The steps of operations of a schema, with what a process keeps for them."""

    def __init__(self, schema: strawberry.Schema, limits: Limits) -> None:
        settings = limits.settings
        self.schema: GraphQLSchema = schema._schema
        self.limits = limits
        self.documents = documents()
        self._open_mutations = open_mutations(schema)
        self.compiler = None
        if settings.planner:
            self.compiler = Compiler(self.schema, settings.max_answer_bytes)

    def begin(self, request: GraphQLRequest, context: Context) -> Run:
        """Admit an operation, and find its document and its kind.

        A refused run has no kind; `answer` returns its error.
        """
        run = Run(self.schema, request, context)
        try:
            with Timed(run.times, "parse"):
                document = run.document = self._find(run)
                self._admit(run)
                run.kind = document.kind_of(request.operation_name)
        except Exception as error:
            run.error = error
        return run

    async def answer(self, run: Run) -> ExecutionResult:
        """The result of a query or a mutation."""
        try:
            await self._prepare(run)
            with self.limits.running.counted(run.context.client):
                result = await self._execute(run)
        except Exception as error:
            return _refused(run, error)
        return _reported(run, result)

    async def results(self, run: Run) -> AsyncGenerator[ExecutionResult, None]:
        """The results of a subscription, one for each event."""
        try:
            await self._prepare(run)
            context = run.context
            context.loaders = Loaders(context, run.operation)
            found: Any = await await_maybe(subscribe(**self._arguments(run)))
            if isinstance(found, ExecutionResult):
                yield _reported(run, found)
                return
            async with aclosing(found):
                async for result in found:
                    yield _reported(run, result)
        except Exception as error:
            yield _refused(run, error)

    # Find the document, and admit

    def _find(self, run: Run) -> Document:
        """The document, by its text or its hash; the rate is charged before it is read."""
        request, settings = run.request, self.limits.settings
        text, extensions = request.query, request.extensions or {}
        hash = None
        if text is None or extensions.get("persistedQuery") is not None:
            hash = persisted_hash(extensions.get("persistedQuery"), settings)
        if text is None:
            if run.context.refusal is not None:
                raise run.context.refusal
            # Nobody finds out by guessing what others ask.
            found = None if run.context.is_anonymous else self.documents.get(hash or "")
            if found is None:
                raise PersistedQueryNotFound("PersistedQueryNotFound")
            self.limits.rates.charge(run.context.client, COST_OF_ASKING)
            return found
        # A document that is too long is refused for that, and must not be hashed first.
        if hash and len(text) <= settings.max_document_length and hash_of(text) != hash:
            raise BadRequest("The document has another SHA-256 than sha256Hash says.")
        self.limits.rates.charge(run.context.client, COST_OF_ASKING)
        return self._read(run, text)

    def _read(self, run: Run, text: str) -> Document:
        """The document of a text, read unless it is known."""
        context, settings = run.context, self.limits.settings_for(run.context)
        is_short = len(text) <= settings.max_document_length
        found = self.documents.get(hash_of(text)) if is_short else None
        try:
            return found or read(text, settings)
        except GraphQLError as error:
            if is_short:
                self.limits.rates.take(run.context.client, max(0, len(text) - SHORT))
            if context.is_anonymous and isinstance(error, LimitExceeded):
                raise context.refusal or Unauthenticated() from None
            raise

    def _admit(self, run: Run) -> None:
        """Without a token, only `__typename`, `login`, and introspection where all are shown it.

        What @skip and @include leave out counts as well: who may not ask is told nothing of it.
        """
        context, names = run.context, run.document.size.root_names
        if context.refusal is not None:
            raise context.refusal
        if context.is_anonymous:
            allowed = {"__typename"} | self._open_mutations
            shows = self.limits.shows_schema(context)
            if names - allowed - (INTROSPECTION if shows else set()):
                raise Unauthenticated
        if not names.isdisjoint(INTROSPECTION) and not self.limits.shows_schema(context):
            raise Forbidden("This server shows its schema to nobody (TROUPE_INTROSPECTION).")

    # Validate, coerce, price and charge

    async def _prepare(self, run: Run) -> None:
        """Do all that comes before the operation reads or changes anything."""
        if run.error is not None:
            try:
                raise run.error
            finally:
                run.error = None  # else the two would refer to each other, and stay for a while
        if not run.document.is_valid:
            with Timed(run.times, "parse"):
                await self._validate(run)
        with Timed(run.times, "plan"):
            self._coerce(run)
            run.compiled = self._known(run)
            run.cost = self._cost(run)
        self._charge(run)
        self._check(run)

    async def _validate(self, run: Run) -> None:
        document, context, rates = run.document, run.context, self.limits.rates
        run.validation_cost = COST_OF_TOKEN * document.tokens
        suggest = self.limits.shows_schema(context)
        validate = partial(validated, document, self.schema, suggest=suggest)
        try:
            if document.tokens <= FEW_TOKENS:
                run.document = validate()
            else:
                rates.overdraw(run.context.client, 0)
                async with context.in_time(), self.limits.long_work.of(run.context.client):
                    run.document = await in_thread(validate)
        except InvalidOperation:
            rates.take(run.context.client, run.validation_cost)
            raise
        # What anybody can send in any number is not worth to be kept.
        if not context.is_anonymous:
            with suppress(RecursionError):
                self.documents.put(document.hash, run.document.packed())

    def _coerce(self, run: Run) -> None:
        """Read the head of the operation, and the values of its variables."""
        document, name = run.document, run.request.operation_name
        if name is None and len(document.operations) > 1:
            raise BadRequest("The document has several operations; say which by operationName.")
        node = document.heads.get(name)
        if node is None:
            node = document.heads[name] = head_of(run.tree, name)
        run.node, values = node, run.request.variables or {}
        check_variables(node, values, self.schema, self.limits.settings)
        try:
            run.variables = coerce_variables(self.schema, node, values, suggest=False)
        except InvalidOperation:
            run.variables = self._faulty(run, values)

    def _faulty(self, run: Run, values: dict[str, Any]) -> Any:
        """Raise InvalidOperation with places in the text, which a cached head lacks."""
        suggest = self.limits.shows_schema(run.context)
        node = find(run.tree, run.request.operation_name)
        try:
            return coerce_variables(self.schema, node, values, suggest=suggest)
        except InvalidOperation as invalid:
            for error in invalid.errors:
                error.extensions = {"code": BadInput.code}
            raise

    def _cost(self, run: Run) -> int:
        """The cost of the operation; a compiled query remembers it for each size of its pages."""
        compiled = run.compiled
        if compiled is None or compiled.whole is None:
            return cost_of(run.operation)
        try:
            sizes = compiled.whole.sizes_of(run.values)
        except (GraphQLError, ValueError):
            return cost_of(run.operation)  # its field reports what is wrong with a size
        cost = compiled.costs.get(sizes)
        if cost is None:
            cost = cost_of(run.operation)
            compiled.remember(sizes, cost)
        return cost

    def _charge(self, run: Run) -> None:
        """Refuse what costs too much, or more than the client has left."""
        cost, most, rates = run.cost, self.limits.settings.max_cost, self.limits.rates
        try:
            if cost > most:
                advice = costliest(run.operation)
                raise LimitExceeded("rows", "max_cost", min(cost, LARGEST), most, advice)
            rates.charge(run.context.client, cost - COST_OF_ASKING)
        finally:
            if run.validation_cost:  # the document was validated: this is taken in any case
                rates.take(run.context.client, run.validation_cost)
            if (run.request.extensions or {}).get("cost"):
                run.extensions = {
                    "cost": {
                        "cost": min(cost, LARGEST),
                        "limit": most,
                        "left": rates.left(run.context.client),
                        "perSecond": rates.per_second,
                    }
                }

    def _check(self, run: Run) -> None:
        """Refuse too many conditions, and values that PostgreSQL cannot take."""
        compiled, most = run.compiled, self.limits.settings.max_conditions
        conditions = conditions_of(run.operation) if compiled is None else compiled.conditions
        if conditions > most:
            raise LimitExceeded("conditions", "max_conditions", min(conditions, LARGEST), most)
        # The literals of a query that is compiled were checked before that was done.
        if run.whole is None or not _are_storable(run.variables.coerced):
            check_arguments(run.operation)

    # Run

    async def _execute(self, run: Run) -> ExecutionResult:
        """The result, by a compiled statement where there can be one, else by resolvers."""
        run.compiled = run.compiled or await self._compile(run)
        result = await self._run_whole(run)
        if result is None:
            run.operation  # noqa: B018  # the context needs it
            if run.compiled is not None and run.whole is None:
                variables = run.variables.coerced
                run.context.compiled = CompiledParts(run.compiled, variables, run.context)
            _equip(run.context, self.limits)
            is_awaitable: Any = optimized_is_awaitable
            arguments = self._arguments(run)
            result = await await_maybe(execute(**arguments, is_awaitable=is_awaitable))
        if run.kind is OperationType.QUERY and result.errors:
            return _without_part(result)
        return result

    async def _run_whole(self, run: Run) -> ExecutionResult | None:
        """What the statement of a whole query answers; None where the resolvers have to."""
        if run.whole is None:
            return None
        try:
            arguments = run.whole.arguments(run.values)
        except (GraphQLError, ValueError):
            return None
        result = await run_statement(run.whole, arguments, run.context)
        run.is_planned = result is not None and not result.errors
        return result

    def _known(self, run: Run) -> CompiledOperation | None:
        """What the operation was compiled to before."""
        if self.compiler is None or run.node is None or run.context.is_anonymous:
            return None
        return self.compiler.known(run.document, run.node, run.variables, run.context.viewer)

    async def _compile(self, run: Run) -> CompiledOperation | None:
        """What the operation compiles to; None if nothing of it does."""
        if self.compiler is None or run.context.is_anonymous:
            return None
        limits, context = self.limits, run.context
        charge = partial(limits.rates.overdraw, context.client, overdrawn=run.validation_cost)
        turn = limits.long_work.of(context.client)
        with Timed(run.times, "plan"):
            async with context.in_time():
                return await self.compiler.compile(
                    run.document, run.operation, context.viewer, charge, turn
                )

    def _arguments(self, run: Run) -> dict[str, Any]:
        """The arguments of graphql-core's `execute` and `subscribe`."""
        return {
            "schema": self.schema,
            "document": run.tree,
            "context_value": run.context,
            "variable_values": run.request.variables,
            "operation_name": run.request.operation_name,
            "executor_class": Executor,
            "limits": self.limits,
        }


class Executor(LimitedExecutor):
    """Executes each event of a stream like an operation of its own, with so many others at once."""

    is_event = False

    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limits = limits

    def build_per_event_executor(self, payload: Any) -> Any:
        """The executor of an event."""
        executor: Any = super().build_per_event_executor(payload)
        executor.is_event = True
        return executor

    def execute_operation(self, serially: bool | None = None) -> Any:
        """Execute the operation, or the event."""
        return self._in_turn(serially) if self.is_event else super().execute_operation(serially)

    async def _in_turn(self, serially: bool | None) -> Any:
        async with self.limits.events:
            self.context_value = self.context_value.for_event()
            _equip(self.context_value, self.limits)
            return await await_maybe(super().execute_operation(serially))


def _equip(context: Context, limits: Limits) -> None:
    """Give the resolvers of an operation, or of an event, what they read with."""
    settings = limits.settings
    context.deadline = context.deadline or Deadline(settings.max_seconds)
    context.loaders = Loaders(context, context.operation, context.compiled)
    context.budget = ResponseBudget(context.deadline, settings.max_answer_bytes)


def _are_storable(values: Any) -> bool:
    try:
        require_storable(values)
    except ValueError:
        return False
    return True


def _without_part(result: ExecutionResult) -> ExecutionResult:
    """The result of a query; of what kept it from the database, one error without any data.

    So it is one refusal, with a status of its own, whichever way the query was read. The result
    of a mutation says what was done.
    """
    for error in result.errors or ():
        original = error.original_error
        if isinstance(original, WHOLE) or isinstance(database_error(original), WHOLE):
            return ExecutionResult(None, [GraphQLError(error.message, original_error=original)])
    return result


# Report


def _reported(run: Run, result: ExecutionResult) -> ExecutionResult:
    """The result with its errors as a client may see them."""
    if result.errors:
        # What lies below a mutation is read when that is done.
        is_mutation = run.is_mutation
        result.errors = [
            reported(error, is_done=is_mutation and len(error.path or ()) > 1)
            for error in result.errors
        ]
    result.extensions = run.extensions
    return result


def _refused(run: Run, error: Exception) -> ExecutionResult:
    """The result of an operation that is refused."""
    errors: Sequence[Exception] = [error]
    if isinstance(error, InvalidOperation):
        errors = error.errors or errors
    return ExecutionResult(None, [reported(each) for each in errors], run.extensions)
