"""Rows as objects of the API, without resolvers where none is needed.

What an object shows of its row, columns and what look-ahead brought along with it, is read and
completed at once; what loaders bring is asked for and completed for all rows of a list together. To
resolve values one by one costs many times as much. Whatever is unusual, such as null where none may
be, is left to graphql-core, which also finds the words for it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
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
from graphql.pyutils import gather_with_cancel
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.schema_converter import CustomGraphQLEnumType
from strawberry.utils.await_maybe import await_maybe

from graph.core.answers import Answer
from graph.core.entities import Awaited, Shown
from graph.core.fields import Read
from graph.core.selections import BACKREF

Details = list[FieldDetails]
"""Where a field is selected: graphql-core merges several places."""

Values = dict[str, Any]
"""What is answered of an object."""

Complete = Callable[[Any], Any]
"""What makes of a value that is not null what is answered."""


class Unusual(Exception):
    """Something that graphql-core has to look at."""


@dataclass(eq=False, slots=True)
class Part:
    """A field of an object that may have to be waited for."""

    name: str
    read: Callable[[Any], Any]
    complete: Callable[[Any, Unread], Any]
    is_nullable: bool

    def put(self, value: Any, values: Values, unread: Unread) -> None:
        """Put what was read in its place. Raises an error for whatever is unusual about it."""
        if value is not None:
            values[self.name] = self.complete(value, unread)
        elif not self.is_nullable:
            raise Unusual


Waiting = list[tuple[Values, asyncio.Future[Any]]]
"""The values of objects in which a part is missing, and for each what brings it."""


class Unread(defaultdict[Part, Waiting]):
    """What loaders were asked for, for an answer."""

    def __init__(self, context: Any) -> None:
        super().__init__(list)
        self.context = context
        self.answer: Answer = context.answer


@dataclass(slots=True)
class Split:
    """The selected fields of a type: those that are shown of a row, and those to be resolved."""

    shown: dict[str, Details] = field(default_factory=dict)
    resolved: dict[str, Details] = field(default_factory=dict)
    leaves: list[tuple[str, Callable[[Any], Any], Complete, bool]] = field(default_factory=list)
    """The name in the answer, what reads the value, what completes it, whether it may be null."""
    parts: list[Part] = field(default_factory=list)
    size_of_names: int = 0
    """How many bytes the names of what is shown take in an answer, with their quotes."""

    def show(self, row: Any, unread: Unread) -> Values:
        """What is shown of a row. Raises an error for whatever is unusual about it."""
        values: Values = dict.fromkeys(self.shown)  # in the order in which they are selected
        count = unread.answer.add
        unread.answer.grow(self.size_of_names)
        for name, read, complete, nullable in self.leaves:
            value = read(row)
            if value is not None:
                count(value)
                values[name] = complete(value)
            elif not nullable:
                raise Unusual
        for part in self.parts:
            value = part.read(row)
            if isinstance(value, asyncio.Future):
                unread[part].append((values, value))
            else:
                part.put(value, values, unread)
        return values


async def _arrive(unread: Unread) -> None:
    """Wait for what loaders were asked for, and for all that is asked of them below it."""
    arriving = [_put(part, waiting, unread.context) for part, waiting in unread.items()]
    if len(arriving) == 1:
        await arriving[0]
    else:
        # When one fails, the others go on: resolvers then wait for the same loaders.
        await asyncio.gather(*arriving)


async def _put(part: Part, waiting: Waiting, context: Any) -> None:
    """Put a part in its place in all objects at once, so that what is below it is one batch."""
    # Together, because a loader is only cancelled when nobody waits for any of its values.
    found = await asyncio.gather(*(future for _, future in waiting))
    below = Unread(context)
    with context.loaders.held():
        for (values, _), value in zip(waiting, found, strict=True):
            await context.answer.rest()
            part.put(value, values, below)
    if below:
        await _arrive(below)


class RowsExecutor(StrawberryGraphQLCoreExecutionContext):
    """Executes as graphql-core does, but reads what is shown of rows without resolvers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._splits: dict[tuple[str, int], Split] = {}
        self._has_failed = False

    def build_per_event_executor(self, payload: Any) -> Any:
        """The executor of an event, whose fields are collected anew."""
        executor: Any = super().build_per_event_executor(payload)
        executor._splits = {}
        return executor

    def execute_fields(self, parent: Any, source: Any, path: Any, fields: Any, context: Any) -> Any:
        """The values of an object's fields."""
        self.context_value.answer.check()
        execute = super().execute_fields
        split = self._split(parent, fields)
        if self._has_failed or not split.shown:
            return execute(parent, source, path, fields, context)
        shown = self._shown(
            lambda unread: split.show(source, unread),
            lambda: execute(parent, source, path, split.shown, context),
        )
        if not split.resolved:
            return shown
        try:
            resolved: Any = execute(parent, source, path, split.resolved, context)
        except Exception:
            if self.is_awaitable(shown):
                self.settle_in_background([shown])
            raise
        if not self.is_awaitable(shown) and not self.is_awaitable(resolved):
            return _in_order(fields, shown | resolved)

        async def both() -> Values:
            one, other = await gather_with_cancel(await_maybe(shown), await_maybe(resolved))
            return _in_order(fields, one | other)

        return both()

    def complete_iterable_value(
        self, kind: Any, details: Any, info: Any, path: Any, items: Any, context: Any
    ) -> Any:
        """The items of a list."""
        resolve = partial(
            super().complete_iterable_value, kind, details, info, path, items, context
        )
        complete = self._completing(kind, details) if isinstance(items, list) else None
        if self._has_failed or complete is None:
            return resolve()
        return self._shown(lambda unread: [complete(item, unread) for item in items], resolve)

    def complete_leaf_value(  # type: ignore[override]  # it is called on the executor
        self, return_type: GraphQLLeafType, result: Any
    ) -> Any:
        """A value of a scalar or an enum."""
        self.context_value.answer.add(result)
        return super().complete_leaf_value(return_type, result)

    def _shown(self, show: Callable[[Unread], Any], resolve: Callable[[], Any]) -> Any:
        """What is shown; by resolvers if there is anything unusual about it."""
        unread = Unread(self.context_value)
        try:
            shown = show(unread)
        except Exception:
            return resolve()  # it is met again, field by field

        async def arrived() -> Any:
            try:
                await _arrive(unread)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Somebody else was, who waited for the same value of a loader and took it along.
                return await await_maybe(resolve())
            except Exception:
                # Loaders keep what they brought, errors too. It would be met on each level again.
                self._has_failed = True
                return await await_maybe(resolve())
            return shown

        return arrived() if unread else shown

    def _split(self, parent: GraphQLObjectType, fields: Mapping[str, Details]) -> Split:
        # By identity: a selection's fields are collected once, and live as long as their split.
        key = parent.name, id(fields)
        split = self._splits.get(key)
        if split is None:
            split = self._splits[key] = Split()
            for name, details in fields.items():
                is_shown = self._shows(split, parent, name, details)
                (split.shown if is_shown else split.resolved)[name] = details
            split.size_of_names = sum(len(name) + 4 for name in split.shown)
        return split

    def _shows(self, split: Split, parent: GraphQLObjectType, name: str, details: Details) -> bool:
        """Add a field to what is shown, if it can be."""
        written = details[0].node.name.value
        if written == "__typename":
            split.leaves.append((name, lambda _: parent.name, str, False))
            return True
        definition = self.schema.get_field(parent, written)
        declared = definition and definition.extensions.get(BACKREF)
        if definition is None or not isinstance(declared, Shown | Read):
            return False
        read = declared.read if isinstance(declared, Shown) else self._asking(parent, details)
        if read is None:
            return False
        kind, is_nullable = definition.type, not is_non_null_type(definition.type)
        leaf = get_nullable_type(kind)
        if is_leaf_type(leaf) and not isinstance(declared, Awaited):
            split.leaves.append((name, read, _leaf(leaf), is_nullable))
            return True
        complete = self._completing(kind, details)
        if complete is None:
            return False
        split.parts.append(Part(name, read, complete, is_nullable))
        return True

    def _asking(self, parent: GraphQLObjectType, details: Details) -> Callable[[Any], Any] | None:
        """What reads a field that reads rows; none if its arguments cannot be read."""
        context = self.context_value
        selected = context.operation.at(parent, [detail.node for detail in details])
        declared: Any = selected.declaration
        return partial(declared.ask, context, selected) if selected.is_readable else None

    def _completing(
        self, kind: GraphQLOutputType, details: Details
    ) -> Callable[[Any, Unread], Any] | None:
        """What completes rows of a type, or lists of them; none if that takes a resolver."""
        if is_non_null_type(kind):
            kind = kind.of_type
        if is_list_type(kind):
            item = self._completing(kind.of_type, details)
            return item and (lambda items, unread: [item(each, unread) for each in items])
        if is_leaf_type(kind):
            return partial(_complete_leaf, _leaf(kind))
        if not is_object_type(kind):
            return None
        try:
            fields = self.collect_subfields(kind, details).grouped_field_set
        except Exception:
            return None  # as an error it has a place, which graphql-core knows
        split, is_one = self._split(kind, fields), kind.is_type_of
        if split.resolved:
            return None

        def complete(row: Any, unread: Unread) -> Values:
            if is_one is not None and not is_one(row, None):  # type: ignore[arg-type]
                raise Unusual
            return split.show(row, unread)

        return complete


def _complete_leaf(complete: Complete, value: Any, unread: Unread) -> Any:
    if value is None:
        raise Unusual
    unread.answer.add(value)
    return complete(value)


def _in_order(fields: Mapping[str, Details], values: Values) -> Values:
    """Values in the order in which they are selected."""
    return {name: values[name] for name in fields if name in values}


@cache
def _leaf(kind: GraphQLLeafType) -> Complete:
    if isinstance(kind, CustomGraphQLEnumType):
        # Strawberry's own way looks through the members each time.
        names: dict[Any, str]
        names = {kind.wrapped_cls(value.value): name for name, value in kind.values.items()}
        return names.__getitem__
    return kind.coerce_output_value
