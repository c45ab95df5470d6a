"""Objects that a statement computes for a row, such as what a task waits for.

A function makes the statement, which both the compiler and the resolvers run: the columns of its
result are the fields of the object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import strawberry
from sqlalchemy import ColumnElement, Integer, Select, literal_column, select
from strawberry.types.arguments import StrawberryArgument

from db import Viewer
from db.parameters import apply, bind, correlated
from graph.core.context import Context
from graph.core.declarations import Declared, StatementBuilder
from graph.core.entities import clean, lazy
from graph.core.errors import BadInput
from graph.core.fields import EntityField, argument
from graph.core.json_text import Json, scalar
from graph.core.loaders import ComputedShape
from graph.core.selections import Selected

Type = TypeVar("Type", bound=type)

Compute = Callable[..., Select[Any]]
"""Makes a statement from the viewer, the key of a row if there is one, and the arguments by name.

Key and arguments may be columns or parameters; subqueries that compare with the key are
`correlated`. The columns of the result have the names of the fields; it is sorted by the columns
that the field names.
"""


class Value(Declared):
    """A column of the statement."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description)

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        return scalar(row.c[self.python_name], is_nullable=True)


class Keyed(EntityField):
    """An object of an entity, whose key is a column of the statement; null if there is none."""

    def __init__(self, model: type, description: str, key_name: str | None = None) -> None:
        """`key_name` is the column with the key: by default, `<name of field>_id`."""
        super().__init__(model, description=description)
        self._key_name = key_name

    @property
    def annotation(self) -> Any:
        return lazy(self.model) | None

    @property
    def key_name(self) -> str:
        """The name of the column with the key."""
        return self._key_name or f"{self.python_name}_id"

    def loader_key(self, selected: Selected) -> Any:
        return self

    def load(self, context: Context, selected: Selected, source: Any) -> Any:
        key = getattr(source, self.key_name)
        return None if key is None else context.loaders.row(self.target.key, key, self)

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        return self.sql_by(builder, selected, self.target.key, row.c[self.key_name], row)


def value(description: str) -> Any:
    """A field of a computed object that is a column of the statement."""
    return Value(description)


def keyed(model: type, description: str) -> Any:
    """A field of a computed object: the object whose key is in the column `<name of field>_id`."""
    return Keyed(model, description)


def annotated(cls: Type) -> Type:
    """Annotate the fields of a class that return entities."""
    for name, field in list(vars(cls).items()):
        if isinstance(field, EntityField):
            cls.__annotations__[name] = field.annotation
    return cls


def computed_type(cls: Type) -> Type:
    """Declare the type of computed objects; its docstring is the description."""
    return strawberry.type(annotated(cls), description=clean(cls.__doc__ or ""))


class Computed(EntityField):
    """The objects that a statement computes for a row of the entity, or at the root."""

    def __init__(
        self,
        kind: type,
        compute: Compute,
        *,
        by: Any = None,
        order: Sequence[str] = (),
        most: int | None = None,
        default_size: int = 50,
        key: Callable[..., Any] | None = None,
        arguments: Sequence[StrawberryArgument] = (),
        **options: Any,
    ) -> None:
        """`by` is the attribute with the key. At the root, `key` makes it from the arguments.

        Without `by`, there is no key. A list has `most` objects at most, `default_size` unless the
        argument `first` says otherwise; without `most`, it is one object.
        """
        if most is not None:
            default_size = min(default_size, most)
            text = f"How many, at most {most:,}; {default_size} unless said otherwise."
            arguments = [*arguments, argument("first", int | None, text)]
        super().__init__(None, arguments=arguments, **options)
        self.kind, self.compute, self.by = kind, compute, by
        self.order, self.most, self.default_size, self.key = order, most, default_size, key

    @property
    def annotation(self) -> Any:
        return self.kind | None if self.most is None else list[self.kind]  # type: ignore[name-defined]

    def register(self, selected: Selected, look_ahead: Any) -> None:
        """It loads no entity itself."""

    def max_rows(self, selected: Selected) -> int:
        if self.most is None:
            return 1
        first = selected.arguments.get("first")
        return self.default_size if first is None else min(max(first, 0), self.most)

    def found(
        self, viewer: Viewer, key: Any, arguments: Mapping[str, Any]
    ) -> tuple[Any, list[ColumnElement[Any]]]:
        """The objects for a key as a lateral subquery, and the columns that they are sorted by."""
        keys = () if self.by is None else (key,)
        own = {name: each for name, each in arguments.items() if name != "first"}
        statement = self.compute(viewer, *keys, **(own if self.key is None else {}))
        statement = correlated(statement, key)
        if self.most is not None:
            first = apply(self._limit, arguments.get("first"))
            columns = [statement.selected_columns[name] for name in self.order]
            statement = statement.order_by(*columns).limit(bind(first, Integer))
        found = statement.lateral("found")
        return found, [found.c[name] for name in self.order]

    def _limit(self, first: int | None) -> int:
        assert self.most is not None
        if first is None:
            return self.default_size
        if not 0 <= first <= self.most:
            raise BadInput(f"first must be between 0 and {self.most:,}, not {first}.")
        return first

    def load(self, context: Context, selected: Selected, source: Any) -> Any:
        arguments = context.operation.converted(selected)
        key = None
        if self.key is not None:
            key = self.key(**arguments)
        elif self.by is not None:
            key = getattr(source, self.by.key)
        shape = ComputedShape(self, context.operation.shape(selected))
        is_list = self.most is not None
        return context.loaders.computed(shape, selected.arguments, key, is_list=is_list)

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        arguments = builder.operation.converted(selected)
        key = None
        if self.key is not None:
            key = bind(self.key(**arguments), self.by.type)
        elif self.by is not None:
            key = getattr(row, self.by.key)
        found, order = self.found(builder.viewer, key, arguments)
        if self.most is not None:
            builder.sizes.append(apply(self._limit, arguments.get("first")))
        rows: Any = select().select_from(found)
        if row is not None:
            rows = rows.correlate(row)
        (children,) = selected.children.values()
        json = builder.object(children, found)
        if self.most is None:
            return builder.one(json, rows.limit(literal_column("1")))
        return builder.array(json, rows.order_by(*order))


def computed(kind: type, compute: Compute, **options: Any) -> Any:
    """A field with the objects that a statement computes for each row, or at the root."""
    return Computed(kind, compute, **options)
