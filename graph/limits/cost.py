"""What an operation costs: the most rows that it could return or write, counted before it runs.

A page costs as many rows as it asks for, each with what is selected below it, and a list as many as
it can have; a `totalCount` costs one, and so does a related object. A mutation costs one, and every
item of the lists in its input.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from graphql import (
    GraphQLInputObjectType,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
)

from graph.core.declarations import Declared
from graph.core.fields import Paged
from graph.core.selections import Operation, Selected
from graph.limits.document_size import LARGEST

# Every request costs this, so that asking without end for what is refused has an end, too.
COST_OF_ASKING = 1

# Introspection reads no rows, but takes time. A type has more fields than anything has of others,
# and the whole schema, as tools ask for it, costs about 5,000 of these, however large it is.
DESCRIBED_FIELDS = 10
DESCRIBED = 2
ROWS_PER_TYPE = 12


def cost_of(operation: Operation) -> int:
    """The cost of an operation, at least 1. Linear in the tree's distinct nodes."""
    costs = _Costs(len(operation.schema.type_map))
    return max(1, sum(map(costs.of, operation.roots)))


def costliest(operation: Operation) -> str:
    """Which field an operation's cost comes from, and what to write instead, as a sentence.

    It is the innermost page on the way of the fields that cost most; a list if there is no page.
    """
    costs = _Costs(len(operation.schema.type_map))
    path: list[str] = []
    told, rows, fields, pages = "", 1, operation.roots, 0
    while fields:
        field = max(fields, key=costs.of)
        if not costs.of(field):
            break
        path.append(field.key)
        declaration = field.declaration
        is_page = isinstance(declaration, Paged)
        # What is in a page is named by the page.
        is_list = _is_list(field) and field.name not in ("nodes", "edges")
        if is_page or not told or (is_list and not pages):
            cost = min(rows * costs.of(field), LARGEST)
            instead = "ask for fewer with `first`" if is_page else "ask for less of it"
            told = f" `{'.'.join(path)}` alone costs {cost:,}: {instead}."
        if isinstance(declaration, Paged):
            pages += 1
            rows *= max(1, declaration.max_rows(field))
        elif is_list:
            rows *= costs.most(field)
        fields = [child for below in field.children.values() for child in below]
    return told


class _Costs:
    """The costs of fields; one that fragments bring often is counted once."""

    def __init__(self, types: int) -> None:
        self._types = types
        self._known: dict[int, int] = {}

    def of(self, selected: Selected) -> int:
        known = self._known.get(id(selected))
        if known is None:
            known = self._known[id(selected)] = self._count(selected)
        return known

    def _count(self, selected: Selected) -> int:
        if not selected.has_valid_arguments or is_leaf_type(get_named_type(selected.type)):
            return 0
        if selected.name.startswith("__"):
            return math.ceil(self._described(selected) * ROWS_PER_TYPE / self._types)
        declaration = selected.declaration
        if isinstance(declaration, Paged):
            return self._page(declaration, selected)
        if selected.parent.name == "Mutation":
            return self._mutation(selected)
        return self.most(selected) * self._row(selected)

    def most(self, selected: Selected) -> int:
        """How many objects a field leads to; what a page or a payload lists is counted there."""
        if not _is_list(selected):
            return 1
        declaration = selected.declaration
        if isinstance(declaration, Declared):
            return declaration.max_rows(selected)
        most: int = declaration.metadata.get("most", 1) if declaration else 1
        return most

    def _row(self, selected: Selected) -> int:
        """The cost of a row with what is selected of it: of the type that costs most."""
        return 1 + self._below(selected)

    def _below(self, selected: Selected) -> int:
        return max((self._all(children) for children in selected.children.values()), default=0)

    def _all(self, children: Iterable[Selected]) -> int:
        return sum(map(self.of, children))

    def _page(self, field: Paged, selected: Selected) -> int:
        shown = {child.name for children in selected.children.values() for child in children}
        cost = int("totalCount" in shown)
        if shown & {"nodes", "edges", "pageInfo"}:
            ways = (("nodes",), ("edges", "node"))
            nodes = [node for way in ways for node in selected.under(*way)]
            # Asked for as nodes and in edges, a row is read once.
            cost += field.max_rows(selected) * (1 + sum(map(self._below, nodes)))
        return cost

    def _mutation(self, selected: Selected) -> int:
        items = sum(
            _items(argument.type, selected.arguments.get(argument.out_name or name))
            for name, argument in selected.definition.args.items()
        )
        cost = 1 + items
        for children in selected.children.values():
            for child in children:
                if child.name == "userErrors":
                    # Instead of what was changed, and hardly ever with an object each.
                    cost += self._below(child)
                elif not is_leaf_type(get_named_type(child.type)):
                    cost += (max(1, items) if _is_list(child) else 1) * self._row(child)
        return cost

    def _described(self, selected: Selected) -> int:
        """How many objects of introspection there are, roughly."""
        known = self._known.get(id(selected))
        if known is None:
            known = 0
            if not is_leaf_type(get_named_type(selected.type)):
                below = (
                    sum(map(self._described, children)) for children in selected.children.values()
                )
                factors = {"types": self._types, "fields": DESCRIBED_FIELDS}
                many = factors.get(selected.name, DESCRIBED)
                known = (many if _is_list(selected) else 1) * (1 + max(below, default=0))
            self._known[id(selected)] = known
        return known


def _is_list(selected: Selected) -> bool:
    return is_list_type(get_nullable_type(selected.type))


def _items(kind: Any, value: Any) -> int:
    """How many items there are in all lists of an input; JSON counts as one value."""
    kind = get_nullable_type(kind)
    if is_list_type(kind) and isinstance(value, list):
        return len(value) + sum(_items(kind.of_type, item) for item in value)
    if isinstance(kind, GraphQLInputObjectType) and isinstance(value, dict):
        return sum(
            _items(field.type, value.get(field.out_name or name))
            for name, field in kind.fields.items()
        )
    return 0
