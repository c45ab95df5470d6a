"""Rows as objects of the API, without resolvers where none is needed.

What an object shows of its row, columns and what look-ahead brought along with it, is read and
completed at once: to resolve values one by one costs many times as much. Whatever is unusual, such
as null where none may be, is left to graphql-core, which also finds the words for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from graphql import (
    GraphQLLeafType,
    GraphQLObjectType,
    GraphQLOutputType,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
)
from graphql.execution.collect_fields import FieldDetails
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.schema_converter import CustomGraphQLEnumType

from graph.entities import Shown
from graph.relations import Related
from graph.selections import BACKREF

Details = list[FieldDetails]
"""Where a field is selected: graphql-core merges several places."""

Complete = Callable[[Any], Any]
"""What makes of a value that is not null what is answered."""


class Unusual(Exception):
    """Something that graphql-core has to look at."""


@dataclass(slots=True)
class Split:
    """The selected fields of a type: those that are shown of a row, and those to be resolved."""

    fields: Mapping[str, Details]
    shown: list[tuple[str, Callable[[Any], Any], Complete, bool]] = field(default_factory=list)
    """The name in the answer, what reads the value, what completes it, whether it may be null."""
    resolved: dict[str, Details] = field(default_factory=dict)

    def show(self, row: Any) -> dict[str, Any]:
        """What is shown of a row. Raises an error for whatever is unusual about it."""
        values = {}
        for name, read, complete, nullable in self.shown:
            value = read(row)
            if value is not None:
                value = complete(value)
            elif not nullable:
                raise Unusual
            values[name] = value
        return values

    def in_order(self, values: dict[str, Any]) -> dict[str, Any]:
        """Values in the order in which they are selected."""
        return {name: values[name] for name in self.fields if name in values}


class RowsExecutor(StrawberryGraphQLCoreExecutionContext):
    """Executes as graphql-core does, but reads what is shown of rows without resolvers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._splits: dict[tuple[str, int], Split] = {}

    def build_per_event_executor(self, payload: Any) -> Any:
        """The executor of an event, whose fields are collected anew."""
        executor: Any = super().build_per_event_executor(payload)
        executor._splits = {}
        return executor

    def execute_fields(self, parent: Any, source: Any, path: Any, fields: Any, context: Any) -> Any:
        """The values of an object's fields."""
        split = self._split(parent, fields)
        if not split.shown:
            return super().execute_fields(parent, source, path, fields, context)
        try:
            shown = split.show(source)
        except Exception:  # it is met again, field by field
            return super().execute_fields(parent, source, path, fields, context)
        if not split.resolved:
            return shown
        resolved: Any = super().execute_fields(parent, source, path, split.resolved, context)
        if not self.is_awaitable(resolved):
            return split.in_order(shown | resolved)

        async def both() -> dict[str, Any]:
            return split.in_order(shown | await resolved)

        return both()

    def complete_iterable_value(
        self, kind: Any, details: Any, info: Any, path: Any, items: Any, context: Any
    ) -> Any:
        """The items of a list."""
        complete = self._completing(kind, details) if isinstance(items, list) else None
        if complete is not None:
            try:
                return [complete(item) for item in items]
            except Exception:
                pass  # it is met again, item by item
        return super().complete_iterable_value(kind, details, info, path, items, context)

    def _split(self, parent: GraphQLObjectType, fields: Mapping[str, Details]) -> Split:
        # By identity: a selection's fields are collected once, and live as long as their split.
        key = parent.name, id(fields)
        if key in self._splits:
            return self._splits[key]
        split = self._splits[key] = Split(fields)
        for name, details in fields.items():
            definition = self.schema.get_field(parent, details[0].node.name.value)
            declared = definition and definition.extensions.get(BACKREF)
            if definition is not None and isinstance(declared, Shown | Related):
                kind = get_nullable_type(definition.type)
                complete = (
                    _leaf(kind)
                    if is_leaf_type(kind)
                    else self._completing(definition.type, details)
                )
                if complete is not None:
                    nullable = not is_non_null_type(definition.type)
                    split.shown.append((name, declared.read, complete, nullable))
                    continue
            split.resolved[name] = details
        return split

    def _completing(self, kind: GraphQLOutputType, details: Details) -> Complete | None:
        """What completes rows of a type, or lists of them; none if that takes a resolver."""
        if is_non_null_type(kind):
            kind = kind.of_type
        if is_list_type(kind):
            item = self._completing(kind.of_type, details)
            return item and (lambda items: [item(each) for each in items])
        if not is_object_type(kind):
            return None
        try:
            fields = self.collect_subfields(kind, details).grouped_field_set
        except Exception:
            return None  # as an error it has a place, which graphql-core knows
        split, is_one = self._split(kind, fields), kind.is_type_of
        if split.resolved:
            return None

        def complete(row: Any) -> dict[str, Any]:
            if is_one is not None and not is_one(row, None):  # type: ignore[arg-type]
                raise Unusual
            return split.show(row)

        return complete


@cache
def _leaf(kind: GraphQLLeafType) -> Complete:
    if isinstance(kind, CustomGraphQLEnumType):
        # Strawberry's own way looks through the members each time.
        names: dict[Any, str]
        names = {kind.wrapped_cls(value.value): name for name, value in kind.values.items()}
        return names.__getitem__
    return kind.coerce_output_value
