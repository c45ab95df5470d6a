"""Conversations: started, added to in order, summed up, changed and deleted with what was said."""

from typing import Any

import httpx
import pytest

import db
from graph.scalars import global_id
from tests import factories
from tests.conftest import People
from tests.world import Fault, World, gid, make_world, snapshot, stored

ERRORS = "userErrors { code path message }"
WHOLE = (
    "{ conversation { id title summary conversationUrl status lastMessageAt metadata version"
    " project { id } user { username } agent { name } messages { nodes { id sequence sender"
    " content parts timestamp metadata user { username } agent { name } model { name } } } }"
    f" {ERRORS} }}"
)
APPENDED = (
    "{ conversation { version lastMessageAt messages { totalCount } } messages { id sequence"
    " sender content parts timestamp metadata user { username } agent { name } model { name } }"
    f" {ERRORS} }}"
)


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


def said(content: str, sender: str = "USER", **values: Any) -> dict[str, Any]:
    """A message."""
    return {"sender": sender, "content": content} | values


async def test_a_conversation_is_started_with_its_first_message(world: World) -> None:
    id, message = db.new_id(), db.new_id()

    payload = await world.owner.change(
        f"startConversation {WHOLE}",
        id=str(id),
        projectId=gid(world.project),
        agentId=gid(world.ada),
        title="Moon",
        conversationUrl="moon.base~1_a-Z",
        metadata={"k": 1},
        message=said(
            "When do we fly?",
            id=global_id("Message", message),
            parts=[{"type": "text"}],
            timestamp="2026-01-01T10:00:00+01:00",
            metadata={"m": 2},
        ),
    )

    assert payload == {
        "conversation": {
            "id": global_id("Conversation", id),
            "title": "Moon",
            "summary": "When do we fly?",
            "conversationUrl": "moon.base~1_a-Z",
            "status": "ACTIVE",
            "lastMessageAt": "2026-01-01T09:00:00+00:00",
            "metadata": {"k": 1},
            "version": payload["conversation"]["version"],
            "project": {"id": gid(world.project)},
            "user": {"username": "owner"},
            "agent": {"name": "Ada"},
            "messages": {
                "nodes": [
                    {
                        "id": global_id("Message", message),
                        "sequence": 1,
                        "sender": "USER",
                        "content": "When do we fly?",
                        "parts": [{"type": "text"}],
                        "timestamp": "2026-01-01T09:00:00+00:00",
                        "metadata": {"m": 2},
                        "user": {"username": "owner"},
                        "agent": None,
                        "model": None,
                    }
                ]
            },
        },
        "userErrors": [],
    }


async def test_a_conversation_needs_nothing_and_belongs_to_whoever_starts_it(world: World) -> None:
    payload = await world.people.stranger.change(f"startConversation {WHOLE}")

    conversation = payload["conversation"]
    assert conversation.pop("conversationUrl") != ""
    assert conversation == {
        "id": conversation["id"],
        "title": None,
        "summary": "",
        "status": "ACTIVE",
        "lastMessageAt": None,
        "metadata": {},
        "version": 1,
        "project": None,
        "user": {"username": "stranger"},
        "agent": None,
        "messages": {"nodes": []},
    }
    found = await world.refused(world.owner, "updateConversation", id=conversation["id"])
    assert found == [("NOT_FOUND", "id")]


async def test_addresses_are_random_and_long_enough_not_to_be_guessed(world: World) -> None:
    urls = []
    for _ in range(5):
        made = await world.owner.change("startConversation { conversation { conversationUrl } }")
        urls.append(made["conversation"]["conversationUrl"])

    assert len(set(urls)) == 5
    assert {len(url) for url in urls} == {16}


async def test_the_summary_is_the_start_of_the_first_message(world: World) -> None:
    for content in ("short", "x" * 50, "x" * 51, "🌙é\n" * 30, ""):
        await check_summary(world, content, content[:50])


async def check_summary(world: World, content: str, summary: str) -> None:
    """Begin with this text, at the start and later; the other messages do not matter."""
    started = await world.owner.change(f"startConversation {WHOLE}", message=said(content))
    empty = await world.owner.change(f"startConversation {WHOLE}")
    first = empty["conversation"]["id"]
    await world.owner.change(
        f"appendMessages {APPENDED}", conversationId=first, messages=[said(content), said("b")]
    )

    assert started["conversation"]["summary"] == summary
    query = "SELECT summary FROM conversations WHERE id <> :id ORDER BY id DESC LIMIT 2"
    assert await stored(world.database, query, id=world.conversation.id) == [summary, summary]


async def test_a_summary_that_is_supplied_stays(world: World) -> None:
    given = "s" * 50
    started = await world.owner.change(
        f"startConversation {WHOLE}", summary=given, message=said("Hello")
    )
    id = started["conversation"]["id"]
    await world.owner.change(f"appendMessages {APPENDED}", conversationId=id, messages=[said("b")])
    changed = await world.owner.change(f"updateConversation {WHOLE}", id=id, summary="new")

    assert started["conversation"]["summary"] == given
    assert changed["conversation"]["summary"] == "new"
    assert [node["sequence"] for node in changed["conversation"]["messages"]["nodes"]] == [1, 2]


async def test_messages_of_every_sender_are_added_in_order(world: World) -> None:
    payload = await world.owner.change(
        f"appendMessages {APPENDED}",
        conversationId=gid(world.conversation),
        messages=[
            said("Be kind.", "SYSTEM"),
            said("Hi?"),
            said(
                "Let me see.",
                "ASSISTANT",
                agentId=gid(world.ada),
                modelId="gpt-4o",
                parts={"tool_calls": [{"id": 1}]},
            ),
            said("", "TOOL", metadata={"tool": "see"}, timestamp="2030-01-01T00:00:00Z"),
        ],
    )

    shown = ("sequence", "sender", "content", "user", "agent", "model")
    assert [tuple(message[name] for name in shown) for message in payload["messages"]] == [
        (2, "SYSTEM", "Be kind.", None, None, None),
        (3, "USER", "Hi?", {"username": "owner"}, None, None),
        (4, "ASSISTANT", "Let me see.", None, {"name": "Ada"}, {"name": "gpt-4o"}),
        (5, "TOOL", "", None, None, None),
    ]
    assert [message["parts"] for message in payload["messages"]] == [
        None,
        None,
        {"tool_calls": [{"id": 1}]},
        None,
    ]
    times = [message["timestamp"] for message in payload["messages"]]
    assert times[0] == times[1] == times[2] != times[3] == "2030-01-01T00:00:00+00:00"
    assert payload["conversation"] == {
        "version": 1,  # talking is no edit
        "lastMessageAt": "2030-01-01T00:00:00+00:00",
        "messages": {"totalCount": 5},
    }
    query = "SELECT parts IS NULL FROM messages WHERE conversation_id = :id ORDER BY sequence"
    assert await stored(world.database, query, id=world.conversation.id) == [
        True,
        True,
        True,
        False,
        True,
    ]


async def test_an_older_message_does_not_move_the_time_of_the_newest(world: World) -> None:
    id = gid(world.conversation)
    for timestamp in ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"):
        payload = await world.owner.change(
            f"appendMessages {APPENDED}",
            conversationId=id,
            messages=[said("x", timestamp=timestamp)],
        )

    assert payload["conversation"]["lastMessageAt"] == "2026-01-02T00:00:00+00:00"
    assert payload["messages"][0]["sequence"] == 3


async def test_a_thousand_messages_are_one_insert(world: World) -> None:
    document = (
        "mutation($input: AppendMessagesInput!) { appendMessages(input: $input) {"
        " messages { sequence content } userErrors { code path } } }"
    )

    async def append(many: int) -> tuple[list[str], Any]:
        messages = [
            said(f"{n}", timestamp="2026-01-01T00:00:00Z")
            if n % 3
            else said(f"{n}", "TOOL", parts=n)
            for n in range(many)
        ]
        input = {"conversationId": gid(world.conversation), "messages": messages}
        answer = await world.owner.ask(document, input=input)
        return answer.statements, answer.data["appendMessages"]

    few, _ = await append(1)
    many, payload = await append(1000)

    assert len(few) == len(many) <= 6
    assert ["INSERT" in statement for statement in many].count(True) == 1
    assert payload["userErrors"] == []
    expected = [{"sequence": n + 3, "content": f"{n}"} for n in range(1000)]
    assert payload["messages"] == expected


async def test_all_that_is_wrong_is_said_at_once(world: World) -> None:
    started = await world.refused(
        world.owner,
        "startConversation",
        id="x",
        projectId=gid(world.ada),
        agentId="x",
        title="",
        summary="x" * 51,
        conversationUrl="two words",
        metadata=[],
        message=said("x" * 1_000_001, id="x", agentId="x", modelId=gid(world.ada), metadata=1),
    )
    appended = await world.refused(
        world.owner,
        "appendMessages",
        conversationId=gid(world.project),
        messages=[
            said("fine"),
            said("x", id="x", metadata=[]),
            said("x", agentId=gid(world.model)),
        ],
    )
    unknown = await world.refused(
        world.owner,
        "appendMessages",
        conversationId=gid(world.conversation),
        messages=[said("a", agentId=gid(world.bob)), said("b"), said("c", modelId="nobody")],
    )

    paths = "id projectId agentId title summary conversationUrl metadata message.id message.content"
    paths += " message.agentId message.modelId message.metadata"
    assert sorted(started) == sorted(("INVALID", path) for path in paths.split())
    paths = "conversationId messages.1.id messages.1.metadata messages.2.agentId"
    assert sorted(appended) == [("INVALID", path) for path in paths.split()]
    assert sorted(unknown) == [
        ("NOT_FOUND", "messages.0.agentId"),
        ("NOT_FOUND", "messages.2.modelId"),
    ]


async def test_unusable_values_are_refused(world: World) -> None:
    taken = await world.owner.change(
        "startConversation { conversation { id } }", conversationUrl="taken"
    )
    mine, new = {"id": gid(world.conversation)}, {"conversationId": gid(world.conversation)}
    url = "conversationUrl"
    cases: list[tuple[str, dict[str, Any], list[Fault]]] = [
        ("startConversation", {"id": taken["conversation"]["id"]}, [("ALREADY_EXISTS", "id")]),
        ("startConversation", {url: "taken"}, [("ALREADY_EXISTS", url)]),
        ("startConversation", {url: ""}, [("INVALID", url)]),
        ("startConversation", {url: "x" * 256}, [("INVALID", url)]),
        ("startConversation", {url: "a/b"}, [("INVALID", url)]),
        ("startConversation", {url: "line\n"}, [("INVALID", url)]),
        ("startConversation", {"projectId": gid(world.elsewhere)}, [("NOT_FOUND", "projectId")]),
        ("startConversation", {"agentId": gid(world.bob)}, [("NOT_FOUND", "agentId")]),
        (
            "startConversation",
            {"message": said("x", agentId=gid(world.bob), modelId="nobody")},
            [("NOT_FOUND", "message.agentId"), ("NOT_FOUND", "message.modelId")],
        ),
        ("appendMessages", new | {"messages": []}, [("INVALID", "messages")]),
        ("appendMessages", new | {"messages": [said("x")] * 1001}, [("INVALID", "messages")]),
        ("updateConversation", mine | {url: "taken"}, [("ALREADY_EXISTS", url)]),
        ("updateConversation", mine | {url: None}, [("INVALID", url)]),
        ("updateConversation", mine | {"summary": None}, [("INVALID", "summary")]),
        ("updateConversation", mine | {"agentId": gid(world.bob)}, [("NOT_FOUND", "agentId")]),
        ("updateConversation", mine | {"expectedVersion": 2}, [("CONFLICT", "expectedVersion")]),
        ("deleteConversation", mine | {"expectedVersion": 2}, [("CONFLICT", "expectedVersion")]),
        ("deleteMessage", {"id": gid(world.conversation)}, [("INVALID", "id")]),
        ("deleteMessage", {"id": str(db.new_id())}, [("NOT_FOUND", "id")]),
    ]
    for mutation, input, expected in cases:
        assert await world.refused(world.owner, mutation, **input) == expected, (mutation, input)


async def test_the_only_message_has_a_place_too(world: World) -> None:
    found = await world.refused(
        world.owner,
        "appendMessages",
        conversationId=gid(world.conversation),
        messages=[said("x", modelId="nobody")],
    )

    assert found == [("NOT_FOUND", "messages.0.modelId")]


async def test_what_an_update_leaves_out_stays_and_null_clears(world: World) -> None:
    id = gid(world.conversation)

    changed = await world.owner.change(
        f"updateConversation {WHOLE}", id=id, title="New", conversationUrl="new", metadata={"k": 1}
    )
    cleared = await world.owner.change(
        f"updateConversation {WHOLE}", id=id, title=None, agentId=None, expectedVersion=2
    )

    conversation = changed["conversation"]
    assert (conversation["title"], conversation["conversationUrl"]) == ("New", "new")
    assert (conversation["agent"], conversation["metadata"]) == ({"name": "Ada"}, {"k": 1})
    assert cleared["conversation"] == conversation | {"title": None, "agent": None, "version": 3}


async def test_a_conversation_goes_with_its_messages_and_no_others(world: World) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        other = await factories.make_conversation(session, project_id=world.project.id)
        await factories.make_messages(session, other, ["Other"])
    before = await snapshot(world.database)

    payload = await world.owner.change(
        f"deleteConversation {{ deletedId {ERRORS} }}", id=gid(world.conversation)
    )

    assert payload == {"deletedId": gid(world.conversation), "userErrors": []}
    left = await snapshot(world.database)
    gone = {"conversations": str(world.conversation.id), "messages": str(world.message.id)}
    assert str(other.id) in str(left["conversations"])
    for table, id in gone.items():
        assert left[table] == [row for row in before[table] if id not in row]
        assert len(left[table]) == len(before[table]) - 1
    # What was asked and what was used outlive the conversation; and no task or agent goes with it.
    asked = {"human_interactions", "usage_records"}
    assert {table: len(left[table]) for table in asked} == {
        table: len(before[table]) for table in asked
    }
    rest = before.keys() - gone.keys() - asked
    assert {table: left[table] for table in rest} == {table: before[table] for table in rest}


async def test_the_time_of_the_newest_message_follows_when_that_goes(world: World) -> None:
    said_at = [said(f"{day}", timestamp=f"2030-01-0{day}T00:00:00Z") for day in (2, 1)]
    appended = await world.owner.change(
        f"appendMessages {APPENDED}", conversationId=gid(world.conversation), messages=said_at
    )

    for gone in (appended["messages"][0]["id"], gid(world.message)):
        await world.owner.change("deleteMessage { deletedId }", id=gone)

    query = "SELECT last_message_at::text FROM conversations WHERE id = :id"
    assert await stored(world.database, query, id=world.conversation.id) == [
        "2030-01-01 00:00:00+00"
    ]


async def test_a_message_goes_and_the_places_of_the_others_stay(world: World) -> None:
    conversation = gid(world.conversation)
    await world.owner.change(
        f"appendMessages {APPENDED}", conversationId=conversation, messages=[said("b"), said("c")]
    )

    payload = await world.owner.change(
        f"deleteMessage {{ deletedId {ERRORS} }}", id=gid(world.message)
    )
    await world.owner.change(
        f"appendMessages {APPENDED}", conversationId=conversation, messages=[said("d")]
    )

    assert payload == {"deletedId": gid(world.message), "userErrors": []}
    query = "SELECT sequence, content FROM messages WHERE conversation_id = :id ORDER BY sequence"
    assert await stored(world.database, query, id=world.conversation.id) == [
        (2, "b"),
        (3, "c"),
        (4, "d"),
    ]


async def test_all_ids_that_are_taken_are_told_at_their_places(world: World) -> None:
    new, taken = str(db.new_id()), gid(world.message)
    foreign = gid(world.foreign_rows["messageId"])

    found = await world.refused(
        world.owner,
        "appendMessages",
        conversationId=gid(world.conversation),
        messages=[said(str(n)) | {"id": id} for n, id in enumerate((taken, new, foreign, new))],
    )

    assert found == [("ALREADY_EXISTS", f"messages.{place}.id") for place in (0, 2, 3)]


async def test_a_place_is_never_given_twice(world: World) -> None:
    """Whoever knows a message by its place would take the next one for it."""
    conversation = gid(world.conversation)
    places = []
    for content in "abc":
        appended = await world.owner.change(
            "appendMessages { messages { id sequence } }",
            conversationId=conversation,
            messages=[said(content), said(content)],
        )
        places += [message["sequence"] for message in appended["messages"]]
        for message in reversed(appended["messages"]):
            await world.owner.change("deleteMessage { deletedId }", id=message["id"])

    assert places == [2, 3, 4, 5, 6, 7]
