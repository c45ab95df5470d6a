"""Connections: walked in every order, either way, at any pace, they show everything once."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

import db
from graph.connections import encode_cursor, window
from graph.entities import entities, entity_of
from graph.errors import BadInput
from graph.filters import Order
from graph.projects import ProjectOrder
from graph.relations import Collection, Connected
from graph.schema import schema
from graph.selections import BACKREF
from tests import factories
from tests.client import Client
from tests.conftest import People
from tests.factories import gid, minutes

PAGE = "nodes { id } edges { cursor node { id } } pageInfo { %s } totalCount" % " ".join(
    ("hasNextPage", "hasPreviousPage", "startCursor", "endCursor")
)


@dataclass
class Walk:
    """A connection that is walked from one end to the other."""

    parent: str
    """The lookup that it stands below, if it is not at the root."""
    name: str
    order: str
    ids: list[str]
    """What there is, in order."""
    seen: list[str] = field(default_factory=list)
    cursor: str | None = None
    is_over: bool = False

    def field(self, alias: str, size: int, forward: bool) -> str:
        """The selection of the next page."""
        arguments = f"orderBy: {self.order}, {'first' if forward else 'last'}: {size}"
        if self.cursor is not None:
            arguments += f', {"after" if forward else "before"}: "{self.cursor}"'
        page = f"{self.name}({arguments}) {{ {PAGE} }}"
        return f"{alias}: {self.parent} {{ page: {page} }}" if self.parent else f"{alias}: {page}"

    def take(self, found: Any, size: int, forward: bool) -> None:
        """Look closely at a page, and go on to where it ends."""
        page = found["page"] if self.parent else found
        ids = [node["id"] for node in page["nodes"]]
        self.seen = self.seen + ids if forward else ids + self.seen
        left = len(self.ids) - len(self.seen)
        began = self.cursor is not None

        assert len(ids) == min(size, left + len(ids))
        assert page["totalCount"] == len(self.ids)
        assert [edge["node"]["id"] for edge in page["edges"]] == ids
        assert page["pageInfo"] == {
            "hasNextPage": left > 0 if forward else began,
            "hasPreviousPage": began if forward else left > 0,
            "startCursor": page["edges"][0]["cursor"],
            "endCursor": page["edges"][-1]["cursor"],
        }
        self.cursor = page["pageInfo"]["endCursor" if forward else "startCursor"]
        self.is_over = not page["pageInfo"]["hasNextPage" if forward else "hasPreviousPage"]


async def rows_of(database: db.Database, model: Any) -> list[Any]:
    """All rows of a model."""
    async with database.read() as session:
        return list((await session.scalars(select(model))).all())


def in_order(rows: list[Any], order: Order, key: str) -> list[str]:
    """The ids of rows, sorted by Python."""
    ordered = sorted(
        rows,
        key=lambda row: (getattr(row, order.attribute), getattr(row, key)),
        reverse=order.descending,
    )
    return [gid(row) for row in ordered]


def declared(type_name: str, kind: type) -> list[tuple[str, Any]]:
    """The fields of a type that are declared as of this kind, by their names."""
    fields: dict[str, Any] = schema._schema.type_map[type_name].fields  # type: ignore[union-attr]
    found = [(name, field.extensions[BACKREF]) for name, field in fields.items()]
    return [(name, declaration) for name, declaration in found if isinstance(declaration, kind)]


async def root_walks(database: db.Database) -> list[Walk]:
    """A walk for each connection of the root and each of its orders."""
    walks = []
    for name, collection in declared("Query", Collection):
        rows = await rows_of(database, collection.model)
        key = collection.target.key.key
        for order in collection.target.order:
            assert len({getattr(row, order.attribute) for row in rows}) > 1
            walks.append(Walk("", name, order.name, in_order(rows, order, key)))
    return walks


async def nested_walks(database: db.Database) -> list[Walk]:
    """A walk for each connection of a type and each of its orders, where there is most to see."""
    walks = []
    lookups = {lookup.target.name: name for name, lookup in declared("Query", Collection)}
    for entity in entities():
        for name, connected in declared(entity.name, Connected):
            rows = await rows_of(database, connected.target.model)
            there = connected.pair[1].key
            keys = [getattr(row, there) for row in rows if getattr(row, there) is not None]
            key = max(sorted(set(keys)), key=keys.count)
            of_key = [row for row in rows if getattr(row, there) == key]
            assert len(of_key) > 2, (entity.name, name)
            lookup = lookups[entity.name].removesuffix("s")
            for order in connected.target.order:
                ids = in_order(of_key, order, connected.target.key.key)
                walks.append(Walk(f'{lookup}(id: "{key}")', name, order.name, ids))
    return walks


async def walk(client: Client, walks: list[Walk], size: int, forward: bool) -> None:
    """Go to the end of all, side by side, and see that all was seen."""
    while going := [walk for walk in walks if not walk.is_over]:
        fields = [walk.field(f"w{place}", size, forward) for place, walk in enumerate(going)]
        data = (await client.ask(f"{{ {' '.join(fields)} }}")).data
        for place, step in enumerate(going):
            step.take(data[f"w{place}"], size, forward)
    for done in walks:
        assert done.seen == done.ids, (done.parent, done.name, done.order)


@pytest.mark.parametrize("planner", [True, False])
@pytest.mark.parametrize("forward", [True, False])
async def test_every_connection_shows_everything_once_and_in_order(
    database: db.Database, people: People, resolvers: People, planner: bool, forward: bool
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_world(session, people.users)
    client = (people if planner else resolvers).admin

    # To save time, not every order is walked at every pace, and each relation one way only by the
    # planner, the other by the resolvers.
    await walk(client, await root_walks(database), 3, forward)
    for third, size in enumerate((1, 7, 100)):
        await walk(client, (await root_walks(database))[third::3], size, forward)
    half = int(planner == forward)
    await walk(client, (await nested_walks(database))[half::2], 2, forward)
