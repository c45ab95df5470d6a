"""Rows that are shown without resolvers: as graphql-core would show them, errors included."""

from __future__ import annotations

from typing import Any

import pytest

import db
from graph.core import loaders
from graph.core.entities import Shown
from graph.execution import executor as rows
from tests import factories
from tests.conftest import People

READING = """{
  projects { nodes { z: version __typename name tasks(first: 1) { nodes { title } } id } }
  tasks(first: 1) { edges { cursor node { status agent { name } } } pageInfo { hasNextPage } }
}"""


async def test_what_is_shown_of_rows_takes_no_resolver_and_keeps_its_order(
    database: db.Database, people: People, resolvers: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_plan(session, people.users["owner"])
    planned = await people.owner.ask(READING)

    def resolve(*_: Any) -> Any:
        raise AssertionError("a resolver was called")

    for kind in (Shown, *Shown.__subclasses__()):
        monkeypatch.setattr(kind, "get_result", resolve)
    project = (await resolvers.owner.ask("{ projects { nodes { id z: version name } } }")).text
    assert '"nodes":[{"id":' in project
    assert ',"z":1,"name":"Project 0"}' in project
    tasks = (await resolvers.owner.ask(f"{{ {READING.splitlines()[2]} }}")).text
    assert tasks[len('{"data":{') :] in planned.text

    monkeypatch.undo()
    assert (await resolvers.owner.ask(READING)).text == planned.text


@pytest.mark.parametrize(
    ("field", "value", "message", "code"),
    [
        ("name", None, "Something went wrong on our side", "FAULT"),
        ("status", "OLD", "Enum 'ProjectStatus' cannot represent value: 'OLD'", "BAD_USER_INPUT"),
    ],
)
async def test_what_is_unusual_is_told_at_its_place(
    database: db.Database,
    people: People,
    resolvers: People,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    value: Any,
    message: str,
    code: str,
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_plan(session, people.users["owner"], projects=2)
    made = loaders._instances

    def spoiled(*found: Any) -> Any:
        instances = made(*found)
        instances[1].__dict__[field] = value
        return instances

    monkeypatch.setattr(loaders, "_instances", spoiled)
    answer = await resolvers.owner.ask(f"{{ projects {{ nodes {{ id {field} }} }} }}")

    (error,) = answer.errors
    assert answer.body["data"] is None
    assert error["path"] == ["projects", "nodes", 1, field]
    assert error["message"].startswith(message)
    assert error["extensions"]["code"] == code


FAILING = [
    "{ projects { totalCount nodes { name tasks(first: 1000) { nodes { title } } } } }",
    '{ tasks { nodes { project { tasks(after: "x") { totalCount nodes { title } } } } } }',
    '{ a: projects { nodes { name agents { nodes { name tasks(after: "x") { totalCount } } } } }'
    " b: tasks { nodes { title agent { name } project { __typename agents { totalCount } } } } }",
    '{ project(id: "x") { name } projects { nodes { name } } }',
]


@pytest.mark.parametrize("query", FAILING)
async def test_what_loaders_refuse_is_told_at_its_place_and_asked_once(
    database: db.Database,
    people: People,
    resolvers: People,
    monkeypatch: pytest.MonkeyPatch,
    query: str,
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_plan(session, people.users["owner"], projects=2)

    answer = await resolvers.owner.ask(query)

    monkeypatch.setattr(rows.RowsExecutor, "_shows", lambda *_: False)
    by_core = await resolvers.owner.ask(query)
    assert answer.text == by_core.text
    assert answer.errors[0]["extensions"]["code"] == "BAD_USER_INPUT"
    assert len(set(answer.statements)) == len(answer.statements) > 0


async def test_what_two_wait_for_is_not_lost_when_one_of_them_is_cancelled(
    database: db.Database, people: People, resolvers: People
) -> None:
    async with database.write(db.Viewer()) as session:
        plan = await factories.make_plan(session, people.users["owner"])
    # The one is resolved beside what is wrong, and cancelled with it; the other is shown.
    query = """query($id: ID!) {
      wrong: nodes(ids: ["x"]) { id }
      one: project(id: $id) { interactions { nodes { id } } }
      same: project(id: $id) { name }
    }"""

    for viewer in (people.owner, resolvers.owner):
        answer = await viewer.ask(query, id=str(plan.project.id))

        assert answer.code == "BAD_USER_INPUT"
        assert answer.errors[0]["path"] == ["wrong", 0]
