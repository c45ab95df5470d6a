"""How resolvers answer: values in their places, errors at theirs, and one statement for a batch."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import db
from graph.core.loaders import Loader, Loaders
from tests import factories
from tests.conftest import People
from tests.patience import PATIENCE


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
    read = Loaders._pages

    async def spoiled(*arguments: Any) -> Any:
        pages = await read(*arguments)
        (rows,) = pages.values()
        rows[1].__dict__[field] = value
        return pages

    monkeypatch.setattr(Loaders, "_pages", spoiled)
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
    database: db.Database, people: People, resolvers: People, query: str
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_plan(session, people.users["owner"], projects=2)

    answer = await resolvers.owner.ask(query)

    assert answer.errors[0]["extensions"]["code"] == "BAD_USER_INPUT"
    assert answer.errors[0]["path"]
    assert len(set(answer.statements)) == len(answer.statements) > 0


async def test_what_two_wait_for_is_not_lost_when_one_of_them_is_cancelled(
    database: db.Database, people: People, resolvers: People
) -> None:
    async with database.write(db.Viewer()) as session:
        plan = await factories.make_plan(session, people.users["owner"])
    # The one may be cancelled with what is wrong; the other is not.
    query = """query($id: ID!) {
      wrong: nodes(ids: ["x"]) { id }
      one: project(id: $id) { interactions { nodes { id } } }
      same: project(id: $id) { name }
    }"""

    for viewer in (people.owner, resolvers.owner):
        answer = await viewer.ask(query, id=str(plan.project.id))

        assert answer.code == "BAD_USER_INPUT"
        assert answer.errors[0]["path"] == ["wrong", 0]


async def test_a_batch_that_nobody_awaits_any_more_keeps_no_later_key_waiting() -> None:
    released = asyncio.Event()

    async def ready() -> None:
        await released.wait()

    async def fetch(keys: list[int]) -> list[int]:
        return [10 * key for key in keys]

    async def wait(key: int) -> Any:
        return await loader.load(key)

    for pauses in range(4):
        released.clear()
        loader = Loader(ready, fetch)
        first = asyncio.create_task(wait(1))
        for _ in range(pauses):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(wait(2))
        await asyncio.sleep(0)
        released.set()

        async with asyncio.timeout(PATIENCE):
            assert await second == 20


async def test_a_value_is_fetched_for_as_long_as_anybody_waits_for_it() -> None:
    begun: list[Any] = []
    has_begun, go_on, cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def fetch(keys: list[int]) -> list[int]:
        begun.append(keys)
        has_begun.set()
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return [10 * key for key in keys]

    async def wait(key: int) -> Any:
        return await loader.load(key)

    async def ready() -> None:
        """Hold nothing back."""

    loader = Loader(ready, fetch)
    one, other, alone = (asyncio.create_task(wait(key)) for key in (1, 1, 2))
    await has_begun.wait()
    one.cancel()
    alone.cancel()
    await asyncio.wait([one, alone])
    go_on.set()

    assert await other == 10
    assert begun == [[1, 2]]

    go_on.clear()
    has_begun.clear()
    last = asyncio.create_task(wait(3))
    await has_begun.wait()
    last.cancel()
    await asyncio.wait_for(cancelled.wait(), 10)
