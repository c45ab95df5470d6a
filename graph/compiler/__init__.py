"""The compiler: a selection becomes an SQL statement whose result is its JSON.

A query becomes one statement. If a part of it cannot be compiled, each of the other root fields
becomes a statement. In a mutation, each field of a payload that returns rows becomes one, which
reads them by key. A subscription becomes one that reads its messages for many viewers. Resolvers
execute the rest, and all that ends in an error. A statement is compiled once for all requests that
differ only in values:

- the shape of its variables determines what of a request changes its statements;
- each field has its own SQL;
- `compiled` has the statement for PostgreSQL, and binds the values of each request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from operator import itemgetter
from typing import Any

from graphql import (
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    get_named_type,
    get_nullable_type,
    is_list_type,
)
from graphql.execution.values import VariableValues
from sqlalchemy import Select, column, func, literal_column, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from db import Viewer, scope
from db.parameters import apply, bind
from db.returning import Returning
from db.statements import deferred_viewer
from graph.compiler.compiled import (
    Call,
    CompiledOperation,
    CompiledStatement,
    Place,
    compile_json,
)
from graph.compiler.updates import compile_messages
from graph.compiler.variables import (
    KEYS,
    deferred_variables,
    filling,
    variables_below,
    variables_shape,
)
from graph.core.cache import TRACKED, Cache
from graph.core.declarations import StatementBuilder
from graph.core.entities import Entity, entities, entity_of
from graph.core.filters import conditions_of
from graph.core.json_text import Json, Uncompilable, encoded
from graph.core.payloads import PayloadField
from graph.core.selections import InvalidOperation, Operation, Selected
from graph.core.shapes import Shape, shape_size
from graph.core.threads import in_thread

# Larger operations are not compiled: building and compiling them takes too long.
MAX_FIELDS = 500
MAX_CONDITIONS = 200
MAX_DEPTH = 20

# Variables with a larger shape have too many conditions. They are refused before their shape is
# cached, because it would fill the cache.
MAX_PARTS = 2_000

# The cost of compiling a field or a condition, which takes about 0.7 ms of the process. A viewer
# who sends new shapes all the time gets about a tenth of it.
COST_OF_PART = 75

# The limits of the cache. `db.prepared` limits the prepared statements of connections.
MAX_OPERATIONS = 500
MAX_BYTES = 10_000_000

# The tracked objects of a compiled operation, with its key and its costs, and of a statement.
OBJECTS_OF_OPERATION = 8
OBJECTS_OF_STATEMENT = 4
OBJECTS_OF_CALL = 6
# A deferred value has several closures.
OBJECTS_OF_PARAMETER = 12


class Compiler:
    """The compiled operations of a process."""

    def __init__(self, max_answer_bytes: int) -> None:
        self._max_bytes = max_answer_bytes
        self._compiling: dict[Hashable, asyncio.Task[CompiledOperation]] = {}
        self.cache: Cache[Hashable, CompiledOperation] = Cache(MAX_OPERATIONS, MAX_BYTES, _bytes)
        self._names: Cache[Hashable, frozenset[str]] = Cache(
            MAX_OPERATIONS, MAX_BYTES, lambda names: TRACKED + sum(map(len, names))
        )
        """The names of the variables that determine the shape of each mutation."""

    def known(
        self, hash: str, node: OperationDefinitionNode, variables: VariableValues, viewer: Viewer
    ) -> CompiledOperation | None:
        """The cached result of compiling an operation; None without statements.

        `hash` is the hash of its document.
        """
        compiled = self.cache.get(self._key(hash, node, variables, viewer))
        return compiled if compiled is not None and compiled.is_useful else None

    async def compile(
        self,
        hash: str,
        operation: Operation,
        viewer: Viewer,
        charge: Callable[[int], None],
        turn: AbstractAsyncContextManager[Any],
    ) -> CompiledOperation | None:
        """Compile an operation of a valid document. The result is None without statements.

        `charge` is called with the cost of compiling, and may raise. The work is done inside
        `turn`, once for all requests that need it at the same time.
        """
        node, names = operation.node, None
        if node.operation is OperationType.MUTATION:
            name = _name(hash, node)
            names = self._names.get(name)
            if names is None:
                names = variables_below(operation)
                self._names.put(name, names)
        key = self._key(hash, node, operation.variables, viewer)
        compiled = self.cache.find(key)  # `known` has counted it
        if compiled is None:
            _, shape, _ = key
            parts = shape_size(shape)
            if parts > MAX_PARTS:
                return None
            compiling = self._compiling.get(key)
            if compiling is None:
                deferred = _deferred(operation, shape)
                if deferred is None:
                    self.cache.put(key, CompiledOperation({}, parts=parts))
                    return None
                operation, fields, conditions = deferred
                charge(COST_OF_PART * (fields + conditions))
                work = partial(self._compile, operation, viewer, parts, conditions, names)
                compiling = asyncio.create_task(self._compile_and_cache(key, work, turn))
                self._compiling[key] = compiling
            # If one request is cancelled, others may still await the result.
            compiled = await asyncio.shield(compiling)
        return compiled if compiled.is_useful else None

    def _key(
        self, hash: str, node: OperationDefinitionNode, variables: VariableValues, viewer: Viewer
    ) -> tuple[Hashable, Shape, Hashable]:
        """The key in the cache: requests with the same key share the statements."""
        name = _name(hash, node)
        names = self._names.get(name) if node.operation is OperationType.MUTATION else None
        return name, variables_shape(variables, names), viewer.kind

    async def _compile_and_cache(
        self,
        key: Hashable,
        work: Callable[[], CompiledOperation],
        turn: AbstractAsyncContextManager[Any],
    ) -> CompiledOperation:
        try:
            async with turn:
                compiled = await in_thread(work)
            self.cache.put(key, compiled)
            return compiled
        finally:
            del self._compiling[key]

    def _compile(
        self,
        operation: Operation,
        viewer: Viewer,
        parts: int,
        conditions: int,
        names: Collection[str] | None,
    ) -> CompiledOperation:
        statements: dict[Place, CompiledStatement] = {}
        if operation.node.operation is OperationType.SUBSCRIPTION:
            with suppress(Uncompilable, GraphQLError, RecursionError):
                statements[()] = compile_messages(operation, viewer, self._max_bytes)
        for place, json in _places(operation):
            builder = StatementBuilder(operation, deferred_viewer(viewer), self._max_bytes)
            try:
                statements[place] = compile_json(builder, json(builder))
            except (Uncompilable, GraphQLError, RecursionError):
                continue
            if not place:
                break  # this statement answers the whole query
        calls = _calls(operation, statements, deferred_viewer(viewer), self._max_bytes)
        return CompiledOperation(
            statements, calls, viewer.kind, self._max_bytes, conditions, parts, names
        )


def _deferred(operation: Operation, shape: Shape) -> tuple[Operation, int, int] | None:
    """The operation with deferred values, and its numbers of fields and conditions.

    None if it should not be compiled.
    """
    try:
        operation = operation.with_variables(deferred_variables(shape))
    except (Uncompilable, InvalidOperation, GraphQLError, RecursionError):
        return None
    if all(root.name.startswith("__") for root in operation.roots):
        return None  # it needs no database
    fields, depth = operation.size()
    conditions = conditions_of(operation)
    if fields > MAX_FIELDS or depth > MAX_DEPTH or conditions > MAX_CONDITIONS:
        return None
    return operation, fields, conditions


def _places(operation: Operation) -> Iterator[tuple[Place, Callable[[StatementBuilder], Json]]]:
    """The places that may have a statement, and functions that build their JSON values."""
    if operation.node.operation is OperationType.QUERY:
        yield (), lambda builder: builder.object(operation.roots, None)
        for root in operation.roots:
            if not root.name.startswith("__"):
                yield (root.key,), partial(StatementBuilder.field, selected=root, row=None)
    if operation.node.operation is not OperationType.MUTATION:
        return
    by_name = {entity.name: entity for entity in entities()}
    for root in operation.roots:
        for field in root.fields():
            entity = by_name.get(get_named_type(field.type).name)
            if entity is not None:
                yield (root.key, field.key), partial(_by_keys, entity=entity, selected=field)


def _calls(
    operation: Operation, statements: Collection[Place], viewer: Viewer, max_bytes: int
) -> list[Call]:
    """The root fields of a mutation; none if one of them needs its resolver."""
    calls = []
    for root in operation.roots:
        declaration = root.declaration
        mutation = None if declaration is None else declaration.metadata.get("mutation")
        if mutation is None or not root.has_valid_arguments:
            return []
        fields: dict[str, PayloadField | None] = {}
        read: dict[str, tuple[Any, Selected]] = {}
        for child in root.fields():
            field = fields[child.key] = mutation.field(child.name)
            if field is None:
                is_known = child.name == "userErrors"
            else:
                is_known = not field.is_read or (root.key, child.key) in statements
            if not is_known:
                return []
            if field is not None and field.is_read:
                read[child.key] = field.model, child
        kind = root.definition.args["input"].type
        input = filling(root.arguments["input"])
        returning = _returning(operation, viewer, max_bytes, read)
        calls.append(Call(root.key, mutation, kind, input, fields, returning))
    return calls


def _returning(
    operation: Operation, viewer: Viewer, max_bytes: int, read: Mapping[str, tuple[Any, Selected]]
) -> Returning | None:
    """What the statement of a mutation can return of the rows that it writes, for its payload.

    `read` are the fields of the payload that show rows, by their response names, with the model.
    None if they show several models, or nothing that such a statement knows.
    """
    models = {model for model, _ in read.values()}
    if len(models) != 1:
        return None
    (model,) = models
    entity = entity_of(model)
    if entity.is_interface or entity.is_subtype or entity.key.key != "id":
        return None

    def values(names: Iterable[str], row: Any) -> dict[str, Select[Any]]:
        found = {}
        for name in names:
            builder = StatementBuilder(operation, viewer, max_bytes)
            json = encoded(entity.sql(builder, read[name][1], row), max_bytes)
            found[name] = builder.rows(row).with_only_columns(json)
        return found

    def returning(names: Iterable[str]) -> Returning | None:
        found = Returning(model, partial(values, names))
        return found if found.fits(model) and found.depends_only_on(viewer) else None

    # Mostly all or none of the fields can be returned.
    whole = returning(list(read))
    if whole is not None or len(read) == 1:
        return whole
    names = [name for name in read if returning([name]) is not None]
    return returning(names) if names else None


def _by_keys(builder: StatementBuilder, entity: Entity, selected: Selected) -> Json:
    """The JSON value of a field of a payload, for the rows with the keys of a request.

    A list has the rows that the viewer may see, in the order of the keys. Another field has the
    row with the first key, or null.
    """
    key = entity.key
    if is_list_type(get_nullable_type(selected.type)):
        unnested = func.unnest(bind(KEYS, ARRAY(key.type)))
        each = unnested.table_valued(column("key", key.type), with_ordinality="number")
        each = each.render_derived()
        # OFFSET 0 keeps this a lookup by the key. The plan is kept, and PostgreSQL would join all
        # rows if there were few of them when it was made.
        table = aliased(entity.model.__table__)
        found = select(table).where(table.c[key.key] == each.c.key).offset(literal_column("0"))
        row = aliased(entity.model, found.lateral())
        rows = select().select_from(each).join(row, true())
        rows = rows.where(scope(row, builder.viewer, by_key=True)).order_by(each.c.number)
        return builder.array(entity.sql(builder, selected, row), rows)
    # By an alias of the base, because SQLAlchemy would restrict that of a subtype by IN, whose text
    # depends on its values.
    row = aliased(entity.mapper.base_mapper.class_)
    first = bind(apply(itemgetter(0), KEYS), key.type)
    json = entity.sql(builder, selected, getattr(row, entity.name) if entity.is_subtype else row)
    return builder.one(json, builder.rows(row, getattr(row, key.key) == first))


def _bytes(compiled: CompiledOperation) -> int:
    """The size of a compiled operation in the cache."""
    objects = OBJECTS_OF_OPERATION + OBJECTS_OF_CALL * len(compiled.calls)
    found = 100 * compiled.parts + TRACKED * objects
    for call in compiled.calls:
        if call.returning is not None:
            reading = call.returning.reading
            objects = OBJECTS_OF_STATEMENT + OBJECTS_OF_PARAMETER * len(reading.parameters)
            found += len(reading.sql) + TRACKED * objects
    for each in compiled.statements.values():
        objects = OBJECTS_OF_STATEMENT + OBJECTS_OF_PARAMETER * each.deferred
        found += len(each.sql) + 100 * len(each.parameters) + TRACKED * objects
    return found


def _name(hash: str, node: OperationDefinitionNode) -> Hashable:
    """The identity of an operation."""
    return hash, node.name.value if node.name else None
