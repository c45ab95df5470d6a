"""What a payload shows of the rows that are written: by the statement that writes, if it can."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

import db
from tests.client import Answer
from tests.conftest import People
from tests.world import WholeWorld, gid, make_whole_world


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> WholeWorld:
    return await make_whole_world(database, http, people)


async def change(world: WholeWorld, mutation: str, payload: str, **input: Any) -> Answer:
    """The answer to a mutation, whose input is a variable."""
    kind = f"{mutation[0].upper()}{mutation[1:]}Input!"
    document = f"mutation($input: {kind}) {{ {mutation}(input: $input) {{ {payload} }} }}"
    return await world.owner.ask(document, input=input)


Input = Callable[[WholeWorld], dict[str, Any]]
HERE: Input = lambda w: {"projectId": gid(w.project)}  # noqa: E731
WRITES: dict[str, tuple[str, str, Input]] = {
    # The mutation, the field of its payload, and its input.
    "createTask": ("Task", "task", lambda w: HERE(w) | {"title": "New", "agentId": gid(w.ada)}),
    "updateTask": ("Task", "task", lambda w: {"id": gid(w.free), "title": "Other"}),
    "appendMessages": (
        "Message",
        "messages",
        lambda w: {
            "conversationId": gid(w.conversation),
            "messages": [{"sender": "USER", "content": text} for text in ("one", "two")],
        },
    ),
    "recordUsage": (
        "UsageRecord",
        "usageRecords",
        lambda w: (
            HERE(w) | {"records": [{"modelId": "gpt-4o", "inputTokens": n} for n in (3, 1, 2)]}
        ),
    ),
    "sendCommunication": (
        "Communication",
        "communication",
        lambda w: {
            "fromAgentId": gid(w.ada),
            "toAgentId": gid(w.ada),
            "type": "QUESTION",
            "content": {"text": "'$1'"},
        },
    ),
}
SHOWN = {
    "Task": "id title status version createdAt updatedAt metadata p: project { id name }"
    " agent { name model { name } } createdByUser { username }",
    "Message": "id sequence sender content timestamp user { username }"
    " conversation { id title project { name } }",
    "UsageRecord": "id inputTokens cost occurredAt project { name } model { name } agent { name }",
    "Communication": "id type content status sentAt fromAgent { name } task { title }",
}
# What depends on other rows of the same model, on what else the statement changes, or on arguments.
DEPENDENT = {
    "Task": [
        "parentTask { title }",
        "project { tasks { totalCount } }",
        "subtasks { totalCount }",
        "history { nodes { action } }",
        "agent { tasks { nodes { title } } }",
    ],
    "Message": [
        "conversation { summary }",
        "conversation { lastMessageAt }",
        "conversation { updatedAt }",
        "conversation { messages { totalCount } }",
    ],
    "UsageRecord": [
        "project { usageRecords { totalCount } }",
        "agent { usageRecords { totalCount } }",
    ],
    "Communication": ["replyTo { type }", "replies { totalCount }"],
}
# These columns the statement sets itself.
SET_ELSEWHERE = {f"conversation {{ {name} }}" for name in ("summary", "lastMessageAt", "updatedAt")}


async def read(people: People, kind: str, selection: str, ids: list[str]) -> str:
    query = f"query($ids: [ID!]!) {{ nodes(ids: $ids) {{ ... on {kind} {{ {selection} }} }} }}"
    answer = await people.owner.ask(query, ids=ids)
    return answer.text.removeprefix('{"data":{"nodes":[').removesuffix("]}}")


@pytest.mark.parametrize("key", [None, "once"])
@pytest.mark.parametrize("mutation", WRITES)
async def test_the_statement_that_writes_returns_the_payload(
    world: WholeWorld, resolvers: People, mutation: str, key: str | None
) -> None:
    kind, field, input = WRITES[mutation]
    values = input(world) | ({"idempotencyKey": key} if key else {})

    answer = await change(
        world, mutation, f"{field} {{ {SHOWN[kind]} }} userErrors {{ code }}", **values
    )

    assert answer.data[mutation]["userErrors"] == []
    assert len(answer.statements) == 1
    assert answer.statements[0].startswith("WITH ")
    rows = answer.data[mutation][field]
    ids = [row["id"] for row in (rows if isinstance(rows, list) else [rows])]
    shown = answer.text.removeprefix(f'{{"data":{{"{mutation}":{{"{field}":')
    shown = shown.removesuffix(',"userErrors":[]}}}')
    assert shown.strip("[]") == await read(resolvers, kind, SHOWN[kind], ids)
    if key:
        again = await change(
            world, mutation, f"{field} {{ {SHOWN[kind]} }} userErrors {{ code }}", **values
        )
        assert again.text == answer.text
        assert len(again.statements) > 1


@pytest.mark.parametrize("mutation", WRITES)
async def test_what_depends_on_other_changes_is_read_after_them(
    world: WholeWorld, resolvers: People, mutation: str
) -> None:
    kind, field, input = WRITES[mutation]
    for selection in DEPENDENT[kind]:
        # The second write finds the operation compiled.
        for title in ("first", "second"):
            values = input(world)
            if "title" in values:
                values["title"] = f"{title} {selection}"
            answer = await change(
                world, mutation, f"{field} {{ {selection} }} ids: {field} {{ id }}", **values
            )

            # The ids are returned, unless the statement sets what the other field shows.
            assert len(answer.statements) == (3 if selection in SET_ELSEWHERE else 2), selection
            ids = answer.data[mutation]["ids"]
            ids = [row["id"] for row in (ids if isinstance(ids, list) else [ids])]
            shown = answer.text.removeprefix(f'{{"data":{{"{mutation}":{{"{field}":')
            shown = shown.partition(',"ids":')[0]
            assert shown.strip("[]") == await read(resolvers, kind, selection, ids), selection


async def test_arguments_of_the_payload_are_not_those_of_another_request(world: WholeWorld) -> None:
    document = """mutation($input: RecordUsageInput!, $first: Int) { recordUsage(input: $input) {
      usageRecords { inputTokens project { tasks(first: $first) { nodes { id } } } } } }"""
    for first in (1, 2):
        input = HERE(world) | {"records": [{"modelId": "gpt-4o", "inputTokens": first}]}
        answer = await world.owner.ask(document, input=input, first=first)

        (shown,) = answer.data["recordUsage"]["usageRecords"]
        assert (shown["inputTokens"], len(shown["project"]["tasks"]["nodes"])) == (first, first)
