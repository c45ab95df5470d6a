"""The size of a document, counted without the schema, before validation.

Each definition is visited once, and the counts of a fragment are added at each of its spreads. So
the time is linear even for nested fragments whose expansion is exponential.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
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
from graph.core.selections import nested_fields
from graph.settings import Settings

# Larger numbers are reported as this one; nested fragments can reach hundreds of digits.
MOST_REPORTED = 1_000_000_000


@dataclass
class DocumentSize:
    """The counts of a definition, or of a document."""

    selections: int = 0
    aliases: int = 0
    directives: int = 0
    depth: int = 0
    roots: int = 0
    root_names: frozenset[str] = frozenset()
    spreads: list[tuple[str, int]] = field(default_factory=list)
    """The fragments that a single definition spreads, with their depths."""

    def add(self, other: DocumentSize, depth: int = 0) -> None:
        """Add the counts of a fragment that is spread at this depth."""
        self.selections += other.selections
        self.aliases += other.aliases
        self.directives += other.directives
        self.depth = max(self.depth, depth + other.depth)
        if depth == 0:
            self.roots += other.roots
            self.root_names |= other.root_names


def document_size(document: DocumentNode) -> DocumentSize:
    """The size of a document: the maximum depth and root fields, and the sums of the other counts.

    Raises BadRequest if a fragment spreads itself.
    """
    definitions = [
        (node, _count(node))
        for node in document.definitions
        if isinstance(node, ExecutableDefinitionNode)
    ]
    fragments = {
        node.name.value: definition
        for node, definition in definitions
        if isinstance(node, FragmentDefinitionNode)
    }
    sizes = _sizes(fragments)
    total, unexpanded = DocumentSize(), DocumentSize()
    for node, definition in definitions:
        # Unused fragments are validated too.
        unexpanded.add(definition)
        if isinstance(node, OperationDefinitionNode):
            whole = _expanded(definition, sizes)
            widest = max(total.roots, whole.roots)
            total.add(whole)
            total.roots = widest
    total.selections = max(total.selections, unexpanded.selections)
    total.aliases = max(total.aliases, unexpanded.aliases)
    total.directives = max(total.directives, unexpanded.directives)
    total.depth = max([total.depth, *(size.depth for size in sizes.values())])
    return total


def check_document_size(size: DocumentSize, settings: Settings) -> None:
    """Raise LimitExceeded for the first limit that a document exceeds."""
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
            raise LimitExceeded(what, setting, min(found, MOST_REPORTED), allowed)


def check_variables(
    node: OperationDefinitionNode,
    variables: Mapping[str, Any],
    schema: GraphQLSchema,
    settings: Settings,
) -> None:
    """Raise LimitExceeded for too many values in variables, before they are coerced.

    Coercing a value takes about a hundred times as long as parsing its JSON. A value of a scalar
    counts as one, even if it is any JSON.
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
            fields = nested_fields(kind)
            below = [(fields[name].type, item) for name, item in value.items() if name in fields]
        if found > settings.max_values:
            raise LimitExceeded("values", "max_values", None, settings.max_values)
        pending += below


def _count(node: ExecutableDefinitionNode) -> DocumentSize:
    """Count a definition, without recursion, whose limit a document could exceed."""
    own = DocumentSize()
    own.directives += len(node.directives or ())
    for variable in node.variable_definitions or ():
        own.directives += len(variable.directives or ())
    pending: list[tuple[SelectionSetNode, int]] = [(node.selection_set, 0)]
    names = set()
    while pending:
        selections, depth = pending.pop()
        for selection in selections.selections:
            own.selections += 1
            own.directives += len(selection.directives or ())
            below = depth
            if isinstance(selection, FragmentSpreadNode):
                own.spreads.append((selection.name.value, depth))
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
    return own


def _expanded(definition: DocumentSize, sizes: Mapping[str, DocumentSize]) -> DocumentSize:
    whole = DocumentSize()
    whole.add(definition)
    for name, depth in definition.spreads:
        if name in sizes:
            whole.add(sizes[name], depth)
    return whole


def _sizes(fragments: Mapping[str, DocumentSize]) -> dict[str, DocumentSize]:
    """The size of each fragment with those it spreads, whose sizes are computed first."""
    sizes: dict[str, DocumentSize] = {}
    spreads = {name: [spread for spread, _ in each.spreads] for name, each in fragments.items()}
    try:
        for name in TopologicalSorter(spreads).static_order():
            if name in fragments:
                sizes[name] = _expanded(fragments[name], sizes)
    except CycleError as error:
        (name, *_) = error.args[1]
        raise BadRequest(f"The fragment {name} spreads itself, directly or not.") from None
    return sizes
