"""The shape of the variables of a request, which determines its statement, and deferred values.

The operators of a filter are part of the shape, but not their operands. Requests of the same shape
share a statement, and each binds its own values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any

from graphql import (
    FieldNode,
    FragmentSpreadNode,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLScalarType,
    Node,
    VariableNode,
    get_nullable_type,
)
from graphql.execution.values import VariableValues

from db import Viewer
from db.parameters import Deferred
from graph.core.arguments import Option
from graph.core.json_text import Uncompilable
from graph.core.selections import Operation, input_values

# Stands for any value.
ANY = "any"

# Stands for a variable of which only matters that it is given.
GIVEN = "given"


@dataclass(slots=True)
class Request:
    """What deferred values are resolved from."""

    variables: dict[str, Any]
    viewer: Viewer
    keys: Sequence[Any] = ()
    """The keys of the rows that are read by key."""
    resolved: dict[Deferred, Any] = field(default_factory=dict, init=False)
    """The values that are resolved once."""


KEYS = Deferred(lambda request: request.keys)
"""The keys of a request, as a deferred value."""


Shape = tuple[tuple[str, Hashable], ...]
"""The names of variables, each with the shape of its value."""


def shape_of(variables: VariableValues, names: Collection[str] | None) -> Shape:
    """The shape of variables: requests for an operation share its statements if it is equal.

    With names, it counts of the other variables only whether they are given.
    """
    sources = variables.sources
    return tuple(
        (
            name,
            _shape(sources[name].signature.type, value)
            if names is None or name in names
            else GIVEN,
        )
        for name, value in variables.coerced.items()
    )


Fill = Callable[[Request], Any]
"""Makes a value for a request."""


def filling(value: Any) -> Fill:
    """Makes a value from one with deferred values in it, which are resolved.

    Parts without deferred values are the same for all requests, and must not be changed.
    """
    return _filling(value) or (lambda request: value)


def _filling(value: Any) -> Fill | None:
    """The same; None if there are no deferred values in it."""
    if isinstance(value, Deferred):
        return value.resolve
    if isinstance(value, dict):
        parts = {key: fill for key, item in value.items() if (fill := _filling(item)) is not None}
        return partial(_fill_object, value, parts) if parts else None
    if isinstance(value, list):
        items = [(item, _filling(item)) for item in value]
        return partial(_fill_list, items) if any(fill for _, fill in items) else None
    return None


def _fill_object(value: dict[str, Any], parts: dict[str, Fill], request: Request) -> dict[str, Any]:
    return value | {key: fill(request) for key, fill in parts.items()}


def _fill_list(items: list[tuple[Any, Fill | None]], request: Request) -> list[Any]:
    found: list[Any] = []
    for item, fill in items:
        if fill is None:
            found.append(item)
        elif isinstance(item, Deferred) and item.many:
            found += fill(request)
        else:
            found.append(fill(request))
    return found


def variables_below(operation: Operation) -> frozenset[str]:
    """The names of the variables that occur outside of the arguments of root fields."""
    found: set[str] = set()
    fragments = {name: fragment.definition for name, fragment in operation.fragments.items()}
    seen: set[tuple[str, bool]] = set()
    pending: list[tuple[Any, bool]] = [(operation.node.selection_set, True)]
    while pending:
        node, is_root = pending.pop()
        match node:
            case VariableNode():
                found.add(node.name.value)
            case FragmentSpreadNode() if (node.name.value, is_root) not in seen:
                seen.add((node.name.value, is_root))
                fragment = fragments[node.name.value]
                pending += [(part, False) for part in node.directives or ()]
                pending.append((fragment.selection_set, is_root))
            case FieldNode() if is_root:
                pending += [(part, False) for part in node.directives or ()]
                pending.append((node.selection_set, False))
            case Node():
                pending += [(getattr(node, key), is_root) for key in node.keys if key != "loc"]
            case list() | tuple():
                pending += [(part, is_root) for part in node]
    return frozenset(found)


def shape_size(shape: Shape) -> int:
    """The number of parts of a shape."""
    found, pending = 0, list[Hashable]([shape])
    while pending:
        part = pending.pop()
        if isinstance(part, tuple):
            found += len(part)
            pending += part
    return found


def _matters(kind: GraphQLInputType) -> bool:
    """Whether values of a type change the statement: those of Boolean, orders and other options."""
    if isinstance(kind, GraphQLScalarType):
        return kind.name == "Boolean"
    return issubclass(getattr(kind, "wrapped_cls", object), Option)


def _shape(kind: Any, value: Any) -> Hashable:
    kind = get_nullable_type(kind)
    if value is None:
        return None
    if isinstance(kind, GraphQLInputObjectType):
        return tuple(
            [
                (name, _shape(field.type, item))
                for name, field, item in input_values(kind.fields, value)
            ]
        )
    if isinstance(kind, GraphQLList):
        if _is_any(kind):
            return ANY
        return tuple(_shape(kind.of_type, item) for item in value)
    return value if _matters(kind) else ANY


def _is_any(kind: GraphQLList[Any]) -> bool:
    """Whether neither the number nor the values of the items change the statement."""
    item = get_nullable_type(kind.of_type)
    return not isinstance(item, GraphQLInputObjectType | GraphQLList) and not _matters(item)


class _NoSources(dict[str, Any]):
    """The sources of variables, which graphql-core reads for a variable in a JSON literal.

    Such a literal is different for each request, so it cannot be compiled.
    """

    def __contains__(self, name: object) -> bool:
        raise Uncompilable(f"${name} inside a literal")

    def get(self, name: str, default: Any = None) -> Any:
        raise Uncompilable(f"${name} inside a literal")


def deferred_variables(variables: VariableValues, names: Collection[str]) -> VariableValues:
    """Variables of the same shape with deferred values.

    The shape has variables of these names. All others are deferred as a whole.
    """
    deferred: dict[str, Any] = {}
    for name, value in variables.coerced.items():
        read = _item(attrgetter("variables"), name)
        if name in names:
            deferred[name] = _deferred(variables.sources[name].signature.type, value, read)
        else:
            deferred[name] = Deferred(read)
    return VariableValues(_NoSources(), deferred)


def _item(read: Callable[[Any], Any], key: str | int) -> Callable[[Any], Any]:
    return lambda request: read(request)[key]


def _deferred(kind: Any, value: Any, read: Callable[[Any], Any]) -> Any:
    kind = get_nullable_type(kind)
    if value is None:
        return None
    if isinstance(kind, GraphQLInputObjectType):
        return {
            key: _deferred(field.type, value[key], _item(read, key))
            for name, field in kind.fields.items()
            if (key := field.out_name or name) in value
        }
    if isinstance(kind, GraphQLList):
        if _is_any(kind):
            return [Deferred(read, many=True)]
        return [
            _deferred(kind.of_type, item, _item(read, place)) for place, item in enumerate(value)
        ]
    return value if _matters(kind) else Deferred(read)
