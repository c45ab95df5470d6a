"""The fast way to read: a query becomes one SQL statement, whose JSON goes out as it is.

Whatever the planner does not know, and whatever would end in an error, it hands to the resolvers,
whole. A plan is made once for all requests that differ only in values:

- `shapes` says what of a request changes its statement;
- `statement` makes the statement of what is selected, whose JSON `text` puts together;
- `plans` holds it as PostgreSQL gets it, and puts each request's values in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Any

from graphql import (
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
)
from graphql.execution.values import VariableValues

from db import Viewer
from graph.compiler.compiled import Plan, compile_statement, run
from graph.compiler.shapes import (
    Request,
    kind_of,
    open_variables,
    open_viewer,
    parts_of,
    shape_of,
)
from graph.compiler.sql import statement
from graph.core.cache import TRACKED, Kept
from graph.core.filters import conditions_of
from graph.core.json_text import Uncompilable
from graph.core.selections import Operation, Unreadable
from graph.core.worker import aside
from graph.execution.documents import Document

# A statement is built and compiled piece by piece, so it must stay of a size that is worth it.
MOST_FIELDS = 500
MOST_CONDITIONS = 200
DEEPEST = 20

# What is as large in its variables has more conditions than that, and would fill the memory with
# what is only remembered not to be planned.
MOST_PARTS = 2_000

# What making a plan costs for each field and condition: some 0.7 ms, in which nobody else is
# answered. A viewer who sends ever new shapes gets about a tenth of that time.
COST_OF_PART = 75

# How much of it the connections keep prepared is bounded with them (`db.prepared`).
MOST_PLANS = 500
MOST_BYTES = 10_000_000

# Of a plan: itself, its key, and the tuples and the costs in it.
OBJECTS_OF_PLAN = 8
# A parameter whose value comes later is read by functions that call each other.
OBJECTS_OF_PARAMETER = 12

NO_PLAN = Plan("", ())


class Planner:
    """The plans of a process."""

    def __init__(self, schema: GraphQLSchema, max_answer_bytes: int) -> None:
        self._schema = schema
        self._most_bytes = max_answer_bytes
        self._making: dict[Hashable, asyncio.Task[Plan]] = {}
        """The plans that are being made."""
        self._plans: Kept[Hashable, Plan] = Kept(MOST_PLANS, MOST_BYTES, _bytes)

    def known(
        self,
        document: Document,
        node: OperationDefinitionNode,
        variables: VariableValues,
        viewer: Viewer,
    ) -> Plan | None:
        """The plan for an operation of a valid document, if it was made before."""
        plan = self._plans.get(_key(document, node, shape_of(variables), viewer))
        return plan if plan is not None and plan.sql else None

    async def plan(
        self,
        document: Document,
        operation: Operation,
        viewer: Viewer,
        charge: Callable[[int], None],
        turn: AbstractAsyncContextManager[Any],
    ) -> Plan | None:
        """The plan for an operation of a valid document, none if there can be none.

        To make one costs more than to read with it: that is what `charge` is called with, and what
        it raises is raised. It is made in the viewer's turn, once for all who ask meanwhile.
        """
        node, variables = operation.node, operation.variables
        if node.operation is not OperationType.QUERY:
            return None
        shape = shape_of(variables)
        key = _key(document, node, shape, viewer)
        plan = self._plans.get(key)
        if plan is None:
            parts = parts_of(shape)
            if parts > MOST_PARTS:
                return None
            making = self._making.get(key)
            if making is None:
                opened = self._opened(document, node, variables)
                if opened is None:
                    self._plans.put(key, replace(NO_PLAN, parts=parts))
                    return None
                operation, fields, conditions = opened
                charge(COST_OF_PART * (fields + conditions))
                work = partial(self._compiled, operation, viewer, parts, conditions)
                making = self._making[key] = asyncio.create_task(self._made(key, work, turn))
            # Who leaves takes it from nobody else.
            plan = await asyncio.shield(making)
        return plan if plan.sql else None

    def _opened(
        self, document: Document, node: OperationDefinitionNode, variables: VariableValues
    ) -> tuple[Operation, int, int] | None:
        """The operation with values that come later, and how many fields and conditions it has.

        None if no plan is to be made for it.
        """
        try:
            operation = Operation(self._schema, document.node, node, open_variables(variables))
        except (Uncompilable, Unreadable, GraphQLError, RecursionError):
            return None
        if all(root.name == "__typename" for root in operation.roots):
            return None  # it needs no database, and tells whether the server answers
        fields, depth = operation.size()
        conditions = conditions_of(operation)
        if fields > MOST_FIELDS or depth > DEEPEST or conditions > MOST_CONDITIONS:
            return None
        return operation, fields, conditions

    async def _made(
        self, key: Hashable, work: Callable[[], Plan], turn: AbstractAsyncContextManager[Any]
    ) -> Plan:
        try:
            async with turn:
                plan = await aside(work)
            self._plans.put(key, plan)
            return plan
        finally:
            del self._making[key]

    def _compiled(self, operation: Operation, viewer: Viewer, parts: int, conditions: int) -> Plan:
        try:
            plan = compile_statement(statement(operation, open_viewer(viewer), self._most_bytes))
        except (Uncompilable, GraphQLError, RecursionError):
            plan = NO_PLAN
        return replace(plan, parts=parts, conditions=conditions)


def _bytes(plan: Plan) -> int:
    """How much a plan counts where it is kept."""
    objects = OBJECTS_OF_PLAN + OBJECTS_OF_PARAMETER * plan.later
    return len(plan.sql) + 100 * (len(plan.parameters) + plan.parts) + TRACKED * objects


def _key(
    document: Document, node: OperationDefinitionNode, shape: Hashable, viewer: Viewer
) -> Hashable:
    """What requests that share a plan have in common."""
    name = node.name.value if node.name else None
    return document.hash, name, shape, kind_of(viewer)


__all__ = ["Plan", "Planner", "Request", "run"]
