"""Forks: a conversation goes on from any message of another one, which stays as it is."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

import db
from graph.core.scalars import key_text
from tests import factories
from tests.conftest import ADMIN, People
from tests.world import World, faults, gid, make_world, snapshot, stored

MESSAGE = "id sequence sender content parts timestamp editedAt metadata parentMessage { id }"
FORK = (
    "forkConversation { conversation { id title summary conversationUrl status lastMessageAt"
    " metadata version project { id } user { username } agent { name }"
    f" messages {{ nodes {{ {MESSAGE} }} }} }} userErrors {{ code path }} }}"
)
APPEND = "appendMessages { messages { id sequence } userErrors { code path } }"


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def talk(world: World, *contents: str) -> tuple[str, list[dict[str, Any]]]:
    """A conversation of the owner with Ada, and its messages."""
    payload = await world.owner.change(
        "startConversation { conversation { id } userErrors { code } }",
        projectId=gid(world.project),
        agentId=gid(world.ada),
        title="Moon",
        metadata={"k": 1},
    )
    id = payload["conversation"]["id"]
    messages = [
        {
            "sender": "USER",
            "content": content,
            "parts": [{"n": 1.5}],
            "timestamp": f"2026-01-{31 - number:02}T00:00:00Z",
            "metadata": {"n": number},
        }
        for number, content in enumerate(contents)
    ]
    if messages:
        await world.owner.change(APPEND, conversationId=id, messages=messages)
    return id, await said(world, id)


async def said(world: World, conversation: str) -> list[dict[str, Any]]:
    """The messages of a conversation."""
    query = (
        f"query($id: ID!) {{ conversation(id: $id) {{ messages {{ nodes {{ {MESSAGE} }} }} }} }}"
    )
    answer = await world.owner.ask(query, id=conversation)
    found: list[dict[str, Any]] = answer.data["conversation"]["messages"]["nodes"]
    return found


async def test_a_fork_has_copies_up_to_a_message_and_goes_on_by_itself(world: World) -> None:
    source, messages = await talk(world, "one", "two", "three", "four")
    await world.owner.change("deleteMessage { deletedId }", id=messages[1]["id"])
    await world.owner.change("editMessage { message { id } }", id=messages[0]["id"], content="1")
    messages = await said(world, source)
    await world.owner.change("archiveConversation { userErrors { code } }", id=source)
    before = (await snapshot(world.database))["conversations"]

    payload = await world.agent.change(FORK, messageId=messages[1]["id"])

    fork = payload["conversation"]
    assert payload["userErrors"] == []
    assert fork.pop("conversationUrl")
    copies = fork.pop("messages")["nodes"]
    assert fork == {
        "id": fork["id"],
        "title": "Moon",
        "summary": "one",
        "status": "ACTIVE",
        # That of the newest of the copies, which is not the last one.
        "lastMessageAt": "2026-01-31T00:00:00+00:00",
        "metadata": {},
        "version": 1,
        "project": {"id": gid(world.project)},
        "user": None,
        "agent": {"name": "Ada"},
    }
    assert [copy["sequence"] for copy in copies] == [1, 3]
    for copy, message in zip(copies, messages, strict=False):
        assert copy.pop("id") != message["id"]
        assert copy == {key: message[key] for key in copy} | {
            "parentMessage": {"id": message["id"]}
        }
    appended = await world.agent.change(
        APPEND, conversationId=fork["id"], messages=[{"sender": "USER", "content": "next"}]
    )
    assert [each["sequence"] for each in appended["messages"]] == [4]
    assert await said(world, source) == messages
    assert set(before) <= set((await snapshot(world.database))["conversations"])
    found = await world.owner.ask('{ searchMessages(query: "1") { totalCount } }')
    assert found.data["searchMessages"]["totalCount"] == 2


async def test_a_fork_of_a_fork_outlives_both(world: World) -> None:
    source, messages = await talk(world, "one", "two")
    first = (await world.owner.change(FORK, messageId=messages[1]["id"], title="First"))[
        "conversation"
    ]
    copies = first["messages"]["nodes"]
    second = (await world.owner.change(FORK, messageId=copies[0]["id"]))["conversation"]
    assert (first["title"], second["title"]) == ("First", "First")
    (copy,) = second["messages"]["nodes"]
    assert copy["parentMessage"] == {"id": copies[0]["id"]}

    for id in (source, first["id"]):
        await world.owner.change("deleteConversation { deletedId }", id=id)

    (left,) = await said(world, second["id"])
    assert left == copy | {"parentMessage": None}


async def test_a_fork_is_refused_as_a_whole(world: World) -> None:
    _, messages = await talk(world, "one")
    taken = await stored(world.database, "SELECT conversation_url, id FROM conversations")
    for input, expected in (
        ({"conversationUrl": taken[0][0]}, [("ALREADY_EXISTS", "conversationUrl")]),
        ({"id": str(taken[0][1])}, [("ALREADY_EXISTS", "id")]),
        ({"conversationUrl": "no spaces"}, [("INVALID", "conversationUrl")]),
    ):
        found = await world.refused(
            world.owner, "forkConversation", messageId=messages[0]["id"], **input
        )
        assert found == expected
    own = await world.people.stranger.change(
        "startConversation { conversation { messages { nodes { id } } } }",
        message={"sender": "USER", "content": "secret"},
    )
    secret = own["conversation"]["messages"]["nodes"][0]["id"]
    for client in (world.owner, world.agent):
        found = await world.refused(client, "forkConversation", messageId=secret)
        assert found == [("NOT_FOUND", "messageId")]


async def test_a_fork_waits_for_whoever_deletes_the_project_before_it_locks_anything(
    world: World,
) -> None:
    _, messages = await talk(world, "a", "b")
    async with world.database.write(ADMIN) as session:
        lock = f"SELECT FROM projects WHERE id = '{world.project.id}' FOR UPDATE"
        await session.execute(text(lock))
        forked = asyncio.create_task(world.owner.change(FORK, messageId=messages[0]["id"]))
        await asyncio.sleep(0.3)
        assert not forked.done()
        count = "SELECT count(*) FROM conversations"
        free = "SELECT count(*) FROM (SELECT FROM conversations FOR UPDATE SKIP LOCKED) free"
        assert await session.scalar(text(free)) == await session.scalar(text(count))
    assert (await forked)["userErrors"] == []


async def test_a_message_is_deleted_while_it_is_forked(world: World) -> None:
    for _ in range(50):
        _, messages = await talk(world, "one", "two")
        forked, _ = await asyncio.gather(
            world.owner.change(FORK, messageId=messages[0]["id"]),
            world.owner.change("deleteMessage { userErrors { code } }", id=messages[0]["id"]),
        )
        assert faults(forked) in ([], [("NOT_FOUND", "messageId")])
        if not faults(forked):
            assert len(forked["conversation"]["messages"]["nodes"]) == 1
    assert await stored(world.database, "SELECT count(*) FROM messages WHERE sequence > 2") == [0]


async def test_a_long_conversation_is_copied_by_as_many_statements_as_a_short_one(
    world: World,
) -> None:
    counts = []
    for number in (1, 300):
        id, _ = await talk(world)
        async with world.database.write(ADMIN) as session:
            row = await session.get_one(db.Conversation, UUID(key_text(id)))
            last = (await factories.make_messages(session, row, ["x"] * number))[-1]
        answer = await world.owner.ask(
            "mutation($input: ForkConversationInput!) { forkConversation(input: $input)"
            " { conversation { messages { totalCount } } } }",
            input={"messageId": gid(last)},
        )
        fork = answer.data["forkConversation"]["conversation"]
        assert fork == {"messages": {"totalCount": number}}
        counts.append(len(answer.statements))
    assert counts[0] == counts[1] <= 9


async def test_a_conversation_is_archived_and_reopened(world: World) -> None:
    source, _ = await talk(world, "one")
    show = "conversation { status version } userErrors { code path }"
    archived = await world.owner.change(f"archiveConversation {{ {show} }}", id=source)
    version = archived["conversation"]["version"]
    for _ in range(2):  # the second time, nothing changes
        reopened = await world.owner.change(f"unarchiveConversation {{ {show} }}", id=source)
        assert reopened == {
            "conversation": {"status": "ACTIVE", "version": version + 1},
            "userErrors": [],
        }
    stale = await world.refused(
        world.owner, "unarchiveConversation", id=source, expectedVersion=version
    )
    assert stale == [("CONFLICT", "expectedVersion")]
    assert await world.error(world.agent, "unarchiveConversation", id=source) == "FORBIDDEN"
    appended = await world.owner.change(
        APPEND, conversationId=source, messages=[{"sender": "USER", "content": "again"}]
    )
    assert [each["sequence"] for each in appended["messages"]] == [2]
