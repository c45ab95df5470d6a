"""Idempotency keys: what is sent again with the same key is done once."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from graphql import get_named_type, is_leaf_type
from sqlalchemy import text

import db
from graph.schema import graphql_schema
from tests.conftest import People
from tests.factories import gid
from tests.nouns import said
from tests.world import Case, WholeWorld, make_whole_world, snapshot

CASES: dict[str, Case] = said("CASES")
TASK = "createTask { task { id title version } userErrors { code path } }"
CONFLICT = [{"code": "CONFLICT", "path": ["idempotencyKey"]}]

# Their results are secrets, which are stored as hashes, or what they do can be repeated.
WITHOUT_KEY = {
    *("changePassword", "createAccessToken", "login", "logout", "setPassword"),
    *("createWebhook", "rotateWebhookSecret"),
}

ROUNDS = 20

AGENT = {"name": "New", "type": "coder", "idempotencyKey": "k"}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> WholeWorld:
    return await make_whole_world(database, http, people)


def new_task(world: WholeWorld, key: str | None = "k", **input: Any) -> dict[str, Any]:
    return {"projectId": gid(world.project), "title": "Once", "idempotencyKey": key} | input


async def stored(world: WholeWorld, query: str) -> Any:
    async with world.database.read() as session:
        return await session.scalar(text(query))


def takes_key(mutation: str) -> bool:
    assert graphql_schema.mutation_type is not None
    kind: Any = graphql_schema.mutation_type.fields[mutation].args["input"].type
    return "idempotencyKey" in kind.of_type.fields


def test_every_mutation_takes_a_key_but_those_of_secrets() -> None:
    assert graphql_schema.mutation_type is not None
    assert {
        name for name in graphql_schema.mutation_type.fields if not takes_key(name)
    } == WITHOUT_KEY


async def test_whatever_is_sent_again_is_done_once(world: WholeWorld) -> None:
    for mutation, case in CASES.items():
        if mutation in WITHOUT_KEY:
            continue
        input = case.input(world) | {"idempotencyKey": mutation}
        assert graphql_schema.mutation_type is not None
        payload: Any = graphql_schema.mutation_type.fields[mutation].type
        fields = " ".join(
            name if is_leaf_type(get_named_type(field.type)) else f"{name} {{ __typename }}"
            for name, field in payload.fields.items()
            if name != "revokedId"
        )
        before = await snapshot(world.database)

        first = await world.people.admin.change(f"{mutation} {{ {fields} }}", **input)
        done = await snapshot(world.database)
        again = await world.people.admin.change(f"{mutation} {{ {fields} }}", **input)

        assert first["userErrors"] == [], mutation
        assert first == again, mutation
        assert before != done == await snapshot(world.database), mutation


async def test_the_first_result_is_read_anew_by_the_selection_of_now(world: WholeWorld) -> None:
    first = await world.owner.change(TASK, **new_task(world))
    id = first["task"]["id"]
    await world.owner.change("updateTask { task { id } }", id=id, title="Changed since")

    again = await world.owner.change(
        "createTask { task { id title project { name } } }", **new_task(world)
    )

    assert again == {"task": {"id": id, "title": "Changed since", "project": {"name": "Moon base"}}}


async def test_another_input_with_the_same_key_is_a_conflict(world: WholeWorld) -> None:
    await world.owner.change(TASK, **new_task(world))
    for mutation, input in (
        ("createTask", new_task(world, title="Another")),
        ("createTask", new_task(world, priority=5)),
        ("updateTask", {"id": gid(world.free), "title": "Another", "idempotencyKey": "k"}),
        ("createAgent", AGENT | {"projectId": gid(world.project)}),
    ):
        before = await snapshot(world.database)
        found = await world.owner.change(
            f"{mutation} {{ userErrors {{ code path ... on Conflict {{ current {{ id }} }} }} }}",
            **input,
        )
        assert found == {"userErrors": [{**CONFLICT[0], "current": None}]}, mutation
        assert await snapshot(world.database) == before


async def test_a_key_belongs_to_who_sends_it(world: WholeWorld) -> None:
    editor = world.members[db.MemberRole.EDITOR]
    first = await world.owner.change(TASK, **new_task(world))
    other = await editor.change(TASK, **new_task(world, title="Mine"))

    assert first["task"]["id"] != other["task"]["id"]
    assert other["userErrors"] == []
    assert await stored(world, "SELECT count(*) FROM idempotency_keys") == 2


async def test_a_failure_stores_no_key(world: WholeWorld) -> None:
    wrong = new_task(world, agentId=gid(world.bob))
    refused = await world.owner.change(TASK, **wrong)
    assert refused["task"] is None
    assert await stored(world, "SELECT count(*) FROM idempotency_keys") == 0

    done = await world.owner.change(TASK, **new_task(world))

    assert done["userErrors"] == []


async def test_a_repeat_succeeds_though_what_it_needs_is_gone(world: WholeWorld) -> None:
    version = {"id": gid(world.free), "title": "New", "expectedVersion": 1, "idempotencyKey": "v"}
    deleted = {"id": gid(world.free), "idempotencyKey": "d"}
    for _ in range(2):
        changed = await world.owner.change(
            "updateTask { task { title } userErrors { code } }", **version
        )
        assert changed == {"task": {"title": "New"}, "userErrors": []}
    for _ in range(2):
        gone = await world.owner.change("deleteTask { deletedId userErrors { code } }", **deleted)
        assert gone == {"deletedId": gid(world.free), "userErrors": []}


async def test_an_expired_key_is_a_new_one(world: WholeWorld) -> None:
    first = await world.owner.change(TASK, **new_task(world))
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        await session.execute(
            text("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")
        )

    second = await world.owner.change(TASK, **new_task(world))

    assert second["userErrors"] == []
    assert second["task"]["id"] != first["task"]["id"]
    assert await stored(world, "SELECT count(*) FROM idempotency_keys") == 1


async def test_expired_keys_are_deleted(world: WholeWorld) -> None:
    for place in range(3):
        await world.owner.change(TASK, **new_task(world, str(place)))
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        await session.execute(
            text("UPDATE idempotency_keys SET expires_at = now() WHERE key <> '0'")
        )

    await world.database.delete_expired_keys()

    assert await stored(world, "SELECT string_agg(key, ',') FROM idempotency_keys") == "0"


async def test_a_key_is_kept_for_a_day(world: WholeWorld) -> None:
    await world.owner.change(TASK, **new_task(world))

    kept = "SELECT expires_at - now() BETWEEN '23 hours 59 minutes' AND '24 hours' FROM"
    assert await stored(world, f"{kept} idempotency_keys") is True


async def test_several_at_once_have_one_effect(world: WholeWorld) -> None:
    project = gid(world.project)
    said_once = [{"sender": "USER", "content": "Hi"}]
    cases: list[tuple[str, str, dict[str, Any], str]] = [
        ("createTask", "task { id }", {"projectId": project, "title": "T"}, "tasks"),
        (
            "createTasks",
            "tasks { id }",
            {"projectId": project, "tasks": [{"title": "T"}, {"title": "U"}]},
            "tasks",
        ),
        (
            "appendMessages",
            "messages { id }",
            {"conversationId": gid(world.conversation), "messages": said_once},
            "messages",
        ),
        ("startConversation", "conversation { id }", {"projectId": project}, "conversations"),
        (
            "recordUsage",
            "usageRecords { id }",
            {"projectId": project, "records": [{"modelId": gid(world.model)}]},
            "usage_records",
        ),
    ]
    for mutation, selection, input, table in cases:
        for place in range(ROUNDS):
            before = await stored(world, f"SELECT count(*) FROM {table}")
            payloads = await asyncio.gather(
                *(
                    world.owner.change(
                        f"{mutation} {{ {selection} userErrors {{ code }} }}",
                        **input,
                        idempotencyKey=f"{mutation} {place}",
                    )
                    for _ in range(4)
                )
            )
            assert payloads[1:] == payloads[:-1], mutation
            assert payloads[0]["userErrors"] == []
            after = await stored(world, f"SELECT count(*) FROM {table}")
            assert after - before == len(input.get("tasks", [1])), mutation


async def test_a_key_costs_no_statement_of_its_own(world: WholeWorld) -> None:
    document = "mutation($input: CreateTaskInput!) { createTask(input: $input) { task { id } } }"
    for input in (new_task(world, None), new_task(world)):
        answer = await world.owner.ask(document, input=input)
        assert answer.data["createTask"]["task"] is not None
        assert len(answer.statements) == 1
