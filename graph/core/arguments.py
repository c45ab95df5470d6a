"""The shape of the arguments of a field, which determines the SQL of its rows.

The operators of a filter are part of the shape, but not their operands. Arguments of the same shape
share a statement, and each run binds its own values.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from enum import Enum
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from strawberry import UNSET
from strawberry.types import get_object_definition

from db.parameters import Deferred, apply


class Option(Enum):
    """The base of enums whose members, as arguments of a field, change its SQL."""


# Stands for any value.
ANY = object()


Shapes = tuple[tuple[str, Hashable], ...]
"""The names of arguments, or of the fields of an input object, each with the shape of its value."""


class Input(NamedTuple):
    """The shape of an input object."""

    type: type
    fields: Shapes


def shapes_of(arguments: Mapping[str, Any]) -> Shapes:
    """What of the arguments of a field changes its SQL."""
    return tuple((name, _shape(value)) for name, value in arguments.items())


def deferred_arguments(shapes: Shapes, arguments: Deferred) -> dict[str, Any]:
    """Arguments of these shapes whose values are deferred."""
    return {name: _deferred(shape, apply(itemgetter(name), arguments)) for name, shape in shapes}


def _shape(value: Any) -> Hashable:
    if value is None or value is UNSET or isinstance(value, bool | Option):
        return value
    if isinstance(value, list) and all(map(_has_shape, value)):
        return tuple(map(_shape, value))
    definition = get_object_definition(value)
    if definition is None:
        return ANY
    names = [field.python_name for field in definition.fields]
    return Input(type(value), tuple((name, _shape(getattr(value, name))) for name in names))


def _has_shape(item: Any) -> bool:
    return isinstance(item, Option) or get_object_definition(item) is not None


def _deferred(shape: Hashable, value: Deferred) -> Any:
    if shape is ANY:
        return value
    if isinstance(shape, Input):
        fields = ((name, part, apply(attrgetter(name), value)) for name, part in shape.fields)
        return shape.type(**{name: _deferred(part, each) for name, part, each in fields})
    if isinstance(shape, tuple):
        return [_deferred(part, apply(itemgetter(n), value)) for n, part in enumerate(shape)]
    return shape
