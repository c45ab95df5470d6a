"""Connections: walked in every order, either way, at any pace, they show everything once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, inspect, select
from strawberry.utils.str_converters import to_camel_case

import db
from graph.core.connections import encode_cursor
from graph.core.entities import entities
from graph.core.fields import Connected
from graph.core.filters import Order
from graph.core.scalars import global_id
from graph.projects import ProjectOrder
from tests import factories
from tests.client import Client
from tests.conftest import People
from tests.factories import gid, minutes
from tests.operations import collections, declared, lookup_of

PAGE = """
  nodes { SHOWN } edges { cursor node { SHOWN } }
  pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  totalCount
"""


def key_relations(model: Any) -> list[Any]:
    """Of an association, what its key leads to."""
    relations = inspect(model).relationships
    return [relation for relation in relations if relation.uselist is False]


def shown_of(model: Any) -> str:
    """The selection that tells one row from another."""
    if hasattr(model, "id"):
        return "id"
    return " ".join(f"{to_camel_case(relation.key)} {{ id }}" for relation in key_relations(model))


def identity_of(row: Any) -> str:
    """What tells a row from others, as `told_apart` reads it from an answer."""
    if hasattr(row, "id"):
        return gid(row)
    ids = []
    for relation in key_relations(type(row)):
        ((local, _),) = relation.local_remote_pairs
        ids.append(global_id(relation.mapper.class_.__name__, getattr(row, local.key)))
    return "/".join(ids)


def told_apart(node: dict[str, Any]) -> str:
    """What tells a node from others."""
    return str(node["id"]) if "id" in node else "/".join(end["id"] for end in node.values())


@dataclass
class Walk:
    """A connection that is walked from one end to the other."""

    parent: str
    """The lookup that it stands below, if it is not at the root."""
    name: str
    order: str | None
    """None where the key is the only order."""
    ids: list[str]
    """What there is, in order."""
    seen: list[str] = field(default_factory=list)
    cursor: str | None = None
    is_over: bool = False
    shown: str = "id"

    def field(self, alias: str, size: int, forward: bool) -> str:
        """The selection of the next page."""
        arguments = f"{'first' if forward else 'last'}: {size}"
        if self.order is not None:
            arguments += f", orderBy: {self.order}"
        if self.cursor is not None:
            arguments += f', {"after" if forward else "before"}: "{self.cursor}"'
        page = f"{self.name}({arguments}) {{ {PAGE.replace('SHOWN', self.shown)} }}"
        return f"{alias}: {self.parent} {{ page: {page} }}" if self.parent else f"{alias}: {page}"

    def take(self, found: Any, size: int, forward: bool) -> None:
        """Look closely at a page, and go on to where it ends."""
        page = found["page"] if self.parent else found
        ids = [told_apart(node) for node in page["nodes"]]
        self.seen = self.seen + ids if forward else ids + self.seen
        left = len(self.ids) - len(self.seen)
        began = self.cursor is not None

        assert len(ids) == min(size, left + len(ids))
        assert page["totalCount"] == len(self.ids)
        assert [told_apart(edge["node"]) for edge in page["edges"]] == ids
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


def in_order(rows: list[Any], order: Order | None, *keys: str) -> list[str]:
    """What tells rows apart, sorted by Python."""
    names = keys if order is None else (order.attribute, *keys)
    if order is not None:  # a partial order shows only the rows that have a value
        rows = [row for row in rows if getattr(row, order.attribute) is not None]
    ordered = sorted(
        rows,
        key=lambda row: [getattr(row, name) for name in names],
        reverse=order is not None and order.descending,
    )
    return [identity_of(row) for row in ordered]


async def root_walks(database: db.Database) -> list[Walk]:
    """A walk for each connection of the root and each of its orders."""
    walks = []
    for name, collection in collections():
        rows = await rows_of(database, collection.model)
        key = collection.target.key.key
        for order in collection.target.order:
            assert len({getattr(row, order.attribute) for row in rows}) > 1
            walks.append(Walk("", name, order.name, in_order(rows, order, key)))
    return walks


async def nested_walks(database: db.Database) -> list[Walk]:
    """A walk for each connection of a type and each of its orders, where there is most to see."""
    walks = []
    for entity in entities():
        for name, connected in declared(entity.name, Connected):
            rows = await rows_of(database, connected.target.model)
            there = connected.keys[1].key
            keys = [getattr(row, there) for row in rows if getattr(row, there) is not None]
            key = max(sorted(set(keys)), key=keys.count)
            of_key = [row for row in rows if getattr(row, there) == key]
            assert len(of_key) > 2, (entity.name, name)
            lookup = lookup_of(entity.name)
            target = connected.target
            for order in target.order or [None]:
                ids = in_order(of_key, order, *(key.key for key in target.keys))
                of = Walk(f'{lookup}(id: "{key}")', name, order and order.name, ids)
                of.shown = shown_of(target.model)
                walks.append(of)
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


@pytest.mark.parametrize("forward", [True, False])
async def test_every_connection_shows_everything_once_and_in_order(
    database: db.Database, people: People, resolvers: People, forward: bool
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_world(session, people.users)

    # To save time, not every order is walked at every pace, and each order of a relation one way
    # only; and the compiler, which answers alike, walks fewer of them.
    await walk(resolvers.admin, await root_walks(database), 3, forward)
    for third, size in enumerate((1, 7, 100)):
        await walk(resolvers.admin, (await root_walks(database))[third::3], size, forward)
    await walk(resolvers.admin, (await nested_walks(database))[int(forward) :: 2], 2, forward)
    await walk(people.admin, (await root_walks(database))[int(forward) :: 2], 4, forward)
    await walk(people.admin, (await nested_walks(database))[2 * int(forward) :: 7], 2, forward)


@pytest.mark.parametrize("order", ["NAME_ASC", "NAME_DESC", "CREATED_AT_ASC", "CREATED_AT_DESC"])
@pytest.mark.parametrize("forward", [True, False])
async def test_rows_added_on_the_way_neither_repeat_nor_hide_others(
    database: db.Database, people: People, order: str, forward: bool
) -> None:
    async with database.write(db.Viewer()) as session:
        for place in range(9):
            await factories.make_project(
                session, people.users["owner"], "bdf"[place % 3], created_at=minutes(place // 2)
            )
    rows = await rows_of(database, db.Project)
    step = Walk("", "projects", order, in_order(rows, ProjectOrder[order], "id"))
    seen: list[str] = []

    while not step.is_over:
        answer = await people.owner.ask(f"{{ {step.field('page', 2, forward)} }}")
        page = answer.data["page"]
        ids = [node["id"] for node in page["nodes"]]
        seen = seen + ids if forward else ids + seen
        step.cursor = page["pageInfo"]["endCursor" if forward else "startCursor"]
        step.is_over = not page["pageInfo"]["hasNextPage" if forward else "hasPreviousPage"]
        if len(seen) < 20:
            async with database.write(db.Viewer()) as session:
                for name, minute in (("a", -1), ("d", 2), ("z", 99)):
                    owner = people.users["owner"]
                    await factories.make_project(session, owner, name, created_at=minutes(minute))

    assert [id for id in seen if id in step.ids] == step.ids
    assert len(set(seen)) == len(seen) > len(step.ids)
    after = in_order(await rows_of(database, db.Project), ProjectOrder[order], "id")
    assert [id for id in after if id in seen] == seen


async def project_page(client: Client, arguments: str) -> tuple[list[str], list[bool]]:
    """The names of a page of projects, and whether there are more before and after it."""
    answer = await client.ask(
        f"{{ projects({arguments}) {{ nodes {{ name }}"
        " pageInfo { hasPreviousPage hasNextPage } } }"
    )
    page = answer.data["projects"]
    return [node["name"] for node in page["nodes"]], list(page["pageInfo"].values())


@pytest.mark.parametrize("compiler", [True, False])
async def test_a_page_lies_between_its_cursors(
    database: db.Database, people: People, resolvers: People, compiler: bool
) -> None:
    client = (people if compiler else resolvers).owner
    async with database.write(db.Viewer()) as session:
        rows = [
            await factories.make_project(session, people.users["owner"], name) for name in "abcde"
        ]
    cursors = [encode_cursor(ProjectOrder.NAME_ASC, row.id, row.name) for row in rows]
    a, b, e = cursors[0], cursors[1], cursors[4]

    between = f'orderBy: NAME_ASC, after: "{a}", before: "{e}"'
    assert await project_page(client, between) == (["b", "c", "d"], [True, False])
    assert await project_page(client, f"{between}, first: 2") == (["b", "c"], [True, True])
    assert await project_page(client, f"{between}, last: 2") == (["c", "d"], [True, True])
    assert await project_page(client, f"{between}, last: 3") == (["b", "c", "d"], [False, True])
    assert await project_page(client, f"{between}, first: 0") == ([], [True, True])
    assert await project_page(client, f"{between}, last: 0") == ([], [True, True])
    crossed = f'orderBy: NAME_ASC, after: "{e}", before: "{b}"'
    assert await project_page(client, crossed) == ([], [True, False])
    assert await project_page(client, "orderBy: NAME_ASC") == (list("abcde"), [False, False])
    assert await project_page(client, "first: null, last: null, after: null") == (
        list("abcde"),
        [False, False],
    )


async def test_a_cursor_still_works_when_its_row_is_gone(
    database: db.Database, people: People
) -> None:
    async with database.write(db.Viewer()) as session:
        for name in "abc":
            await factories.make_project(session, people.users["owner"], name)
    answer = await people.owner.ask(
        "{ projects(orderBy: NAME_ASC, first: 2) { pageInfo { endCursor } } }"
    )
    async with database.write(db.Viewer()) as session:
        await session.execute(delete(db.Project).where(db.Project.name == "b"))

    cursor = answer.data["projects"]["pageInfo"]["endCursor"]

    assert await project_page(people.owner, f'orderBy: NAME_ASC, after: "{cursor}"') == (
        ["c"],
        [True, False],
    )


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    names=st.lists(TEXT | st.sampled_from(["", "a", "A", "ä", "\n", "%"]), min_size=1, max_size=9),
    size=st.integers(1, 4),
    descending=st.booleans(),
    forward=st.booleans(),
)
async def test_the_pages_together_are_everything_whatever_the_names(
    database: db.Database,
    people: People,
    names: list[str],
    size: int,
    descending: bool,
    forward: bool,
) -> None:
    async with database.write(db.Viewer()) as session:
        await session.execute(delete(db.Project))
        session.add_all(db.Project(name=name) for name in names)
    order = ProjectOrder["NAME_DESC" if descending else "NAME_ASC"]
    ids = in_order(await rows_of(database, db.Project), order, "id")

    await walk(people.admin, [Walk("", "projects", order.name, ids)], size, forward)
