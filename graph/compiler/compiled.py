"""Compiled statements, and how they run with the values of a request."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from graphql import ExecutionResult, GraphQLError
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import asyncpg

from db.parameters import Deferred
from db.text import to_json
from graph.compiler.shapes import Request, viewer_kind
from graph.core.context import Context
from graph.core.declarations import StatementBuilder
from graph.core.json_text import Json, Uncompilable, encoded

_dialect: Any = asyncpg.dialect(json_serializer=to_json)  # type: ignore[no-untyped-call]

# https://www.postgresql.org/docs/current/errcodes-appendix.html
PROGRAM_LIMIT_EXCEEDED = "54"

# The number of combinations of page sizes for which the cost of an operation is cached.
MAX_COSTS = 100

Place = tuple[str, ...]
"""The path of response names from the root to a value."""


@dataclass(frozen=True, slots=True)
class CompiledStatement:
    """A statement for all requests of a shape. Its result is one JSON value."""

    sql: str
    parameters: tuple[tuple[Any, Callable[[Any], Any] | None], ...]
    """The value of each parameter, which may be deferred, and its bind processor."""
    sizes: tuple[Deferred, ...] = ()
    """The deferred sizes of its pages and lists of ids, even of those that it does not read."""
    positions: tuple[Deferred, ...] = ()
    """The deferred values of its cursors, even of those that it does not use."""

    @property
    def deferred(self) -> int:
        """The number of its deferred values."""
        values = [value for value, _ in self.parameters if isinstance(value, Deferred)]
        return len({*values, *self.sizes, *self.positions})

    def arguments(self, request: Request) -> list[Any]:
        """The values of the parameters. Raises GraphQLError or ValueError for invalid arguments."""
        for checked in (*self.sizes, *self.positions):
            checked.resolve(request)
        arguments = []
        for value, process in self.parameters:
            if isinstance(value, Deferred):
                value = value.resolve(request)
            arguments.append(value if process is None else process(value))
        return arguments

    def sizes_of(self, request: Request) -> tuple[int, ...]:
        """The values of its deferred sizes for a request."""
        return tuple([size.resolve(request) for size in self.sizes])


@dataclass(frozen=True, slots=True)
class CompiledOperation:
    """The compiled statements of an operation, by the place of their value.

    A whole query has the place (), one of its root fields (name,), and a field of the payload of a
    mutation (name, name); the last one needs the keys of its rows.
    """

    statements: Mapping[Place, CompiledStatement]
    viewer: Hashable = None
    """The kind of viewer for which it was compiled."""
    conditions: int = 0
    """The number of conditions of its filters."""
    parts: int = 0
    """The size of its shape, which is in its key in the cache."""
    costs: dict[tuple[int, ...], int] = field(default_factory=dict)
    """Its cost by the sizes of its pages."""

    @property
    def whole(self) -> CompiledStatement | None:
        """The statement for the whole operation."""
        return self.statements.get(())

    def remember(self, sizes: tuple[int, ...], cost: int) -> None:
        """Cache its cost with pages of these sizes."""
        if len(self.costs) >= MAX_COSTS:
            self.costs.clear()
        self.costs[sizes] = cost


@dataclass(frozen=True, slots=True)
class CompiledParts:
    """The compiled statements of an operation, with the values of one run."""

    operation: CompiledOperation
    variables: dict[str, Any]
    context: Context

    def has(self, *place: str) -> bool:
        """Whether there is a statement for a place."""
        return place in self.operation.statements

    async def json(self, *place: str, keys: Sequence[Any] = ()) -> bytes | None:
        """The JSON at a place, of the rows with these keys; None if resolvers have to read it."""
        if viewer_kind(self.context.viewer) != self.operation.viewer:  # after a login
            return None
        async with self.context.sessions:
            return await self._read(place, keys)

    async def result(self) -> ExecutionResult | None:
        """The result of the whole operation; None if resolvers have to execute it."""
        try:
            text = await self._read((), ())
        except Exception as error:
            # Errors of the result are masked before they are sent.
            return ExecutionResult(None, [GraphQLError(str(error), original_error=error)])
        if text is None:
            return None
        data: Any = orjson.Fragment(text)
        return ExecutionResult(data, None)

    async def _read(self, place: Place, keys: Sequence[Any]) -> bytes | None:
        statement = self.operation.statements.get(place)
        if statement is None:
            return None
        try:
            arguments = statement.arguments(Request(self.variables, self.context.viewer, keys))
        except (GraphQLError, ValueError):
            return None  # the resolvers report invalid arguments
        try:
            return await self.context.json(statement.sql, arguments)
        except Exception as error:
            if (getattr(error, "sqlstate", None) or "").startswith(PROGRAM_LIMIT_EXCEEDED):
                return None  # it is too complex for PostgreSQL
            # The log shows the statement, as it does for errors of SQLAlchemy.
            error.add_note(statement.sql)
            raise


def compile_statement(builder: StatementBuilder, json: Json) -> CompiledStatement:
    """The statement for a JSON value, as PostgreSQL gets it. Raises Uncompilable."""
    compiled: Any = select(encoded(json, builder.max_bytes)).compile(dialect=_dialect)
    if compiled.post_compile_params:
        raise Uncompilable("the text of the statement depends on its values")
    parameters = []
    for name in compiled.positiontup or ():
        kind = compiled.binds[name].type.dialect_impl(_dialect)
        parameters.append((compiled.params[name], kind.bind_processor(_dialect)))
    sizes, positions = _deferred(builder.sizes), _deferred(builder.positions)
    return CompiledStatement(compiled.string, tuple(parameters), sizes, positions)


def _deferred(values: Iterable[Any]) -> tuple[Deferred, ...]:
    return tuple(value for value in values if isinstance(value, Deferred))
