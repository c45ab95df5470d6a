"""JSON as PostgreSQL puts it together: texts of its own, with the values of rows between them.

It concatenates faster than it makes JSON of a row, for which it looks up how each column is
printed, again for each row.
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


# More bytes are several lines of base64, or one with its end.
LONGEST_LINE = 56

# PostgreSQL gives a function no more arguments.
MAX_ARGUMENTS = 100

# So many long pieces are joined before the length of the text is checked. So a backend has some
# times the most bytes of an answer in memory, and not as many as there are aliases.
LONG_AT_ONCE = 4


@dataclass(frozen=True, eq=False)
class Long:
    """A piece of SQL whose text may be of any length."""

    sql: ColumnElement[str]


# The pieces of which a JSON value is put together: its own text, and SQL that is never null.
Piece = str | ColumnElement[str] | Long
Json = tuple[Piece, ...]


def constant(text: str) -> ColumnElement[str]:
    """A text of the schema's or of the document's, which is no value of anybody's."""
    quoted = text.replace("'", "''")
    return literal_column(f"'{quoted}'", Text)


def is_long(json: Json) -> bool:
    """Whether the text of a JSON value may be of any length."""
    return any(isinstance(piece, Long) for piece in json)


def piece(value: ColumnElement[str], of: Json) -> Piece:
    """A piece that is as long as the JSON values of which it is made."""
    return Long(value) if is_long(of) else value


def sql(json: Json, most: int) -> ColumnElement[str]:
    """A JSON value as one expression, which fails if many long pieces have more bytes than `most`.

    What has few is checked by what it is a part of.
    """
    pieces: list[Piece] = []
    number = 0
    for each in json:
        if isinstance(each, Long):
            if number == LONG_AT_ONCE:
                pieces, number = [Long(limited(joined(pieces), most))], 1
            number += 1
        pieces.append(each)
    return joined(pieces)


def limited(text: ColumnElement[str], most: int) -> ColumnElement[str]:
    """A text that makes the statement fail if it has more bytes than `most`."""
    # OFFSET 0 keeps PostgreSQL from making the text twice: to measure it, and to show it.
    once = select(text.label("text")).correlate_except(None).offset(literal_column("0")).subquery()
    return select(
        case((within(func.octet_length(once.c.text), most), once.c.text))
    ).scalar_subquery()


def joined(json: Iterable[Piece]) -> ColumnElement[str]:
    """A JSON value as one expression.

    `||` is the fastest for what is short. It copies what it has so far with each piece, and keeps
    that until the row is done; so what may be long goes through `concat`, which copies it once.
    """
    parts: list[ColumnElement[str]] = []
    for are_long, pieces in groupby(json, lambda piece: isinstance(piece, Long)):
        if are_long:
            parts += [piece.sql for piece in pieces]  # type: ignore[union-attr]
        else:
            parts.append(reduce(lambda left, right: left.concat(right), map(_expression, pieces)))
    while len(parts) > 1:
        groups = [parts[i : i + MAX_ARGUMENTS] for i in range(0, len(parts), MAX_ARGUMENTS)]
        parts = [func.concat(*group, type_=Text) for group in groups]
    return parts[0]


def _expression(piece: Any) -> ColumnElement[str]:
    return constant(piece) if isinstance(piece, str) else piece


def string(text: str | ColumnElement[str]) -> Json:
    """A string in which nothing needs an escape."""
    return (f'"{text}"',) if isinstance(text, str) else ('"', text, '"')


def boolean(value: bool | ColumnElement[bool]) -> Json:
    """True or false."""
    return (str(value).lower() if isinstance(value, bool) else cast(value, Text),)


def array(items: Any) -> Json:
    """A list, of an array of the texts of its items, none of which is null; of no array, an empty
    one."""
    joined = func.coalesce(func.array_to_string(items, constant(",")), constant(""))
    return "[", Long(joined), "]"


def object_of(fields: Iterable[tuple[str, Json]]) -> Json:
    """An object, whose names are a document's and need no escape."""
    pieces: list[Piece] = []
    for number, (name, value) in enumerate(fields):
        pieces += ["," if number else "", f'"{name}":', *value]
    return tuple(_merged(["{", *pieces, "}"]))


def _merged(pieces: Iterable[Any]) -> Iterator[Piece]:
    """The pieces with those that are texts joined, where they follow each other."""
    for are_texts, following in groupby(pieces, lambda piece: isinstance(piece, str)):
        if are_texts:
            yield "".join(following)
        else:
            yield from following


def or_null(json: Json, *found: ColumnElement[str]) -> Json:
    """A JSON value of SQL that may be null; or the first that is found of subqueries for it."""
    values = found or (joined(json),)
    return (piece(func.coalesce(*values, constant("null")), of=json),)


def encoded(json: Json, most: int) -> ColumnElement[bytes]:
    """A JSON value as the bytes that go to a client, which are at most so many."""
    text = sql(json, most)
    if is_long(json):
        text = limited(text, most)
    return func.convert_to(text, constant("UTF8"), type_=LargeBinary)


def scalar(value: Any, *, is_nullable: bool) -> Json:
    """A value of a column's type as the API prints it. Raises Uncompilable for other types."""
    match value.type:
        case Integer() | Boolean():
            json: Json = (cast(value, Text),)
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


def global_id(type_name: str, key: Any) -> ColumnElement[str]:
    """The id of an object, as the API's `global_id` makes it."""
    prefix = f"{type_name}:"
    length = len(prefix) + len(str(UUID(int=0))) if isinstance(key.type, Uuid) else None
    return _base64(constant(prefix) + cast(key, Text), length)


def cursor(order: str, *values: ColumnElement[Any]) -> ColumnElement[str]:
    """The cursor of a row with these values in an order, as `encode_cursor` makes it."""
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
    """Base64 in one line: PostgreSQL breaks it after every 76 characters, if there are so many."""
    encoded = func.encode(func.convert_to(text, constant("UTF8")), constant("base64"))
    if length is not None and length <= LONGEST_LINE:
        return encoded
    return func.translate(encoded, constant("\n"), constant(""))
