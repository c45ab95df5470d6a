"""The resolvers' statements: built once, and run with the values of each request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Select
from sqlalchemy.orm.exc import UnmappedInstanceError

import db
from graph.core import loaders, statements
from tests import factories
from tests.conftest import People
from tests.factories import gid

# Every way in which rows are read: a lookup, pages of all and of parents, counts, what is joined
# (project, dependency) and the pages below it (dependencies).
READING = """query($id: ID!, $first: Int!, $after: String, $status: TaskStatus!, $ids: [ID!]!) {
  project(id: $id) { name agents(first: $first) { totalCount nodes { name } } }
  tasks(first: $first, after: $after, where: {status: {eq: $status}, projectId: {in: $ids}}) {
    totalCount
    edges { cursor node { title project { name } dependencies { nodes { dependency { title } } } } }
  }
}"""


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The keys of the statements that are built, none being there before."""
    keys: list[Any] = []

    class Noted(dict[Any, Select[Any]]):
        def put(self, key: Any, statement: Select[Any]) -> None:
            keys.append(key)
            self[key] = statement

    monkeypatch.setattr(statements, "_statements", Noted())
    return keys


async def test_a_statement_is_built_once_and_run_with_each_requests_values(
    database: db.Database, people: People, resolvers: People, built: list[Any]
) -> None:
    async with database.write(db.Viewer()) as session:
        mine = await factories.make_plan(session, people.users["owner"], agents=2)
        theirs = await factories.make_plan(session, people.users["stranger"], agents=3)
    both = [gid(mine.project), gid(theirs.project)]
    asked = {"first": 2, "after": None, "status": "PENDING", "ids": both}

    async def ask(who: str, plan: factories.Plan, **values: Any) -> Any:
        variables = asked | {"id": gid(plan.project)} | values
        return (await getattr(resolvers, who).ask(READING, **variables)).data

    first = await ask("owner", mine)
    assert len(built) == 6
    # Who sees what is decided anew, in whatever place, although nothing is built anew.
    assert first["project"]["agents"]["totalCount"] == 2
    assert first["tasks"]["totalCount"] == 3
    assert [edge["node"] for edge in first["tasks"]["edges"]] == [
        {"title": "Task 0", "project": {"name": "Project 0"}, "dependencies": {"nodes": []}},
        {
            "title": "Task 1",
            "project": {"name": "Project 0"},
            "dependencies": {"nodes": [{"dependency": {"title": "Task 0"}}]},
        },
    ]
    assert (await ask("owner", theirs))["project"] is None
    other = await ask("stranger", theirs, first=1)
    assert other["project"]["agents"] == {"totalCount": 3, "nodes": [{"name": "Agent 0"}]}
    assert len(other["tasks"]["edges"]) == 1
    assert await ask("stranger", mine) == {
        "project": None,
        "tasks": (await ask("stranger", theirs))["tasks"],
    }
    # Other values of a filter, and their faults, which are the sender's.
    assert (await ask("owner", mine, status="FAILED"))["tasks"] == {"totalCount": 0, "edges": []}
    assert (await ask("owner", mine, ids=[]))["tasks"] == {"totalCount": 0, "edges": []}
    wrong = asked | {"id": gid(mine.project), "ids": ["nonsense"]}
    answer = await resolvers.owner.ask(READING, **wrong)
    assert {error["extensions"]["code"] for error in answer.errors} == {"BAD_USER_INPUT"}
    assert len(built) == 6

    # Another shape is another statement: of the page, which starts at a cursor, but of no count.
    after = first["tasks"]["edges"][0]["cursor"]
    rest = await ask("owner", mine, after=after)
    assert [edge["node"]["title"] for edge in rest["tasks"]["edges"]] == ["Task 1", "Task 2"]
    assert len(built) == 7
    # So is one for another kind of viewer, whom no wall is in the way of.
    everything = await ask("admin", theirs, first=100)
    assert everything["tasks"]["totalCount"] == 6
    assert len(built) == 13


async def test_many_at_once_share_statements_and_nothing_else(
    database: db.Database, people: People, resolvers: People
) -> None:
    plans = {}
    async with database.write(db.Viewer()) as session:
        for place, who in enumerate(("owner", "stranger"), 2):
            plans[who] = await factories.make_plan(session, people.users[who], agents=place)
    query = "query($id: ID!) { project(id: $id) { id agents { totalCount } } me { username } }"

    async def ask(clients: People, who: str, whose: str) -> None:
        answer = await getattr(clients, who).ask(query, id=gid(plans[whose].project))
        agents = {"totalCount": len(plans[whose].agents)}
        project = {"id": gid(plans[whose].project), "agents": agents} if who == whose else None
        assert answer.data == {"project": project, "me": {"username": who}}

    every = [(who, whose) for who in plans for whose in plans]
    for clients in (resolvers, people):
        await asyncio.gather(*(ask(clients, *pair) for _ in range(15) for pair in every))


def test_what_is_not_selected_raises_when_it_is_read() -> None:
    id = db.new_id()
    (row,) = loaders._instances(db.Project, ["id", "name"], [(id, "Moon base")])

    assert isinstance(row, db.Project)
    assert (row.id, row.name) == (id, "Moon base")
    with pytest.raises(UnmappedInstanceError):
        _ = row.status
