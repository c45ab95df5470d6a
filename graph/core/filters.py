"""Filters and orders of entities: typed inputs with shared operators, and their SQL."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

import strawberry
from graphql import (
    GraphQLInputField,
    GraphQLNamedType,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
)
from sqlalchemy import (
    ColumnElement,
    Uuid,
    and_,
    false,
    func,
    inspect,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import QueryableAttribute, RelationshipProperty, aliased
from strawberry import UNSET
from strawberry.types import get_object_definition
from strawberry.types.field import StrawberryField
from strawberry.utils.str_converters import to_camel_case

from db import Base, Viewer, scope
from db.base import any_of, uppercase
from db.parameters import apply, bind
from graph.core.entities import clean, doc_of, lazy
from graph.core.errors import BadInput
from graph.core.scalars import key_text, key_uuid, parse_key
from graph.core.selections import BACKREF, Operation, Selected, fold, input_values
from graph.core.shapes import Option

# Conditions are built and compiled by recursion.
MAX_DEPTH = 20

# A condition on an id or on a related object includes the scope of that object. Building and
# compiling it takes this many times as long as any other condition.
SCOPED_WEIGHT = 5

Value = TypeVar("Value")
Type = TypeVar("Type", bound=type)


def _operator(description: str, name: str | None = None) -> Any:
    return strawberry.field(default=UNSET, description=description, name=name)


@strawberry.input(description="Conditions on an id; all that are given must hold.")
class IDFilter:
    eq: strawberry.ID | None = _operator("Is this one.")
    in_: list[strawberry.ID] | None = _operator("Is one of these.", "in")
    not_: strawberry.ID | None = _operator("Is not this one, or is not set.", "not")
    is_null: bool | None = _operator("Is not set (true), or is set (false).")


@strawberry.input(
    description="Conditions on a text; all that are given must hold. Case matters unless said."
)
class StringFilter:
    eq: str | None = _operator("Is this.")
    in_: list[str] | None = _operator("Is one of these.", "in")
    not_: str | None = _operator("Is not this, or is not set.", "not")
    gt: str | None = _operator("Comes after this, by code points.")
    gte: str | None = _operator("Is this or comes after it.")
    lt: str | None = _operator("Comes before this, by code points.")
    lte: str | None = _operator("Is this or comes before it.")
    contains: str | None = _operator("Has this somewhere in it.")
    contains_insensitive: str | None = _operator("Has this somewhere in it, in whatever case.")
    starts_with: str | None = _operator("Begins with this.")
    is_null: bool | None = _operator("Is not set (true), or is set (false).")


@strawberry.input(description="Conditions on a number; all that are given must hold.")
class IntFilter:
    eq: int | None = _operator("Is this.")
    in_: list[int] | None = _operator("Is one of these.", "in")
    not_: int | None = _operator("Is not this, or is not set.", "not")
    gt: int | None = _operator("Is greater.")
    gte: int | None = _operator("Is greater or equal.")
    lt: int | None = _operator("Is less.")
    lte: int | None = _operator("Is less or equal.")
    is_null: bool | None = _operator("Is not set (true), or is set (false).")


@strawberry.input(description="Conditions on a moment; all that are given must hold.")
class DateTimeFilter:
    eq: datetime | None = _operator("Is this very moment.")
    in_: list[datetime] | None = _operator("Is one of these.", "in")
    not_: datetime | None = _operator("Is not this, or is not set.", "not")
    gt: datetime | None = _operator("Is later.")
    gte: datetime | None = _operator("Is later or the same.")
    lt: datetime | None = _operator("Is earlier.")
    lte: datetime | None = _operator("Is earlier or the same.")
    is_null: bool | None = _operator("Is not set (true), or is set (false).")


@strawberry.input(description="Conditions on a yes or no.")
class BooleanFilter:
    eq: bool | None = _operator("Is this.")
    not_: bool | None = _operator("Is not this.", "not")


@strawberry.input(
    name="Filter", description="Conditions on a choice; all that are given must hold."
)
class EnumFilter(Generic[Value]):
    eq: Value | None = _operator("Is this.")
    in_: list[Value] | None = _operator("Is one of these.", "in")
    not_: Value | None = _operator("Is not this, or is not set.", "not")
    is_null: bool | None = _operator("Is not set (true), or is set (false).")


def _compares(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], ColumnElement[bool]]:
    """An operator between a column and a value of its type."""
    return lambda column, value: compare(column, bind(value, column.type))


def _matches(match: Callable[..., Any]) -> Callable[[Any, Any], ColumnElement[bool]]:
    """An operator between a column and a text without wildcards."""
    return lambda column, text: match(column, bind(apply(_escaped, text), column.type), escape="/")


def _escaped(text: str) -> str:
    return text.replace("/", "//").replace("%", "/%").replace("_", "/_")


OPERATORS: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "eq": _compares(operator.eq),
    "in_": any_of,
    "not_": _compares(lambda column, value: column.is_distinct_from(value)),
    "gt": _compares(operator.gt),
    "gte": _compares(operator.ge),
    "lt": _compares(operator.lt),
    "lte": _compares(operator.le),
    "contains": _matches(ColumnElement.contains),
    "contains_insensitive": _matches(
        lambda column, text, **options: uppercase(column).contains(uppercase(text), **options)
    ),
    "starts_with": _matches(ColumnElement.startswith),
    "is_null": lambda column, value: column.is_(None) if value else column.is_not(None),
}


def contains(attribute: QueryableAttribute[Any]) -> Any:
    """A filter on JSON: the column contains this value, by the rules of PostgreSQL's `@>`."""
    return strawberry.field(
        default=UNSET,
        metadata={"attribute": attribute},
        description="Contains this: every key, with the same value or one that contains it.",
    )


def reference(attribute: QueryableAttribute[Any], model: type | None = None) -> Any:
    """A filter on a column with the key of another object, which is no foreign key.

    Without a model, the object may be of any type.
    """
    any_key = key_uuid if isinstance(attribute.type, Uuid) else key_text
    key = any_key if model is None else partial(parse_key, model)
    return strawberry.field(
        default=UNSET,
        metadata={"attribute": attribute, "key": key},
        description=clean(doc_of(attribute) or ""),
    )


def through(attribute: QueryableAttribute[Any]) -> Any:
    """A filter on a to-one relation: the related object meets the conditions of its own filter.

    A filter on a column is declared alike, with the operators of its type.
    """
    return strawberry.field(default=UNSET, metadata={"attribute": attribute})


_filters: set[type] = set()
"""The declared filters."""


def filters(model: type) -> Callable[[Type], Type]:
    """Declare the filter of an entity.

    A bare annotation filters by the column of that name, with the operators of its type;
    `through` filters by a to-one relation, `contains` by a JSON value. `and`, `or` and `not` are
    added.
    """

    def declare(cls: Type) -> Type:
        for name in cls.__annotations__:
            if name not in vars(cls):
                setattr(cls, name, through(getattr(model, name)))
        for name, field in vars(cls).items():
            if isinstance(field, StrawberryField):
                attribute = field.metadata["attribute"]
                field.description = field.description or clean(doc_of(attribute) or "")
                if name not in cls.__annotations__:
                    target = attribute.property.mapper.class_
                    cls.__annotations__[name] = lazy(target, "Filter") | None
        for name, kind, description in (
            ("and_", f"list[{cls.__name__}] | None", "All of these hold."),
            ("or_", f"list[{cls.__name__}] | None", "At least one of these holds."),
            ("not_", f"{cls.__name__} | None", "This does not hold."),
        ):
            cls.__annotations__[name] = kind
            setattr(cls, name, _operator(description, name.rstrip("_")))
        _filters.add(cls)
        noun = model.__name__
        return strawberry.input(cls, description=f"Which {noun} objects; all conditions must hold.")

    return declare


def _given(value: Any, problem: str) -> Iterator[tuple[StrawberryField, Any]]:
    """The fields of a filter that are given, with their values. Raises BadInput for null."""
    for field in get_object_definition(value, strict=True).fields:
        operand = getattr(value, field.python_name)
        if operand is None:
            name = field.graphql_name or to_camel_case(field.python_name)
            raise BadInput(f"{name}: {problem}")
        if operand is not UNSET:
            yield field, operand


def condition(where: Any, entity: Any, viewer: Viewer, depth: int = 1) -> ColumnElement[bool]:
    """The SQL condition of a filter, for a model or an alias of it. Raises BadInput.

    Related rows that the viewer may not see do not match, so that filters reveal nothing of them.
    """
    if depth > MAX_DEPTH:
        raise BadInput(f"A filter nests at most {MAX_DEPTH} deep.")
    parts: list[ColumnElement[bool]] = []
    for field, value in _given(where, "null is no filter. Leave it out."):
        match field.python_name:
            case "and_":
                parts += [condition(part, entity, viewer, depth + 1) for part in value]
            case "or_":
                each = [condition(part, entity, viewer, depth + 1) for part in value]
                parts.append(or_(false(), *each))
            case "not_":
                # A condition that is unknown, because of a null, does not hold either.
                met = condition(value, entity, viewer, depth + 1)
                parts.append(not_(func.coalesce(met, false())))
            case _:
                parts.append(_on(field.metadata, value, entity, viewer, depth))
    return and_(true(), *parts)


def _on(
    declared: Mapping[Any, Any], value: Any, entity: Any, viewer: Viewer, depth: int
) -> ColumnElement[bool]:
    attribute: QueryableAttribute[Any] = declared["attribute"]
    prop: Any = attribute.property
    here = getattr(entity, attribute.key)
    if isinstance(prop, RelationshipProperty):
        target = aliased(prop.mapper.class_)
        met = and_(scope(target, viewer), condition(value, target, viewer, depth + 1))
        return here.of_type(target).has(met)  # type: ignore[no-any-return]
    if get_object_definition(value) is None:
        # The type is needed: asyncpg would send a JSON string as text.
        return here.contains(bind(value, JSONB))  # type: ignore[no-any-return]
    parts = []
    for field, operand in _given(value, "null compares with nothing. Use isNull."):
        if "key" in declared:
            if field.python_name != "is_null":
                operand = apply(partial(_keys, declared["key"]), operand)
            parts.append(OPERATORS[field.python_name](here, operand))
        elif isinstance(value, IDFilter):
            parts.append(_id(field.python_name, here, prop.columns[0], operand, viewer))
        else:
            parts.append(OPERATORS[field.python_name](here, operand))
    return and_(true(), *parts)


def _id(name: str, here: Any, column: Any, operand: Any, viewer: Viewer) -> ColumnElement[bool]:
    """A condition on a primary key or a foreign key.

    If the viewer may not see the row that a foreign key refers to, the key counts as null.
    """
    points = next(iter(column.foreign_keys), None)
    table = column.table if points is None else points.column.table
    (model,) = (
        mapper.class_
        for mapper in Base.registry.mappers
        if mapper.local_table is table and mapper.inherits is None
    )
    if name != "is_null":
        operand = apply(partial(keys, model), operand)
    if points is None or viewer.is_administrator:
        return OPERATORS[name](here, operand)
    target = aliased(model)
    key = getattr(target, inspect(model).get_property_by_column(points.column).key)
    seen = select(key).where(scope(target, viewer))
    match name:
        case "eq" | "not_":
            value = bind(operand, key.type)
            same = and_(here == value, seen.where(key == value).exists())
            return same if name == "eq" else not_(func.coalesce(same, false()))
        case "in_":
            # The subquery runs once, not for each row, so the index of the column is used.
            visible = func.array(seen.where(any_of(key, operand)).scalar_subquery())
            return here == func.any(visible)  # type: ignore[no-any-return]
        case _:
            there = seen.where(key == here).correlate_except(target).exists()
            return not_(there) if operand else there


def keys(model: type, operand: Any) -> Any:
    """The key of an id of a model, or the keys of a list of ids. Raises BadInput."""
    return _keys(partial(parse_key, model), operand)


def _keys(parse: Callable[[Any], Any], operand: Any) -> Any:
    try:
        return [parse(item) for item in operand] if isinstance(operand, list) else parse(operand)
    except ValueError as error:
        raise BadInput(f"{error}.") from None


def conditions_of(operation: Operation) -> int:
    """The number of conditions of all arguments of an operation that are filters."""

    def combine(selected: Selected, below: list[int]) -> int:
        given = input_values(selected.definition.args, selected.arguments)
        own = [
            _conditions(argument.type, value)
            for _, argument, value in given
            if value is not None and _is_filter(get_named_type(argument.type))
        ]
        return sum(own) + sum(below)

    return sum(fold(operation.roots, combine))


def _is_filter(kind: GraphQLNamedType) -> bool:
    return getattr(kind.extensions.get(BACKREF), "origin", None) in _filters


def _conditions(kind: Any, value: Any) -> int:
    """The number of conditions of a filter or a list of filters, at least one for each filter."""
    kind = get_nullable_type(kind)
    if is_leaf_type(get_named_type(kind)):
        return 1
    if is_list_type(kind):
        return sum(_conditions(kind.of_type, item) for item in value or ())
    if not isinstance(value, dict):
        return 1
    found = 0
    for _, field, item in input_values(kind.fields, value):
        below = _conditions(field.type, item)
        if kind.name == "IDFilter":
            below *= SCOPED_WEIGHT
        elif _is_relation(field):
            below += SCOPED_WEIGHT
        found += below
    return max(1, found)


def _is_relation(field: GraphQLInputField) -> bool:
    """Whether a field of a filter filters by a related object."""
    attribute = field.extensions[BACKREF].metadata.get("attribute")
    return attribute is not None and isinstance(attribute.property, RelationshipProperty)


class Order(Option):
    """The base of the orders: each member is a column and a direction.

    A column that is not NOT NULL makes the order partial: it shows only rows that have a value.
    """

    @property
    def attribute(self) -> str:
        """The name of the column that comes before the key."""
        return str(self.value).split()[0]

    @property
    def descending(self) -> bool:
        """Whether it is descending; the key has the same direction."""
        return "desc" in str(self.value).split()

    @property
    def is_partial(self) -> bool:
        """Whether it shows only rows that have a value in the column."""
        return str(self.value).endswith(" partial")


RANK = "rank"
"""The attribute of a row of a search that says how well it matches."""


def search_ordering(name: str, order: Any) -> Any:
    """The order of a search: by how well a row matches, which is the default, or by an order."""
    best = "How well they match, the best first."
    members = {"RANK": strawberry.enum_value(f"{RANK} desc", description=best)}
    for value in order.__strawberry_definition__.values:
        described = strawberry.enum_value(value.value, description=value.description)
        members[value.name] = described
    functional: Any = Order
    enum: Any = functional(name, members)
    return strawberry.enum(enum, description="What the objects of a search can be sorted by.")


def sorted_by(name: str, attribute: QueryableAttribute[Any]) -> Order:
    """The order of one field, by a column that is NOT NULL, ascending. Clients cannot choose it."""
    functional: Any = Order
    order: Order = functional(name, {name: f"{attribute.key} asc"})[name]
    return order


def ordering(model: type, *attributes: QueryableAttribute[Any]) -> Any:
    """The order of an entity: by any of these columns, in either direction.

    The first column is the default, and NOT NULL. Each column has an index that ends in the key.
    So each page costs the same: the row comparison finds the cursor in the index. By a column that
    can be NULL, only rows that have a value are shown, and its index may leave out the others.
    """
    members = {}
    for attribute in attributes:
        for suffix, words in (("asc", "ascending"), ("desc", "descending")):
            member = f"{attribute.key}_{suffix}".upper()
            doc = f"{clean(doc_of(attribute) or '').rstrip('.')}, {words}"
            value = f"{attribute.key} {suffix}"
            if attribute.property.columns[0].nullable:
                doc, value = f"{doc}; only those that have one", f"{value} partial"
            members[member] = strawberry.enum_value(value, description=f"{doc}.")
    functional: Any = Order  # Enum's functional API, which type checkers read only as literals
    enum: Any = functional(f"{model.__name__}Order", members)
    return strawberry.enum(enum, description=f"What {model.__name__} objects can be sorted by.")
