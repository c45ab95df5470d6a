"""From what is selected to one statement: a rule for each kind of field.

An object is `row_to_json` over the row of its fields, a list is an array of such, and a field that
leads elsewhere is a subquery in its place. PostgreSQL prints both without spaces, and values as
the scalars of the API do. Scopes, filters, orders and cursors are those of the resolvers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any
from uuid import UUID

import sqlalchemy
from sqlalchemy import (
    Boolean,
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
from sqlalchemy.dialects.postgresql import ARRAY, JSON
from sqlalchemy.orm import aliased
from strawberry.types.arguments import convert_arguments

from db import Viewer, scope
from db.base import Timestamp
from db.parameters import parameter, then
from graph.connections import Window, window
from graph.entities import Column, Entity, Id
from graph.nodes import Anything
from graph.planner.shapes import Unplannable
from graph.relations import Collection, Connected, Listed, Lookup, Related
from graph.selections import BACKREF, Operation, Selected

# PostgreSQL cuts longer names without a word.
LONGEST_NAME = 63

# So many bytes are one line of base64.
LONGEST_LINE = 57

# Names of columns that no response name can have, for what is not shown itself.
NUMBER, CURSOR = "#number", "#cursor"

# What is shown of an object of which a condition or its type leaves nothing.
EMPTY: ColumnElement[Any] = literal_column("'{}'::json", JSON)

# What an id names: the attributes of Named, with their types.
NAMED = (("places", Integer), ("uuids", Uuid), ("texts", Text))

Json = ColumnElement[Any]


@dataclass(eq=False)
class Statement:
    """A statement whose result is one JSON object, and what is to be known about it besides."""

    select: Select[Any]
    sizes: list[Any]
    """How many rows its pages and lists of ids have, which is what it costs."""
    positions: list[Any]
    """Where its cursors point, which is to be looked at whether it is used or not."""


def statement(operation: Operation, viewer: Viewer) -> Statement:
    """The statement for a whole query. Raises Unplannable, or what is wrong with its arguments."""
    rules = _Rules(operation, viewer)
    fields = _labelled((root, rules.root(root)) for root in operation.roots)
    return Statement(select(_object(fields)), rules.sizes, rules.positions)


def _objects(rows: Select[Any]) -> Select[Any]:
    """The JSON objects of the rows that a select gives."""
    fields = rows.subquery()
    return select(func.row_to_json(fields.table_valued(), type_=JSON))


def _object(columns: Sequence[Any], *sources: Any) -> Json:
    """The JSON object of columns, which come from these rows."""
    if not columns:
        return EMPTY
    return _objects(select(*columns).correlate(*sources)).scalar_subquery()


def _labelled(fields: Iterable[tuple[Selected, Json]]) -> list[Any]:
    """Values as the columns of a row, each under its response name."""
    labelled = []
    for selected, value in fields:
        if len(selected.key.encode()) > LONGEST_NAME:
            raise Unplannable(selected.key)
        labelled.append(value.label(selected.key))
    return labelled


def _constant(text: str) -> ColumnElement[str]:
    """A text of the schema's, which is no value of anybody's."""
    quoted = text.replace("'", "''")
    return literal_column(f"'{quoted}'", Text)


def _known(value: bool) -> ColumnElement[bool]:
    return literal_column(str(value).lower(), Boolean)


def _base64(text: ColumnElement[str], length: int | None = None) -> ColumnElement[str]:
    """Base64 in one line: PostgreSQL breaks it after every 76 characters, if there are so many."""
    encoded = func.encode(func.convert_to(text, _constant("UTF8")), _constant("base64"))
    if length is not None and length <= LONGEST_LINE:
        return encoded
    return func.translate(encoded, _constant("\n"), _constant(""))


def _global_id(type_name: str, key: Any) -> ColumnElement[str]:
    """The id of an object, as `global_id` makes it."""
    prefix = f"{type_name}:"
    length = len(prefix) + len(str(UUID(int=0))) if isinstance(key.type, Uuid) else None
    return _base64(_constant(prefix) + cast(key, Text), length)


def _printed(column: Any) -> Json:
    """A column as the API prints it; for most types that is what `row_to_json` does."""
    if isinstance(column.type, sqlalchemy.Numeric):
        return cast(column, Text)
    if isinstance(column.type, Uuid):
        raise Unplannable(column.key)
    return column  # type: ignore[no-any-return]


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

    def __init__(self, operation: Operation, viewer: Viewer) -> None:
        self.viewer = viewer
        self.sizes: list[Any] = []
        self.positions: list[Any] = []
        self.converter = operation.schema.extensions[BACKREF].schema_converter

    def arguments(self, selected: Selected) -> dict[str, Any]:
        """The arguments of a field, as its resolver gets them."""
        assert selected.declaration is not None
        return convert_arguments(
            selected.arguments,
            selected.declaration.arguments,
            scalar_registry=self.converter.scalar_registry,
            config=self.converter.config,
        )

    def root(self, selected: Selected) -> Json:
        """A field of the query itself."""
        field = selected.declaration if selected.is_readable else None
        if isinstance(field, Lookup):
            row = aliased(field.target.model)
            value = field.value(self.viewer, self.arguments(selected))
            column = getattr(row, field.attribute.key)
            met = [column == parameter(value, column.type), scope(row, self.viewer)]
            return self.objects(field.target, row, selected, _which(*met)).scalar_subquery()
        if isinstance(field, Collection):
            return self.page(field, selected)
        if isinstance(field, Anything):
            return self.anything(field, selected)
        if selected.name == "__typename":
            return _constant(selected.parent.name)
        raise Unplannable(selected.name)

    def anything(self, field: Anything, selected: Selected) -> Json:
        """Objects of whatever types, in the places of their ids."""
        arguments = self.arguments(selected)
        if not field.is_list:
            (place, uuid, text) = (
                parameter(then(_first(part), then(field.named, [arguments["id"]])), kind)
                for part, kind in NAMED
            )
            return self.named(field, selected, (place, uuid, text))
        ids = arguments["ids"]
        self.sizes.append(then(len, ids))
        arrays = (
            parameter(then(attrgetter(part), then(field.named, ids)), ARRAY(kind))
            for part, kind in NAMED
        )
        columns = [column(part, kind) for part, kind in NAMED]
        each = func.unnest(*arrays).table_valued(*columns, with_ordinality=NUMBER).render_derived()
        found = self.named(field, selected, [each.c[part] for part, _ in NAMED], each)
        in_order = select(found).select_from(each).order_by(each.c[NUMBER])
        return func.array_to_json(func.array(in_order.scalar_subquery()), type_=JSON)

    def named(
        self, field: Anything, selected: Selected, values: Sequence[Any], *sources: Any
    ) -> Json:
        """The one object that has this key among those of an entity, or of all."""
        place, uuid, text = values
        found = []
        for number, entity in enumerate(field.entities):
            row = aliased(entity.model)
            key = getattr(row, entity.key.key)
            is_uuid = isinstance(key.type, Uuid)
            is_here = place == literal_column(str(number))
            if is_uuid:
                is_here = or_(place.is_(None), is_here)
            met = [is_here, key == (uuid if is_uuid else text), scope(row, self.viewer)]
            which = _which(*met, sources=sources)
            found.append(self.objects(entity, row, selected, which).scalar_subquery())
        return func.coalesce(*found, type_=JSON)

    def objects(
        self,
        entity: Entity,
        row: Any,
        selected: Selected,
        which: Callable[[Select[Any]], Select[Any]],
    ) -> Select[Any]:
        """What is selected of those rows of an entity that `which` leaves."""
        if entity.is_interface:
            return which(select(self.object(entity, row, selected)).select_from(row))
        columns = self.fields(entity, row, selected.children[entity.name])
        if not columns:
            return which(select(EMPTY).select_from(row))
        return _objects(which(select(*columns)))

    def object(self, entity: Entity, row: Any, selected: Selected) -> Json:
        """What is selected of a row; of one with subtypes, what is selected of its subtype."""
        if not entity.is_interface:
            fields = self.fields(entity, row, selected.children[entity.name])
            return _object(fields, row)
        kind_of = getattr(row, sqlalchemy.inspect(entity.model).polymorphic_on.key)
        shown = []
        for kind in entity.kinds:
            part = getattr(row, kind.model.__name__)
            fields = self.fields(kind, part, selected.children[kind.name])
            identity = sqlalchemy.inspect(kind.model).polymorphic_identity
            shown.append((kind_of == identity, _object(fields, part)))
        return case(*shown)

    def fields(self, entity: Entity, row: Any, children: Iterable[Selected]) -> list[Any]:
        """The fields of an object, as the columns of a row."""
        return _labelled((child, self.field(entity, row, child)) for child in children)

    def field(self, entity: Entity, row: Any, selected: Selected) -> Json:
        """A field of an object, whose row is a model's alias."""
        field = selected.declaration if selected.is_readable else None
        match field:
            case Id():
                return _global_id(field.type_name, getattr(row, field.key))
            case Column():
                return _printed(getattr(row, field.key))
            case Connected():
                return self.page(field, selected, row)
            case Listed():
                found = self.related(field, selected, row).scalar_subquery()
                return func.array_to_json(func.array(found), type_=JSON)
            case Related():
                return self.related(field, selected, row).scalar_subquery()
        if selected.name == "__typename":
            return _constant(entity.name)
        raise Unplannable(selected.name)

    def related(self, field: Related, selected: Selected, row: Any) -> Select[Any]:
        """What a relation leads to from a row, as far as the viewer may see it."""
        here, there = field.pair
        target = aliased(field.target.model)
        met = [getattr(target, there.key) == getattr(row, here.key), scope(target, self.viewer)]
        prop: Any = field.attribute.property
        order = [getattr(target, column.key) for column in prop.order_by or ()]

        def which(rows: Select[Any]) -> Select[Any]:
            return rows.where(*met).order_by(*order).correlate(row)

        return self.objects(field.target, target, selected, which)

    # A connection is read in three steps: what is shown of each row of its page, those of all rows
    # as arrays, and of these what is shown of the connection. So its page is read once.

    def page(self, field: Any, selected: Selected, parent: Any = None) -> Json:
        """A connection, of all rows of an entity or of those related to a parent's row."""
        arguments = self.arguments(selected)
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
        shown: list[tuple[Selected, Json]] = []
        for child in children:
            match child.name:
                case "totalCount":
                    count = members(aliased(field.target.model), [func.count()])
                    shown.append((child, count.scalar_subquery()))
                case "__typename":
                    shown.append((child, _constant(child.parent.name)))
                case "pageInfo":
                    shown.append((child, self.page_info(view, page, child)))
                case "nodes" | "edges":
                    beyond = _looks_beyond(view, _told(children))
                    shown.append((child, _in_order(view, page.c[child.key], beyond)))
                case _:
                    raise Unplannable(child.name)
        of_rows = {child.name for child in children} & {"nodes", "edges", "pageInfo"}
        columns = _labelled(shown)
        if of_rows and columns:
            return _objects(select(*columns).select_from(page)).scalar_subquery()
        return _object(columns)

    def rows(
        self, view: Window, members: Callable[..., Select[Any]], children: Sequence[Selected]
    ) -> Any:
        """The rows of a page: arrays of what is shown of each, and how many were found."""
        row = aliased(view.entity.model)
        lists = [child for child in children if child.name in ("nodes", "edges")]
        told = _told(children)
        points = not told.isdisjoint({"startCursor", "endCursor"})
        # Often the row that is read is the very object that is shown.
        whole = len(lists) == 1 and not points and not _is_of_kinds(view, lists[0])
        read = self.item(view, row, lists[0]) if whole else []
        if not read:
            whole = False
            read = [self.shown(view, row, child).label(child.key) for child in lists]
        if points:
            read.append(_cursor(view, row).label(CURSOR))
        read = read or [literal_column("1")]
        each = view.cut(members(row, read), row, _looks_beyond(view, told)).subquery()
        made: list[Any] = [func.count().label(NUMBER)]
        for child in lists:
            item = func.row_to_json(each.table_valued()) if whole else each.c[child.key]
            made.append(func.array_agg(item, type_=ARRAY(JSON)).label(child.key))
        if points:
            made.append(func.array_agg(each.c[CURSOR], type_=ARRAY(Text)).label(CURSOR))
        return select(*made).select_from(each).subquery()

    def item(self, view: Window, row: Any, selected: Selected) -> list[Any]:
        """What is selected of an edge, or of a node, as the columns of a row."""
        if selected.name == "nodes":
            return self.fields(view.entity, row, selected.children[view.entity.name])
        (below,) = selected.children.values()
        return _labelled((part, self.edge(view, row, part)) for part in below)

    def shown(self, view: Window, row: Any, selected: Selected) -> Json:
        """What is selected of an edge, or of a node, as an object."""
        if selected.name == "nodes":
            return self.object(view.entity, row, selected)
        return _object(self.item(view, row, selected), row)

    def edge(self, view: Window, row: Any, selected: Selected) -> Json:
        """A field of an edge."""
        match selected.name:
            case "node":
                return self.object(view.entity, row, selected)
            case "cursor":
                return _cursor(view, row)
            case "__typename":
                return _constant(selected.parent.name)
        raise Unplannable(selected.name)

    def page_info(self, view: Window, page: Any, selected: Selected) -> Json:
        """Where a page lies."""
        (children,) = selected.children.values()
        limit, number = parameter(view.limit, Integer), page.c[NUMBER]
        more = number > limit
        ends = func.least(1, limit), func.least(number, limit)
        start, end = reversed(ends) if view.backward else ends
        values: dict[str, Callable[[], Json]] = {
            "hasNextPage": lambda: _known(view.before is not None) if view.backward else more,
            "hasPreviousPage": lambda: more if view.backward else _known(view.after is not None),
            "startCursor": lambda: page.c[CURSOR][start],
            "endCursor": lambda: page.c[CURSOR][end],
            "__typename": lambda: _constant(selected.type.of_type.name),  # type: ignore[union-attr]
        }
        if not {child.name for child in children} <= values.keys():
            raise Unplannable(selected.name)
        shown = _labelled((child, values[child.name]()) for child in children)
        return _object(shown, page)


def _told(children: Iterable[Selected]) -> set[str]:
    """What is told of where a page lies."""
    infos = (child.children["PageInfo"] for child in children if child.name == "pageInfo")
    return {info.name for told in infos for info in told}


def _looks_beyond(view: Window, told: set[str]) -> bool:
    """Whether one row more than the page is read, to tell if there is one."""
    return ("hasPreviousPage" if view.backward else "hasNextPage") in told


def _is_of_kinds(view: Window, selected: Selected) -> bool:
    """Whether the rows are shown as different types."""
    return selected.name == "nodes" and view.entity.is_interface


def _in_order(view: Window, items: Any, beyond: bool) -> Json:
    """The objects of a page as a list: not the one beyond it, and the last one last."""
    page = items[1 : parameter(view.limit, Integer)] if beyond else items
    if view.backward:
        each = func.unnest(page).table_valued("item", with_ordinality="place").render_derived()
        page = func.array(select(each.c.item).order_by(each.c.place.desc()).scalar_subquery())
    return func.array_to_json(func.coalesce(page, literal_column("'{}'::json[]")), type_=JSON)


def _cursor(view: Window, row: Any) -> ColumnElement[str]:
    """The cursor that points at a row, as `encode_cursor` makes it."""
    value = getattr(row, view.order.attribute)
    if isinstance(value.type, Timestamp):
        value = func.to_json(value).op("#>>")(literal_column("'{}'::text[]"))
    key = cast(getattr(row, view.entity.key.key), Text)
    parts = _constant(f"{view.order.name}\n") + key + _constant("\n") + cast(value, Text)
    return _base64(parts)
