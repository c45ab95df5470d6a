"""Conversations: started, added to in order, summed up, changed and deleted with what was said."""

import asyncio
from itertools import islice, pairwise, product
from typing import Any

import httpx
import pytest

import db
from graph.core.scalars import global_id
from tests import factories
from tests.conftest import People
from tests.oracle import Everything, Someone, seen_with
from tests.world import Case, Fault, World, at, faults, gid, make_world, snapshot, stored

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


def sees_conversation(everything: Everything, viewer: Someone, talk: db.Conversation) -> bool:
    """Whether a viewer sees a conversation: of their project, or their own if it has none."""
    if talk.project_id is None:
        return talk.user_id == viewer.id
    return everything.is_member(viewer, talk.project_id)


SEEN = {
    db.Conversation: sees_conversation,
    db.Message: seen_with(db.Conversation, "conversation_id"),
}
CASES = {
    "startConversation": Case(
        lambda w: {"projectId": gid(w.project), "message": said("Hi")}, at("projectId")
    ),
    "updateConversation": Case(lambda w: {"id": gid(w.conversation), "title": "New"}),
    "appendMessages": Case(
        lambda w: {"conversationId": gid(w.conversation), "messages": [said("Hi")]},
        at("conversationId"),
    ),
    "editMessage": Case(lambda w: {"id": gid(w.message), "content": "Hello!"}),
    "forkConversation": Case(lambda w: {"messageId": gid(w.message)}, at("messageId")),
    "deleteMessage": Case(lambda w: {"id": gid(w.message)}),
    "archiveConversation": Case(lambda w: {"id": gid(w.conversation)}),
    "unarchiveConversation": Case(lambda w: {"id": gid(w.conversation)}),
    "deleteConversation": Case(lambda w: {"id": gid(w.conversation)}),
}


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
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        talk = await factories.make_conversation(session, project_id=world.elsewhere.id)
        (secret,) = await factories.make_messages(session, talk, ["Secret"])
    foreign = gid(secret)

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


# Messages are edited, and conversations are put away.

EDITED = f"{{ message {{ content parts metadata editedAt timestamp sequence sender }} {ERRORS} }}"


async def start(world: World, *contents: str, client: Any = None, **values: Any) -> list[str]:
    """Start a conversation with these messages; its id and theirs."""
    client = client or world.owner
    started = await client.change("startConversation { conversation { id } }", **values)
    id = started["conversation"]["id"]
    if not contents:
        return [id]
    appended = await client.change(
        f"appendMessages {{ messages {{ id }} {ERRORS} }}",
        conversationId=id,
        messages=[
            said(content, timestamp=f"2026-01-01T00:00:{place:02}Z")
            for place, content in enumerate(contents)
        ],
    )
    assert appended["userErrors"] == []
    return [id, *(message["id"] for message in appended["messages"])]


async def test_an_edited_message_tells_that_it_was(world: World) -> None:
    conversation, id, other = await start(world, "Hallo", "Bye")
    document = "mutation($input: EditMessageInput!) {{ editMessage(input: $input) {} }}"
    before = await stored(world.database, "SELECT version, updated_at FROM conversations LIMIT 1")

    answer = await world.owner.ask(
        document.format(EDITED), input={"id": id, "content": "Hello", "metadata": {"k": 1}}
    )
    again = await world.owner.change(f"editMessage {EDITED}", id=id, parts={"a": [1]})
    other_kind = await world.owner.change(f"editMessage {EDITED}", id=id, parts={"a": [True]})
    cleared = await world.owner.change(f"editMessage {EDITED}", id=id, parts=None)

    message = answer.data["editMessage"]["message"]
    edited = message.pop("editedAt")
    assert edited is not None
    assert message == {
        "content": "Hello",
        "parts": None,
        "metadata": {"k": 1},
        "timestamp": "2026-01-01T00:00:00+00:00",
        "sequence": 1,
        "sender": "USER",
    }
    # The message, its conversation and the message again, both locked; the change; the note of it
    # in the conversation, read again; the message as it is now.
    assert len(answer.statements) == 7
    assert again["message"] == message | {
        "parts": {"a": [1]},
        "editedAt": again["message"]["editedAt"],
    }
    assert again["message"]["editedAt"] > edited
    assert str(other_kind["message"]["parts"]) == "{'a': [True]}"
    assert cleared["message"]["parts"] is None
    query = "SELECT content, edited_at IS NULL FROM messages WHERE timestamp < '2026-01-02'"
    assert sorted(await stored(world.database, query)) == [("Bye", True), ("Hello", False)]
    # Talking is no edit of the conversation, but moves it up among those that changed last.
    query = "SELECT version, updated_at FROM conversations WHERE id <> :id"
    ((version, updated),) = await stored(world.database, query, id=world.conversation.id)
    assert (version, updated > before[0][1]) == (1, True)
    assert other != id != conversation


async def test_an_edit_that_changes_nothing_leaves_no_trace(world: World) -> None:
    _, id = await start(world, "Hello")
    before = await snapshot(world.database)

    edits: list[dict[str, Any]] = [{}, {"content": "Hello"}, {"metadata": {}, "parts": None}]
    for same in edits:
        payload = await world.owner.change(f"editMessage {EDITED}", id=id, **same)
        assert (payload["message"]["editedAt"], payload["userErrors"]) == (None, [])

    assert await snapshot(world.database) == before


async def test_edits_that_are_wrong_are_refused(world: World) -> None:
    _, id = await start(world, "Hello")
    _, foreign = await start(world, "Hello", client=world.people.stranger)
    cases: list[tuple[dict[str, Any], list[Fault]]] = [
        (
            {"id": gid(world.project), "content": "x" * 1_000_001, "metadata": []},
            [("INVALID", name) for name in ("id", "content", "metadata")],
        ),
        (
            {"id": id, "content": None, "metadata": None},
            [("INVALID", "content"), ("INVALID", "metadata")],
        ),
        ({"id": foreign, "content": "x"}, [("NOT_FOUND", "id")]),
        ({"id": str(db.new_id()), "content": "x"}, [("NOT_FOUND", "id")]),
    ]
    for input, expected in cases:
        found = await world.refused(world.owner, "editMessage", **input)
        assert sorted(found) == sorted(expected), input
    mine = {"id": gid(world.message), "content": "x"}
    assert await world.error(world.agent, "editMessage", **mine) == "FORBIDDEN"


async def test_an_archived_conversation_stays_as_it_is(world: World) -> None:
    conversation, message = await start(world, "Hello")

    archived = await world.owner.change(
        f"archiveConversation {WHOLE}", id=conversation, expectedVersion=1
    )
    again = await world.owner.change(f"archiveConversation {WHOLE}", id=conversation)

    shown = archived["conversation"]
    assert (shown["status"], shown["version"], archived["userErrors"]) == ("ARCHIVED", 2, [])
    assert again == archived
    for mutation, input, path in (
        ("appendMessages", {"conversationId": conversation, "messages": [said("x")]}, None),
        ("updateConversation", {"id": conversation, "title": "x"}, "id"),
        ("editMessage", {"id": message, "content": "x"}, "id"),
        ("deleteMessage", {"id": message}, "id"),
    ):
        found = await world.refused(world.owner, mutation, **input)
        assert found == [("INVALID", path or "conversationId")], mutation
    payload = await world.owner.change(
        "editMessage { userErrors { message } }", id=message, content="x"
    )
    assert payload == {"userErrors": [{"message": "This conversation is archived."}]}
    gone = await world.owner.change(f"deleteConversation {{ deletedId {ERRORS} }}", id=conversation)
    assert gone == {"deletedId": conversation, "userErrors": []}


async def test_only_who_may_edit_a_conversation_archives_it(world: World) -> None:
    mine = gid(world.conversation)
    theirs, *_ = await start(world, client=world.people.stranger)

    archive = "archiveConversation"
    stale = await world.refused(world.owner, archive, id=mine, expectedVersion=2)
    foreign = await world.refused(world.owner, archive, id=theirs)

    assert (stale, foreign) == ([("CONFLICT", "expectedVersion")], [("NOT_FOUND", "id")])
    assert await world.error(world.agent, archive, id=mine) == "FORBIDDEN"
    query = "query($s: ConversationStatus!) { conversations(where: {status: {eq: $s}}) {"
    query += " totalCount } }"
    await world.owner.change(f"{archive} {{ {ERRORS} }}", id=mine)
    for status, count in (("ARCHIVED", 1), ("ACTIVE", 0)):
        answer = await world.owner.ask(query, s=status)
        assert answer.data == {"conversations": {"totalCount": count}}


async def test_nothing_is_added_while_a_conversation_is_archived(world: World) -> None:
    for _ in range(5):
        conversation, message = await start(world, "Hello")

        archived, appended, edited = await asyncio.gather(
            world.owner.change(f"archiveConversation {{ {ERRORS} }}", id=conversation),
            world.owner.change(
                f"appendMessages {{ messages {{ id }} {ERRORS} }}",
                conversationId=conversation,
                messages=[said("late")],
            ),
            world.owner.change(f"editMessage {{ {ERRORS} }}", id=message, content="late"),
        )

        assert archived["userErrors"] == []
        late = [faults(appended), faults(edited)].count([])
        query = "SELECT count(*) FROM messages m JOIN conversations c ON c.id = conversation_id"
        query += " WHERE c.status = 'ARCHIVED' AND content = 'late'"
        assert await stored(world.database, query) == [late]
        await world.owner.change("deleteConversation { deletedId }", id=conversation)


# Messages are found by their words.

SEARCH = (
    "query($q: String!, $where: MessageFilter, $by: MessageSearchOrder = TIMESTAMP_DESC) {"
    " searchMessages(query: $q, where: $where, orderBy: $by) { totalCount nodes { content } } }"
)


async def test_messages_are_found_by_their_words(world: World, resolvers: People) -> None:
    texts = [
        "The rover landed near the crater.",
        "Near the crater, ice was found!",
        "Das Eis am Krater: größer als gedacht",
        "No words of interest; crater-ice 42",
        "",
    ]
    await start(world, *texts)
    for query, places in (
        ("crater", [3, 1, 0]),
        ("CRATER", [3, 1, 0]),
        ("crater near", [1, 0]),
        ("near crater landed", [0]),
        ('"near the crater"', [1, 0]),
        ('"crater near"', []),
        ('"the crater" ice', [1]),
        ("crater -ice", [0]),
        ("crater -rover -42", [1]),
        ("rover or größer", [2, 0]),
        ("eis OR landed", [2, 0]),
        ("GRÖSSER", [2]),
        ("grosser", []),
        ("Größer", [2]),
        ("crat", []),
        ("the", [1, 0]),
        ("42", [3]),
        ("ice 43", []),
        ("-crater", [4, 2]),
        # What says nothing finds nothing, and nothing is an operator that is not meant to be one.
        ("", []),
        (" \t\n", []),
        ("!?", []),
        ('"', []),
        ("or", []),
        ("crater & ( | :* <-> \\ '", [3, 1, 0]),
        ("x" * 1000, []),
    ):
        planned = await world.owner.ask(SEARCH, q=query)
        resolved = await resolvers.owner.ask(SEARCH, q=query)

        found = planned.data["searchMessages"]
        others = [text for text in ("Hello",) if query == "-crater"]
        expected = others + [texts[place] for place in places]
        assert [node["content"] for node in found["nodes"]] == expected, query
        assert found["totalCount"] == len(expected)
        assert planned.text == resolved.text
        assert (len(planned.statements), len(resolved.statements)) == (1, 2)


async def test_a_search_is_narrowed_and_ordered(world: World, resolvers: People) -> None:
    first, *_ = await start(world, "moon a", "sun", "moon b", projectId=gid(world.project))
    await start(world, "moon c", agentId=gid(world.ada))
    for where, by, contents in (
        ({}, "SEQUENCE_ASC", ["moon a", "moon c", "moon b"]),
        ({}, "TIMESTAMP_ASC", ["moon a", "moon c", "moon b"]),
        ({"conversationId": {"eq": first}}, "TIMESTAMP_DESC", ["moon b", "moon a"]),
        ({"conversation": {"projectId": {"isNull": True}}}, "SEQUENCE_DESC", ["moon c"]),
        ({"sequence": {"gt": 1}}, "SEQUENCE_DESC", ["moon b"]),
        ({"sender": {"eq": "TOOL"}}, "SEQUENCE_DESC", []),
    ):
        for people in (world.people, resolvers):
            answer = await people.owner.ask(SEARCH, q="moon", where=where, by=by)

            found = answer.data["searchMessages"]
            assert [node["content"] for node in found["nodes"]] == contents, where
            assert found["totalCount"] == len(contents)


async def test_a_search_is_paged_forward_and_backward(world: World, resolvers: People) -> None:
    await start(world, *(f"moon {n}" if n % 2 else f"sun {n}" for n in range(10)))
    query = (
        "query($first: Int, $after: String, $last: Int, $before: String) { searchMessages("
        'query: "moon", first: $first, after: $after, last: $last, before: $before) { totalCount'
        " edges { cursor node { content } } pageInfo { hasNextPage hasPreviousPage startCursor"
        " endCursor } } }"
    )
    ways = (("first", "after", "hasNextPage", -1), ("last", "before", "hasPreviousPage", 0))
    for number, cursor, more, end in ways:
        seen: list[str] = []
        variables: dict[str, Any] = {number: 2}
        while True:
            planned = await world.owner.ask(query, **variables)
            resolved = await resolvers.owner.ask(query, **variables)
            assert planned.text == resolved.text
            page = planned.data["searchMessages"]
            contents = [edge["node"]["content"] for edge in page["edges"]]
            seen = seen + contents if number == "first" else contents + seen
            assert page["totalCount"] == 5
            if not page["pageInfo"][more]:
                break
            variables[cursor] = page["edges"][end]["cursor"]

        assert seen == [f"moon {n}" for n in (9, 7, 5, 3, 1)]


async def test_what_one_may_not_see_is_not_found(world: World, resolvers: People) -> None:
    await start(world, "secret of a project", projectId=gid(world.project))
    await start(world, "secret of the owner")
    await start(world, "secret of the stranger", client=world.people.stranger)
    mine = ["secret of a project", "secret of the owner"]

    for people in (world.people, resolvers):
        for client, contents in (
            (people.owner, mine),
            (people.stranger, ["secret of the stranger"]),
            (people.admin, [*mine, "secret of the stranger"]),
        ):
            answer = await client.ask(SEARCH, q="secret", by="TIMESTAMP_ASC")
            found = answer.data["searchMessages"]
            assert sorted(node["content"] for node in found["nodes"]) == contents
            assert found["totalCount"] == len(contents)
    agent = await world.agent.ask(SEARCH, q="secret")
    nobody = await world.people.nobody.ask(SEARCH, q="secret")
    assert [node["content"] for node in agent.data["searchMessages"]["nodes"]] == mine[:1]
    assert nobody.code == "UNAUTHENTICATED"


async def test_what_an_edit_says_is_found_and_what_it_said_is_not(world: World) -> None:
    _, message = await start(world, "moon")
    await world.owner.change(f"editMessage {EDITED}", id=message, content="sun")

    for query, count in (("moon", 0), ("sun", 1)):
        answer = await world.owner.ask(SEARCH, q=query)
        assert answer.data["searchMessages"]["totalCount"] == count


async def test_the_start_of_a_long_message_is_what_is_found(world: World) -> None:
    # A text search vector holds no more than so much; the message is stored whole.
    words = " ".join(f"w{n}" for n in range(100_000))
    await start(world, f"first {words} last")

    for query, count in (("first w1", 1), ("last", 0)):
        answer = await world.owner.ask(SEARCH, q=query)
        assert answer.data["searchMessages"]["totalCount"] == count


async def test_of_a_text_with_very_many_words_the_first_are_found(world: World) -> None:
    # Signs of four bytes: PostgreSQL takes 1 MB in all. With spaces, and without.
    cuneiform = [chr(0x12000 + n) for n in range(900)]
    spaced = [a + b for a, b in islice(product(cuneiform, repeat=2), 40_000)]
    han = [chr(0x20000 + n) for n in range(40_000)]
    unspaced = [a + b for a, b in pairwise(han[::-1] + han)]
    for words, text in ((spaced, " ".join(spaced)), (unspaced, "".join(han[::-1] + han))):
        await start(world, text)

        for word, found in ((words[0], 1), (words[20_000], 1), (words[-1], 0)):
            answer = await world.owner.ask(SEARCH, q=word)
            assert len(answer.data["searchMessages"]["nodes"]) == found, word


async def test_a_search_that_cannot_be_is_refused(world: World, resolvers: People) -> None:
    page = "searchMessages(query: $q, first: 1)"
    for people in (world.people, resolvers):
        for query in ("x" * 1001, "a " * 501, "nul\0"):
            for selection in ("nodes { id }", "totalCount"):
                document = f"query($q: String!) {{ {page} {{ {selection} }} }}"
                answer = await people.owner.ask(document, q=query)
                assert answer.code == "BAD_USER_INPUT", (query, selection)
                assert answer.statements == []
        for value in (None, 1, ["x"]):
            answer = await people.owner.ask(SEARCH, q=value)
            assert answer.code == "BAD_USER_INPUT"
    long = await world.owner.ask(SEARCH, q="x" * 1001)
    assert long.errors[0]["message"] == "A query is of at most 1,000 characters."
