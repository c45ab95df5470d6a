"""Plans: statements as PostgreSQL gets them, and how each request's values go into them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from graphql import ExecutionResult, GraphQLError
from sqlalchemy.dialects.postgresql import asyncpg

from db.parameters import Later
from db.text import to_json
from graph.compiler.shapes import Request
from graph.compiler.sql import Statement
from graph.core.context import Context

_dialect: Any = asyncpg.dialect(json_serializer=to_json)  # type: ignore[no-untyped-call]

# https://www.postgresql.org/docs/current/errcodes-appendix.html
PROGRAM_LIMIT_EXCEEDED = "54"

# For pages of so many different sizes it is remembered what a plan costs.
MOST_COSTS = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """A statement, whose result is one JSON value, for all requests of a shape."""

    sql: str
    parameters: tuple[tuple[Any, Callable[[Any], Any] | None], ...]
    """For each parameter its value, which may come later, and what the driver needs of it."""
    sizes: tuple[Later, ...] = ()
    """How many rows its pages and lists of ids have, where that comes later, read or not."""
    positions: tuple[Later, ...] = ()
    """Where its cursors point, whether the statement needs it or not."""
    conditions: int = 0
    """How many conditions its filters have."""
    parts: int = 0
    """Of how many parts the shape is made under which it is kept."""
    costs: dict[tuple[int, ...], int] = field(default_factory=dict)
    """What it costs with pages of these sizes."""

    @property
    def later(self) -> int:
        """How many of its values come later."""
        values = [value for value, _ in self.parameters if isinstance(value, Later)]
        return len({*values, *self.sizes, *self.positions})

    def arguments(self, request: Request) -> list[Any]:
        """The parameters' values for a request. Raises what is wrong with its arguments."""
        for looked_at in (*self.sizes, *self.positions):
            looked_at.read(request)
        arguments = []
        for value, process in self.parameters:
            if isinstance(value, Later):
                value = value.read(request)
            arguments.append(value if process is None else process(value))
        return arguments

    def sizes_of(self, request: Request) -> tuple[int, ...]:
        """The sizes of its pages for a request, as far as they come later."""
        return tuple([size.read(request) for size in self.sizes])

    def remember(self, sizes: tuple[int, ...], cost: int) -> None:
        """Remember what it costs with pages of these sizes."""
        if len(self.costs) >= MOST_COSTS:
            self.costs.clear()
        self.costs[sizes] = cost


async def run(plan: Plan, arguments: list[Any], context: Context) -> ExecutionResult | None:
    """What a plan's statement answers: JSON that passes through as it is.

    None where it is too complex for PostgreSQL: the resolvers then answer.
    """
    try:
        text = await context.json(plan.sql, arguments)
    except Exception as error:
        if (getattr(error, "sqlstate", None) or "").startswith(PROGRAM_LIMIT_EXCEEDED):
            return None
        # For the log, which tells of SQLAlchemy's errors with their statements as well.
        error.add_note(plan.sql)
        # As an error of the result it is worded; raised, it would reach the client as it is.
        return ExecutionResult(None, [GraphQLError(str(error), original_error=error)])
    data: Any = orjson.Fragment(text)
    return ExecutionResult(data, None)


def compile_statement(statement: Statement) -> Plan:
    """The plan that runs a statement."""
    made: Any = statement.select.compile(dialect=_dialect)
    assert not made.post_compile_params  # such a statement's text would depend on its values
    parameters = []
    for name in made.positiontup or ():
        kind = made.binds[name].type.dialect_impl(_dialect)
        parameters.append((made.params[name], kind.bind_processor(_dialect)))
    sizes, positions = _later(statement.sizes), _later(statement.positions)
    return Plan(made.string, tuple(parameters), sizes, positions)


def _later(values: Iterable[Any]) -> tuple[Later, ...]:
    return tuple(value for value in values if isinstance(value, Later))
