"""The short way of a query that is compiled: past all that was done for it before.

The limits of its viewer hold here as well. Whatever is out of the ordinary goes the long way, by
`graph.execution.pipeline`, which also finds the words for what is wrong.
"""

from __future__ import annotations

from graphql import GraphQLError, GraphQLSchema
from strawberry.types.execution import ExecutionResult, PreExecutionError

from db.text import storable
from graph.compiler import Request, run
from graph.core.context import Context
from graph.core.errors import Overloaded, worded
from graph.core.selections import Operation, Unreadable, Written, coerced, find
from graph.execution.documents import Document, hash_of
from graph.execution.persisted import named
from graph.limits.cost import COST_OF_ASKING, cost_of
from graph.limits.document_size import check_variables
from graph.limits.guard import Guard, asker_of, guard_of
from graph.server.requests import Asked


async def shortcut(schema: GraphQLSchema, asked: Asked, context: Context) -> ExecutionResult | None:
    """The answer, if the short way leads to one."""
    guard, compiler = guard_of(context), context.compiler
    # Whoever asks what it costs is told on the long way.
    if compiler is None or context.is_anonymous or (asked.extensions or {}).get("cost"):
        return None
    asker, rates = asker_of(context), guard.rates
    try:
        document = _known(asked, guard)
        # Who has nothing left is refused before variables are read.
        if document is None or rates.wait(asker, COST_OF_ASKING):
            return None
        with context.timed("plan"):
            given = asked.variables or {}
            written = document.written.get(asked.operation_name)
            if written is None:
                written = Written.read(schema, document.node, asked.operation_name)
                document.written[asked.operation_name] = written
            node, variables = written.node, written.coerced(given)
            if variables is None:
                check_variables(node, given, schema, guard.settings)
                variables = coerced(schema, node, given)
            storable(variables.coerced)
            compiled = compiler.known(document, node, variables, context.viewer)
            if compiled is None or compiled.conditions > guard.settings.max_conditions:
                return None
            statement = compiled.whole
            if statement is None:
                return None
            request = Request(variables.coerced, context.viewer)
            arguments = statement.arguments(request)
            sizes = statement.sizes_of(request)
    except (Unreadable, ValueError, GraphQLError):
        return None
    cost = compiled.costs.get(sizes)
    if cost is None:
        tree = document.node
        whole = find(tree, asked.operation_name)
        cost = cost_of(Operation(schema, tree, whole, variables))
        compiled.remember(sizes, cost)
    if cost > guard.settings.max_cost or not rates.spend(asker, cost):
        return None
    context.document, context.node, context.cost = document, node, cost
    try:
        with guard.running.one_more(asker):
            result = await run(statement, arguments, context)
    except Overloaded as overloaded:
        return PreExecutionError(None, [overloaded])
    if result is None:
        # The long way would come to the same, and count it again.
        context.compiler = None
        rates.take(asker, -cost)
        return None
    return ExecutionResult(result.data, list(map(worded, result.errors or ())))


def _known(asked: Asked, guard: Guard) -> Document | None:
    """The document, by its text or its hash, if it was read before. Raises what is wrong."""
    text, persisted = asked.query, (asked.extensions or {}).get("persistedQuery")
    if text is None:
        return guard.documents.get(named(persisted, guard.settings))
    # What is too long is refused before it is hashed.
    if persisted is not None or len(text) > guard.settings.max_document_length:
        return None
    return guard.documents.get(hash_of(text))
