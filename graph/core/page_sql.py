"""The SQL of a page of a connection. `connections.Page` does the same in Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, Text, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from db.parameters import bind
from graph.core.connections import ROW_FIELDS, Window, name_of
from graph.core.declarations import StatementBuilder
from graph.core.json_text import Json, array, boolean, cursor, is_long, or_null, piece, string
from graph.core.selections import Selected

# The column with the number of rows of a page.
NUMBER = "number"


@dataclass(eq=False)
class PageSQL:
    """A page, with the SQL of the fields of a connection and its `pageInfo`.

    The innermost subquery makes the JSON of each row of the page. The next one aggregates it into
    arrays. The outer one makes the JSON of the connection. So the page is read once.
    """

    builder: StatementBuilder
    window: Window
    members: Callable[[Any], Select[Any]]
    """Makes a statement without columns for the rows of all pages, from an alias of the model."""
    children: Sequence[Selected]
    """The fields that are selected of the connection."""

    def json(self) -> Json:
        """The JSON value of the connection."""
        json = self.builder.object(self.children, self)
        if ROW_FIELDS.isdisjoint(child.name for child in self.children):
            return json
        # Constant text stays outside of the subquery, where it is not copied again. A connection
        # of constant text alone is still read, because its arguments may be invalid.
        start, *between, end = json if len(json) > 1 else ("", *json, "")
        of_page = select(self.builder.text(tuple(between))).select_from(self._page)
        return start, piece(of_page.scalar_subquery(), of=json), end

    def total_count(self, selected: Selected) -> Json:
        """How many rows there are on all pages."""
        rows = self.members(aliased(self.window.entity.model))
        return (cast(rows.with_only_columns(func.count()).scalar_subquery(), Text),)

    def nodes(self, selected: Selected) -> Json:
        """The rows of the page."""
        return array(self._in_order(self._page.c[self._name(selected)]))

    edges = nodes

    def page_info(self, selected: Selected) -> Json:
        """The position of the page among all rows."""
        (children,) = selected.children.values()
        return self.builder.object(children, self)

    def has_next_page(self, selected: Selected) -> Json:
        """Whether rows follow; paging backward, whether the page ends at a cursor."""
        return boolean(self.window.before is not None) if self.window.backward else self._has_more

    def has_previous_page(self, selected: Selected) -> Json:
        """Whether rows precede; paging forward, whether the page starts at a cursor."""
        return self._has_more if self.window.backward else boolean(self.window.after is not None)

    def start_cursor(self, selected: Selected) -> Json:
        """The cursor of the first row."""
        return self._cursor_at(self._last if self.window.backward else self._first)

    def end_cursor(self, selected: Selected) -> Json:
        """The cursor of the last row."""
        return self._cursor_at(self._first if self.window.backward else self._last)

    @cached_property
    def _limit(self) -> Any:
        return bind(self.window.limit, Integer)

    @property
    def _has_more(self) -> Json:
        return boolean(self._page.c[NUMBER] > self._limit)

    # The positions of rows in the order in which they are read, with one row beyond the page.

    @property
    def _first(self) -> Any:
        return func.least(1, self._limit)

    @property
    def _last(self) -> Any:
        return func.least(self._page.c[NUMBER], self._limit)

    def _cursor_at(self, place: Any) -> Json:
        parts = range(len(self.window.position(self.window.entity.model)))
        position = (self._page.c[_part(part)][place] for part in parts)
        return or_null(string(cursor(name_of(self.window.order), *position)))

    @property
    def _info(self) -> set[str]:
        """The fields of `pageInfo` that are selected."""
        infos = (child.children["PageInfo"] for child in self.children if child.name == "pageInfo")
        return {info.name for below in infos for info in below}

    @property
    def _looks_beyond(self) -> bool:
        """Whether one row more than the page is read, to see if there is one."""
        return ("hasPreviousPage" if self.window.backward else "hasNextPage") in self._info

    def _name(self, selected: Selected) -> str:
        """The column of a field: its position, because a response name may be too long."""
        return str(self.children.index(selected))

    @cached_property
    def _page(self) -> Any:
        """The page as a subquery: an array for each field of its rows, and the number of rows."""
        row = aliased(self.window.entity.model)
        texts = {
            self._name(child): self._of_row(row, child)
            for child in self.children
            if child.name in ("nodes", "edges")
        }
        read: dict[str, tuple[ColumnElement[Any], Any]] = {
            name: (self.builder.text(text), Text) for name, text in texts.items()
        }
        if not self._info.isdisjoint({"startCursor", "endCursor"}):
            # The cursors of the first and the last row are made of these arrays.
            read |= {
                _part(place): (value, value.type)
                for place, value in enumerate(self.window.position(row))
            }
        columns: list[Any] = [value.label(name) for name, (value, _) in read.items()]
        rows = self.members(row).with_only_columns(*(columns or [literal_column("1")]))
        each = self.window.cut(rows, row, self._looks_beyond).subquery()
        if any(map(is_long, texts.values())):
            each = self.builder.limited(each, texts)
        arrays = [
            func.array_agg(each.c[name], type_=ARRAY(kind)).label(name)
            for name, (_, kind) in read.items()
        ]
        return select(func.count().label(NUMBER), *arrays).select_from(each).subquery()

    def _of_row(self, row: Any, selected: Selected) -> Json:
        """The JSON value of a node or an edge."""
        if selected.name == "nodes":
            return self.window.entity.sql(self.builder, selected, row)
        (children,) = selected.children.values()
        return self.builder.object(children, EdgeSQL(self.builder, self.window, row))

    def _in_order(self, items: Any) -> Any:
        """The items of the page in its order, without the one beyond it."""
        page = items[1 : self._limit] if self._looks_beyond else items
        if self.window.backward:
            each = func.unnest(page).table_valued("item", with_ordinality="place").render_derived()
            page = func.array(select(each.c.item).order_by(each.c.place.desc()).scalar_subquery())
        return page


@dataclass(eq=False)
class EdgeSQL:
    """A row of a page, with the SQL of the fields of an edge."""

    builder: StatementBuilder
    window: Window
    row: Any

    def node(self, selected: Selected) -> Json:
        """The row."""
        return self.window.entity.sql(self.builder, selected, self.row)

    def cursor(self, selected: Selected) -> Json:
        """The cursor that points at the row."""
        return string(cursor(name_of(self.window.order), *self.window.position(self.row)))


def _part(place: int) -> str:
    """The name of the column that holds a part of a cursor."""
    return f"cursor{place}"
