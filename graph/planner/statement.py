"""From what is selected to one statement: a rule for each kind of field.

An object is `row_to_json` over the row of its fields, a list is an array of such, and a field that
leads elsewhere is a subquery in its place. PostgreSQL prints both without spaces, and values as
the scalars of the API do. Scopes, filters, orders and cursors are those of the resolvers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

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
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSON, aggregate_order_by
from sqlalchemy.orm import aliased
from strawberry.types.arguments import convert_arguments

from db import Viewer, scope
from db.base import Timestamp
from db.parameters import parameter
from graph.connections import Window, window
from graph.entities import Column, Entity, Id
from graph.planner.shapes import Unplannable
from graph.relations import Collection, Connected, Listed, Lookup, Related
from graph.selections import BACKREF, Operation, Selected

# PostgreSQL cuts longer names without a word.
LONGEST_NAME = 63

# Names of columns that no response name can have, for what is not shown itself.
PLACE, NUMBER, CURSOR = "#place", "#number", "#cursor"

Json = ColumnElement[Any]


def statement(operation: Operation, viewer: Viewer) -> tuple[Select[Any], list[Window]]:
    """The statement for a whole query, whose result is one JSON object, and the pages it reads."""
    rules = _Rules(operation, viewer)
    fields = _labelled((root, rules.root(root)) for root in operation.roots)
    return select(_object(select(*fields))), rules.pages


def _objects(rows: Select[Any]) -> Select[Any]:
    """The JSON objects of the rows that a select gives."""
    fields = rows.subquery()
    return select(func.row_to_json(fields.table_valued(), type_=JSON))


def _object(row: Select[Any]) -> Json:
    """The JSON object of the one row that a select gives, or null if it gives none."""
    return _objects(row).scalar_subquery()


def _labelled(fields: Iterable[tuple[Selected, Json]]) -> list[Any]:
    """Values as the columns of a row, each under its response name."""
    labelled = []
    for selected, value in fields:
        if len(selected.key.encode()) > LONGEST_NAME:
            raise Unplannable(selected.key)
        labelled.append(value.label(selected.key))
    if not labelled:
        raise Unplannable("an object without fields")
    return labelled


def _constant(text: str) -> ColumnElement[str]:
    """A text of the schema's, which is no value of anybody's."""
    quoted = text.replace("'", "''")
    return literal_column(f"'{quoted}'", Text)


def _known(value: bool) -> ColumnElement[bool]:
    return literal_column(str(value).lower(), Boolean)


def _base64(text: ColumnElement[str]) -> ColumnElement[str]:
    """Base64 in one line: PostgreSQL breaks it after every 76 characters."""
    encoded = func.encode(func.convert_to(text, "UTF8"), "base64")
    return func.translate(encoded, "\n", "")


def _printed(column: Any) -> Json:
    """A column as the API prints it; for most types that is what `row_to_json` does."""
    if isinstance(column.type, sqlalchemy.Numeric):
        return cast(column, Text)
    if isinstance(column.type, Uuid):
        raise Unplannable(column.key)
    return column  # type: ignore[no-any-return]


class _Rules:
    """The rules for one operation of one viewer."""

    def __init__(self, operation: Operation, viewer: Viewer) -> None:
        self.viewer = viewer
        self.pages: list[Window] = []
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
            found = self.objects(field.target, row, selected, lambda rows: rows.where(*met))
            return found.scalar_subquery()
        if isinstance(field, Collection):
            return self.page(field, selected)
        if selected.name == "__typename":
            return _constant(selected.parent.name)
        raise Unplannable(selected.name)

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
        return _objects(which(select(*self.fields(entity, row, selected.children[entity.name]))))

    def object(self, entity: Entity, row: Any, selected: Selected) -> Json:
        """What is selected of a row; of one with subtypes, what is selected of its subtype."""
        if not entity.is_interface:
            fields = self.fields(entity, row, selected.children[entity.name])
            return _object(select(*fields).correlate(row))
        kind_of = getattr(row, sqlalchemy.inspect(entity.model).polymorphic_on.key)
        shown = []
        for kind in entity.kinds:
            part = getattr(row, kind.model.__name__)
            fields = self.fields(kind, part, selected.children[kind.name])
            identity = sqlalchemy.inspect(kind.model).polymorphic_identity
            shown.append((kind_of == identity, _object(select(*fields).correlate(part))))
        return case(*shown)

    def fields(self, entity: Entity, row: Any, children: Iterable[Selected]) -> list[Any]:
        """The fields of an object, as the columns of a row."""
        return _labelled((child, self.field(entity, row, child)) for child in children)

    def field(self, entity: Entity, row: Any, selected: Selected) -> Json:
        """A field of an object, whose row is a model's alias."""
        field = selected.declaration if selected.is_readable else None
        match field:
            case Id():
                return _base64(
                    _constant(f"{field.type_name}:") + cast(getattr(row, field.key), Text)
                )
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

    # A connection is read in three steps: what is shown of each row of its page (and one more),
    # which place each has, and what is shown of all together. So its page is read once.

    def page(self, field: Any, selected: Selected, parent: Any = None) -> Json:
        """A connection, of all rows of an entity or of those related to a parent's row."""
        entity = field.target
        arguments = self.arguments(selected)
        view = window(entity, **arguments)
        self.pages.append(view)
        (children,) = selected.children.values()

        def members(row: Any, columns: Sequence[Any]) -> Select[Any]:
            found = select(*columns).select_from(row)
            found = found.where(*field.members(arguments, self.viewer, row))
            if parent is not None:
                here, there = field.pair
                found = found.where(getattr(row, there.key) == getattr(parent, here.key))
                found = found.correlate(parent)
            return found

        row = aliased(entity.model)
        each = view.cut(members(row, self.each(entity, view, row, children)), row).subquery()
        place, number = func.row_number().over(), func.count().over()
        placed = select(each, place.label(PLACE), number.label(NUMBER)).subquery()
        together = self.together(view, placed, children).subquery()
        shown: list[tuple[Selected, Json]] = []
        for child in children:
            match child.name:
                case "totalCount":
                    count = members(aliased(entity.model), [func.count()])
                    shown.append((child, count.scalar_subquery()))
                case "__typename":
                    shown.append((child, _constant(child.parent.name)))
                case "pageInfo":
                    shown.append((child, self.page_info(view, together, child)))
                case "nodes" | "edges":
                    shown.append((child, together.c[child.key]))
                case _:
                    raise Unplannable(child.name)
        result = select(*_labelled(shown))
        of_rows = {child.name for child in children} & {"nodes", "edges", "pageInfo"}
        return _object(result.select_from(together) if of_rows else result)

    def each(
        self, entity: Entity, view: Window, row: Any, children: Sequence[Selected]
    ) -> list[Any]:
        """What is shown of a row of a page, and its cursor if that of a whole page is asked for."""
        shown: list[Any] = []
        for child in children:
            if child.name == "nodes":
                shown.append(self.object(entity, row, child).label(child.key))
            elif child.name == "edges":
                (below,) = child.children.values()
                edge = _labelled((part, self.edge(entity, view, row, part)) for part in below)
                shown.append(_object(select(*edge).correlate(row)).label(child.key))
        points = any(
            info.name in ("startCursor", "endCursor")
            for child in children
            if child.name == "pageInfo"
            for info in child.children["PageInfo"]
        )
        cursor = _cursor(view, row) if points else literal_column("NULL::text")
        return [cursor.label(CURSOR), *shown]

    def edge(self, entity: Entity, view: Window, row: Any, selected: Selected) -> Json:
        """A field of an edge."""
        match selected.name:
            case "node":
                return self.object(entity, row, selected)
            case "cursor":
                return _cursor(view, row)
            case "__typename":
                return _constant(selected.parent.name)
        raise Unplannable(selected.name)

    def together(self, view: Window, placed: Any, children: Sequence[Selected]) -> Select[Any]:
        """What is shown of a page's rows together: the lists, and what its pageInfo tells."""
        place, number = placed.c[PLACE], placed.c[NUMBER]
        limit = parameter(view.limit, Integer)
        first, last = func.least(1, limit), func.least(number, limit)
        order = place.desc() if view.backward else place.asc()
        cursors = [func.max(placed.c[CURSOR]).filter(place == at) for at in (first, last)]
        start, end = reversed(cursors) if view.backward else cursors
        lists = [
            func.array_to_json(
                func.coalesce(
                    func.array_agg(aggregate_order_by(placed.c[child.key], order)).filter(
                        place <= limit
                    ),
                    literal_column("'{}'::json[]"),
                ),
                type_=JSON,
            ).label(child.key)
            for child in children
            if child.name in ("nodes", "edges")
        ]
        more = (func.count() > limit).label(NUMBER)
        return select(more, start.label(PLACE), end.label(CURSOR), *lists)

    def page_info(self, view: Window, together: Any, selected: Selected) -> Json:
        """Where a page lies."""
        (children,) = selected.children.values()
        more = together.c[NUMBER]
        values = {
            "hasNextPage": _known(view.before is not None) if view.backward else more,
            "hasPreviousPage": more if view.backward else _known(view.after is not None),
            "startCursor": together.c[PLACE],
            "endCursor": together.c[CURSOR],
            "__typename": _constant(selected.type.of_type.name),  # type: ignore[union-attr]
        }
        if not {child.name for child in children} <= values.keys():
            raise Unplannable(selected.name)
        shown = _labelled((child, values[child.name]) for child in children)
        return _object(select(*shown).correlate(together))


def _cursor(view: Window, row: Any) -> ColumnElement[str]:
    """The cursor that points at a row, as `encode_cursor` makes it."""
    value = getattr(row, view.order.attribute)
    if isinstance(value.type, Timestamp):
        value = func.to_json(value).op("#>>")(literal_column("'{}'::text[]"))
    key = cast(getattr(row, view.entity.key.key), Text)
    parts = _constant(f"{view.order.name}\n") + key + _constant("\n") + cast(value, Text)
    return _base64(parts)
