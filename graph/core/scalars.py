"""The scalars of the API, in the formats that PostgreSQL writes too, and the ids of objects."""

from __future__ import annotations

import binascii
import re
from datetime import UTC, datetime
from decimal import Context, Decimal
from functools import cache
from typing import Annotated, Any, Generic, NewType, TypeVar
from uuid import UUID

import strawberry
from graphql import (
    FloatValueNode,
    GraphQLError,
    IntValueNode,
    ListValueNode,
    ObjectValueNode,
    Undefined,
    ValueNode,
    VariableNode,
    value_from_ast_untyped,
)
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from sqlalchemy import inspect
from strawberry.scalars import JSON
from strawberry.schema.types.scalar import DEFAULT_SCALAR_REGISTRY

from db.errors import with_article
from db.moments import NoMoment, read_moment
from db.parameters import Deferred
from db.text import StoredJSON, composed, number
from graph.core.ids import BARE_UUID, parse_global_id

Model = TypeVar("Model")


BigInt = NewType("BigInt", int)
"""The annotation for integers that may be larger than an Int."""


def format_moment(moment: datetime) -> str:
    """The moment as PostgreSQL prints it in JSON: in UTC, the fraction without trailing zeros."""
    text = moment.astimezone(UTC).isoformat()
    if moment.microsecond:
        text = text[:-6].rstrip("0") + "+00:00"
    return text


def parse_moment(value: Any) -> datetime:
    """A moment from a text, which must have a time zone. Raises GraphQLError."""
    try:
        moment = read_moment(value) if isinstance(value, str) else None
    except NoMoment:
        raise GraphQLError(f"DateTime cannot represent {value!r}: there is no such time.") from None
    if moment is None:
        raise GraphQLError(
            f"DateTime cannot represent {value!r}: write a date and a time with its time zone,"
            " such as 2026-11-22T01:06:34+00:00."
        )
    return moment


def parse_json_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
    """A JSON literal of a document, with all digits. It may contain variables.

    A variable without a value is left out of an object, and null in a list.
    """
    match node:
        case VariableNode():
            value = (variables or {}).get(node.name.value, Undefined)
            if isinstance(value, Deferred):
                raise GraphQLError("This value is known only when the statement runs.")
            return value
        case ListValueNode():
            items = [parse_json_literal(item, variables) for item in node.values]
            return [None if item is Undefined else item for item in items]
        case ObjectValueNode():
            fields = {
                field.name.value: parse_json_literal(field.value, variables)
                for field in node.fields
            }
            return {name: value for name, value in fields.items() if value is not Undefined}
        case IntValueNode() | FloatValueNode():
            return number(node.value)
        case _:
            return value_from_ast_untyped(node)


# Digits that a decimal may have before its point, and after it.
DECIMAL_DIGITS = 18
DECIMAL = re.compile(r"-?\d{1,40}([.]\d{1,40})?([eE][+-]?\d{1,3})?", re.ASCII)


def parse_decimal(value: Any) -> Decimal:
    """A decimal number, as a string or a number."""
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    text = str(value) if is_number else value
    if not isinstance(text, str) or not DECIMAL.fullmatch(text):
        raise GraphQLError(
            f'Decimal cannot represent {text!r}: write digits in a string, such as "2.50".'
        )
    decimal = Decimal(text).normalize(Context(prec=100))
    exponent = decimal.as_tuple().exponent
    assert isinstance(exponent, int)
    if decimal.adjusted() >= DECIMAL_DIGITS or exponent < -DECIMAL_DIGITS:
        raise GraphQLError(
            f"Decimal cannot represent {text!r}: it may have {DECIMAL_DIGITS} digits before the"
            f" point and {DECIMAL_DIGITS} after it."
        )
    return Decimal(format(decimal, "f"))


def _parse_decimal_literal(node: ValueNode, _: dict[str, Any] | None = None) -> Decimal:
    return parse_decimal(parse_json_literal(node))


scalars: dict[object, Any] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="A moment in time, in UTC: `2026-11-22T01:06:34.648751+00:00`. Input may use"
        " any time zone, but must name it; what it says beyond microseconds is cut off.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
        serialize=format_moment,
        parse_value=parse_moment,
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description='A decimal number as a string, such as `"2.500000000"`, so that no digit is'
        " lost. Input may be a number, too, and have an exponent.",
        serialize=lambda value: format(value, "f"),
        parse_value=parse_decimal,
        parse_literal=_parse_decimal_literal,
    ),
    BigInt: strawberry.scalar(
        name="BigInt",
        description='An integer as a string, such as `"9007199254740993"`, because it may be larger'
        " than an Int.",
        serialize=str,
    ),
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value: an object, a list, a string, a number, true, false or null."
        " Numbers keep their digits.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc8259",
        serialize=lambda value: value.fragment if isinstance(value, StoredJSON) else value,
        parse_value=lambda value: value,  # whether it can be stored is checked in its column
        parse_literal=parse_json_literal,
    ),
    # In inputs an id is annotated as the key that it becomes; in the schema it is an ID.
    UUID: DEFAULT_SCALAR_REGISTRY[strawberry.ID],
}


def global_id(type_name: str, key: object) -> str:
    """The id of an object, unique among all types (GraphQL Global Object Identification)."""
    return binascii.b2a_base64(f"{type_name}:{key}".encode(), newline=False).decode()


def parse_key(model: type, value: Any) -> Any:
    """The primary key in an id of this model: a global id, or the bare key.

    Raises ValueError with a sentence for the client.
    """
    name, kind = model.__name__, _key_type(model)
    if isinstance(value, UUID):
        return value
    # A bare UUID cannot be a global id: base64 has no hyphen.
    parsed = parse_global_id(value) if isinstance(value, str) and "-" not in value else None
    if parsed is not None:
        if parsed[0] != name:
            found, needed = with_article(parsed[0]), with_article(name)
            raise ValueError(f"{value} is the id of {found}, where one of {needed} is needed")
        value = parsed[1]
    if kind is str and isinstance(value, str):
        return value
    if not isinstance(value, str) or not BARE_UUID.fullmatch(value):
        noun = with_article(name)
        raise ValueError(f"{value!r} is not the id of {noun}: use its `id` or its UUID")
    return UUID(value)


def key_text(value: str) -> str:
    """The primary key in an id of any type, as PostgreSQL prints it."""
    if BARE_UUID.fullmatch(value):
        return value.lower()
    parsed = parse_global_id(value)
    return value if parsed is None else parsed[1]


def key_uuid(value: str) -> UUID:
    """The primary key in an id of any type whose keys are UUIDs.

    Raises ValueError with a sentence for the client.
    """
    key = key_text(value)
    if not BARE_UUID.fullmatch(key):
        raise ValueError(f"{value!r} is no id: use the `id` of an object or a bare UUID")
    return UUID(key)


@cache
def _key_type(model: type) -> type:
    kind: type = inspect(model).primary_key[0].type.python_type
    return kind


def bare(value: str, model: type) -> str:
    """The bare key in an id of this model; other texts are returned unchanged."""
    try:
        return str(parse_key(model, value))
    except ValueError:
        return value


def _object(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError('this must be a JSON object, such as {"key": "value"}')
    return value


def matching(pattern: str, problem: str) -> AfterValidator:
    """Requires a text to match a pattern; `problem` is the message, without a full stop."""
    form = re.compile(pattern)

    def match(value: str) -> str:
        if not form.fullmatch(value):
            raise ValueError(problem)
        return value

    return AfterValidator(match)


class ID(UUID, Generic[Model]):
    """The annotation for ids in inputs: `ID[db.Task]`. Its value is the key."""

    def __class_getitem__(cls, model: type) -> Any:
        kind: Any = strawberry.ID if _key_type(model) is str else UUID
        key = BeforeValidator(lambda value: None if value is None else parse_key(model, value))
        return Annotated[kind, key]


FILLED = matching(r"(?s).*\S.*", "this must not be empty")
"""Requires a text to have more than spaces."""


def _composed(value: Any) -> Any:
    return composed(value) if isinstance(value, str) else value


# Other annotations for inputs: a line of text, a unique name, a text, a JSON object, a priority, a
# price in US dollars.
Line = Annotated[str, StringConstraints(max_length=255), FILLED]
Name = Annotated[Line, BeforeValidator(_composed)]
Text = Annotated[str, StringConstraints(max_length=1_000_000)]
Metadata = Annotated[JSON, AfterValidator(_object)]
Priority = Annotated[int, Field(ge=1, le=5)]
Price = Annotated[Decimal, Field(ge=0, lt=1_000_000_000, decimal_places=9)]
