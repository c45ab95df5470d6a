"""Mutations: one right, one input, one transaction, and one payload with `userErrors`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, TypeVar, get_type_hints

import orjson
import strawberry
from graphql import get_nullable_type
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from strawberry.types.field import StrawberryField
from strawberry.utils.str_converters import to_camel_case

import db
from db import Right, constraints, errors
from db.idempotency import Key, KeyTaken
from db.returning import Returned
from graph.core.context import Context, Info
from graph.core.entities import clean
from graph.core.errors import Forbidden, PayloadFailed
from graph.core.inputs import check_input, repaired
from graph.core.payloads import (
    EncodedJSON,
    PayloadField,
    changed_keys,
    fields_of,
    payload_type,
    read_payload,
    result_of,
)
from graph.core.rights import missing
from graph.core.user_errors import ErrorValue

Result = TypeVar("Result")

# What is only tried does not make others wait, nor wait for them.
LOCK_SHORTLY = text("SET LOCAL lock_timeout = '100ms'")
Before = Callable[[Context, Any], Awaitable[Any]]

Most = Callable[[Mapping[str, Any]], int]
"""The largest number of rows that are written besides the items of the lists of an input.

It is made of the coerced value of the input, and is what the mutation costs.
"""


def at_most(number: int) -> Most:
    """So many rows, whatever the input is."""
    return lambda _: number


def limited(number: int) -> Most:
    """As many rows as the `limit` of the input. One out of range is refused when it runs."""
    return lambda value: max(1, min(value["limit"], number))


def mutation(
    right: Right | None,
    *,
    before: Before | None = None,
    most: Most | None = None,
    reports_all: bool = False,
) -> Callable[[Callable[..., Awaitable[Any]]], Any]:
    """Declare a mutation that requires this right; None requires no token.

    The function takes the session of a transaction and an `input`, and returns what it changed: a
    row, `Changed` or `Deleted` with the key of one, a list of them, or a dataclass of such. The
    core checks the right and the input, opens and commits the transaction, reports errors of the
    domain as user errors, and reads the payload.

    `before` runs before the transaction, for slow work such as hashing a password. It takes the
    context and the input. Its result is passed to the function after the input.

    `most` is for a mutation that writes many rows which its input does not list.

    `reports_all` is for a mutation of many items: if its input is not valid, it is tried without
    what is not valid, and undone, to report what else is wrong.
    """

    def declare(function: Callable[..., Awaitable[Any]]) -> Any:
        declared = DeclaredMutation(function, right, before, most, reports_all)
        payload = payload_type(declared.name, declared.fields)

        async def resolve(self: Any, info: Info, input: Any) -> Any:
            selected = info.context.operation.selected(info._raw_info)
            performed = info.context.performed.pop(selected.key, None)
            try:
                if performed is None:
                    kind = selected.definition.args["input"].type
                    value = selected.arguments["input"]
                    result = await declared.perform(info.context, kind, value, input)
                else:
                    result = performed()
                    if isinstance(result, EncodedJSON):
                        return result
            except errors.Rejected as rejected:
                return payload(user_errors=[ErrorValue(error) for error in rejected.errors])
            except errors.DomainError as error:
                return payload(user_errors=[ErrorValue(error)])
            try:
                return payload(**await read_payload(info, declared.fields, result))
            except Exception as error:
                raise PayloadFailed from error

        resolve.__name__ = function.__name__
        kind = declared.input
        resolve.__annotations__ = {"info": Info, "input": kind, "return": payload | None}
        field: StrawberryField = strawberry.mutation(
            resolve,
            description=clean(function.__doc__ or ""),
            metadata={"mutation": declared},
        )
        field.arguments[0].description = "What to do, and to what."
        return field

    return declare


class DeclaredMutation:
    """What a mutation does."""

    def __init__(
        self,
        function: Callable[..., Awaitable[Any]],
        right: Right | None,
        before: Before | None,
        most: Most | None,
        reports_all: bool,
    ) -> None:
        hints = get_type_hints(function, include_extras=True)
        self.name = to_camel_case(function.__name__)
        self.input: Any = hints["input"]
        self.fields = fields_of(hints["return"])
        self._function = function
        self.right = right
        self._before = before
        self.most = most
        self._reports_all = reports_all

    def field(self, name: str) -> PayloadField | None:
        """The field of the payload with this name."""
        for field in self.fields:
            if to_camel_case(field.name) == name:
                return field
        return None

    async def perform(
        self,
        context: Context,
        kind: Any,
        value: dict[str, Any],
        input: Any,
        returned: Returned | None = None,
    ) -> Any:
        """Do what it does, and return what it changed.

        `kind` is the type of its argument in the schema, `value` the coerced value. `returned` gets
        what the statement returns, if it is the only one. Raises Forbidden, Rejected with all user
        errors, a DomainError, and errors of the database.
        """
        needed = missing(context.viewer, self.right)
        if needed is not None:
            raise Forbidden(f"You may not use {self.name}. {needed}")
        try:
            check_input(get_nullable_type(kind), value, input)
        except errors.Rejected as rejected:
            if self._reports_all:
                rejected.errors += await self._further_errors(context, value, rejected.errors)
            raise
        key = self._key(context, value, input)
        prepared = () if self._before is None else (await self._before(context, input),)

        async def work(session: db.WriteSession) -> Any:
            session.key, session.returned = key, returned
            result = await self._function(None, session, input, *prepared)
            if session.key is not None:
                await session.store_key(changed_keys(self.fields, result))
            return result

        try:
            return await in_transaction(context, self.right, work)
        except (errors.DomainError, errors.Rejected, KeyTaken) as error:
            # Whatever is wrong now, it may have been done before with this key.
            keys = None if key is None else await context.outcome(key)
            if keys is not None:
                return result_of(self.fields, keys)
            if key is not None and isinstance(error, KeyTaken):
                await context.database.delete_if_expired(key)
                return await in_transaction(context, self.right, work)
            if isinstance(error, errors.Denied):
                raise Forbidden(error.message) from error
            raise

    async def _further_errors(
        self, context: Context, value: dict[str, Any], known: Sequence[errors.DomainError]
    ) -> list[errors.DomainError]:
        """What else is wrong with an input, besides the known errors. Changes nothing."""
        input = repaired(self.input, value, [error.path for error in known])
        if input is None:
            return []

        async def attempt(session: db.WriteSession) -> None:
            # In a transaction that has begun, no statement commits by itself.
            await session.execute(LOCK_SHORTLY)
            await self._function(None, session, input)
            raise errors.Rejected([])

        found: list[errors.DomainError] = []
        try:
            await in_transaction(context, self.right, attempt)
        except errors.Rejected as rejected:
            found = rejected.errors
        except errors.DomainError as error:
            found = [error]
        except DBAPIError:
            return []  # what is known is said all the same
        paths = {_names(error.path) for error in known}
        return [
            error
            for error in found
            if not isinstance(error, errors.Denied)
            and _names(error.path) not in paths
            # Something may be missing because what stands for it is not valid.
            and _is_given(value, error.path)
        ]

    def _key(self, context: Context, value: dict[str, Any], input: Any) -> Key | None:
        """The idempotency key of an input."""
        key, actor = getattr(input, "idempotency_key", None), context.viewer.name
        if key is None or actor is None:
            return None
        asked = {name: item for name, item in value.items() if name != "idempotencyKey"}
        text = orjson.dumps([self.name, asked], default=str, option=orjson.OPT_SORT_KEYS)
        return Key(actor, key, sha256(text).hexdigest(), context.database.key_seconds)


def _names(path: errors.Path) -> tuple[str, ...]:
    """A path as the client sees it."""
    return tuple(to_camel_case(str(part)) for part in path)


def _is_given(value: Any, path: errors.Path) -> bool:
    """Whether an input, given as coerced, has a value at a path."""
    for part in path:
        if isinstance(value, list):
            value = value[int(part)]
        elif isinstance(value, dict):
            # The names in a JSON value stay as they are.
            value = value.get(part, value.get(to_camel_case(str(part))))
    return value is not None


async def in_transaction(
    context: Context, right: Right | None, work: Callable[[db.WriteSession], Awaitable[Result]]
) -> Result:
    """Do work in one transaction of the viewer. All writes of an operation pass here.

    If the connection was replaced, the work is done once more on the new one.
    """
    # Rows that an earlier mutation of the operation has read may change.
    context.clear()
    with constraints.reported():
        try:
            return await context.write(right or Right.EDIT, work)
        except db.ConnectionReplaced:
            return await context.write(right or Right.EDIT, work)
