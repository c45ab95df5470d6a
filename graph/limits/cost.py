"""The cost of an operation: the maximum number of rows it can return or write.

It is computed before the operation runs. A page costs its size, and a list its maximum length, each
times the cost of a row with the selection below it. A `totalCount` costs 1, and so does a related
object. A mutation costs 1, and 1 for every item of the lists in its input, and for every other row
that it may write (`most`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from graph.core.mutations import DeclaredMutation
from graph.core.selections import Operation, Selected, fold, input_values, nested_fields
from graph.limits.document_size import MOST_REPORTED

# The cost of every request, so that the rate of refused requests is limited too.
COST_OF_REQUEST = 1

# Introspection reads no rows, but takes time: these are estimates of the lengths of its lists. The
# introspection query of common tools costs about 5,000 for a schema of any size.
FIELDS_PER_TYPE = 10
ITEMS_PER_LIST = 2
COST_PER_TYPE = 12


def cost_of(operation: Operation) -> int:
    """The cost of an operation, at least 1. Linear in the distinct nodes of the selection."""
    costs = _Costs(len(operation.schema.type_map))
    return max(1, sum(map(costs.of, operation.roots)))


def cost_advice(operation: Operation) -> str:
    """A sentence that names the most expensive field, and how to reduce its cost.

    On the path of the most expensive fields, it is the innermost page, or a list without any page.
    """
    costs = _Costs(len(operation.schema.type_map))
    path: list[str] = []
    advice, rows, fields, pages = "", 1, operation.roots, 0
    while fields:
        field = max(fields, key=costs.of)
        if not costs.of(field):
            break
        path.append(field.key)
        declaration = field.declaration
        is_page = isinstance(declaration, Paged)
        # The advice names the page, not the list in it.
        is_list = _is_list(field) and field.name not in ("nodes", "edges")
        if is_page or not advice or (is_list and not pages):
            cost = min(rows * costs.of(field), MOST_REPORTED)
            instead = "ask for fewer with `first`" if is_page else "ask for less of it"
            advice = f" `{'.'.join(path)}` alone costs {cost:,}: {instead}."
        if isinstance(declaration, Paged):
            pages += 1
            rows *= max(1, declaration.max_rows(field))
        elif is_list:
            rows *= costs.most(field)
        fields = field.fields()
    return advice


class _Costs:
    """The costs of fields; a field in a fragment that is spread often is computed once."""

    def __init__(self, types: int) -> None:
        self._types = types
        self._cache: dict[int, int] = {}

    def of(self, selected: Selected) -> int:
        cost = self._cache.get(id(selected))
        if cost is None:
            cost = self._cache[id(selected)] = self._compute(selected)
        return cost

    def _compute(self, selected: Selected) -> int:
        if not selected.has_valid_arguments or is_leaf_type(get_named_type(selected.type)):
            return 0
        if selected.name.startswith("__"):
            return math.ceil(self._introspected(selected) * COST_PER_TYPE / self._types)
        declaration = selected.declaration
        if isinstance(declaration, Paged):
            return self._page(declaration, selected)
        if selected.parent.name == "Mutation":
            return self._mutation(selected)
        return self.most(selected) * self._row(selected)

    def most(self, selected: Selected) -> int:
        """The maximum number of objects of a field, except those of a page or a payload.

        A field whose `most` is a function reads as many rows as that makes of its arguments, even
        if it is no list.
        """
        declaration = selected.declaration
        most: Any = declaration.metadata.get("most", 1) if declaration else 1
        if callable(most):
            return max(1, int(most(selected.arguments)))
        if not _is_list(selected):
            return 1
        if isinstance(declaration, Declared):
            return declaration.max_rows(selected)
        return int(most)

    def _row(self, selected: Selected) -> int:
        """The cost of a row with its selection; of an interface, of the most expensive type."""
        return 1 + self._below(selected)

    def _below(self, selected: Selected) -> int:
        costs = (sum(map(self.of, children)) for children in selected.children.values())
        return max(costs, default=0)

    def _page(self, field: Paged, selected: Selected) -> int:
        cost = int(bool(selected.under("totalCount")))
        if field.reads_rows(selected):
            # A row that is selected in `nodes` and in `edges` is read once.
            cost += field.max_rows(selected) * (1 + sum(map(self._below, field.nodes(selected))))
        return cost

    def _mutation(self, selected: Selected) -> int:
        declared: Any = selected.declaration
        kind, value = selected.definition.args["input"].type, selected.arguments["input"]
        rows = rows_of(declared.metadata["mutation"], kind, value)
        cost = 1 + rows
        for child in selected.fields():
            if child.name == "userErrors":
                # Errors come instead of the changed objects, and few contain an object.
                cost += self._below(child)
            elif not is_leaf_type(get_named_type(child.type)):
                cost += (max(1, rows) if _is_list(child) else 1) * self._row(child)
        return cost

    def _introspected(self, selected: Selected) -> int:
        """The number of introspected objects, as an estimate."""
        factors = {"types": self._types, "fields": FIELDS_PER_TYPE}

        def combine(selected: Selected, below: list[int]) -> int:
            if is_leaf_type(get_named_type(selected.type)):
                return 0
            items = factors.get(selected.name, ITEMS_PER_LIST) if _is_list(selected) else 1
            return items * (1 + sum(below))

        (count,) = fold([selected], combine)
        return count


def _is_list(selected: Selected) -> bool:
    return is_list_type(get_nullable_type(selected.type))


def rows_of(mutation: DeclaredMutation, kind: Any, value: dict[str, Any]) -> int:
    """The maximum number of rows that a mutation writes, besides the one that every mutation may.

    `kind` is the type of its input in the schema, `value` the coerced value.
    """
    items = items_of(kind, value)
    return items if mutation.most is None else items + mutation.most(value)


def items_of(kind: Any, value: Any) -> int:
    """The number of items in all lists of an input; JSON counts as one value."""
    kind = get_nullable_type(kind)
    if is_list_type(kind) and isinstance(value, list):
        item = get_nullable_type(kind.of_type)
        if is_leaf_type(item):
            return len(value)
        return len(value) + sum(items_of(item, each) for each in value)
    if isinstance(kind, GraphQLInputObjectType) and isinstance(value, dict):
        return _items_below(nested_fields(kind), value)
    return 0


def _items_below(fields: Mapping[str, Any], values: Mapping[str, Any]) -> int:
    return sum(items_of(field.type, value) for _, field, value in input_values(fields, values))
