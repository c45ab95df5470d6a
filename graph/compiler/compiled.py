"""Statements as PostgreSQL gets them, and how each request's values go into them."""

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

# For pages of so many different sizes it is remembered what an operation costs.
MAX_COSTS = 100

Place = tuple[str, ...]
"""Where a value stands in an answer: the response names that lead there, from the root."""


@dataclass(frozen=True, slots=True)
class CompiledStatement:
    """A statement, whose result is one JSON value, for all requests of a shape."""

    sql: str
    parameters: tuple[tuple[Any, Callable[[Any], Any] | None], ...]
    """For each parameter its value, which may come later, and what the driver needs of it."""
    sizes: tuple[Deferred, ...] = ()
    """How many rows its pages and lists of ids have, where that comes later, read or not."""
    positions: tuple[Deferred, ...] = ()
    """The values of its cursors, whether the statement needs them or not."""

    @property
    def later(self) -> int:
        """How many of its values come later."""
        values = [value for value, _ in self.parameters if isinstance(value, Deferred)]
        return len({*values, *self.sizes, *self.positions})

    def arguments(self, request: Request) -> list[Any]:
        """The parameters' values for a request. Raises what is wrong with its arguments."""
        for looked_at in (*self.sizes, *self.positions):
            looked_at.resolve(request)
        arguments = []
        for value, process in self.parameters:
            if isinstance(value, Deferred):
                value = value.resolve(request)
            arguments.append(value if process is None else process(value))
        return arguments

    def sizes_of(self, request: Request) -> tuple[int, ...]:
        """The sizes of its pages for a request, as far as they come later."""
        return tuple([size.resolve(request) for size in self.sizes])


@dataclass(frozen=True, slots=True)
class CompiledOperation:
    """The compiled statements of an operation, by the place of what each answers.

    A query as a whole is at the place (), a root field of it at (name,), and a field of a
    mutation's payload at (name, name); this one takes the keys of its rows.
    """

    statements: Mapping[Place, CompiledStatement]
    viewer: Hashable = None
    """The kind of viewer that it was compiled for."""
    conditions: int = 0
    """How many conditions its filters have."""
    parts: int = 0
    """Of how many parts the shape is made under which it is kept."""
    costs: dict[tuple[int, ...], int] = field(default_factory=dict)
    """What it costs with pages of these sizes, as a whole."""

    @property
    def whole(self) -> CompiledStatement | None:
        """The one statement that answers all of it."""
        return self.statements.get(())

    def remember(self, sizes: tuple[int, ...], cost: int) -> None:
        """Remember what it costs with pages of these sizes."""
        if len(self.costs) >= MAX_COSTS:
            self.costs.clear()
        self.costs[sizes] = cost


@dataclass(frozen=True, slots=True)
class CompiledParts:
    """The parts of an operation that statements answer in one run of it."""

    operation: CompiledOperation
    variables: dict[str, Any]
    context: Context

    def has(self, *place: str) -> bool:
        """Whether there is a statement for a place."""
        return place in self.operation.statements

    async def json(self, *place: str, keys: Sequence[Any] = ()) -> bytes | None:
        """The JSON at a place, of the rows with these keys; None where resolvers have to answer.

        What is wrong with an argument, the resolvers report.
        """
        statement, viewer = self.operation.statements.get(place), self.context.viewer
        if statement is None or viewer_kind(viewer) != self.operation.viewer:
            return None
        try:
            arguments = statement.arguments(Request(self.variables, viewer, keys))
        except (GraphQLError, ValueError):
            return None
        return await read(statement, arguments, self.context)


async def read(
    statement: CompiledStatement, arguments: list[Any], context: Context
) -> bytes | None:
    """The JSON that a statement gives; None where it is too complex for PostgreSQL."""
    try:
        return await context.json(statement.sql, arguments)
    except Exception as error:
        if (getattr(error, "sqlstate", None) or "").startswith(PROGRAM_LIMIT_EXCEEDED):
            return None
        # For the log, which shows SQLAlchemy's errors with their statements as well.
        error.add_note(statement.sql)
        raise


async def run(
    statement: CompiledStatement, arguments: list[Any], context: Context
) -> ExecutionResult | None:
    """The result of an operation that one statement answers: JSON that passes through as it is.

    None where it is too complex for PostgreSQL: the resolvers then answer.
    """
    try:
        text = await read(statement, arguments, context)
    except Exception as error:
        # As an error of the result it is worded; raised, it would reach the client as it is.
        return ExecutionResult(None, [GraphQLError(str(error), original_error=error)])
    if text is None:
        return None
    data: Any = orjson.Fragment(text)
    return ExecutionResult(data, None)


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
