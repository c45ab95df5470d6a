"""How large a document is, counted without the schema, before any rule looks at it.

Each definition is walked once, and a fragment's numbers are added wherever it is spread. So a
document of fragments that double each other is counted in the time that it takes to read it, and
everything after this may take the numbers for a bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    DocumentNode,
    ExecutableDefinitionNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLSchema,
    OperationDefinitionNode,
    SelectionSetNode,
    get_nullable_type,
    is_leaf_type,
    type_from_ast,
)

from graph.core.errors import BadRequest, LimitExceeded
from graph.settings import Settings

# Fragments can multiply to numbers of hundreds of digits, which nobody needs to be told.
LARGEST = 1_000_000_000


@dataclass
class Size:
    """How much of everything there is in a definition, with all that it spreads."""

    selections: int = 0
    aliases: int = 0
    directives: int = 0
    depth: int = 0
    roots: int = 0
    root_names: frozenset[str] = frozenset()

    def add(self, other: Size, depth: int = 0) -> None:
        """Add what is spread below so many fields."""
        self.selections += other.selections
        self.aliases += other.aliases
        self.directives += other.directives
        self.depth = max(self.depth, depth + other.depth)
        if depth == 0:
            self.roots += other.roots
            self.root_names |= other.root_names


@dataclass
class _Definition:
    """A definition: what itself has, and which fragments it spreads below how many fields."""

    own: Size = field(default_factory=Size)
    spreads: list[tuple[str, int]] = field(default_factory=list)


def measure(document: DocumentNode) -> Size:
    """The size of a document: the deepest and widest of its operations, and the sum of the rest.

    Raises BadRequest where a fragment spreads itself.
    """
    definitions = [
        (node, _read(node))
        for node in document.definitions
        if isinstance(node, ExecutableDefinitionNode)
    ]
    fragments = {
        node.name.value: read
        for node, read in definitions
        if isinstance(node, FragmentDefinitionNode)
    }
    sizes = _sizes(fragments)
    total, written = Size(), Size()
    for node, read in definitions:
        # What is spread nowhere is validated all the same.
        written.add(read.own)
        if isinstance(node, OperationDefinitionNode):
            whole = _whole(read, sizes)
            widest = max(total.roots, whole.roots)
            total.add(whole)
            total.roots = widest
    total.selections = max(total.selections, written.selections)
    total.aliases = max(total.aliases, written.aliases)
    total.directives = max(total.directives, written.directives)
    total.depth = max([total.depth, *(size.depth for size in sizes.values())])
    return total


def check(size: Size, settings: Settings) -> None:
    """Raise LimitExceeded for the first limit that a document is beyond."""
    counts = (
        ("levels of fields", "max_depth", size.depth),
        ("root fields", "max_root_fields", size.roots),
        ("aliases", "max_aliases", size.aliases),
        ("directives", "max_directives", size.directives),
        ("selections", "max_fields", size.selections),
    )
    for what, setting, found in counts:
        allowed: int = getattr(settings, setting)
        if found > allowed:
            raise LimitExceeded(what, setting, min(found, LARGEST), allowed)


def check_variables(
    node: OperationDefinitionNode,
    variables: Mapping[str, Any],
    schema: GraphQLSchema,
    settings: Settings,
) -> None:
    """Raise LimitExceeded for more values than may be given, before any of them is looked at.

    Reading a value by its type takes some hundred times as long as reading it as JSON, which also
    counts as one where a scalar may be any JSON.
    """
    definitions = node.variable_definitions or ()
    found = len(definitions)
    pending: list[tuple[Any, Any]] = [
        (type_from_ast(schema, definition.type), value)
        for definition in definitions
        if isinstance(value := variables.get(definition.variable.name.value), list | dict)
    ]
    while pending:
        kind, value = pending.pop()
        kind = get_nullable_type(kind)
        below: list[tuple[Any, Any]] = []
        if isinstance(kind, GraphQLList):
            if not isinstance(value, list):
                value = [value]
            found += len(value)
            if not is_leaf_type(get_nullable_type(kind.of_type)):
                below = [(kind.of_type, item) for item in value[: settings.max_values]]
        elif isinstance(kind, GraphQLInputObjectType) and isinstance(value, dict):
            found += len(value)
            given = ((kind.fields.get(name), item) for name, item in value.items())
            below = [(field.type, item) for field, item in given if field is not None]
        if found > settings.max_values:
            raise LimitExceeded("values", "max_values", None, settings.max_values)
        pending += below


def _read(definition: ExecutableDefinitionNode) -> _Definition:
    """What stands in a definition itself; without recursion, which a document could exhaust."""
    read = _Definition()
    own = read.own
    own.directives += len(definition.directives or ())
    for variable in definition.variable_definitions or ():
        own.directives += len(variable.directives or ())
    pending: list[tuple[SelectionSetNode, int]] = [(definition.selection_set, 0)]
    names = set()
    while pending:
        selections, depth = pending.pop()
        for selection in selections.selections:
            own.selections += 1
            own.directives += len(selection.directives or ())
            below = depth
            if isinstance(selection, FragmentSpreadNode):
                read.spreads.append((selection.name.value, depth))
                continue
            if isinstance(selection, FieldNode):
                below += 1
                own.depth = max(own.depth, below)
                own.aliases += selection.alias is not None
                if depth == 0:
                    own.roots += 1
                    names.add(selection.name.value)
            if selection.selection_set is not None:  # type: ignore[attr-defined]
                pending.append((selection.selection_set, below))  # type: ignore[attr-defined]
    own.root_names = frozenset(names)
    return read


def _whole(definition: _Definition, sizes: Mapping[str, Size]) -> Size:
    whole = Size()
    whole.add(definition.own)
    for name, depth in definition.spreads:
        if name in sizes:
            whole.add(sizes[name], depth)
    return whole


def _sizes(fragments: Mapping[str, _Definition]) -> dict[str, Size]:
    """The size of each fragment with all that it spreads: first of those that are spread."""
    sizes: dict[str, Size] = {}
    for root in fragments:
        if root in sizes:
            continue
        path: dict[str, Iterator[tuple[str, int]]] = {root: iter(fragments[root].spreads)}
        while path:
            name = next(reversed(path))
            for spread, _ in path[name]:
                if spread in path:
                    raise BadRequest(f"The fragment {spread} spreads itself, directly or not.")
                if spread in fragments and spread not in sizes:
                    path[spread] = iter(fragments[spread].spreads)
                    break
            else:
                del path[name]
                sizes[name] = _whole(fragments[name], sizes)
    return sizes
