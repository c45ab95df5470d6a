"""What the core does for every mutation: the right, the transaction, and what is read after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import httpx
import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

import db
from db import access, passwords
from db.prepared import PreparedPool
from graph.core.access import refuse_while_holding
from tests.conftest import People
from tests.world import World, faults, gid, make_world, snapshot

PASSWORD = "correct horse battery staple"
FAULTS = "{ userErrors { code path } }"


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    world = await make_world(database, http, people)
    hashed = await passwords.hash_password(PASSWORD)
    async with database.write(db.Viewer(is_administrator=True)) as session:
        owner = await session.fetch(db.User, people.users["owner"].id)
        owner.password_hash = hashed
    return world


@contextmanager
def transactions(database: db.Database) -> Iterator[list[str]]:
    """One item for each transaction for writing that is begun in the block."""
    begun: list[str] = []

    def note(_: object) -> None:
        begun.append("begin")

    write = PreparedPool.write

    async def write_alone(pool: PreparedPool, *arguments: Any) -> Any:
        begun.append("alone")
        return await write(pool, *arguments)

    event.listen(database.writer.sync_engine, "begin", note)
    try:
        with mock.patch.object(PreparedPool, "write", write_alone):
            yield begun
    finally:
        event.remove(database.writer.sync_engine, "begin", note)


async def test_who_lacks_the_right_begins_no_transaction(world: World) -> None:
    before = await snapshot(world.database)
    document = "mutation($i: CreateTaskInput!) { createTask(input: $i) { task { id } } }"

    with transactions(world.database) as begun:
        answer = await world.agent.ask(document, i={"projectId": gid(world.project), "title": "X"})

    assert answer.code == "FORBIDDEN"
    assert answer.body["data"] == {"createTask": None}
    assert (answer.statements, begun) == ([], [])
    assert await snapshot(world.database) == before


async def test_an_invalid_input_begins_no_transaction(world: World) -> None:
    document = f"mutation($i: CreateTaskInput!) {{ createTask(input: $i) {FAULTS} }}"

    with transactions(world.database) as begun:
        answer = await world.owner.ask(document, i={"projectId": gid(world.project), "title": ""})

    assert faults(answer.data["createTask"]) == [("INVALID", "title")]
    assert (answer.statements, begun) == ([], [])


async def test_a_mutation_is_one_transaction(world: World) -> None:
    with transactions(world.database) as begun:
        for title in ("first", "second"):
            payload = await world.owner.change(
                "createTask { task { title } }", projectId=gid(world.project), title=title
            )
            assert payload == {"task": {"title": title}}

    assert begun == ["alone", "alone"]


async def test_no_session_is_held_while_a_password_is_hashed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[tuple[str, int, int]] = []

    def noting(name: str) -> None:
        function = getattr(passwords, name)

        async def noted(*arguments: Any) -> Any:
            refuse_while_holding()
            pools: Any = world.database.reader.pool, world.database.writer.pool
            reading, writing = [pool.checkedout() for pool in pools]
            held.append((name, reading, writing))
            return await function(*arguments)

        monkeypatch.setattr(passwords, name, noted)

    noting("hash_password")
    noting("is_password")
    owner, new = gid(world.people.users["owner"]), "another one, longer"
    nobody, admin = world.people.nobody, world.people.admin
    for client, mutation, input in (
        (nobody, "login", {"username": "owner", "password": PASSWORD}),
        (world.owner, "changePassword", {"currentPassword": PASSWORD, "newPassword": new}),
        (admin, "setPassword", {"userId": owner, "newPassword": PASSWORD}),
    ):
        assert faults(await client.change(f"{mutation} {FAULTS}", **input)) == []

    assert held == [
        ("is_password", 0, 0),
        ("is_password", 0, 0),
        ("hash_password", 0, 0),
        ("hash_password", 0, 0),
    ]


async def test_what_is_done_before_a_transaction_is_not_repeated_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    hash_password, set_password = passwords.hash_password, access.set_password

    async def hashing(password: str) -> str:
        done.append("hash")
        return await hash_password(password)

    async def setting(*arguments: Any) -> None:
        done.append("set")
        if len(done) == 2:
            raise db.ConnectionReplaced
        await set_password(*arguments)

    monkeypatch.setattr(passwords, "hash_password", hashing)
    monkeypatch.setattr(access, "set_password", setting)
    owner, new = gid(world.people.users["owner"]), "another one, longer"

    with transactions(world.database) as begun:
        payload = await world.people.admin.change(
            f"setPassword {FAULTS}", userId=owner, newPassword=new
        )

    assert faults(payload) == []
    assert (done, begun) == (["hash", "set", "set"], ["begin", "begin"])
    payload = await world.people.nobody.change(f"login {FAULTS}", username="owner", password=new)
    assert faults(payload) == []


async def test_a_login_that_was_not_committed_makes_nobody_somebody_else(world: World) -> None:
    document = f"""mutation($username: String!, $password: String!, $id: ID!) {{
      login(input: {{username: $username, password: $password}}) {{ token }}
      updateProject(input: {{id: $id, name: "Mine"}}) {FAULTS}
    }}"""

    def fail(_: object) -> None:
        raise RuntimeError("not committed")

    event.listen(Session, "before_commit", fail, once=True)
    answer = await world.people.stranger.ask(
        document, username="owner", password=PASSWORD, id=gid(world.project)
    )

    assert [error["path"] for error in answer.errors] == [["login"]]
    assert answer.body["data"]["login"] is None
    assert faults(answer.body["data"]["updateProject"]) == [("NOT_FOUND", "id")]


async def test_rows_that_were_made_are_read_in_the_order_of_the_input(world: World) -> None:
    ids = sorted((db.new_id() for _ in range(4)), reverse=True)
    order = [ids[2], ids[0], ids[3], ids[1]]
    titles = [f"task {place}" for place in range(4)]

    payload = await world.owner.change(
        "createTasks { tasks { title number: id } userErrors { code } }",
        projectId=gid(world.project),
        tasks=[
            {"id": gid(db.Task(id=id)), "title": title}
            for id, title in zip(order, titles, strict=True)
        ],
    )

    assert payload == {
        "tasks": [
            {"title": title, "number": gid(db.Task(id=id))}
            for id, title in zip(order, titles, strict=True)
        ],
        "userErrors": [],
    }


async def test_a_row_that_is_named_twice_is_shown_twice(world: World) -> None:
    calls = [{"modelId": "gpt-4o", "requestId": name} for name in ("b", "a", "b")]

    payload = await world.owner.change(
        "recordUsage { usageRecords { requestId } }", projectId=gid(world.project), records=calls
    )

    assert payload == {"usageRecords": [{"requestId": name} for name in ("b", "a", "b")]}
