"""From what is selected to one statement: a rule for each kind of field.

The text of each object is put together from its fields, that of a list from its items, and a field
that leads elsewhere is a subquery in its place. Values are printed as the scalars of the API print
them. Scopes, filters, orders and cursors are those of the resolvers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import attrgetter
from typing import Any

import sqlalchemy
from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Text,
    Uuid,
    case,
    cast,
    column,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from db import Viewer, scope
from db.parameters import once, parameter, then
from db.result_limits import within
from graph.compiler.json_text import (
    Json,
    Piece,
    array,
    boolean,
    cursor,
    encoded,
    global_id,
    is_long,
    object_of,
    or_null,
    piece,
    printed,
    sql,
    string,
)
from graph.compiler.shapes import Unplannable
from graph.core.connections import Window, window
from graph.core.entities import Column, Entity, Id
from graph.core.fields import Collection, Connected, Listed, Lookup, Related
from graph.core.nodes import Anything
from graph.core.selections import Operation, Selected

# Names of columns that hold what is not shown itself; those shown have numbers.
NUMBER, TEXT, TOTAL = "number", "text", "total"

# What an id names: the attributes of Named, with their types.
NAMED = (("places", Integer), ("uuids", Uuid), ("texts", Text))


@dataclass(eq=False)
class Statement:
    """A statement whose result is one JSON object, and what is to be known about it besides."""

    select: Select[Any]
    sizes: list[Any]
    """How many rows its pages and lists of ids have, which is what it costs."""
    positions: list[Any]
    """Where its cursors point, which is to be looked at whether it is used or not."""


def statement(operation: Operation, viewer: Viewer, most: int) -> Statement:
    """The statement for a whole query, which fails if its answer has more bytes than `most`.

    Raises Unplannable, or what is wrong with its arguments.
    """
    rules = _Rules(operation, viewer, most)
    data = object_of((root.key, rules.root(root)) for root in operation.roots)
    return Statement(select(encoded(data, most)), rules.sizes, rules.positions)


def _which(
    *met: ColumnElement[bool], sources: Iterable[Any] = ()
) -> Callable[[Select[Any]], Select[Any]]:
    """What leaves the rows that meet conditions, which name other sources as well."""
    return lambda rows: rows.where(*met).correlate(*sources)


def _first(part: str) -> Callable[[Any], Any]:
    """What reads the first of the values that an attribute has."""
    return lambda named: getattr(named, part)[0]


class _Rules:
    """The rules for one operation of one viewer."""

    def __init__(self, operation: Operation, viewer: Viewer, most: int) -> None:
        self.operation = operation
        self.viewer = viewer
        self.most = most
        self.sizes: list[Any] = []
        self.positions: list[Any] = []

    def sql(self, json: Json) -> ColumnElement[str]:
        """A JSON value as one expression."""
        return sql(json, self.most)

    def root(self, selected: Selected) -> Json:
        """A field of the query itself."""
        field = selected.declaration if selected.is_readable else None
        if isinstance(field, Lookup):
            row = aliased(field.target.model)
            value = field.value(self.viewer, self.operation.converted(selected))
            column = getattr(row, field.attribute.key)
            met = [column == parameter(value, column.type), scope(row, self.viewer)]
            return self.one(self.object(field.target, row, selected), row, _which(*met))
        if isinstance(field, Collection):
            return self.page(field, selected)
        if isinstance(field, Anything):
            return self.anything(field, selected)
        if selected.name == "__typename":
            return string(selected.parent.name)
        raise Unplannable(selected.name)

    def anything(self, field: Anything, selected: Selected) -> Json:
        """Objects of whatever types, in the places of their ids."""
        arguments = self.operation.converted(selected)
        if not field.is_list:
            named = once(then(field.named, [arguments["id"]]))
            (place, uuid, text) = (
                parameter(then(_first(part), named), kind) for part, kind in NAMED
            )
            return self.named(field, selected, (place, uuid, text))
        ids = arguments["ids"]
        self.sizes.append(then(len, ids))
        named = once(then(field.named, ids))
        arrays = (parameter(then(attrgetter(part), named), ARRAY(kind)) for part, kind in NAMED)
        columns = [column(part, kind) for part, kind in NAMED]
        each = func.unnest(*arrays).table_valued(*columns, with_ordinality=NUMBER).render_derived()
        found = self.named(field, selected, [each.c[part] for part, _ in NAMED], each)
        in_order = select(self.sql(found).label(TEXT)).select_from(each).order_by(each.c[NUMBER])
        return array(self.items(found, in_order))

    def named(
        self, field: Anything, selected: Selected, values: Sequence[Any], *sources: Any
    ) -> Json:
        """The one object that has this key among those of an entity, or of all."""
        place, uuid, text = values
        found: list[ColumnElement[str]] = []
        shown: list[Piece] = []
        for number, entity in enumerate(field.entities):
            row = aliased(entity.model)
            key = getattr(row, entity.key.key)
            is_uuid = isinstance(key.type, Uuid)
            is_here = place == literal_column(str(number))
            if is_uuid:
                is_here = or_(place.is_(None), is_here)
            met = [is_here, key == (uuid if is_uuid else text), scope(row, self.viewer)]
            json = self.object(entity, row, selected)
            which = _which(*met, sources=sources)
            found.append(which(select(self.sql(json)).select_from(row)).scalar_subquery())
            shown += json
        return or_null(tuple(shown), *found)

    def one(self, json: Json, row: Any, which: Callable[[Select[Any]], Select[Any]]) -> Json:
        """What is shown of the row that `which` leaves, if it leaves one."""
        return or_null(json, which(select(self.sql(json)).select_from(row)).scalar_subquery())

    def object(self, entity: Entity, row: Any, selected: Selected) -> Json:
        """What is selected of a row; of one with subtypes, what is selected of its subtype."""
        if not entity.is_interface:
            return self.fields(entity, row, selected)
        kind_of = getattr(row, sqlalchemy.inspect(entity.model).polymorphic_on.key)
        shown: list[Piece] = []
        cases = []
        for kind in entity.kinds:
            json = self.fields(kind, getattr(row, kind.model.__name__), selected)
            identity = sqlalchemy.inspect(kind.model).polymorphic_identity
            cases.append((kind_of == identity, self.sql(json)))
            shown += json
        return (piece(case(*cases), of=tuple(shown)),)

    def fields(self, entity: Entity, row: Any, selected: Selected) -> Json:
        """The object that is shown of a row of an entity of one type."""
        children = selected.children[entity.name]
        return object_of((child.key, self.field(entity, row, child)) for child in children)

    def field(self, entity: Entity, row: Any, selected: Selected) -> Json:
        """A field of an object, whose row is a model's alias."""
        field = selected.declaration if selected.is_readable else None
        match field:
            case Id():
                return string(global_id(field.type_name, getattr(row, field.key)))
            case Column():
                return printed(getattr(row, field.key))
            case Connected():
                return self.page(field, selected, row)
            case Related():
                return self.related(field, selected, row)
        if selected.name == "__typename":
            return string(entity.name)
        raise Unplannable(selected.name)

    def related(self, field: Related, selected: Selected, row: Any) -> Json:
        """What a relation leads to from a row, as far as the viewer may see it."""
        here, there = field.pair
        target = aliased(field.target.model)
        met = [getattr(target, there.key) == getattr(row, here.key), scope(target, self.viewer)]
        prop: Any = field.attribute.property
        order = [getattr(target, column.key) for column in prop.order_by or ()]

        def which(rows: Select[Any]) -> Select[Any]:
            return rows.where(*met).order_by(*order).correlate(row)

        json = self.object(field.target, target, selected)
        if isinstance(field, Listed):
            rows = which(select(self.sql(json).label(TEXT)))
            return array(self.items(json, rows.limit(literal_column(str(field.most)))))
        return self.one(json, target, which)

    def items(self, json: Json, rows: Select[Any]) -> ColumnElement[Any]:
        """An array of the texts of rows, each with this JSON value."""
        if is_long(json):
            rows = select(self.limited(rows.subquery(), [TEXT]).c[TEXT])
        return func.array(rows.scalar_subquery())

    # A connection is read in three steps: what is shown of each row of its page, those of all rows
    # as arrays, and of these what is shown of the connection. So its page is read once.

    def page(self, field: Any, selected: Selected, parent: Any = None) -> Json:
        """A connection, of all rows of an entity or of those related to a parent's row."""
        arguments = self.operation.converted(selected)
        view = window(field.target, **arguments)
        self.sizes.append(view.limit)
        self.positions += [*(view.after or ()), *(view.before or ())]
        (children,) = selected.children.values()

        def members(row: Any, columns: Sequence[Any]) -> Select[Any]:
            found = select(*columns).select_from(row)
            found = found.where(*field.members(arguments, self.viewer, row))
            if parent is not None:
                here, there = field.pair
                found = found.where(getattr(row, there.key) == getattr(parent, here.key))
                found = found.correlate(parent)
            return found

        page = self.rows(view, members, children)
        shown: list[tuple[str, Json]] = []
        for child in children:
            match child.name:
                case "totalCount":
                    count = members(aliased(field.target.model), [func.count()])
                    value: Json = (cast(count.scalar_subquery(), Text),)
                case "__typename":
                    value = string(child.parent.name)
                case "pageInfo":
                    value = self.page_info(view, page, child)
                case "nodes" | "edges":
                    items = page.c[_place(children, child)]
                    value = array(_in_order(view, items, _looks_beyond(view, _told(children))))
                case _:
                    raise Unplannable(child.name)
            shown.append((child.key, value))
        json = object_of(shown)
        of_rows = {child.name for child in children} & {"nodes", "edges", "pageInfo"}
        if not of_rows:
            return json
        # What is the same for every page stays outside: what is inside is copied once more. Where
        # all of it is, the page is read nevertheless, for what may be wrong with its arguments.
        start, *between, end = json if len(json) > 1 else ("", *json, "")
        shown_of_page = select(self.sql(tuple(between))).select_from(page).scalar_subquery()
        return start, piece(shown_of_page, of=json), end

    def rows(
        self, view: Window, members: Callable[..., Select[Any]], children: Sequence[Selected]
    ) -> Any:
        """The rows of a page: arrays of what is shown of each, and how many were found."""
        row = aliased(view.entity.model)
        told = _told(children)
        texts = {
            _place(children, child): self.shown(view, row, child)
            for child in children
            if child.name in ("nodes", "edges")
        }
        read: dict[str, tuple[ColumnElement[Any], Any]] = {
            name: (self.sql(text), Text) for name, text in texts.items()
        }
        if not told.isdisjoint({"startCursor", "endCursor"}):
            # Of all its rows, only two have their cursors told.
            read |= {
                _part(place): (value, value.type) for place, value in enumerate(view.position(row))
            }
        columns: list[Any] = [value.label(name) for name, (value, _) in read.items()]
        columns = columns or [literal_column("1")]
        each = view.cut(members(row, columns), row, _looks_beyond(view, told)).subquery()
        if any(map(is_long, texts.values())):
            each = self.limited(each, texts)
        arrays = [
            func.array_agg(each.c[name], type_=ARRAY(kind)).label(name)
            for name, (_, kind) in read.items()
        ]
        return select(func.count().label(NUMBER), *arrays).select_from(each).subquery()

    def limited(self, rows: Any, names: Iterable[str]) -> Any:
        """Rows of texts, of which the statement reads no more once they have too many bytes."""
        size = reduce(operator.add, [func.octet_length(rows.c[name]) for name in names])
        total = func.sum(size).over(rows=(None, 0)).label(TOTAL)
        summed = select(*rows.c, total).subquery()
        columns = [column for column in summed.c if column.key != TOTAL]
        return select(*columns).where(within(summed.c[TOTAL], self.most)).subquery()

    def shown(self, view: Window, row: Any, selected: Selected) -> Json:
        """What is selected of a node, or of an edge."""
        if selected.name == "nodes":
            return self.object(view.entity, row, selected)
        (children,) = selected.children.values()
        return object_of((child.key, self.edge(view, row, child)) for child in children)

    def edge(self, view: Window, row: Any, selected: Selected) -> Json:
        """A field of an edge."""
        match selected.name:
            case "node":
                return self.object(view.entity, row, selected)
            case "cursor":
                return string(cursor(view.order, *view.position(row)))
            case "__typename":
                return string(selected.parent.name)
        raise Unplannable(selected.name)

    def page_info(self, view: Window, page: Any, selected: Selected) -> Json:
        """Where a page lies."""
        (children,) = selected.children.values()
        limit, number = parameter(view.limit, Integer), page.c[NUMBER]
        more = boolean(number > limit)
        ends = func.least(1, limit), func.least(number, limit)
        start, end = reversed(ends) if view.backward else ends

        def cursor_at(place: Any) -> Json:
            parts = range(len(view.position(view.entity.model)))
            position = (page.c[_part(part)][place] for part in parts)
            return or_null(string(cursor(view.order, *position)))

        values: dict[str, Callable[[], Json]] = {
            "hasNextPage": lambda: boolean(view.before is not None) if view.backward else more,
            "hasPreviousPage": lambda: more if view.backward else boolean(view.after is not None),
            "startCursor": lambda: cursor_at(start),
            "endCursor": lambda: cursor_at(end),
            "__typename": lambda: string(selected.type.of_type.name),  # type: ignore[union-attr]
        }
        if not {child.name for child in children} <= values.keys():
            raise Unplannable(selected.name)
        return object_of((child.key, values[child.name]()) for child in children)


def _place(children: Sequence[Selected], child: Selected) -> str:
    """The name of the column that holds what a child shows: its own may be too long for one."""
    return str(children.index(child))


def _part(place: int) -> str:
    """The name of the column that holds a part of a cursor."""
    return f"cursor{place}"


def _told(children: Iterable[Selected]) -> set[str]:
    """What is told of where a page lies."""
    infos = (child.children["PageInfo"] for child in children if child.name == "pageInfo")
    return {info.name for told in infos for info in told}


def _looks_beyond(view: Window, told: set[str]) -> bool:
    """Whether one row more than the page is read, to tell if there is one."""
    return ("hasPreviousPage" if view.backward else "hasNextPage") in told


def _in_order(view: Window, items: Any, beyond: bool) -> Any:
    """The objects of a page in its order: not the one beyond it, and the last one last."""
    page = items[1 : parameter(view.limit, Integer)] if beyond else items
    if view.backward:
        each = func.unnest(page).table_valued("item", with_ordinality="place").render_derived()
        page = func.array(select(each.c.item).order_by(each.c.place.desc()).scalar_subquery())
    return page
