"""The variables of a request: their shape, which determines its statement, and deferred values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any

from graphql import FieldNode, FragmentSpreadNode, Node, VariableNode
from graphql.execution.values import VariableValues

from db import Viewer
from db.parameters import Deferred
from graph.core.json_text import Uncompilable
from graph.core.selections import Operation
from graph.core.shapes import ANY, Shape, deferred_values, shape_of


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


def variables_shape(variables: VariableValues, names: Collection[str] | None) -> Shape:
    """The shape of variables: requests for an operation share its statements if it is equal.

    With names, the values of other variables do not change it.
    """
    sources = variables.sources
    return tuple(
        [
            (
                name,
                shape_of(sources[name].signature.type, value)
                if names is None or name in names
                else ANY,
            )
            for name, value in variables.coerced.items()
        ]
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


class _NoSources(dict[str, Any]):
    """The sources of variables, which graphql-core reads for a variable in a JSON literal.

    Such a literal is different for each request, so it cannot be compiled.
    """

    def __contains__(self, name: object) -> bool:
        raise Uncompilable(f"${name} inside a literal")

    def get(self, name: str, default: Any = None) -> Any:
        raise Uncompilable(f"${name} inside a literal")


def deferred_variables(shape: Shape) -> VariableValues:
    """Variables of a shape with deferred values."""
    return VariableValues(_NoSources(), deferred_values(shape, attrgetter("variables")))
