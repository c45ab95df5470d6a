"""SQL expressions that build JSON by concatenation of constant text and values of rows.

PostgreSQL concatenates faster than its JSON functions, which look up the output function of each
column again for each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Enum,
    Float,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Text,
    Uuid,
    case,
    cast,
    func,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB

from db.base import Composed, Timestamp
from db.result_limits import within


class Uncompilable(Exception):
    """The compiler cannot write something of the selection as SQL; the resolvers answer it."""


# The maximum number of bytes that PostgreSQL encodes as one line of base64.
MAX_LINE = 56

# The maximum number of arguments of a function in PostgreSQL.
MAX_ARGUMENTS = 100

# The number of long pieces that are joined before the length of the text is checked. So the memory
# of a backend is limited to a few times the maximum size of a response, for any number of aliases.
MAX_LONG_PIECES = 4


@dataclass(frozen=True, eq=False)
class Long:
    """A piece of SQL whose text may be of any length."""

    sql: ColumnElement[str]


# The pieces of a JSON value: constant text, and SQL that is never null.
Piece = str | ColumnElement[str] | Long
Json = tuple[Piece, ...]


def constant(text: str) -> ColumnElement[str]:
    """A text of the schema or of the document; never a value of a request."""
    quoted = text.replace("'", "''")
    return literal_column(f"'{quoted}'", Text)


def is_long(json: Json) -> bool:
    """Whether the text of a JSON value may be of any length."""
    return any(isinstance(piece, Long) for piece in json)


def piece(value: ColumnElement[str], of: Json) -> Piece:
    """A piece made of a JSON value; it is long if the value is."""
    return Long(value) if is_long(of) else value


def sql(json: Json, max_bytes: int) -> ColumnElement[str]:
    """A JSON value as one expression, which fails if many long pieces exceed the limit of bytes.

    A value with few long pieces is checked by the value that contains it.
    """
    pieces: list[Piece] = []
    number = 0
    for each in json:
        if isinstance(each, Long):
            if number == MAX_LONG_PIECES:
                pieces, number = [Long(limited(joined(pieces), max_bytes))], 1
            number += 1
        pieces.append(each)
    return joined(pieces)


def limited(text: ColumnElement[str], max_bytes: int) -> ColumnElement[str]:
    """The text; the statement fails if it has more bytes than the limit."""
    # OFFSET 0 prevents PostgreSQL from evaluating the text twice.
    once = select(text.label("text")).correlate_except(None).offset(literal_column("0")).subquery()
    return select(
        case((within(func.octet_length(once.c.text), max_bytes), once.c.text))
    ).scalar_subquery()


def joined(json: Iterable[Piece]) -> ColumnElement[str]:
    """A JSON value as one expression.

    `||` is the fastest way for short pieces. It copies the left side each time, and keeps all
    copies until the row is complete, so long pieces are joined by `concat`, which copies once.
    """
    parts: list[ColumnElement[str]] = []
    for are_long, pieces in groupby(json, lambda piece: isinstance(piece, Long)):
        if are_long:
            parts += [piece.sql for piece in pieces]  # type: ignore[union-attr]
        else:
            texts: Any = (constant(each) if isinstance(each, str) else each for each in pieces)
            parts.append(reduce(lambda left, right: left.concat(right), texts))
    while len(parts) > 1:
        groups = [parts[i : i + MAX_ARGUMENTS] for i in range(0, len(parts), MAX_ARGUMENTS)]
        parts = [func.concat(*group, type_=Text) for group in groups]
    return parts[0]


def string(text: str | ColumnElement[str]) -> Json:
    """A JSON string whose characters need no escape."""
    return (f'"{text}"',) if isinstance(text, str) else ('"', text, '"')


def boolean(value: bool | ColumnElement[bool]) -> Json:
    """A JSON boolean."""
    return (str(value).lower() if isinstance(value, bool) else cast(value, Text),)


def array(items: Any) -> Json:
    """A JSON list, from an array of the texts of its items. NULL gives an empty list."""
    joined = func.coalesce(func.array_to_string(items, constant(",")), constant(""))
    return "[", Long(joined), "]"


def object_of(fields: Iterable[tuple[str, Json]]) -> Json:
    """A JSON object. Its names are response names, which need no escape."""
    pieces: list[Piece] = []
    for number, (name, value) in enumerate(fields):
        pieces += ["," if number else "", f'"{name}":', *value]
    return tuple(_merged(["{", *pieces, "}"]))


def _merged(pieces: Iterable[Any]) -> Iterator[Piece]:
    """The pieces, with adjacent texts joined."""
    for are_texts, following in groupby(pieces, lambda piece: isinstance(piece, str)):
        if are_texts:
            yield "".join(following)
        else:
            yield from following


def or_null(json: Json, *found: ColumnElement[str]) -> Json:
    """A JSON value, or null where its SQL is NULL.

    If subqueries find the value, it is the result of the first that finds one.
    """
    values = found or (joined(json),)
    return (piece(func.coalesce(*values, constant("null")), of=json),)


def encoded(json: Json, max_bytes: int) -> ColumnElement[bytes]:
    """A JSON value in UTF-8; the statement fails if it has more bytes than the limit."""
    text = sql(json, max_bytes)
    if is_long(json):
        text = limited(text, max_bytes)
    return func.convert_to(text, constant("UTF8"), type_=LargeBinary)


def scalar(value: Any, *, is_nullable: bool) -> Json:
    """The JSON of a column in the format of the API. Raises Uncompilable for unknown types."""
    match value.type:
        case BigInteger():
            json: Json = string(cast(value, Text))
        case Integer() | Boolean():
            json = (cast(value, Text),)
        case JSONB():
            json = (Long(cast(value, Text)),)
        case Enum():
            json = string(type_coerce(value, Text))
        case Numeric() if not isinstance(value.type, Float):
            json = string(cast(value, Text))
        case Timestamp() | String(length=int()) | Composed(length=int()):
            json = (cast(func.to_json(value), Text),)
        case String() | Composed() | ARRAY():
            json = (Long(cast(func.to_json(value), Text)),)
        case _:
            raise Uncompilable(f"{value.key}: {value.type!r}")
    return or_null(json) if is_nullable else json


def global_id(type_name: str | ColumnElement[str], key: Any) -> ColumnElement[str]:
    """The id of an object, as `scalars.global_id` makes it."""
    if not isinstance(type_name, str):
        return _base64(type_name + constant(":") + cast(key, Text))
    prefix = f"{type_name}:"
    length = len(prefix) + len(str(UUID(int=0))) if isinstance(key.type, Uuid) else None
    return _base64(constant(prefix) + cast(key, Text), length)


def cursor(order: str, *values: ColumnElement[Any]) -> ColumnElement[str]:
    """The cursor of a row with these values, as `encode_cursor` makes it."""
    texts: list[ColumnElement[str]] = [
        cast(
            func.to_json(value).op("#>>")(literal_column("'{}'::text[]"))
            if isinstance(value.type, Timestamp)
            else value,
            Text,
        )
        for value in values
    ]
    parts = reduce(lambda left, right: left + constant("\n") + right, texts)
    return _base64(constant(f"{order}\n") + parts)


def _base64(text: ColumnElement[str], length: int | None = None) -> ColumnElement[str]:
    """Base64 in one line. PostgreSQL inserts a line break after 76 characters."""
    encoded = func.encode(func.convert_to(text, constant("UTF8")), constant("base64"))
    if length is not None and length <= MAX_LINE:
        return encoded
    return func.translate(encoded, constant("\n"), constant(""))
