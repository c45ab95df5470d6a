"""The way to read that serves nearly all requests: a selection becomes SQL that makes its JSON.

A query becomes one statement. Of a query in which something cannot be compiled, each root field
becomes one that can be; of a mutation, each field of a payload that shows rows, which are then
read by their keys. Whatever is not compiled, and whatever would end in an error, the resolvers
answer. Statements are compiled once for all requests that differ only in values:

- `shapes` says what of a request changes its statements;
- `sql` makes the statement of what is selected, to which each field brings its own SQL;
- `compiled` holds it as PostgreSQL gets it, and puts each request's values in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Protocol

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    get_named_type,
)
from graphql.execution.values import VariableValues

from db import Viewer
from graph.compiler.compiled import (
    CompiledOperation,
    CompiledParts,
    CompiledStatement,
    Place,
    compile_statement,
    run,
)
from graph.compiler.shapes import (
    KEYS,
    Request,
    deferred_variables,
    deferred_viewer,
    shape_of,
    shape_size,
    variables_below,
    viewer_kind,
)
from graph.compiler.sql import json_by_keys
from graph.core.cache import TRACKED, Cache
from graph.core.declarations import StatementBuilder
from graph.core.entities import entities
from graph.core.filters import conditions_of
from graph.core.json_text import Json, Uncompilable
from graph.core.selections import InvalidOperation, Operation
from graph.core.threads import in_thread

# A statement is built and compiled piece by piece, so it must stay of a size that is worth it.
MAX_FIELDS = 500
MAX_CONDITIONS = 200
MAX_DEPTH = 20

# What is as large in its variables has more conditions than that, and would fill the memory with
# what is only remembered not to be planned.
MAX_PARTS = 2_000

# What compiling costs for each field and condition: some 0.7 ms, in which nobody else is
# answered. A viewer who sends ever new shapes gets about a tenth of that time.
COST_OF_PART = 75

# How much of it the connections keep prepared is bounded with them (`db.prepared`).
MAX_OPERATIONS = 500
MAX_BYTES = 10_000_000

# Of a compiled operation: itself, its key, and the tuples and the costs in it; and of a statement.
OBJECTS_OF_OPERATION = 8
OBJECTS_OF_STATEMENT = 4
# A parameter whose value comes later is read by functions that call each other.
OBJECTS_OF_PARAMETER = 12

ANONYMOUS = viewer_kind(Viewer())


class Document(Protocol):
    """A document, as far as the compiler needs it."""

    @property
    def hash(self) -> str:
        """What no other document has."""

    @property
    def node(self) -> DocumentNode:
        """What was parsed."""


class Compiler:
    """The compiled operations of a process."""

    def __init__(self, schema: GraphQLSchema, max_answer_bytes: int) -> None:
        self._schema = schema
        self._max_bytes = max_answer_bytes
        self._compiling: dict[Hashable, asyncio.Task[CompiledOperation]] = {}
        self._compiled: Cache[Hashable, CompiledOperation] = Cache(
            MAX_OPERATIONS, MAX_BYTES, _bytes
        )
        self._names: Cache[Hashable, frozenset[str]] = Cache(MAX_OPERATIONS, MAX_BYTES, _size)
        """The variables that shape each mutation."""

    def known(
        self,
        document: Document,
        node: OperationDefinitionNode,
        variables: VariableValues,
        viewer: Viewer,
    ) -> CompiledOperation | None:
        """What an operation of a valid document was compiled to before."""
        operation = _name(document, node)
        names = self._names.get(operation) if node.operation is OperationType.MUTATION else None
        compiled = self._compiled.get((operation, shape_of(variables, names), viewer_kind(viewer)))
        return compiled if compiled is not None and compiled.statements else None

    async def compile(
        self,
        document: Document,
        operation: Operation,
        viewer: Viewer,
        charge: Callable[[int], None],
        turn: AbstractAsyncContextManager[Any],
    ) -> CompiledOperation | None:
        """What an operation of a valid document compiles to, none if nothing of it does.

        To compile costs more than to read: that is what `charge` is called with, and what it raises
        is raised. It is done in the viewer's turn, once for all who ask meanwhile.
        """
        node, variables = operation.node, operation.variables
        if node.operation is OperationType.SUBSCRIPTION or viewer_kind(viewer) == ANONYMOUS:
            return None
        name, names = _name(document, node), None
        if node.operation is OperationType.MUTATION:
            names = self._names.get(name)
            if names is None:
                names = variables_below(operation)
                self._names.put(name, names)
        shape = shape_of(variables, names)
        key = name, shape, viewer_kind(viewer)
        compiled = self._compiled.get(key)
        if compiled is None:
            parts = shape_size(shape)
            if parts > MAX_PARTS:
                return None
            compiling = self._compiling.get(key)
            if compiling is None:
                opened = self._opened(document, node, deferred_variables(variables, names))
                if opened is None:
                    self._compiled.put(key, CompiledOperation({}, parts=parts))
                    return None
                operation, fields, conditions = opened
                charge(COST_OF_PART * (fields + conditions))
                work = partial(self._compile, operation, viewer, parts, conditions)
                compiling = asyncio.create_task(self._keep(key, work, turn))
                self._compiling[key] = compiling
            # Who leaves takes it from nobody else.
            compiled = await asyncio.shield(compiling)
        return compiled if compiled.statements else None

    def _opened(
        self, document: Document, node: OperationDefinitionNode, variables: VariableValues
    ) -> tuple[Operation, int, int] | None:
        """The operation with values that come later, and how many fields and conditions it has.

        None if it is not to be compiled.
        """
        try:
            operation = Operation(self._schema, document.node, node, variables)
        except (Uncompilable, InvalidOperation, GraphQLError, RecursionError):
            return None
        if all(root.name.startswith("__") for root in operation.roots):
            return None  # it needs no database, and shows whether the server answers
        fields, depth = operation.size()
        conditions = conditions_of(operation)
        if fields > MAX_FIELDS or depth > MAX_DEPTH or conditions > MAX_CONDITIONS:
            return None
        return operation, fields, conditions

    async def _keep(
        self,
        key: Hashable,
        work: Callable[[], CompiledOperation],
        turn: AbstractAsyncContextManager[Any],
    ) -> CompiledOperation:
        try:
            async with turn:
                compiled = await in_thread(work)
            self._compiled.put(key, compiled)
            return compiled
        finally:
            del self._compiling[key]

    def _compile(
        self, operation: Operation, viewer: Viewer, parts: int, conditions: int
    ) -> CompiledOperation:
        statements: dict[Place, CompiledStatement] = {}
        for place, json in _places(operation):
            builder = StatementBuilder(operation, deferred_viewer(viewer), self._max_bytes)
            try:
                statements[place] = compile_statement(builder, json(builder))
            except (Uncompilable, GraphQLError, RecursionError):
                continue
            if not place:
                break  # this statement answers the whole query
        return CompiledOperation(statements, viewer_kind(viewer), conditions, parts)


def _places(operation: Operation) -> Iterator[tuple[Place, Callable[[StatementBuilder], Json]]]:
    """The places at which there may be a statement, and what makes the JSON value there."""
    if operation.node.operation is OperationType.QUERY:
        yield (), lambda builder: builder.object(operation.roots, None)
        for root in operation.roots:
            if not root.name.startswith("__"):
                yield (root.key,), partial(StatementBuilder.field, selected=root, row=None)
        return
    by_name = {entity.name: entity for entity in entities()}
    for root in operation.roots:
        for field in (child for children in root.children.values() for child in children):
            entity = by_name.get(get_named_type(field.type).name)
            if entity is not None:
                json = partial(json_by_keys, entity=entity, selected=field, keys=KEYS)
                yield (root.key, field.key), json


def _size(names: frozenset[str]) -> int:
    """How much the names of variables count where they are kept."""
    return TRACKED + sum(map(len, names))


def _bytes(compiled: CompiledOperation) -> int:
    """How much a compiled operation counts where it is kept."""
    found = 100 * compiled.parts + TRACKED * OBJECTS_OF_OPERATION
    for each in compiled.statements.values():
        objects = OBJECTS_OF_STATEMENT + OBJECTS_OF_PARAMETER * each.later
        found += len(each.sql) + 100 * len(each.parameters) + TRACKED * objects
    return found


def _name(document: Document, node: OperationDefinitionNode) -> Hashable:
    """What an operation is known by."""
    return document.hash, node.name.value if node.name else None


__all__ = [
    "CompiledOperation",
    "CompiledParts",
    "CompiledStatement",
    "Compiler",
    "Request",
    "run",
]
