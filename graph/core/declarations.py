"""The base of the fields that slices declare: what each loads, how many rows, and its SQL."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import strawberry
from graphql import GraphQLObjectType
from sqlalchemy import ColumnElement, Select, func, inspect, select
from sqlalchemy.orm import joinedload, load_only, selectinload, with_polymorphic
from strawberry.types.field import StrawberryField

from db import Viewer, scope
from db.result_limits import within
from db.scopes import is_always_visible
from graph.core import json_text
from graph.core.json_text import Json, Uncompilable, is_long, object_of, or_null, string
from graph.core.selections import BACKREF, Operation, Selected

# asyncpg binds at most 32,767 parameters; a chunk of this size is never reached by pages.
CHUNK = 30_000

# The depth to which one statement joins relations.
MAX_JOINS = 6

# Names of columns inside a statement. The columns of a page have numbers as names.
TEXT, TOTAL = "text", "total"


@dataclass(eq=False)
class StatementBuilder:
    """Builds the SQL for what an operation selects, for one kind of viewer."""

    operation: Operation
    viewer: Viewer
    max_bytes: int
    """The statement fails if its result has more bytes."""
    sizes: list[Any] = field(default_factory=list)
    """The sizes of its pages and lists of ids, which determine its cost."""
    positions: list[Any] = field(default_factory=list)
    """The values of its cursors. They are checked even if the statement does not use them."""

    def object(self, children: Iterable[Selected], row: Any) -> Json:
        """The JSON object with these fields of a row. Raises Uncompilable."""
        return object_of((child.key, self.field(child, row)) for child in children)

    def field(self, selected: Selected, row: Any) -> Json:
        """The JSON value of a field of a row, or of a root field. Raises Uncompilable."""
        if selected.name == "__typename":
            return string(selected.parent.name)
        if selected.has_valid_arguments and isinstance(selected.declaration, Declared):
            return selected.declaration.sql(self, selected, row)
        raise Uncompilable(selected.name)

    def rows(self, target: Any, *conditions: ColumnElement[bool]) -> Select[Any]:
        """A statement without columns for the rows that the viewer may see.

        They are the rows of an alias of a model with these conditions, and they are few.
        """
        met = scope(target, self.viewer, by_key=True)
        return select().select_from(target).where(*conditions, met)

    def text(self, json: Json) -> ColumnElement[str]:
        """A JSON value as one expression."""
        return json_text.sql(json, self.max_bytes)

    def one(self, json: Json, rows: Select[Any]) -> Json:
        """This JSON value of the one row that a statement without columns finds, or null."""
        return or_null(json, self.printed(json, rows).scalar_subquery())

    def array(self, json: Json, rows: Select[Any]) -> Json:
        """The list of this JSON value of each row that a statement without columns finds."""
        rows = self.printed(json, rows)
        if is_long(json):
            rows = select(self.limited(rows.subquery(), [TEXT]).c[TEXT])
        return json_text.array(func.array(rows.scalar_subquery()))

    def printed(self, json: Json, rows: Select[Any]) -> Select[Any]:
        """The statement with this JSON value as its only column."""
        return rows.with_only_columns(self.text(json).label(TEXT))

    def limited(self, rows: Any, names: Iterable[str]) -> Any:
        """The rows; the statement fails if the texts in these columns have too many bytes."""
        size = reduce(operator.add, [func.octet_length(rows.c[name]) for name in names])
        total = func.sum(size).over(rows=(None, 0)).label(TOTAL)
        summed = select(*rows.c, total).subquery()
        columns = [column for column in summed.c if column.key != TOTAL]
        return select(*columns).where(within(summed.c[TOTAL], self.max_bytes)).subquery()


class Declared(StrawberryField):
    """A field that a slice declares, and that both the compiler and the resolvers can read."""

    @property
    def annotation(self) -> Any:
        """The type of the field, where it follows from the model."""
        raise NotImplementedError

    def resolve(self, source: Any, info: Any, **arguments: Any) -> Any:
        """Its value for an object, or an awaitable for it."""
        return getattr(source, self.python_name)

    def max_rows(self, selected: Selected) -> int:
        """The maximum number of objects that it returns."""
        return 1

    def add_loads(self, selected: Selected, spec: LoadSpec) -> None:
        """Add what the statement of its parent has to load."""

    def register(self, selected: Selected, look_ahead: LookAhead) -> None:
        """Add what its loader has to load, if it has one."""

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        """Its JSON value for a row, given as an alias of the model. Raises Uncompilable."""
        raise Uncompilable(selected.name)


class Schema(strawberry.Schema):
    """A schema with declared fields.

    graphql-core calls their resolvers itself: for each object, Strawberry would convert arguments
    that are converted once for the operation.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for kind in self._schema.type_map.values():
            for each in kind.fields.values() if isinstance(kind, GraphQLObjectType) else ():
                declaration = each.extensions.get(BACKREF)
                if isinstance(declaration, Declared) and declaration.base_resolver is None:
                    each.resolve = declaration.resolve


@dataclass(eq=False)
class LoadSpec:
    """The columns and relations that are loaded of the rows of a model."""

    columns: set[str] = field(default_factory=set)
    relations: dict[str, LoadSpec] = field(default_factory=dict)
    added: set[int] = field(default_factory=set)

    def below(self, relation: str) -> LoadSpec:
        """What is loaded of the rows of a relation."""
        return self.relations.setdefault(relation, LoadSpec())

    def add(self, children: Iterable[Selected]) -> LoadSpec:
        """Add what these fields need."""
        for child in children:
            # Each field is added once, however often the fragment that selects it is spread.
            if id(child) not in self.added and isinstance(child.declaration, Declared):
                self.added.add(id(child))
                child.declaration.add_loads(child, self)
        return self

    def frozen(self) -> Loads:
        """What was added until now."""
        relations = ((name, below.frozen()) for name, below in self.relations.items())
        return Loads(frozenset(self.columns), tuple(relations))


@dataclass(frozen=True)
class Loads:
    """A LoadSpec that does not change, as a part of the key of a statement."""

    columns: frozenset[str]
    relations: tuple[tuple[str, Loads], ...]

    def options(self, row: Any, viewer: Viewer) -> list[Any]:
        """The loader options for a statement that selects this model or alias of it."""
        columns: dict[Any, set[str]] = {}
        self._gather(inspect(row).mapper, columns)
        return self._options(row, viewer, columns, 0)

    def _gather(self, mapper: Any, columns: dict[Any, set[str]]) -> None:
        """Add the columns that are loaded of each model, at any depth.

        In a session, a row is one object. If a task occurs at two depths, the loader options of
        the upper one apply, so they must include the columns of the lower one.
        """
        columns.setdefault(mapper, set()).update(self.columns)
        for name, below in self.relations:
            below._gather(mapper.relationships[name].mapper, columns)

    def _options(
        self, row: Any, viewer: Viewer, columns: dict[Any, set[str]], depth: int
    ) -> list[Any]:
        chosen = _only(row, columns[inspect(row).mapper])
        for name, below in self.relations:
            relation = getattr(row, name)
            # Deeper relations are left to the loaders. Those that are not nullable are joined:
            # a later statement has another snapshot, in which the row may be deleted.
            if depth >= MAX_JOINS and not is_always_visible(relation):
                continue
            target = relation.property.mapper.class_
            if relation.property.mapper.polymorphic_on is not None:
                # The columns of subtypes are options of an alias that has them.
                target = with_polymorphic(target, "*", aliased=True)
                relation = relation.of_type(target)
            visible = relation.and_(scope(target, viewer, by_key=not relation.property.uselist))
            load = (
                selectinload(visible, chunksize=CHUNK)
                if relation.property.uselist
                else joinedload(visible)
            )
            chosen.append(load.options(*below._options(target, viewer, columns, depth + 1)))
        return chosen


def _only(row: Any, names: set[str]) -> list[Any]:
    """The loader options for these columns, and the key, of a model or an alias of it.

    Reading another column raises an exception; nothing is loaded lazily.
    """
    mapper = inspect(row).mapper
    keys = {mapper.get_property_by_column(column).key for column in mapper.primary_key}
    chosen = []
    for kind in mapper.self_and_descendants:
        # A column that only a subtype has is loaded through the subtype.
        inherited = set() if kind is mapper else set(mapper.attrs.keys())
        own = sorted(({*keys, *names} & set(kind.attrs.keys())) - inherited)
        part = row if kind is mapper else getattr(row, kind.class_.__name__, kind.class_)
        if own:
            chosen.append(load_only(*(getattr(part, name) for name in own), raiseload=True))
    return chosen


class LookAhead:
    """What the loaders of an operation have to load, for all places that use the same loader.

    The key of a loader is an attribute that rows are looked up by, or a relation with its
    arguments. So one statement serves all these places.
    """

    def __init__(self, operation: Operation) -> None:
        self._loads: dict[Hashable, LoadSpec] = {}
        for selected in operation.fields():
            if isinstance(selected.declaration, Declared):
                selected.declaration.register(selected, self)

    def of(self, key: Hashable) -> LoadSpec:
        """What the loader with this key has to load."""
        return self._loads.setdefault(key, LoadSpec())
