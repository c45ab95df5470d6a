"""The shape of variables or arguments, which determines the SQL, and deferred values of a shape.

The operators of a filter are part of the shape, but not their operands. Values of the same shape
share a statement, and each run binds its own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from enum import Enum
from typing import Any

from graphql import (
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLScalarType,
    get_nullable_type,
)

from db.parameters import Deferred


class Option(Enum):
    """The base of enums whose members, as arguments of a field, change its SQL."""


# Stands for any value.
ANY = "any"

# Stands for a list of any length with any values.
MANY = "many"

# The first part of the shape of any other list.
LIST = "list"

Shape = tuple[tuple[str, Hashable], ...]
"""The names of what is given (variables, arguments, input fields), with the shapes of values."""


def shapes_of(fields: Mapping[str, Any], values: Mapping[str, Any]) -> Shape:
    """The shape of the coerced values of arguments or input fields."""
    return tuple(
        [
            (key, shape_of(field.type, values[key]))
            for name, field in fields.items()
            if (key := field.out_name or name) in values
        ]
    )


def shape_of(kind: GraphQLInputType, value: Any) -> Hashable:
    """The shape of a coerced value of a type."""
    if value is None:
        return None
    bare: Any = get_nullable_type(kind)
    if isinstance(bare, GraphQLInputObjectType):
        return shapes_of(bare.fields, value)
    if isinstance(bare, GraphQLList):
        item: Any = get_nullable_type(bare.of_type)
        if isinstance(item, GraphQLInputObjectType | GraphQLList) or _matters(item):
            return (LIST, *[shape_of(item, each) for each in value])
        return MANY
    return value if _matters(bare) else ANY


def _matters(kind: GraphQLInputType) -> bool:
    """Whether values of a type change the statement: those of Boolean, orders and other options."""
    if isinstance(kind, GraphQLScalarType):
        return kind.name == "Boolean"
    return issubclass(getattr(kind, "wrapped_cls", object), Option)


def deferred_values(shape: Shape, read: Callable[[Any], Any]) -> dict[str, Any]:
    """Values of a shape that are deferred. A function reads the mapping of them from a request."""
    return {name: deferred_value(part, item_of(read, name)) for name, part in shape}


def deferred_value(shape: Any, read: Callable[[Any], Any]) -> Any:
    """A value of a shape that is deferred. A function reads it from a request."""
    if shape is ANY:
        return Deferred(read)
    if shape is MANY:
        return [Deferred(read, many=True)]
    if not isinstance(shape, tuple):
        return shape
    if shape[:1] == (LIST,):
        parts = enumerate(shape[1:])
        return [deferred_value(part, item_of(read, place)) for place, part in parts]
    return deferred_values(shape, read)


def item_of(read: Callable[[Any], Any], key: str | int) -> Callable[[Any], Any]:
    """A function that reads an item of what another one reads from a request."""
    return lambda request: read(request)[key]


def shape_size(shape: Shape) -> int:
    """The number of parts of a shape."""
    found, pending = 0, list[Hashable]([shape])
    while pending:
        part = pending.pop()
        if isinstance(part, tuple):
            found += len(part)
            pending += part
    return found
