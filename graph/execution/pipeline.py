"""The steps of every operation, over any transport.

Identify the viewer, find the document and the kind of the operation, check access, validate, coerce
the variables, compute and charge the cost, find or make the compiled statement, execute, report. A
known document takes the same steps with results from caches. Cheap checks come first, so that a
refusal costs little: the rate, the size of the document, access, and then the validation rules.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import orjson
import strawberry
from graphql import (
    ExecutionResult,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    execute_root_selection_set,
)
from graphql.execution.values import VariableValues
from graphql.pyutils import gather_with_cancel
from sqlalchemy import select
from strawberry.execution import optimized_is_awaitable
from strawberry.utils.await_maybe import await_maybe

from db import Viewer
from db.parameters import request_of_statements
from db.replicas import place_of, token_of
from db.text import decimal_json
from graph.compiler import Compiler
from graph.compiler.compiled import CompiledOperation, CompiledParts, CompiledStatement
from graph.compiler.updates import MessagesRequest
from graph.compiler.variables import Request
from graph.core.access import Deadline, EnforcedDeadline
from graph.core.cache import Cache
from graph.core.context import Context
from graph.core.errors import (
    BadInput,
    BadRequest,
    Forbidden,
    LimitExceeded,
    Overloaded,
    Unauthenticated,
    Unavailable,
)
from graph.core.fields import Awaited, awaited_fields
from graph.core.filters import conditions_of
from graph.core.invalid_values import check_arguments, is_storable
from graph.core.loaders import Loaders
from graph.core.response_limits import ResponseLimits
from graph.core.rights import open_mutations
from graph.core.selections import InvalidOperation, coerce_variables, find, head_of
from graph.core.threads import in_thread
from graph.core.timers import SharedTimer
from graph.core.updates import Message, messages_table
from graph.execution.documents import (
    Document,
    PersistedQueryNotFound,
    document_cache,
    hash_of,
    parse_document,
    persisted_hash,
    validated,
)
from graph.execution.executor import Executor
from graph.execution.masking import database_error, reported
from graph.execution.responses import Response
from graph.execution.run import WRITTEN, GraphQLRequest, Run
from graph.execution.tokens import Tokens
from graph.limits.cost import COST_OF_REQUEST, cost_advice, cost_of
from graph.limits.document_size import MOST_REPORTED, check_variables
from graph.limits.limits import Limits, client_of, network

INTROSPECTION = {"__schema", "__type"}

# The cost of validating a document, for each token, which takes up to 0.1 ms of the event loop. So
# a viewer who sends only new documents uses about a tenth of its time.
COST_OF_TOKEN = 10
# A longer document is validated in a thread.
TOKENS_IN_EVENT_LOOP = 200
# A document that cannot be parsed costs 1 for each character beyond this number.
FREE_CHARACTERS = 500

# The codes of errors after which a query returns no partial data.
CODES_WITHOUT_DATA = {"OVERLOADED", "UNAVAILABLE", "TIMEOUT", "LIMIT_EXCEEDED"}


class Reader(NamedTuple):
    """Who messages of a subscription are read for."""

    run: Run
    viewer: Viewer
    """The viewer, with the rights that they have now."""
    compiled: CompiledOperation | None
    """The compiled operation for viewers of this kind."""


Delivery = tuple[Reader, Message]
"""A message of a subscription, and who it is read for."""


class Read(NamedTuple):
    """A message of a subscription, as a viewer gets it."""

    delivery: int
    """The index of the delivery."""
    body: bytes
    """The response, as JSON."""


class Pipeline:
    """The steps of the operations of a schema, with the caches of a process."""

    def __init__(self, schema: strawberry.Schema, limits: Limits) -> None:
        self.schema: GraphQLSchema = schema._schema
        self.limits = limits
        self.timer = SharedTimer()
        self.documents = document_cache()
        self._open_mutations = open_mutations(schema)
        self._awaited = awaited_fields(self.schema)
        most = limits.settings.max_answer_bytes
        self.compiler = Compiler(most) if limits.settings.compiler else None

    def caches(self) -> dict[str, Cache[Any, Any]]:
        """The caches of the process, by their names in the metrics."""
        caches: dict[str, Cache[Any, Any]] = {"documents": self.documents}
        if self.compiler is not None:
            caches["statements"] = self.compiler.cache
        return caches

    async def context(self, tokens: Tokens, token: str | None, address: str | None) -> Context:
        """The context of an operation: the viewer, the deadline, and the access to the database."""
        limits, viewer = self.limits, None
        refusal: Exception | None = None
        deadline = self._deadline()
        try:
            if token is not None and (viewer := tokens.cached(token)) is None:
                with EnforcedDeadline(deadline):
                    viewer = await tokens.viewer(token)
        except Exception as error:
            refusal = error
        context = Context(tokens.database, viewer)
        if token is not None:
            context.authenticate = partial(tokens.viewer, token)
        context.refusal, context.deadline, context.address = refusal, deadline, address
        client = context.client = client_of(viewer, address)
        context.connections = limits.connections[client]
        context.allows_http = limits.settings.allows_http
        context.guess = lambda account: limits.password_attempts.count(account, network(address))
        return context

    def _deadline(self) -> Deadline:
        """The deadline of an operation that begins now."""
        return Deadline(self.limits.settings.max_seconds, self.timer)

    def begin(self, request: GraphQLRequest, context: Context) -> Run:
        """Find the document and the kind of an operation, and check access.

        After an error, the run has no kind; `answer` and `stream` return the error.
        """
        run, began = Run(self.schema, request, context), perf_counter()
        try:
            document = run.document = self._find_document(run)
            self._check_access(run)
            run.kind = document.kind_of(request.operation_name)
        except Exception as error:
            run.error = error
        run.parse_seconds = perf_counter() - began
        return run

    async def answer(self, run: Run) -> Response:
        """The response to a query or a mutation."""
        response = await self._answer(run)
        replica = run.context.database.replica
        if replica is not None and run.is_mutation:
            # Also after an error: the mutation may be done, or was done before with its key.
            token = token_of(await replica.place_after_write())
            response.body.setdefault("extensions", {})[WRITTEN] = token
        return response

    async def _answer(self, run: Run) -> Response:
        try:
            await self.prepare(run)
            if not self._awaited.isdisjoint(run.document.size.root_names):
                await self._wait(run)
                async with self.limits.after_waiting:
                    return _responded(run, await self._execute(run))
            running, client = self.limits.running, run.context.client
            running.begin(client)
            try:
                result = await self._execute_anywhere(run)
            finally:
                running.end(client)
        except Exception as error:
            return self.refused(run, error)
        return _responded(run, result)

    async def compile(self, run: Run) -> None:
        """Have the operation of a run be compiled, if it can be."""
        run.compiled = run.compiled or await self._compile(run)

    async def messages(self, deliveries: Sequence[Delivery]) -> list[Read]:
        """The messages of subscriptions with one selection, each if its viewer may see it.

        The viewers are of one kind, and each gets their messages in the given order.
        """
        run, viewer, compiled = deliveries[0][0]
        statement = None if compiled is None else compiled.statements.get(())
        if statement is not None:
            request = _messages_request(run, viewer, deliveries)
            with suppress(GraphQLError, ValueError):  # the resolvers report invalid arguments
                return await self._read(run, statement, statement.arguments(request))
        by_reader: dict[int, tuple[Reader, list[int]]] = {}
        for number, (reader, _) in enumerate(deliveries):
            by_reader.setdefault(id(reader), (reader, []))[1].append(number)
        return [
            Read(numbers[place], body)
            for reader, numbers in by_reader.values()
            async for place, body in self._resolve(
                reader, [deliveries[number][1] for number in numbers]
            )
        ]

    async def _read(
        self, run: Run, statement: CompiledStatement, arguments: Sequence[Any]
    ) -> list[Read]:
        by_key = not statement.sizes
        rows = await run.context.database.fetch(statement.sql, arguments, by_key=by_key)
        return [Read(number - 1, b'{"data":%b}' % data) for number, data in rows]

    async def _resolve(
        self, reader: Reader, messages: Sequence[Message]
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Those messages that a viewer may see, with their indexes, by the resolvers."""
        run, viewer = reader.run, reader.viewer
        context = run.context.for_event()
        context.become(viewer)
        (root,) = run.operation.roots
        followed: Any = root.declaration
        arguments = run.operation.converted(root) if root.has_valid_arguments else {}
        table = messages_table()
        visible = followed.visible(table, viewer, arguments)
        request = MessagesRequest({}, viewer, messages=messages)
        async with context.database.read() as session:
            with request_of_statements(request):
                found = await session.scalars(select(table.c.number).where(visible))
                seen = set(found)
        for place, message in enumerate(messages):
            if place + 1 in seen:
                event = context.for_event()
                with self._resolving(event):
                    executor = self._executor(run, event, message)
                    result = await await_maybe(execute_root_selection_set(executor))
                _raise_if_it_passes(result)
                response = _responded(run, result)
                response.body.pop("extensions", None)  # what was left when it began
                yield place, orjson.dumps(response.body, default=decimal_json)

    def refused(self, run: Run, error: Exception) -> Response:
        """The response to an operation that is refused."""
        several = error.errors if isinstance(error, InvalidOperation) else ()
        errors = [reported(each) for each in several or (error,)]
        return Response(ExecutionResult(None, errors, run.extensions))

    # Find the document, and check access

    def _find_document(self, run: Run) -> Document:
        """The document, by its text or its hash. The request is charged before parsing."""
        request, settings = run.request, self.limits.settings
        text, extensions = request.query, request.extensions or {}
        hash = None
        if text is None or extensions.get("persistedQuery") is not None:
            hash = persisted_hash(extensions.get("persistedQuery"), settings)
        if text is None:
            if run.context.refusal is not None:
                raise run.context.refusal
            # Without a token, hashes cannot be used to find out the documents of other clients.
            document = None if run.context.is_anonymous else self.documents.get(hash or "")
            if document is None:
                raise PersistedQueryNotFound("PersistedQueryNotFound")
            self.limits.rates.charge(run.context.client, COST_OF_REQUEST)
            return document
        # A document that is too long is refused without hashing it.
        if hash and len(text) <= settings.max_document_length and hash_of(text) != hash:
            raise BadRequest("The document has another SHA-256 than sha256Hash says.")
        self.limits.rates.charge(run.context.client, COST_OF_REQUEST)
        return self._parse(run, text)

    def _parse(self, run: Run, text: str) -> Document:
        """The document of a text, from the cache or parsed."""
        context, settings = run.context, self.limits.settings_for(run.context)
        is_short = len(text) <= settings.max_document_length
        document = self.documents.get(hash_of(text)) if is_short else None
        try:
            return document or parse_document(text, settings)
        except GraphQLError as error:
            if is_short:
                self.limits.rates.take(run.context.client, max(0, len(text) - FREE_CHARACTERS))
            if context.is_anonymous and isinstance(error, LimitExceeded):
                raise context.refusal or Unauthenticated() from None
            raise

    def _check_access(self, run: Run) -> None:
        """Without a token, allow `__typename`, the open mutations, and introspection if it is open.

        Fields that @skip and @include leave out count too, so that a refusal reveals no values.
        """
        context, names = run.context, run.document.size.root_names
        if context.refusal is not None:
            raise context.refusal
        if context.is_anonymous:
            allowed = {"__typename"} | self._open_mutations
            if self.limits.shows_schema(context):
                allowed |= INTROSPECTION
            if names - allowed:
                raise Unauthenticated
        if not names.isdisjoint(INTROSPECTION) and not self.limits.shows_schema(context):
            raise Forbidden("This server shows its schema to nobody (TROUPE_INTROSPECTION).")

    # Validate, coerce, compute and charge the cost

    async def prepare(self, run: Run) -> None:
        """Take all steps before the operation reads or changes anything, once."""
        if run.is_prepared:
            return
        if run.error is not None:
            try:
                raise run.error
            finally:
                run.error = None  # else the run and the error would form a reference cycle
        if not run.document.is_valid:
            await self._validate(run)
        began = perf_counter()
        context = run.context
        try:
            node, variables = self._coerce(run)
            if self.compiler is not None and not context.is_anonymous:
                run.compiled = self.compiler.known(
                    run.document.hash, node, variables, context.viewer
                )
            run.cost = self._compute_cost(run)
        except Exception:
            self.limits.rates.take(context.client, run.validation_cost)
            raise
        run.compile_seconds = perf_counter() - began
        self._charge(run)
        self._check_values(run)
        run.is_prepared = True

    async def _validate(self, run: Run) -> None:
        began = perf_counter()
        document, context, rates = run.document, run.context, self.limits.rates
        run.validation_cost = COST_OF_TOKEN * document.tokens
        suggest = self.limits.shows_schema(context)
        validate = partial(validated, document, self.schema, suggest=suggest)
        try:
            if document.tokens <= TOKENS_IN_EVENT_LOOP:
                run.document = validate()
            else:
                rates.overdraw(context.client, 0)
                with context.in_time():
                    async with self.limits.long_work[context.client]:
                        run.document = await in_thread(validate)
        except InvalidOperation:
            rates.take(context.client, run.validation_cost)
            raise
        finally:
            run.parse_seconds += perf_counter() - began
        # Documents without a token are not cached, because anybody can send any number of them.
        if not context.is_anonymous:
            with suppress(RecursionError):
                self.documents.put(document.hash, run.document.pickled())

    def _coerce(self, run: Run) -> tuple[OperationDefinitionNode, VariableValues]:
        """Find the operation in the document, and coerce the variables."""
        document, name = run.document, run.request.operation_name
        head = document.heads.get(name)
        if head is None:
            head = document.heads[name] = head_of(self.schema, run.tree, name)
        node, values = head.node, run.request.variables or {}
        run.node, variables = node, head.coerced(values)
        if variables is not None:
            run.variables = variables
            return node, variables
        check_variables(node, values, self.schema, self.limits.settings)
        try:
            run.variables = coerce_variables(self.schema, node, values, suggest=False)
        except InvalidOperation:
            run.variables = self._coerce_with_locations(run, values)
        return node, run.variables

    def _coerce_with_locations(self, run: Run, values: dict[str, Any]) -> Any:
        """Raise InvalidOperation with locations in the text, which a cached head lacks."""
        suggest = self.limits.shows_schema(run.context)
        node = find(run.tree, run.request.operation_name)
        try:
            return coerce_variables(self.schema, node, values, suggest=suggest)
        except InvalidOperation as invalid:
            for error in invalid.errors:
                error.extensions = {"code": BadInput.code}
            raise

    def _compute_cost(self, run: Run) -> int:
        """The cost of the operation; a compiled one caches it by its sizes."""
        compiled = run.compiled
        if compiled is None or not compiled.is_whole:
            return cost_of(run.operation)
        try:
            sizes = compiled.sizes(Request(run.variables.coerced, run.context.viewer))
        except (GraphQLError, ValueError):
            return cost_of(run.operation)  # the field reports the invalid page size
        cost = compiled.costs.get(sizes)
        if cost is None:
            cost = cost_of(run.operation)
            compiled.remember(sizes, cost)
        return cost

    def _charge(self, run: Run) -> None:
        """Charge the cost. Raises LimitExceeded or RateLimited."""
        cost, most, rates = run.cost, self.limits.settings.max_cost, self.limits.rates
        try:
            if cost > most:
                advice = cost_advice(run.operation)
                raise LimitExceeded("rows", "max_cost", min(cost, MOST_REPORTED), most, advice)
            if cost > COST_OF_REQUEST:  # which is charged already
                rates.charge(run.context.client, cost - COST_OF_REQUEST)
        finally:
            if run.validation_cost:  # the validation is charged even if the operation is refused
                rates.take(run.context.client, run.validation_cost)
            if (run.request.extensions or {}).get("cost"):
                run.extensions = {
                    "cost": {
                        "cost": min(cost, MOST_REPORTED),
                        "limit": most,
                        "left": rates.left(run.context.client),
                        "perSecond": rates.per_second,
                    }
                }

    def _check_values(self, run: Run) -> None:
        """Refuse too many conditions, and values that PostgreSQL cannot store."""
        compiled, most = run.compiled, self.limits.settings.max_conditions
        conditions = conditions_of(run.operation) if compiled is None else compiled.conditions
        if conditions > most:
            found = min(conditions, MOST_REPORTED)
            raise LimitExceeded("conditions", "max_conditions", found, most)
        # The literals of a compiled operation were checked when it was compiled, and a mutation
        # checks its input.
        values = run.variables.coerced
        if (
            compiled is None
            or not compiled.is_whole
            or not is_storable(compiled.values_below(values))
        ):
            check_arguments(run.operation)

    # Wait

    async def _wait(self, run: Run) -> None:
        """Wait for what the root fields of an operation wait for, all at once.

        The viewer is looked up again, because the token may have been revoked meanwhile, and the
        time of the operation begins anew.
        """
        waiting, context = self.limits.waiting, run.context
        context.operation = run.operation
        waiting.begin(context.client)
        try:
            await gather_with_cancel(
                *(
                    root.declaration.wait(context, root)
                    for root in run.operation.roots
                    if isinstance(root.declaration, Awaited) and root.has_valid_arguments
                )
            )
        finally:
            waiting.end(context.client)
        context.deadline = self._deadline()
        with context.in_time():
            context.become(await context.authenticate())

    # Execute

    async def _execute_anywhere(self, run: Run) -> ExecutionResult:
        """The result of an operation that may read from the replica, if it is a query.

        If the replica fails it, the operation is read again, from the primary.
        """
        context = run.context
        replica = context.database.replica
        if replica is not None and run.kind is OperationType.QUERY and not context.is_anonymous:
            with context.in_time():
                place = place_of((run.request.extensions or {}).get(WRITTEN))
                reading = context.reading = await replica.reading(place)
            result = await self._execute(run)
            if reading is None or not reading.has_failed:
                return result
            context.reading = context.compiled = None
        return await self._execute(run)

    async def _execute(self, run: Run) -> ExecutionResult:
        """The result, by one compiled statement if there is one, else by resolvers."""
        context, variables = run.context, run.variables.coerced
        compiled = run.compiled = run.compiled or await self._compile(run)
        result = None
        if compiled is not None:
            parts = CompiledParts(compiled, variables, context)
            if compiled.is_whole:
                result = await parts.result()
                run.is_compiled = result is not None and not result.errors
            if result is None and not compiled.is_one_statement:
                context.compiled = parts
        if result is None:
            context.operation = run.operation
            with self._resolving(context):
                result = await await_maybe(execute_root_selection_set(self._executor(run, context)))
        return result

    @contextmanager
    def _resolving(self, context: Context) -> Iterator[None]:
        """Give resolvers what they read with; at the end, free all that they have read.

        The context, the loaders and the executor of graphql-core refer to each other, so otherwise
        the rows would stay in memory until the garbage collector finds them, which takes long.
        """
        context.deadline = context.deadline or self._deadline()
        context.loaders = Loaders(context, context.operation)
        max_bytes = self.limits.settings.max_answer_bytes
        context.response_limits = ResponseLimits(context.deadline, max_bytes)
        try:
            yield
        finally:
            context.loaders.clear()

    async def _compile(self, run: Run) -> CompiledOperation | None:
        """The compiled operation; None if no part of it can be compiled."""
        if self.compiler is None or run.context.is_anonymous:
            return None
        limits, context = self.limits, run.context
        charge = partial(limits.rates.overdraw, context.client, overdrawn=run.validation_cost)
        turn = limits.long_work[context.client]
        began = perf_counter()
        with context.in_time():
            compiled = await self.compiler.compile(
                run.document.hash, run.operation, context.viewer, charge, turn
            )
        run.compile_seconds += perf_counter() - began
        return compiled

    def _executor(self, run: Run, context: Context, root: Any = None) -> Any:
        """The executor of graphql-core for the operation, with the value of its root."""
        executor = Executor.build(
            self.schema,
            run.tree,
            root_value=root,
            context_value=context,
            raw_variable_values=run.request.variables,
            operation_name=run.request.operation_name,
            is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]
        )
        if isinstance(executor, list):
            raise InvalidOperation(executor)
        return executor


def _messages_request(run: Run, viewer: Viewer, deliveries: Sequence[Delivery]) -> MessagesRequest:
    """What the statement of a subscription reads, in which each message is there once."""
    numbers: dict[int, int] = {}
    messages: list[Message] = []
    for _, message in deliveries:
        if numbers.setdefault(id(message), len(messages) + 1) > len(messages):
            messages.append(message)
    return MessagesRequest(
        run.variables.coerced,
        viewer,
        messages=messages,
        viewers=[reader.viewer for reader, _ in deliveries],
        numbers=[numbers[id(message)] for _, message in deliveries],
    )


# Report


def _raise_if_it_passes(result: ExecutionResult) -> None:
    """Raise an error of a message after which it should be read again."""
    for error in result.errors or ():
        original = error.original_error
        if isinstance(database_error(original) or original, Unavailable | Overloaded):
            assert original is not None
            raise original


def _responded(run: Run, result: ExecutionResult) -> Response:
    """The response of a result, with its errors masked.

    A query with one of CODES_WITHOUT_DATA is refused with this error alone, and its status. A
    mutation keeps its data, which shows the changes.
    """
    if result.errors:
        # Fields below a mutation are resolved after it is committed.
        is_mutation = run.is_mutation
        result.errors = [
            reported(error, is_done=is_mutation and len(error.path or ()) > 1)
            for error in result.errors
        ]
        for error in result.errors if run.kind is OperationType.QUERY else ():
            extensions = error.extensions or {}
            if extensions.get("code") in CODES_WITHOUT_DATA:
                alone = GraphQLError(error.message, extensions=extensions)
                result = ExecutionResult(None, [alone])
                break
    result.extensions = run.extensions
    return Response(result)
