"""The DataLoaders of an operation, for fields that resolvers read.

`related` and `listed` fields are loaded by the statement of their parent (joinedload,
selectinload), `connected` fields by one statement for all parents of a batch. Each statement
reads only the columns that are selected, and the rows that the viewer may see.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

from sqlalchemy import ARRAY, ColumnElement, Select, and_, func, null, select, true
from sqlalchemy.orm import aliased
from strawberry.dataloader import Batch, DataLoader, dispatch_batch

from db import Viewer, scope
from db.base import any_of
from db.parameters import bind, request_of_statements
from db.statements import Statement, Values, deferred
from graph.core.access import Access, refuse_while_holding
from graph.core.connections import Page, Window
from graph.core.declarations import Loads, LookAhead
from graph.core.entities import Entity, entity_of
from graph.core.filters import RANK
from graph.core.selections import ArgumentsShape, Operation, Selected


class PagedField(Protocol):
    """A field that returns a connection. Its arguments may be deferred."""

    @property
    def target(self) -> Entity:
        """The entity that it returns."""

    def window(self, arguments: Mapping[str, Any]) -> Window:
        """The page that is read."""

    def members(
        self, arguments: Mapping[str, Any], viewer: Viewer, row: Any
    ) -> list[ColumnElement[bool]]:
        """The conditions on a row, given as an alias, to be on any page for a viewer."""


class PageShape(NamedTuple):
    """What determines the statements of a connection, besides what is selected of its rows."""

    field: PagedField
    arguments: ArgumentsShape
    column: Any = None
    """The column that refers to the parent; None for a connection at the root."""


class ComputedField(Protocol):
    """A field with objects that a statement computes for a key. Its arguments may be deferred."""

    @property
    def by(self) -> Any:
        """The attribute that has the key; None if there is no key."""

    def found(
        self, viewer: Viewer, key: Any, arguments: Mapping[str, Any]
    ) -> tuple[Any, list[ColumnElement[Any]]]:
        """The objects for a key as a lateral subquery, and what they are sorted by."""


class ComputedShape(NamedTuple):
    """What determines the statement of a computed field."""

    field: ComputedField
    arguments: ArgumentsShape


@dataclass(frozen=True, eq=False)
class PageSource:
    """A connection, and the page of it that is read."""

    shape: PageShape
    arguments: Mapping[str, Any]
    """The coerced arguments."""
    window: Window
    key: Hashable
    """Connections with the same key share a loader."""
    needs_rows: bool
    """Whether the rows of the page are read; else they are only counted."""


class Loader(DataLoader[Any, Any]):
    """Strawberry's DataLoader; a batch begins after `ready` has returned."""

    def __init__(
        self,
        ready: Callable[[], Awaitable[None]],
        fetch: Callable[[list[Any]], Awaitable[Sequence[Any]]],
    ) -> None:
        super().__init__(load_fn=fetch)
        self._ready = ready
        self._waiting: Counter[asyncio.Future[Any]] = Counter()

    def load(self, key: Any) -> Awaitable[Any]:
        """The value of a key, which is fetched in one batch with the keys that follow."""
        value = self.cache_map.get(key)
        if value is None or value.cancelled():
            value = self.loop.create_future()
            self.cache_map.set(key, value)
            batch = self.batch
            # The task of a batch is cancelled once nobody awaits any of its values.
            if batch is None or batch.dispatched or all(t.future.cancelled() for t in batch.tasks):
                batch = self.batch = Batch()
                batch._dispatch_task = asyncio.create_task(self._dispatch(batch))
            batch.add_task(key, value)
        if value.done():
            return value
        # If one task is cancelled, others may still await the value.
        waiting = asyncio.shield(value)
        self._waiting[value] += 1
        waiting.add_done_callback(partial(self._done, value))
        return waiting

    def _done(self, value: asyncio.Future[Any], waiting: asyncio.Future[Any]) -> None:
        self._waiting[value] -= 1
        if not self._waiting[value]:
            del self._waiting[value]
            if waiting.cancelled():
                value.cancel()

    def cancel(self) -> None:
        """Cancel all that is awaited; batches whose values are all cancelled end."""
        for value in list(self._waiting):
            value.cancel()

    async def _dispatch(self, batch: Batch[Any, Any]) -> None:
        await asyncio.sleep(0)  # tasks that are ready may add keys
        await self._ready()
        await dispatch_batch(self, batch)


# The values of the statements below.
KEYS, ARGUMENTS = deferred("keys"), deferred("arguments")


@Statement
def _rows(viewer: Viewer, attribute: Any, order: Sequence[str], loads: Loads) -> Select[Any]:
    """The rows whose attribute has one of the keys."""
    model: Any = attribute.class_
    met = any_of(attribute, KEYS), scope(model, viewer, by_key=True)
    statement = select(model).where(*met)
    statement = statement.order_by(*(getattr(model, name) for name in order))
    return statement.options(*loads.options(model, viewer))


@Statement
def _pages(viewer: Viewer, shape: PageShape, loads: Loads) -> Select[Any]:
    """The rows of a page, and the key of their parent; a page for each of the keys."""
    field, column = shape.field, shape.column
    arguments = shape.arguments.deferred(ARGUMENTS.resolve)
    model, window = field.target.model, field.window(arguments)
    if column is None:
        page = select(model, null()).where(*field.members(arguments, viewer, model))
        statement = window.cut(page, model)
    else:
        # The first N rows of each parent, by a lateral join.
        row, keys = aliased(model), field.target.keys
        each = func.unnest(bind(KEYS, ARRAY(column.type)))
        parents = select(each.label("key")).subquery("parents")
        is_related = getattr(row, column.key) == parents.c.key
        page = select(*(getattr(row, key.key) for key in keys))
        page = page.where(*field.members(arguments, viewer, row), is_related)
        found = window.cut(page, row).lateral()
        statement = (
            select(model, parents.c.key)
            .select_from(parents)
            .join(found, true())
            .join(model, and_(*(key == found.c[key.key] for key in keys)))
            .order_by(*window.ordering(model))
        )
    return statement.options(*loads.options(model, viewer), *window.loads(model))


@Statement
def _counts(viewer: Viewer, shape: PageShape) -> Select[Any]:
    """How many rows there are on all pages, and the key of their parent, for each of the keys."""
    arguments = shape.arguments.deferred(ARGUMENTS.resolve)
    row = shape.field.target.model
    counted = select(func.count()).select_from(row)
    counted = counted.where(*shape.field.members(arguments, viewer, row))
    if shape.column is None:
        return counted.add_columns(null())
    column = getattr(row, shape.column.key)
    return counted.add_columns(column).where(any_of(column, KEYS)).group_by(column)


@Statement
def _computed(viewer: Viewer, shape: ComputedShape) -> Select[Any]:
    """The computed objects for each of the keys."""
    field = shape.field
    arguments = shape.arguments.deferred(ARGUMENTS.resolve)
    if field.by is None:
        found, order = field.found(viewer, None, arguments)
        return select(null(), *found.c).order_by(*order)
    each = func.unnest(bind(KEYS, ARRAY(field.by.type)))
    parents = select(each.label("key")).subquery("parents")
    found, order = field.found(viewer, parents.c.key, arguments)
    rows = select(parents.c.key, *found.c).select_from(parents.join(found, true()))
    return rows.order_by(*order)


class Loaders:
    """The DataLoaders of one operation."""

    def __init__(self, access: Access, operation: Operation) -> None:
        self.access = access
        self.operation = operation
        self._loaders: dict[Hashable, Loader] = {}
        self._holds: set[object] = set()
        self._released = asyncio.Event()

    @cached_property
    def look_ahead(self) -> LookAhead:
        """What the loaders have to load. The compiler does not need it."""
        return LookAhead(self.operation)

    def clear(self) -> None:
        """Drop all cached rows, because some have changed."""
        self.cancel()
        self._loaders.clear()

    def cancel(self) -> None:
        """Cancel what is still read. After an error, graphql-core lets sibling fields go on."""
        for loader in self._loaders.values():
            loader.cancel()

    def _load(
        self, key: Hashable, value: Any, fetch: Callable[[list[Any]], Awaitable[Sequence[Any]]]
    ) -> Awaitable[Any]:
        """The value from the loader with this key."""
        refuse_while_holding()
        loader = self._loaders.get(key)
        if loader is None:
            loader = self._loaders[key] = Loader(self._ready, fetch)
        return loader.load(value)

    def hold(self) -> Callable[[], None]:
        """Let no batch begin until the returned function is called; calling it again does nothing.

        So all that is loaded until then is one batch. What holds may pause, but not await a loader.
        """
        hold = object()
        self._holds.add(hold)
        self._released.clear()

        def release() -> None:
            self._holds.discard(hold)
            if not self._holds:
                self._released.set()

        return release

    async def _ready(self) -> None:
        while self._holds:  # a new hold may have begun since the last release
            await self._released.wait()

    def row(self, attribute: Any, value: Any, key: Hashable = None) -> Awaitable[Any]:
        """The row whose unique attribute has this value, or None."""
        key = attribute if key is None else key

        async def fetch(values: list[Any]) -> list[Any]:
            rows = await self._rows(attribute, values, key)
            return [next(iter(rows[value]), None) for value in values]

        return self._load(key, value, fetch)

    def rows(self, attribute: Any, value: Any, key: Hashable, most: int) -> Awaitable[Any]:
        """The first rows whose attribute has this value, in the order of the relation `key`."""

        async def fetch(values: list[Any]) -> list[Any]:
            rows = await self._rows(attribute, values, key)
            return [rows[value][:most] for value in values]

        return self._load(key, value, fetch)

    async def _rows(self, attribute: Any, values: list[Any], key: Any) -> dict[Any, list[Any]]:
        spec = self.look_ahead.of(key)
        spec.columns.add(attribute.key)
        columns = getattr(getattr(key, "property", None), "order_by", None) or ()
        order = tuple(column.key for column in columns)
        rows: dict[Any, list[Any]] = {value: [] for value in values}
        for (row,) in await self.read(_rows, attribute, order, spec.frozen(), keys=values):
            rows[getattr(row, attribute.key)].append(row)
        return rows

    async def read(self, statement: Statement, *options: Hashable, **values: Any) -> Sequence[Any]:
        """The rows of a statement, which is run at once."""
        viewer = self.access.viewer
        built = statement.built(viewer, *options)
        async with self.access.read() as session:
            with request_of_statements(Values(viewer, values)):
                return (await session.execute(built)).all()

    def page(self, source: PageSource, value: Any) -> Awaitable[Page] | Page:
        """The page for the parent with this value."""
        if not source.needs_rows:
            return Page(source.window, [], partial(self.count, source, value))

        async def fetch(values: list[Any]) -> list[Page]:
            pages = await self._pages(source, values)
            return [
                Page(source.window, pages.get(value, []), partial(self.count, source, value))
                for value in values
            ]

        return self._load(("page", source.key), value, fetch)

    async def _pages(self, source: PageSource, values: list[Any]) -> dict[Any, list[Any]]:
        spec = self.look_ahead.of(source.key)
        spec.columns |= {*source.window.names} - {RANK}
        options, arguments = (source.shape, spec.frozen()), source.arguments
        pages: dict[Any, list[Any]] = {}
        for row, value in await self.read(_pages, *options, keys=values, arguments=arguments):
            pages.setdefault(value, []).append(row)
        return pages

    def count(self, source: PageSource, value: Any) -> Awaitable[int]:
        """How many rows there are on all pages for the parent with this value."""

        async def fetch(values: list[Any]) -> list[int]:
            arguments = source.arguments
            found = await self.read(_counts, source.shape, keys=values, arguments=arguments)
            counts = {value: count for count, value in found}
            return [counts.get(value, 0) for value in values]

        return self._load(("count", source.key), value, fetch)

    def computed(
        self, shape: ComputedShape, arguments: Mapping[str, Any], key: Any, *, is_list: bool
    ) -> Awaitable[Any]:
        """What a statement computes for a key: a list of objects, or one object or None."""

        async def fetch(keys: list[Any]) -> list[Any]:
            found: dict[Any, list[Any]] = {key: [] for key in keys}
            for row in await self.read(_computed, shape, keys=keys, arguments=arguments):
                # Names such as `count` are methods of the row.
                found[row[0]].append(SimpleNamespace(**row._mapping))
            if is_list:
                return [found[key] for key in keys]
            return [next(iter(found[key]), None) for key in keys]

        return self._load(("computed", shape, repr(arguments)), key, fetch)

    def by_key(self, model: type, key: Any, children: Iterable[Selected]) -> Awaitable[Any]:
        """The row with this primary key, read for a field that has its own resolver."""
        attribute = entity_of(model).key
        children = list(children)
        # Each selection has its own loader, because it loads other columns.
        selection = (attribute, *map(id, children))
        self.look_ahead.of(selection).add(children)
        return self.row(attribute, key, selection)
