"""The scalars of the API, written alike by Python and by PostgreSQL, and the ids of its objects."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Annotated, Any
from uuid import UUID

import orjson
import strawberry
from graphql import GraphQLError, Undefined, ValueNode, value_from_ast_untyped
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from sqlalchemy import inspect
from strawberry.scalars import JSON
from strawberry.schema.types.scalar import DEFAULT_SCALAR_REGISTRY
from strawberry.types.scalar import ScalarDefinition

import db
from db.engine import StoredJSON
from db.text import composed, storable


def format_moment(moment: datetime) -> str:
    """The moment as PostgreSQL prints it in JSON: in UTC, the fraction without trailing zeros."""
    text = moment.astimezone(UTC).isoformat()
    if moment.microsecond:
        text = text[:-6].rstrip("0") + "+00:00"
    return text


MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d([.]\d{1,6})?)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII
)


def parse_moment(value: Any) -> datetime:
    """The moment that a client means; it has to say in which time zone."""
    if not isinstance(value, str) or not MOMENT.fullmatch(value):
        raise GraphQLError(
            f"DateTime cannot represent {value!r}: write a date and a time with its time zone,"
            " such as 2026-11-22T01:06:34+00:00."
        )
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise GraphQLError(f"DateTime cannot represent {value!r}: there is no such time.") from None


def parse_json(value: Any) -> Any:
    """A JSON value that can be stored."""
    try:
        orjson.dumps(storable(value))
    except (ValueError, TypeError) as error:
        raise GraphQLError(f"JSON cannot represent this value: {error}.") from None
    return value


def parse_json_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
    """A JSON value written into a document; variables may stand in it.

    One that is not given is left out of an object, and null in a list. Validation knows none yet.
    """
    return parse_json(_given(value_from_ast_untyped(node, variables)))


def _given(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _given(item) for name, item in value.items() if item is not Undefined}
    if isinstance(value, list):
        return [None if item is Undefined else _given(item) for item in value]
    return value


def parse_decimal(value: Any) -> Decimal:
    """A decimal number, sent as a string so that no digit is lost on the way."""
    if not isinstance(value, str) or not re.fullmatch(r"-?\d{1,18}([.]\d{1,18})?", value, re.ASCII):
        raise GraphQLError(
            f'Decimal cannot represent {value!r}: write digits in a string, such as "2.50".'
        )
    return Decimal(value)


def _scalar(
    name: str,
    description: str,
    serialize: Callable[[Any], Any],
    parse: Callable[[Any], Any],
    specified_by: str | None = None,
    parse_literal: Callable[..., Any] | None = None,
) -> ScalarDefinition:
    return ScalarDefinition(
        name=name,
        description=description,
        specified_by_url=specified_by,
        serialize=serialize,
        parse_value=parse,
        parse_literal=parse_literal,
    )


scalars: dict[object, ScalarDefinition] = {
    datetime: _scalar(
        "DateTime",
        "A moment in time, in UTC: `2026-11-22T01:06:34.648751+00:00`. Input may use any time zone,"
        " but must name it.",
        format_moment,
        parse_moment,
        "https://www.rfc-editor.org/rfc/rfc3339",
    ),
    Decimal: _scalar(
        "Decimal",
        'A decimal number as a string, such as `"2.500000000"`, so that no digit is lost.',
        lambda value: format(value, "f"),
        parse_decimal,
    ),
    JSON: _scalar(
        "JSON",
        "Any JSON value: an object, a list, a string, a number, true, false or null.",
        lambda value: value.fragment if isinstance(value, StoredJSON) else value,
        parse_json,
        "https://www.rfc-editor.org/rfc/rfc8259",
        parse_json_literal,
    ),
    # In inputs an id is annotated as what it becomes; in the schema it is an ID.
    UUID: DEFAULT_SCALAR_REGISTRY[strawberry.ID],
}


def global_id(type_name: str, key: object) -> str:
    """The id of an object, unique among all types (GraphQL Global Object Identification)."""
    return binascii.b2a_base64(f"{type_name}:{key}".encode(), newline=False).decode()


def parse_global_id(value: str) -> tuple[str, str] | None:
    """The type and the key that a global id names, none if it is no global id."""
    try:
        type_name, colon, key = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (type_name, key) if colon and type_name.isidentifier() else None


BARE_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def parse_key(model: type, value: Any) -> Any:
    """The primary key that an id of this model names: a global id, or the bare key itself.

    Raises ValueError with a sentence for the client.
    """
    name, kind = model.__name__, _key_type(model)
    if isinstance(value, UUID):
        return value
    # A bare UUID cannot be a global id: base64 has no hyphen.
    parsed = parse_global_id(value) if isinstance(value, str) and "-" not in value else None
    if parsed is not None:
        if parsed[0] != name:
            raise ValueError(f"{value} is the id of a {parsed[0]}, where one of a {name} is needed")
        value = parsed[1]
    if kind is str and isinstance(value, str):
        return value
    if not isinstance(value, str) or not BARE_UUID.fullmatch(value):
        raise ValueError(f"{value!r} is no id of a {name}: use its `id` or a bare UUID")
    return UUID(value)


@cache
def _key_type(model: type) -> type:
    kind: type = inspect(model).primary_key[0].type.python_type
    return kind


def bare(value: str, model: type) -> str:
    """The bare key in an id of this model; what is no id stays as it is."""
    try:
        return str(parse_key(model, value))
    except ValueError:
        return value


def _object(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError('this must be a JSON object, such as {"key": "value"}')
    return value


def _reference(model: type) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value is None else parse_key(model, value))


def _composed(value: Any) -> Any:
    return composed(value) if isinstance(value, str) else value


# What an input is annotated with: a line of text, a name by which something is found, a text, an
# object of JSON, a priority, a price in US dollars, an id of an object.
Line = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Name = Annotated[Line, BeforeValidator(_composed)]
Text = Annotated[str, StringConstraints(max_length=1_000_000)]
Metadata = Annotated[JSON, AfterValidator(_object)]
Priority = Annotated[int, Field(ge=1, le=5)]
Price = Annotated[Decimal, Field(ge=0, lt=1_000_000_000, decimal_places=9)]
UserID = Annotated[UUID, _reference(db.User)]
AccessTokenID = Annotated[UUID, _reference(db.AccessToken)]
ProjectID = Annotated[UUID, _reference(db.Project)]
AgentID = Annotated[UUID, _reference(db.Agent)]
TaskID = Annotated[UUID, _reference(db.Task)]
ConversationID = Annotated[UUID, _reference(db.Conversation)]
MessageID = Annotated[UUID, _reference(db.Message)]
ToolID = Annotated[UUID, _reference(db.Tool)]
TaskAttemptID = Annotated[UUID, _reference(db.TaskAttempt)]
CommunicationID = Annotated[UUID, _reference(db.Communication)]
HumanInteractionID = Annotated[UUID, _reference(db.HumanInteraction)]
UsageRecordID = Annotated[UUID, _reference(db.UsageRecord)]
AIModelID = Annotated[strawberry.ID, _reference(db.AIModel)]
