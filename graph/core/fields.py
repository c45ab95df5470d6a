"""The fields that return entities: relations of an entity, and fields of the root.

Each class has the arguments of its fields, their loading and their SQL.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cached_property, partial
from typing import Any, ParamSpec

import strawberry
from graphql import GraphQLSchema
from sqlalchemy import ColumnElement, Select, literal_column, select
from sqlalchemy.orm import InstrumentedAttribute, aliased
from strawberry.annotation import StrawberryAnnotation
from strawberry.types.arguments import StrawberryArgument
from strawberry.utils.str_converters import to_camel_case

from db import Viewer, scope
from db.parameters import apply, bind
from db.scopes import is_always_visible
from graph.core.connections import (
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    ROW_FIELDS,
    Connection,
    Window,
    window,
)
from graph.core.context import Context
from graph.core.declarations import Declared, LoadSpec, LookAhead, StatementBuilder
from graph.core.entities import Entity, entity_of, lazy
from graph.core.filters import condition, keys
from graph.core.json_text import Json
from graph.core.loaders import PageShape, PageSource
from graph.core.page_sql import PageSQL
from graph.core.selections import BACKREF, Selected


def argument(
    name: str, kind: Any, description: str, default: Any = strawberry.UNSET
) -> StrawberryArgument:
    """An argument of a field that the core declares."""
    return StrawberryArgument(
        python_name=name,
        graphql_name=to_camel_case(name),
        type_annotation=StrawberryAnnotation(kind),
        description=description,
        default=default,
    )


class EntityField(Declared):
    """A field that reads rows of an entity. It may have arguments of its own."""

    attribute: Any
    """The relation that it follows, or the attribute that it looks up by."""

    def __init__(
        self, model: Any, *, arguments: Sequence[StrawberryArgument] = (), **options: Any
    ) -> None:
        super().__init__(**options)
        self.model = model
        self.own_arguments = arguments

    @cached_property
    def target(self) -> Entity:
        """The entity that it returns."""
        return entity_of(self.model)

    def default_arguments(self) -> list[StrawberryArgument]:
        """The arguments that its entity and its kind give it."""
        return []

    @property
    def arguments(self) -> list[StrawberryArgument]:
        """Its arguments; created on the first use, when all entities are declared."""
        if self._arguments is None:
            self._arguments = [*self.own_arguments, *self.default_arguments()]
        return self._arguments

    @arguments.setter
    def arguments(self, value: list[StrawberryArgument]) -> None:
        raise AttributeError("the kind of the field determines its arguments")

    def loader_key(self, selected: Selected) -> Any:
        """The key of its loader."""
        return self.attribute

    def load(self, context: Context, selected: Selected, source: Any) -> Any:
        """Its value for an object, or an awaitable for it."""
        raise NotImplementedError

    def resolve(self, source: Any, info: Any, **arguments: Any) -> Any:
        return self.load(info.context, info.context.operation.selected(info), source)

    def below(self, selected: Selected) -> Iterable[Selected]:
        """The fields that are selected of the entity."""
        return self.target.below(selected)

    def sql_by(
        self,
        builder: StatementBuilder,
        selected: Selected,
        attribute: Any,
        value: Any,
        row: Any = None,
    ) -> Json:
        """The JSON of the object whose unique attribute has a value, which may be of a row."""
        target: Any = aliased(self.model)
        rows = builder.rows(target, getattr(target, attribute.key) == value)
        if row is not None:
            rows = rows.correlate(row)
        return builder.one(self.target.sql(builder, selected, target), rows)

    def register(self, selected: Selected, look_ahead: LookAhead) -> None:
        look_ahead.of(self.loader_key(selected)).add(self.below(selected))


class Relation(EntityField):
    """A field that follows a relationship of the model."""

    def __init__(self, attribute: Any, **options: Any) -> None:
        super().__init__(attribute.property.mapper.class_, **options)
        self.attribute = attribute

    @cached_property
    def keys(self) -> tuple[Any, Any]:
        """The attribute of this model and the attribute of the target that are equal."""
        prop: Any = self.attribute.property
        ((local, remote),) = prop.local_remote_pairs
        here, there = prop.parent, prop.mapper
        return (
            getattr(here.class_, here.get_property_by_column(local).key),
            getattr(there.class_, there.get_property_by_column(remote).key),
        )

    def add_loads(self, selected: Selected, spec: LoadSpec) -> None:
        spec.columns.add(self.keys[0].key)

    def join_condition(self, row: Any, target: Any) -> ColumnElement[bool]:
        """The condition that a row of the model is related to a row of the target."""
        here, there = self.keys
        return getattr(target, there.key) == getattr(row, here.key)  # type: ignore[no-any-return]


class Related(Relation):
    """A to-one relation. It is nullable if the column is, or if a scope can hide the row."""

    @property
    def annotation(self) -> Any:
        target = lazy(self.model)
        return target if is_always_visible(self.attribute) else target | None

    def add_loads(self, selected: Selected, spec: LoadSpec) -> None:
        super().add_loads(selected, spec)
        spec.below(self.attribute.key).add(self.below(selected))

    def load(self, context: Context, selected: Selected, source: Any) -> Any:
        # The parent's statement has loaded it, unless that was read without look-ahead.
        if self.attribute.key in source.__dict__:
            return source.__dict__[self.attribute.key]
        here, there = self.keys
        value = getattr(source, here.key)
        if value is None:
            return None
        return context.loaders.row(there, value, self.attribute)

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        target, rows = self.rows(builder, row)
        return builder.one(self.target.sql(builder, selected, target), rows)

    def rows(self, builder: StatementBuilder, row: Any) -> tuple[Any, Select[Any]]:
        """An alias of the target, and a statement without columns for its sorted rows."""
        target = aliased(self.model)
        order = self.attribute.property.order_by or ()
        rows = builder.rows(target, self.join_condition(row, target))
        rows = rows.order_by(*(getattr(target, column.key) for column in order))
        return target, rows.correlate(row)


class Listed(Related):
    """A to-many relation as a list; a rule of the domain limits it to `most` rows."""

    def __init__(self, attribute: Any, *, most: int, **options: Any) -> None:
        super().__init__(attribute, **options)
        self.most = most

    @property
    def annotation(self) -> Any:
        return list[lazy(self.model)]  # type: ignore[misc]

    def load(self, context: Context, selected: Selected, source: Any) -> Any:
        if self.attribute.key in source.__dict__:
            # Rows that were written without the rules of the domain may be more.
            return source.__dict__[self.attribute.key][: self.most]
        here, there = self.keys
        return context.loaders.rows(there, getattr(source, here.key), self.attribute, self.most)

    def max_rows(self, selected: Selected) -> int:
        return self.most

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        target, rows = self.rows(builder, row)
        rows = rows.limit(literal_column(str(self.most)))
        return builder.array(self.target.sql(builder, selected, target), rows)


class Referred(EntityField):
    """An object whose key is in a column that is no foreign key; null if there is none to see."""

    def __init__(self, attribute: Any, model: type, **options: Any) -> None:
        super().__init__(model, **options)
        self.attribute = attribute

    @property
    def annotation(self) -> Any:
        return lazy(self.model) | None

    def add_loads(self, selected: Selected, spec: LoadSpec) -> None:
        spec.columns.add(self.attribute.key)

    def load(self, context: Context, selected: Selected, source: Any) -> Any:
        value = getattr(source, self.attribute.key)
        if value is None:
            return None
        return context.loaders.row(self.target.key, value, self.attribute)

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        value = getattr(row, self.attribute.key)
        return self.sql_by(builder, selected, self.target.key, value, row)


Conditions = Callable[..., list[ColumnElement[bool]]]
"""Makes conditions from an alias of the model, the viewer, and the arguments by name."""


class Paged(EntityField):
    """A field that returns a connection.

    It may have conditions on a row that are made of its own arguments. Their values may be
    `Deferred`: convert them with `db.parameters.apply`.
    """

    def __init__(
        self,
        source: Any,
        *,
        arguments: Sequence[StrawberryArgument] = (),
        conditions: Conditions | None = None,
        order: str | None = None,
        sorted_by: Any = None,
        **options: Any,
    ) -> None:
        """The source is a model, or a relation to it.

        `order` is the name of the default order, `sorted_by` an order of its own, the only one.
        """
        super().__init__(source, arguments=arguments, **options)
        self.conditions = conditions
        self.order = order
        self.sorted_by = sorted_by

    def default_arguments(self) -> list[StrawberryArgument]:
        target: Any = self.target
        page = f"at most {MAX_PAGE_SIZE}; {DEFAULT_PAGE_SIZE} unless said otherwise"
        arguments = [
            argument("first", int | None, f"How many, from the start: {page}."),
            argument("after", str | None, "Only what comes after this cursor."),
            argument("last", int | None, f"How many, from the end: at most {MAX_PAGE_SIZE}."),
            argument("before", str | None, "Only what comes before this cursor."),
            argument("where", target.where | None, "Only those that meet these conditions."),
        ]
        orders: Any = self.orders
        if orders is not None and self.sorted_by is None:
            default = orders[self.order] if self.order else next(iter(orders))
            arguments.append(argument("order_by", orders | None, "In which order.", default))
        return arguments

    @property
    def orders(self) -> type[Enum] | None:
        """The orders that a client can choose from; None if it is sorted by the key alone."""
        return self.target.order

    def loader_key(self, selected: Selected) -> Any:
        return self, repr(selected.arguments)

    def nodes(self, selected: Selected) -> list[Selected]:
        """The selected fields that return the rows of its page."""
        return [*selected.under("nodes"), *selected.under("edges", "node")]

    def reads_rows(self, selected: Selected) -> bool:
        """Whether the rows of its page are read; else they are only counted."""
        return any(child.name in ROW_FIELDS for child in selected.fields())

    def below(self, selected: Selected) -> Iterator[Selected]:
        """The fields that are selected of the entity, in `nodes` and in `edges`."""
        for node in self.nodes(selected):
            yield from self.target.below(node)

    def max_rows(self, selected: Selected) -> int:
        """The maximum number of rows of a page. A size out of range is refused when it is read."""
        size = selected.arguments.get("last")
        if size is None:
            size = selected.arguments.get("first")
        return DEFAULT_PAGE_SIZE if size is None else min(max(size, 0), MAX_PAGE_SIZE)

    def window(self, arguments: Mapping[str, Any]) -> Window:
        """The page of the rows that is read. Raises BadInput."""
        own = {} if self.sorted_by is None else {"order_by": self.sorted_by}
        return window(self.target, **arguments, **own)

    def members(
        self, arguments: Mapping[str, Any], viewer: Viewer, row: Any
    ) -> list[ColumnElement[bool]]:
        """The conditions on the rows of all pages."""
        met = [scope(row, viewer)]
        if arguments.get("where") is not None:
            met.append(condition(arguments["where"], row, viewer))
        order = arguments.get("order_by")
        if order is not None and order.is_partial:
            met.append(getattr(row, order.attribute).is_not(None))
        if self.conditions is not None:
            names = [own.python_name for own in self.own_arguments]
            own = {name: arguments.get(name) for name in names}
            met = [*self.conditions(row, viewer, **own), *met]
        return met

    def page(
        self, context: Context, selected: Selected, column: Any = None, value: Any = None
    ) -> Any:
        """The page for the arguments. Its rows are read only if they are selected.

        With a column, the page has only rows with this value in it.
        """
        if selected.page_source is None:  # the same for all parents
            operation = context.operation
            selected.page_source = PageSource(
                PageShape(self, operation.shape(selected), column),
                selected.arguments,
                self.window(operation.converted(selected)),
                self.loader_key(selected),
                self.reads_rows(selected),
            )
        return context.loaders.page(selected.page_source, value)

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        arguments = builder.operation.converted(selected)
        view = self.window(arguments)
        builder.sizes.append(view.limit)
        builder.positions += [*(view.after or ()), *(view.before or ())]

        def members(target: Any) -> Select[Any]:
            rows = select().select_from(target)
            rows = rows.where(*self.members(arguments, builder.viewer, target))
            return self.of_parent(rows, row, target)

        return PageSQL(builder, view, members, selected.fields()).json()

    def of_parent(self, rows: Select[Any], row: Any, target: Any) -> Select[Any]:
        """The statement, limited to the rows of the target that belong to a row of the parent."""
        return rows


class Connected(Paged, Relation):
    """A to-many relation as a connection: one statement for all parents."""

    @property
    def annotation(self) -> Any:
        return Connection[lazy(self.model)]  # type: ignore[misc]

    def load(self, context: Context, selected: Selected, source: Any) -> Any:
        here, there = self.keys
        return self.page(context, selected, there, getattr(source, here.key))

    def of_parent(self, rows: Select[Any], row: Any, target: Any) -> Select[Any]:
        return rows.where(self.join_condition(row, target)).correlate(row)


class Collection(Paged):
    """All objects of an entity that the viewer may see, as a connection."""

    def load(self, context: Context, selected: Selected, source: Any) -> Any:
        return self.page(context, selected)


class Lookup(EntityField):
    """One object of an entity, by a unique attribute."""

    def __init__(
        self,
        model: type,
        value: Callable[..., Any],
        *,
        by: InstrumentedAttribute[Any] | None = None,
        **options: Any,
    ) -> None:
        """`value` makes the value of the attribute from the viewer and the arguments by name.

        None finds no object. By default, the attribute is the key.
        """
        super().__init__(model, **options)
        self.value = value
        self.by = by

    @property
    def annotation(self) -> Any:
        return lazy(self.model) | None

    @cached_property
    def attribute(self) -> Any:
        """The unique attribute that the object is looked up by."""
        return self.by if self.by is not None else self.target.key

    def load(self, context: Context, selected: Selected, source: Any) -> Any:
        value = self.value(context.viewer, **context.operation.converted(selected))
        return None if value is None else context.loaders.row(self.attribute, value)

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        value = self.value(builder.viewer, **builder.operation.converted(selected))
        value = bind(value, self.attribute.type)
        return self.sql_by(builder, selected, self.attribute, value)


class Awaited(Lookup):
    """One object by its id, which is read when something has happened.

    The operation waits for that before it runs, without a connection to the database, and without
    being counted as running.
    """

    def __init__(self, model: type, wait: Callable[..., Awaitable[None]], **options: Any) -> None:
        """`wait` takes the context and the arguments by name."""

        def key(_: Viewer, id: Any, **__: Any) -> Any:
            return apply(partial(keys, model), id)

        super().__init__(model, key, **options)
        self._wait = wait

    async def wait(self, context: Context, selected: Selected) -> None:
        """Wait until it can be read. Raises BadInput."""
        await self._wait(context, **context.operation.converted(selected))


def awaited_fields(schema: GraphQLSchema) -> frozenset[str]:
    """The names of the root fields for which an operation waits."""
    fields = {} if schema.query_type is None else schema.query_type.fields
    return frozenset(
        name for name, field in fields.items() if isinstance(field.extensions.get(BACKREF), Awaited)
    )


Options = ParamSpec("Options")


def _declaring(field: Callable[Options, EntityField]) -> Callable[Options, Any]:
    """The class of a field, as slices use it: the type of a field is that of its value."""
    return field


related = _declaring(Related)
listed = _declaring(Listed)
connected = _declaring(Connected)


def referred(attribute: Any, model: type) -> Any:
    """An object whose key is in a column that is no foreign key."""
    return Referred(attribute, model, description=attribute.property.doc)


def collection(
    model: type,
    *,
    arguments: Sequence[StrawberryArgument] = (),
    conditions: Conditions | None = None,
    order: str | None = None,
    sorted_by: Any = None,
    description: str | None = None,
) -> Any:
    """All objects of an entity that the viewer may see, as a connection with this default order.

    It may have arguments of its own, and conditions that are made of them. `sorted_by` is an order
    that clients cannot choose.
    """
    return Collection(
        model,
        arguments=arguments,
        conditions=conditions,
        order=order,
        sorted_by=sorted_by,
        description=description or f"All {model.__name__} objects that you may see.",
    )


def one(model: type) -> Any:
    """One object of an entity, by its id."""
    name = model.__name__
    return Lookup(
        model,
        lambda _, id: apply(partial(keys, model), id),
        arguments=[argument("id", strawberry.ID, f"The id of the {name}.")],
        description=f"The {name} with this id; none if you may not see it.",
    )


def one_by(attribute: Any, name: str, description: str) -> Any:
    """One object of an entity, by another attribute that is unique."""
    return Lookup(
        attribute.class_,
        lambda _, **arguments: arguments[name],
        by=attribute,
        arguments=[argument(name, str, str(attribute.property.doc))],
        description=description,
    )


def awaited(
    model: type,
    wait: Callable[..., Awaitable[None]],
    *,
    arguments: Sequence[StrawberryArgument],
    description: str,
) -> Any:
    """One object of an entity by its id, when `wait` has returned."""
    own = argument("id", strawberry.ID, f"The id of the {model.__name__}.")
    return Awaited(model, wait, arguments=[own, *arguments], description=description)


def viewers(model: type, key: Callable[[Viewer], Any], description: str) -> Any:
    """The object of an entity whose key the viewer has, such as their user."""
    return Lookup(model, key, description=description)
