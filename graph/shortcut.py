"""The short way of a query that has a plan: past all that was done for it before.

The limits of its viewer hold here as well. Whatever is out of the ordinary goes the long way, by
`graph.extensions`, which also finds the words for what is wrong.
"""

from __future__ import annotations

from graphql import GraphQLError, GraphQLSchema
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError

from db.text import storable
from graph.context import Context
from graph.cost import COST_OF_ASKING, cost_of
from graph.documents import Document, hash_of
from graph.errors import Overloaded, worded
from graph.guard import Guard, asker_of, guard_of
from graph.limits import check_variables
from graph.planner import Request, run
from graph.requests import Asked
from graph.selections import Operation, Unreadable, Written, coerced


async def shortcut(schema: GraphQLSchema, asked: Asked, context: Context) -> ExecutionResult | None:
    """The answer, if the short way leads to one."""
    guard, planner = guard_of(context), context.planner
    # Who asks for extensions is answered with some; a long document is refused before it is hashed.
    if planner is None or context.is_anonymous or asked.extensions or not asked.query:
        return None
    with context.timed("parse"):
        document = _known(asked.query, guard)
    asker, rates = asker_of(context), guard.rates
    # Who has nothing left is refused before variables are read, and before a statement is made.
    if document is None or rates.wait(asker, COST_OF_ASKING):
        return None
    try:
        with context.timed("plan"):
            given = storable(asked.variables) or {}
            written = document.written.get(asked.operation_name)
            if written is None:
                written = Written.read(schema, document.node, asked.operation_name)
                document.written[asked.operation_name] = written
            node, variables = written.node, written.coerced(given)
            if variables is None:
                check_variables(node, given, schema, guard.settings)
                variables = coerced(schema, node, given)
            plan = planner.known(document, node, variables, context.viewer)
            if plan is None or plan.conditions > guard.settings.max_conditions:
                return None
            request = Request(variables.coerced, context.viewer)
            arguments = plan.arguments(request)
            sizes = plan.sizes_of(request)
    except (Unreadable, ValueError, GraphQLError):
        return None
    cost = plan.costs.get(sizes)
    if cost is None:
        cost = cost_of(Operation(schema, document.node, node, variables))
        plan.remember(sizes, cost)
    if cost > guard.settings.max_cost or not rates.spend(asker, cost):
        return None
    context.document, context.node, context.cost = document, node, cost
    try:
        with guard.running.one_more(asker):
            result = await run(plan, arguments, context)
    except Overloaded as overloaded:
        return PreExecutionError(None, [overloaded])
    if result is None:
        return None
    return PreExecutionError(result.data, list(map(worded, result.errors or ())))


def _known(text: str, guard: Guard) -> Document | None:
    if len(text) > guard.settings.max_document_length:
        return None
    return guard.documents.get(hash_of(text))
