"""Reading rows: look-ahead chooses what one statement brings, loaders batch the rest.

`related` and `listed` fields come with their parent's statement (joinedload, selectinload);
`connected` ones with one statement for all parents that ask in the same moment. Every statement
reads only the columns that are selected and the rows that the viewer may see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Select, func, inspect, null, select, true
from sqlalchemy.orm import aliased, joinedload, load_only, selectinload
from strawberry.dataloader import Batch, DataLoader, dispatch_batch

from db import Viewer, scope
from db.base import any_of
from db.parameters import parameter
from db.scopes import is_always_visible
from graph.core.access import refuse_while_holding
from graph.core.connections import Page, Window
from graph.core.context import Context
from graph.core.entities import Declared, entity_of
from graph.core.selections import Operation, Selected
from graph.core.statements import KEYS, Given, Run, opened_arguments, opened_window, rows_of

# asyncpg binds at most 32,767 parameters; a chunk of this size is never reached by pages.
CHUNK = 30_000

# How many relations one statement follows from row to row.
MOST_JOINS = 6


@dataclass(eq=False)
class Loads:
    """What is read of the rows of a model: columns, and relations with what is read of theirs."""

    columns: set[str] = field(default_factory=set)
    relations: dict[str, Loads] = field(default_factory=dict)
    added: set[int] = field(default_factory=set)

    def below(self, relation: str) -> Loads:
        """What is read of a relation's rows."""
        return self.relations.setdefault(relation, Loads())

    def add(self, children: Iterable[Selected]) -> Loads:
        """Add what these selected fields need."""
        for child in children:
            # Once is enough: a fragment that is spread often would be walked on every way to it.
            if id(child) not in self.added and isinstance(child.declaration, Declared):
                self.added.add(id(child))
                child.declaration.demand(child, self)
        return self

    @property
    def shape(self) -> Hashable:
        """What two of these have in common if they read the same."""
        below = ((name, loads.shape) for name, loads in self.relations.items())
        return frozenset(self.columns), tuple(below)

    def names(self, model: Any) -> list[str] | None:
        """The columns to be selected of a model, where nothing but columns is read of it."""
        mapper = inspect(model).mapper
        if self.relations or mapper.polymorphic_on is not None:
            return None
        return sorted(self.columns | _key_of(mapper))

    def options(self, row: Any, viewer: Viewer) -> list[Any]:
        """The loader options for a statement that selects this model or alias of it."""
        if self.names(row) is not None:
            return []
        columns: dict[Any, set[str]] = {}
        self._gather(inspect(row).mapper, columns)
        return self._options(row, viewer, columns, 0)

    def _gather(self, mapper: Any, columns: dict[Any, set[str]]) -> None:
        """Which columns are read of each model, in whatever place.

        One row is one object in a session. A task that stands both above and below another is
        loaded as the upper place says, and must have what the lower place shows of it.
        """
        columns.setdefault(mapper, set()).update(self.columns)
        for name, below in self.relations.items():
            below._gather(mapper.relationships[name].mapper, columns)

    def _options(
        self, row: Any, viewer: Viewer, columns: dict[Any, set[str]], depth: int
    ) -> list[Any]:
        chosen = only(row, columns[inspect(row).mapper])
        for name, below in self.relations.items():
            relation = getattr(row, name)
            # What lies deeper than some joins is left to the loaders, but for what cannot be
            # missing: in the snapshot of another statement it may be gone.
            if depth >= MOST_JOINS and not is_always_visible(relation):
                continue
            target = relation.property.mapper.class_
            visible = relation.and_(scope(target, viewer))
            load = (
                selectinload(visible, chunksize=CHUNK)
                if relation.property.uselist
                else joinedload(visible)
            )
            chosen.append(load.options(*below._options(target, viewer, columns, depth + 1)))
        return chosen


@cache
def _key_of(mapper: Any) -> frozenset[str]:
    return frozenset(mapper.get_property_by_column(column).key for column in mapper.primary_key)


def _selected(row: Any, names: list[str] | None) -> list[Any]:
    """What is selected of a model or an alias of it: these columns, or what its options say."""
    return [row] if names is None else [getattr(row, name) for name in names]


def _instances(model: Any, names: list[str] | None, found: Iterable[Any]) -> list[Any]:
    """Instances of a model for what was selected of it, which comes first in each row.

    SQLAlchemy keeps account of each column that an instance lacks, which takes longer than all the
    rest. Where no relation is read these belong to no session, and only have what was selected;
    to read anything else raises an error.
    """
    if names is None:
        return [row[0] for row in found]
    instances = []
    for row in found:
        instance = model.__new__(model)
        instance.__dict__.update(zip(names, row, strict=False))
        instances.append(instance)
    return instances


def only(row: Any, names: Iterable[str]) -> list[Any]:
    """The loader options for these columns, and the key, of a model or an alias of it.

    A column that is not loaded raises when it is read: nothing is fetched behind our back.
    """
    mapper = inspect(row).mapper
    keys = _key_of(mapper)
    chosen = []
    for kind in mapper.self_and_descendants:
        # The columns that only a subtype has are asked of the subtype.
        inherited = set() if kind is mapper else set(mapper.attrs.keys())
        own = sorted(({*keys, *names} & set(kind.attrs.keys())) - inherited)
        part = row if kind is mapper else getattr(row, kind.class_.__name__, kind.class_)
        if own:
            chosen.append(load_only(*(getattr(part, name) for name in own), raiseload=True))
    return chosen


class Demands:
    """What an operation needs of whatever a loader brings, from all the places that select it.

    The keys are the loaders': an attribute that rows are looked up by, or a relation with its
    arguments. So one statement serves them all.
    """

    def __init__(self, operation: Operation) -> None:
        self._loads: dict[Hashable, Loads] = {}
        seen: set[int] = set()
        pending = list(operation.roots)
        while pending:
            selected = pending.pop()
            if id(selected) not in seen:
                seen.add(id(selected))
                if isinstance(selected.declaration, Declared):
                    selected.declaration.register(selected, self)
                for children in selected.children.values():
                    pending += children

    def of(self, key: Hashable) -> Loads:
        """What is needed of the rows that the loader with this key brings."""
        return self._loads.setdefault(key, Loads())


def freeze(value: Any) -> Hashable:
    """A value of GraphQL as something that can be part of a key.

    With its type: Python takes 1 and True for equal, and an empty list would be an empty object.
    """
    if isinstance(value, dict):
        return (dict, *((name, freeze(item)) for name, item in value.items()))
    if isinstance(value, list):
        return (list, *map(freeze, value))
    return (type(value), value)


@dataclass(frozen=True, eq=False)
class Listing:
    """The rows that a connection pages through, and which page of them."""

    window: Window
    members: Callable[[Mapping[str, Any], Viewer, Any], list[ColumnElement[bool]]]
    """The conditions under which a row is on one of the pages: of arguments, viewer and alias."""
    arguments: Mapping[str, Any]
    source: str
    """Where the rows come from: a relation, a model or a search."""
    key: Hashable
    """The source with the arguments."""
    is_read: bool
    """Whether anything of the rows is shown; else they are only counted."""
    attribute: Any = None
    """What of a row says whose it is; at the root the rows are nobody's."""


class Loader(DataLoader[Any, Any]):
    """Strawberry's DataLoader; `let` decides when a batch begins, and may hold it back."""

    def __init__(
        self,
        let: Callable[[Callable[[], None]], None],
        fetch: Callable[[list[Any]], Awaitable[Sequence[Any]]],
    ) -> None:
        super().__init__(load_fn=fetch)
        self._let = let

    def load(self, key: Any) -> Awaitable[Any]:
        """The value of a key, which is fetched with others that are asked for meanwhile."""
        future = self.cache_map.get(key)
        if future is not None and not future.cancelled():
            return future
        loading = self.loop.create_future()
        self.cache_map.set(key, loading)
        batch = self.batch
        if batch is None or batch.dispatched:
            batch = self.batch = Batch()
            self._let(partial(self._begin, batch))
        batch.add_task(key, loading)
        return loading

    def _begin(self, batch: Batch[Any, Any]) -> None:
        batch._dispatch_task = asyncio.create_task(dispatch_batch(self, batch))


class Loaders:
    """The batches of one operation."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._loaders: dict[Hashable, DataLoader[Any, Any]] = {}
        self._holders = 0
        self._held: list[Callable[[], None]] = []

    @cached_property
    def demands(self) -> Demands:
        """What the operation needs; the planner does without."""
        return Demands(self.context.operation)

    def clear(self) -> None:
        """Forget the rows that were read, because some have changed."""
        self._loaders.clear()

    def _load(
        self, key: Hashable, value: Any, fetch: Callable[[list[Any]], Awaitable[Sequence[Any]]]
    ) -> Awaitable[Any]:
        """Ask for a value; whoever asks with the same key before the next statement shares it."""
        refuse_while_holding()
        loader = self._loaders.get(key)
        if loader is None:
            loader = self._loaders[key] = Loader(self.begin, fetch)
        return loader.load(value)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside the block no loader begins, so that what is asked for there is one batch.

        The block may let others have turns; it must not wait for a loader.
        """
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                held, self._held = self._held, []
                for begin in held:
                    begin()

    def begin(self, begin: Callable[[], None]) -> None:
        """Have a batch begin when what is happening now is over."""
        if self._holders:
            self._held.append(begin)
        else:
            asyncio.get_running_loop().call_soon(begin)

    def row(self, attribute: Any, value: Any, key: Hashable = None) -> Awaitable[Any]:
        """The row whose unique attribute has this value, or none."""
        key = attribute if key is None else key

        async def fetch(values: list[Any]) -> list[Any]:
            found = await self._rows(attribute, values, key)
            rows = {getattr(row, attribute.key): row for row in found}
            return [rows.get(value) for value in values]

        return self._load(key, value, fetch)

    def rows(self, attribute: Any, value: Any, key: Hashable, most: int) -> Awaitable[Any]:
        """The first rows whose attribute has this value, in the order of the relation `key`."""

        async def fetch(values: list[Any]) -> list[Any]:
            groups: dict[Any, list[Any]] = {value: [] for value in values}
            for row in await self._rows(attribute, values, key):
                groups[getattr(row, attribute.key)].append(row)
            return [groups[value][:most] for value in values]

        return self._load(key, value, fetch)

    async def _rows(self, attribute: Any, values: list[Any], key: Any) -> Sequence[Any]:
        loads = self.demands.of(key)
        loads.columns.add(attribute.key)
        order = getattr(getattr(key, "property", None), "order_by", None) or ()
        model: Any = attribute.class_
        columns = loads.names(model)

        def build(viewer: Viewer) -> Select[Any]:
            row = aliased(model)
            met = any_of(getattr(row, attribute.key), KEYS), scope(row, viewer)
            statement = select(*_selected(row, columns)).where(*met)
            statement = statement.order_by(*(getattr(row, column.key) for column in order))
            return statement.options(*loads.options(row, viewer))

        names = str(attribute), *(column.key for column in order)
        run = self._run(columns)
        found = await rows_of(run, (names, loads.shape), build, Given(self.context.viewer, values))
        return _instances(model, columns, found)

    def _run(self, columns: list[str] | None) -> Run:
        """What runs a statement that selects these columns, or what its options say."""
        return self.context.instances if columns is None else self.context.rows

    def page(self, asked: Listing, value: Any) -> Awaitable[Page] | Page:
        """The page for the parent with this value."""
        if not asked.is_read:
            return Page(asked.window, [], partial(self.count, asked, value))

        async def fetch(values: list[Any]) -> list[Page]:
            pages = await self._pages(asked, values)
            return [
                Page(asked.window, pages.get(value, []), partial(self.count, asked, value))
                for value in values
            ]

        return self._load(("page", asked.key), value, fetch)

    async def _pages(self, asked: Listing, values: list[Any]) -> dict[Any, list[Any]]:
        model, attribute = asked.window.entity.model, asked.attribute
        loads = self.demands.of(asked.key)
        loads.columns |= {column.key for column in asked.window.columns(model)}
        columns = loads.names(model)
        page, window = opened_window(asked.window)
        chosen, arguments = opened_arguments(asked.arguments)

        def build(viewer: Viewer) -> Select[Any]:
            row = aliased(model)
            members = asked.members(arguments, viewer, row)
            page = window.cut(select(*_selected(row, columns)).where(*members), row)
            if attribute is None:
                return page.add_columns(null()).options(*loads.options(row, viewer))
            # The first N for each parent: the page's statement, once for each key of a list.
            keys = func.unnest(parameter(KEYS, ARRAY(attribute.type)))
            parents = select(keys.label("key")).subquery("parents")
            lateral = page.where(getattr(row, attribute.key) == parents.c.key).lateral()
            member = aliased(model, lateral)
            return (
                select(*_selected(member, columns), parents.c.key)
                .join_from(parents, member, true())
                .order_by(*window.ordering(member))
                .options(*loads.options(member, viewer))
            )

        key = ("page", asked.source, page, chosen, loads.shape)
        request = Given(self.context.viewer, values, asked.arguments, asked.window)
        pages: dict[Any, list[Any]] = {}
        found = await rows_of(self._run(columns), key, build, request)
        for instance, row in zip(_instances(model, columns, found), found, strict=True):
            pages.setdefault(row[-1], []).append(instance)
        return pages

    def count(self, asked: Listing, value: Any) -> Awaitable[int]:
        """How many rows there are on all pages for the parent with this value."""

        async def fetch(values: list[Any]) -> list[int]:
            model, attribute = asked.window.entity.model, asked.attribute
            chosen, arguments = opened_arguments(asked.arguments)

            def build(viewer: Viewer) -> Select[Any]:
                row = aliased(model)
                counted = select(func.count()).select_from(row)
                counted = counted.where(*asked.members(arguments, viewer, row))
                if attribute is None:
                    return counted.add_columns(null())
                column = getattr(row, attribute.key)
                return counted.add_columns(column).where(any_of(column, KEYS)).group_by(column)

            request = Given(self.context.viewer, values, asked.arguments)
            key = ("count", asked.source, chosen)
            found = await rows_of(self.context.rows, key, build, request)
            counts = {value: count for count, value in found}
            return [counts.get(value, 0) for value in values]

        return self._load(("count", asked.key), value, fetch)

    def shown(self, model: type, key: Any, children: Iterable[Selected]) -> Awaitable[Any]:
        """The row with this primary key, read for a field that has a resolver of its own."""
        attribute = entity_of(model).key
        children = list(children)
        # A loader for each selection: a row that was read before for another lacks its columns.
        selection = (attribute, *map(id, children))
        self.demands.of(selection).add(children)
        return self.row(attribute, key, selection)
