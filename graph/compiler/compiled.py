"""Compiled statements, and how they run with the values of a request."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
from graphql import ExecutionResult, GraphQLError
from sqlalchemy import Select, select

from db.parameters import Deferred
from db.returning import Returned, Returning
from db.scopes import ViewerKind
from db.statements import Compiled, DependsOnValues, compiled
from graph.compiler.variables import Fill, Request
from graph.core.context import Context
from graph.core.declarations import StatementBuilder
from graph.core.inputs import built
from graph.core.json_text import Json, Uncompilable, encoded
from graph.core.mutations import DeclaredMutation
from graph.core.payloads import EncodedJSON, PayloadField, json_value, keys_of, value_of
from graph.limits.cost import rows_of

# https://www.postgresql.org/docs/current/errcodes-appendix.html
PROGRAM_LIMIT_EXCEEDED = "54"

# The number of combinations of page sizes for which the cost of an operation is cached.
MAX_COSTS = 100


class Unread(Exception):
    """Resolvers have to read the payload of a mutation."""


Place = tuple[str, ...]
"""The path of response names from the root to a value."""


@dataclass(frozen=True, slots=True)
class CompiledStatement(Compiled):
    """A statement for all requests of a shape. Its result is one JSON value."""

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
        return Compiled.arguments(self, request)


@dataclass(frozen=True, slots=True)
class Call:
    """A root field of a mutation that needs no resolver, unless it ends in an error."""

    key: str
    mutation: DeclaredMutation
    kind: Any
    """The type of its input in the schema."""
    input: Fill
    """Makes the coerced value of its input."""
    fields: Mapping[str, PayloadField | None]
    """The selected fields of the payload by response name; None is the list of user errors."""
    returning: Returning | None
    """The JSON of selected fields that the statement that writes can return."""


@dataclass(frozen=True, slots=True)
class CompiledOperation:
    """The compiled statements of an operation, by the place of their value.

    A whole query has the place (), one of its root fields (name,), and a field of the payload of a
    mutation (name, name); the last one needs the keys of its rows.
    """

    statements: Mapping[Place, CompiledStatement]
    calls: Sequence[Call] = ()
    """The root fields of a mutation, if none of them needs a resolver."""
    viewer: ViewerKind | None = None
    """The kind of viewer for which it was compiled."""
    max_bytes: int = 0
    """The maximum number of bytes of its response."""
    conditions: int = 0
    """The number of conditions of its filters."""
    parts: int = 0
    """The size of its shape, which is in its key in the cache."""
    below: Collection[str] | None = None
    """The names of a mutation's variables that occur outside of the arguments of root fields."""
    costs: dict[tuple[int, ...], int] = field(default_factory=dict)
    """Its cost by the sizes of its pages and the numbers of the rows that its mutations write."""

    @property
    def is_useful(self) -> bool:
        """Whether anything needs no resolver."""
        return bool(self.statements or self.calls)

    @property
    def is_whole(self) -> bool:
        """Whether the whole operation needs no resolver, unless it ends in an error."""
        return self.is_one_statement or bool(self.calls)

    @property
    def is_one_statement(self) -> bool:
        """Whether it is a query that one statement answers."""
        return () in self.statements

    def values_below(self, variables: Mapping[str, Any]) -> list[Any]:
        """The values of all variables of a query; of a mutation, without those of its inputs."""
        if self.below is None:
            return list(variables.values())
        return [value for name, value in variables.items() if name in self.below]

    def sizes(self, request: Request) -> tuple[int, ...]:
        """What of a request its cost depends on. Raises GraphQLError or ValueError."""
        sizes = [size.resolve(request) for each in self.statements.values() for size in each.sizes]
        rows = [rows_of(call.mutation, call.kind, call.input(request)) for call in self.calls]
        return (*sizes, *rows)

    def remember(self, sizes: tuple[int, ...], cost: int) -> None:
        """Cache its cost with pages of these sizes."""
        if len(self.costs) >= MAX_COSTS:
            self.costs.clear()
        self.costs[sizes] = cost


@dataclass(slots=True, eq=False)
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
        async with self.context.sessions:
            return await self._read(place, keys)

    async def result(self) -> ExecutionResult | None:
        """The result of the whole operation; None if resolvers have to execute it."""
        if self.operation.calls:
            return await self._mutate()
        try:
            text = await self._read((), ())
        except Exception as error:
            # Errors of the result are masked before they are sent.
            return ExecutionResult(None, [GraphQLError(str(error), original_error=error)])
        if text is None:
            return None
        data: Any = orjson.Fragment(text)
        return ExecutionResult(data, None)

    async def _mutate(self) -> ExecutionResult | None:
        """The result of a mutation; None after an error, which its resolver then reports."""
        data: dict[str, Any] = {}
        size = 0
        for call in self.operation.calls:
            value = call.input(Request(self.variables, self.context.viewer))
            input = built(call.mutation.input, value)
            if input is None:
                return None  # its resolver reports what is not valid
            returned = None if call.returning is None else Returned(call.returning)
            try:
                result = await call.mutation.perform(
                    self.context, call.kind, value, input, returned
                )
            except Exception as error:
                self.context.performed[call.key] = partial(_raise, error)
                return None
            # The resolver does not do it again, if this or a later field ends in an error.
            self.context.performed[call.key] = partial(_return, result)
            try:
                payload, length = await self._payload(call, result, returned)
            except Exception:
                return None
            size += length
            if size > self.operation.max_bytes:
                return None
            data[call.key] = payload
            self.context.performed[call.key] = partial(_encoded, call.key, payload)
        return ExecutionResult(data, None)

    async def _payload(
        self, call: Call, result: Any, returned: Returned | None
    ) -> tuple[dict[str, Any], int]:
        """The payload of a mutation that was performed, and its bytes. Raises Unread."""
        payload: dict[str, Any] = {}
        size = 0
        for name, shown in call.fields.items():
            if shown is None:
                payload[name] = []
                continue
            value = value_of(shown, result)
            keys = keys_of(shown, value) if shown.is_read else []
            if keys or shown.kind == "many":
                rows = None if returned is None else returned.values(name, keys)
                if not rows:
                    text = await self._read((call.key, name), keys)
                else:
                    text = rows[0] if shown.kind == "one" else b"[" + b",".join(rows) + b"]"
                if text is None:
                    raise Unread
                value = orjson.Fragment(text)
                size += len(text)
            payload[name] = json_value(value)
        return payload, size

    async def _read(self, place: Place, keys: Sequence[Any]) -> bytes | None:
        statement = self.operation.statements.get(place)
        is_other = self.context.viewer.kind != self.operation.viewer  # after a login
        if statement is None or is_other:
            return None
        try:
            arguments = statement.arguments(Request(self.variables, self.context.viewer, keys))
        except (GraphQLError, ValueError):
            return None  # the resolvers report invalid arguments
        try:
            by_key = bool(keys) and not statement.sizes
            return await self.context.json(statement.sql, arguments, by_key=by_key)
        except Exception as error:
            if (getattr(error, "sqlstate", None) or "").startswith(PROGRAM_LIMIT_EXCEEDED):
                return None  # it is too complex for PostgreSQL
            # The log shows the statement, as it does for errors of SQLAlchemy.
            error.add_note(statement.sql)
            raise


def _return(value: Any) -> Any:
    return value


def _encoded(key: str, payload: dict[str, Any]) -> EncodedJSON:
    return EncodedJSON({key: orjson.dumps(payload)})


def _raise(error: Exception) -> Any:
    raise error


def compile_json(builder: StatementBuilder, json: Json) -> CompiledStatement:
    """The statement for a JSON value, as PostgreSQL gets it. Raises Uncompilable."""
    return compile_statement(builder, select(encoded(json, builder.max_bytes)))


def compile_statement(builder: StatementBuilder, statement: Select[Any]) -> CompiledStatement:
    """A statement with values that a builder made, as PostgreSQL gets it. Raises Uncompilable."""
    try:
        found = compiled(statement)
    except DependsOnValues as error:
        raise Uncompilable(str(error)) from None
    sizes, positions = _deferred(builder.sizes), _deferred(builder.positions)
    return CompiledStatement(found.sql, found.parameters, sizes, positions)


def _deferred(values: Iterable[Any]) -> tuple[Deferred, ...]:
    return tuple(value for value in values if isinstance(value, Deferred))
