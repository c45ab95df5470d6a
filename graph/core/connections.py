"""Connections: keyset pagination, cursors, and the GraphQL types of a connection.

A page begins after a cursor, by a row comparison of (column, key) with the values of the cursor.
With an index on both, each page costs the same.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from operator import itemgetter
from typing import Any, Generic, TypeVar
from uuid import UUID

import strawberry
from graphql import GraphQLError
from sqlalchemy import BigInteger, ColumnElement, Integer, Select, tuple_
from sqlalchemy.orm import with_expression

from db.base import Timestamp
from db.parameters import apply, bind, resolve_once
from db.text import require_storable
from graph.core.declarations import Declared, StatementBuilder
from graph.core.entities import Entity
from graph.core.errors import BadInput
from graph.core.filters import RANK, Order
from graph.core.ids import BARE_UUID
from graph.core.json_text import Json
from graph.core.scalars import format_moment, parse_moment
from graph.core.selections import Selected

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 100

# The fields of a connection that need the rows of its page.
ROW_FIELDS = {"nodes", "edges", "pageInfo"}

T = TypeVar("T")
Parser = Callable[[str], Any]


@dataclass(frozen=True)
class Window:
    """The part of an ordered set of rows that a page has."""

    entity: Entity
    order: Order | None
    """The order before the key; None sorts by the key alone."""
    limit: int
    backward: bool
    after: tuple[Any, ...] | None
    before: tuple[Any, ...] | None
    rank: Callable[[Any], ColumnElement[int]] | None = None
    """Makes the value of the order RANK, from the model or an alias."""

    @property
    def is_descending(self) -> bool:
        """Whether the order is descending."""
        return self.order is not None and self.order.descending

    def columns(self, row: Any) -> list[Any]:
        """The columns of a model or an alias that it is sorted by, with the key last."""
        return [self._column(row, name) for name in self.names]

    @property
    def names(self) -> list[str]:
        """The names of the attributes that it is sorted by, with the key last."""
        return _sorted(self.entity, self.order)

    def _column(self, row: Any, name: str) -> Any:
        return self.rank(row) if self.rank is not None and name == RANK else getattr(row, name)

    def loads(self, row: Any) -> list[Any]:
        """The loader options that give the rows of a statement their rank, for their cursors."""
        if self.rank is None or RANK not in self.names:
            return []
        return [with_expression(getattr(row, RANK), self.rank(row))]

    def bounds(self, row: Any) -> list[ColumnElement[bool]]:
        """The conditions that a row is between the cursors."""
        columns = self.columns(row)
        here, kinds = tuple_(*columns), [column.type for column in columns]
        met = []
        for values, greater in ((self.after, True), (self.before, False)):
            if values is not None:
                bound = tuple_(*map(bind, values, kinds))
                met.append(here > bound if greater != self.is_descending else here < bound)
        return met

    def ordering(self, row: Any) -> list[Any]:
        """The order in which rows are fetched: reversed when paging backward."""
        descending = self.is_descending != self.backward
        return [column.desc() if descending else column.asc() for column in self.columns(row)]

    def cut(self, statement: Select[Any], row: Any, beyond: bool = True) -> Select[Any]:
        """The statement for the page, and for one row beyond it, to see whether more follow."""
        statement = statement.where(*self.bounds(row)).order_by(*self.ordering(row))
        limit = apply(lambda limit: limit + 1, self.limit) if beyond else self.limit
        return statement.limit(bind(limit, Integer))

    def cursor(self, row: Any) -> str:
        """The cursor that points at a row."""
        values = (getattr(row, name) for name in _position_names(self.entity, self.order))
        texts = (format_moment(each) if isinstance(each, datetime) else each for each in values)
        return encode_cursor(self.order, *texts)

    def position(self, row: Any) -> list[Any]:
        """The columns of the model or an alias that have the values of a row's cursor."""
        return [self._column(row, name) for name in _position_names(self.entity, self.order)]


def name_of(order: Order | None) -> str:
    """The name of an order in cursors."""
    return "KEY" if order is None else order.name


def encode_cursor(order: Order | None, *values: object) -> str:
    """A cursor as text: the name of its order, and the values of its row."""
    return base64.b64encode("\n".join([name_of(order), *map(str, values)]).encode()).decode()


def _position(entity: Entity, order: Order | None, argument: str, cursor: Any) -> tuple[Any, ...]:
    """The values of a cursor, one for each column of the order."""
    position = resolve_once(apply(partial(_decode_cursor, entity, order, argument), cursor))
    return tuple(apply(itemgetter(name), position) for name in _sorted(entity, order))


def _sorted(entity: Entity, order: Order | None) -> list[str]:
    """The names of the attributes that an order sorts by, with the key last."""
    keys = [key.key for key in entity.keys]
    return keys if order is None else list(dict.fromkeys((order.attribute, *keys)))


@cache
def _position_names(entity: Entity, order: Order | None) -> list[str]:
    """The names of the attributes in a cursor; text, which may have several lines, is last."""
    keys = [key.key for key in entity.keys]
    return keys if order is None else [*keys, order.attribute]


def _decode_cursor(
    entity: Entity, order: Order | None, argument: str, cursor: str
) -> dict[str, Any]:
    names = _position_names(entity, order)
    try:
        text = base64.b64decode(cursor, validate=True).decode()
        name, *values = text.split("\n", len(names))
        if len(values) == len(names) and name != name_of(order):
            raise BadInput(
                f"{argument}: this cursor belongs to the order {name}, not to {name_of(order)};"
                " start from the first page when you change the order."
            )
        parsers = _parsers(entity, order)
        position = [parse(value) for parse, value in zip(parsers, values, strict=True)]
    except BadInput:
        raise
    except (binascii.Error, ValueError, GraphQLError):
        raise BadInput(f"{argument}: {cursor!r} is no cursor; use one that a page gave.") from None
    return dict(zip(names, position, strict=True))


@cache  # SQLAlchemy takes longer to return a type than parsing a value takes
def _parsers(entity: Entity, order: Order | None) -> list[Parser]:
    """The parsers of the values of a cursor. They raise ValueError or GraphQLError."""
    names = _position_names(entity, order)
    types = (Integer() if name == RANK else getattr(entity.model, name).type for name in names)
    return [_parser(kind) for kind in types]


def _parser(kind: Any) -> Parser:
    if isinstance(kind, Timestamp):
        return parse_moment
    bits = 63 if isinstance(kind, BigInteger) else 31
    parsers: dict[type, Parser] = {int: partial(_integer, bits), str: require_storable, UUID: _uuid}
    return parsers[kind.python_type]


def _integer(bits: int, text: str) -> int:
    if not re.fullmatch(r"-?\d{1,19}", text, re.ASCII) or abs(int(text)) >= 2**bits:
        raise ValueError(text)
    return int(text)


def _uuid(text: str) -> UUID:
    if not BARE_UUID.fullmatch(text):
        raise ValueError(text)
    return UUID(text)


def window(
    entity: Entity,
    first: int | None = None,
    after: str | None = None,
    last: int | None = None,
    before: str | None = None,
    order_by: Order | None = None,
    **_: object,
) -> Window:
    """The window for the arguments of a connection. Raises BadInput."""
    if first is not None and last is not None:
        raise BadInput("Ask for `first` or for `last`, not for both.")
    name, limit = ("first", first) if last is None else ("last", last)
    default: Any = None if entity.order is None else next(iter(entity.order))
    order = order_by or default
    return Window(
        entity,
        order,
        DEFAULT_PAGE_SIZE if limit is None else apply(partial(_size, name), limit),
        last is not None,
        None if after is None else _position(entity, order, "after", after),
        None if before is None else _position(entity, order, "before", before),
    )


def _size(argument: str, size: int) -> int:
    if not 0 <= size <= MAX_PAGE_SIZE:
        raise BadInput(f"{argument} must be between 0 and {MAX_PAGE_SIZE}, not {size}.")
    return size


@dataclass
class Page:
    """A page, with the values of the fields of a connection and its `pageInfo`."""

    window: Window
    rows: list[Any]
    count: Callable[[], Awaitable[int]]
    has_more: bool = field(init=False)

    def __post_init__(self) -> None:
        self.has_more = len(self.rows) > self.window.limit
        self.nodes = self.rows[: self.window.limit]
        if self.window.backward:
            self.nodes.reverse()

    @property
    def edges(self) -> list[PageEdge]:
        """The rows with their cursors."""
        return [PageEdge(row, self.window) for row in self.nodes]

    @property
    def page_info(self) -> Page:
        """The value of `pageInfo`, whose fields are read of the page too."""
        return self

    @property
    def total_count(self) -> Awaitable[int]:
        """How many rows there are on all pages."""
        return self.count()

    @property
    def has_next_page(self) -> bool:
        """Whether rows follow; paging backward, whether the page ends at a cursor."""
        return self.window.before is not None if self.window.backward else self.has_more

    @property
    def has_previous_page(self) -> bool:
        """Whether rows precede; paging forward, whether the page starts at a cursor."""
        return self.has_more if self.window.backward else self.window.after is not None

    @property
    def start_cursor(self) -> str | None:
        """The cursor of the first row."""
        return self.window.cursor(self.nodes[0]) if self.nodes else None

    @property
    def end_cursor(self) -> str | None:
        """The cursor of the last row."""
        return self.window.cursor(self.nodes[-1]) if self.nodes else None


@dataclass(slots=True)
class PageEdge:
    """A row of a page."""

    node: Any
    window: Window

    @property
    def cursor(self) -> str:
        """The cursor that points at the row."""
        return self.window.cursor(self.node)


class PageField(Declared):
    """A field of a connection, its edges or its `pageInfo`.

    Its value is the attribute of this name of `Page`; its SQL is the method of `PageSQL`.
    """

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        json: Json = getattr(row, self.python_name)(selected)
        return json


def page_field(description: str) -> Any:
    """Declare a field of a connection."""
    return PageField(description=description)


@strawberry.type(description="Information about a page of a connection.")
class PageInfo:
    has_next_page: bool = page_field("Whether more follow; paging backward, if `before` was set.")
    has_previous_page: bool = page_field(
        "Whether more precede; paging forward, if `after` was set."
    )
    start_cursor: str | None = page_field(
        "The cursor of the first object. As `before`, it gives the previous page."
    )
    end_cursor: str | None = page_field(
        "The cursor of the last object. As `after`, it gives the next page."
    )


@strawberry.type(description="An object of a page, with its cursor.")
class Edge(Generic[T]):
    node: T = page_field("The object.")
    cursor: str = page_field("The cursor of the object, in this order.")


@strawberry.type(description="A page of sorted objects.")
class Connection(Generic[T]):
    edges: list[Edge[T]] = page_field("The objects of the page, with cursors.")
    nodes: list[T] = page_field("The objects of the page.")
    page_info: PageInfo = page_field("Information about the page.")
    total_count: int = page_field(
        "How many objects there are on all pages; counted only when selected."
    )
