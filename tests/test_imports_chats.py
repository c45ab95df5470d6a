"""Chats in the formats of other programs than OpenAI: ChatGPT, Claude Code, ShareGPT, Anthropic."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

import db
from db.imports import NotImportable, formats, import_chats
from db.text import StoredJSON
from tests.world import snapshot, stored

MESSAGES = """
    SELECT c.title, m.sequence, m.sender, m.content, o.sequence FROM messages m
    JOIN conversations c ON c.id = m.conversation_id
    LEFT JOIN messages o ON o.id = m.parent_message_id ORDER BY c.id, m.sequence
"""


async def rows(database: db.Database, query: str) -> list[Any]:
    """The rows of a query, with the values of JSON."""

    def value(found: Any) -> Any:
        return json.loads(found.text) if isinstance(found, StoredJSON) else found

    return [
        tuple(map(value, row)) if isinstance(row, tuple) else value(row)
        for row in await stored(database, query)
    ]


def file(folder: Path, content: Any, name: str = "file.json") -> Path:
    """A file with a JSON value, or with a list of them on lines of their own."""
    path = folder / name
    lines = content if name.endswith(".jsonl") else [content]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path


def node(parent: str | None, role: str | None = None, *parts: Any, **more: Any) -> dict[str, Any]:
    """A node of a conversation of ChatGPT."""
    if role is None:
        return {"message": None, "parent": parent, "children": []}
    message = {
        "author": {"role": role, "name": None, "metadata": {}},
        "create_time": 1700000000.5,
        "content": {"content_type": "text", "parts": list(parts)},
        "metadata": {"model_slug": "gpt-4o"} if role == "assistant" else {},
        "recipient": "all",
    }
    return {"message": message | more, "parent": parent, "children": []}


def chatgpt(current: str, **nodes: dict[str, Any]) -> dict[str, Any]:
    """A conversation of ChatGPT."""
    mapping = {id: {"id": id} | found for id, found in nodes.items()}
    return {
        "title": "Frost",
        "create_time": 1700000000.0,
        "update_time": 1700000100.0,
        "mapping": mapping,
        "current_node": current,
        "conversation_id": "5c1a",
    }


BRANCHED = chatgpt(
    "again",
    root=node(None),
    system=node("root", "system", ""),
    ask=node("system", "user", "Will it freeze?"),
    first=node("ask", "assistant", "No."),
    thanks=node("first", "user", "Thanks."),
    again=node("ask", "assistant", "Yes, at night."),
    edited=node("system", "user", "Will it rain?"),
)


async def test_branches_of_chatgpt_are_forks(database: db.Database, tmp_path: Path) -> None:
    path = file(tmp_path, [BRANCHED])

    found = await import_chats(database, path, owner=None)

    assert found.added == {"conversations": 3, "messages": 6}
    assert found.left_out == ["conversation 1: an empty message of the system was left out."]
    assert await rows(database, MESSAGES) == [
        ("Frost", 1, "USER", "Will it freeze?", None),
        ("Frost", 2, "ASSISTANT", "Yes, at night.", None),
        ("Frost", 1, "USER", "Will it freeze?", 1),
        ("Frost", 2, "ASSISTANT", "No.", None),
        ("Frost", 3, "USER", "Thanks.", None),
        ("Frost", 1, "USER", "Will it rain?", None),
    ]
    about = "SELECT conversation_metadata - 'import' FROM conversations ORDER BY id"
    kept = {key: value for key, value in BRANCHED.items() if key != "mapping"}
    assert await rows(database, about) == [kept, kept | {"branch": 2}, kept | {"branch": 3}]
    told = "SELECT message_metadata, timestamp::text FROM messages WHERE content = 'No.'"
    assert await rows(database, told) == [
        (
            {"id": "first", "metadata": {"model_slug": "gpt-4o"}, "recipient": "all"},
            "2023-11-14 22:13:20.5+00",
        )
    ]
    before = await snapshot(database)

    again = await import_chats(database, path, owner=None)

    assert again.already_there == {"conversations": 3, "messages": 6}
    assert await snapshot(database) == before


async def test_nodes_that_are_missing_are_named(database: db.Database, tmp_path: Path) -> None:
    nodes = {id: found for id, found in BRANCHED["mapping"].items() if id != "first"}
    given = BRANCHED | {"mapping": nodes, "current_node": "first"}

    found = await import_chats(database, file(tmp_path, [given]), owner=None)

    assert found.changed == [
        "conversation 1: its current node is not in the file, so the last branch is the"
        " conversation.",
        "conversation 1: node thanks follows one that is not in the file, so a conversation begins"
        " with it.",
    ]
    assert [row[2:4] for row in await rows(database, MESSAGES)] == [
        ("USER", "Will it rain?"),
        ("USER", "Will it freeze?"),
        ("ASSISTANT", "Yes, at night."),
        ("USER", "Thanks."),
    ]


async def test_a_fork_finds_its_original_in_an_earlier_batch(
    database: db.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.imports.conversations.BATCH_CONVERSATIONS", 1)

    await import_chats(database, file(tmp_path, [BRANCHED]), owner=None)

    assert [row[4] for row in await rows(database, MESSAGES)] == [None, None, 1, None, None, None]


async def test_parts_of_chatgpt_are_kept(database: db.Database, tmp_path: Path) -> None:
    image = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-1"}
    code = {"content_type": "code", "language": "python", "text": "print(1)"}
    given = chatgpt(
        "b",
        a=node(
            None, "user", content={"content_type": "multimodal_text", "parts": [image, "This?"]}
        ),
        b=node("a", "assistant", content=code, recipient="python"),
    )

    found = await import_chats(database, file(tmp_path, given), owner=None)

    assert found.changed == [
        'conversation 1, message 1: its part of type "image_asset_pointer" has no text known here,'
        " so it stands in the parts alone."
    ]
    query = "SELECT content, parts FROM messages ORDER BY sequence"
    assert await rows(database, query) == [("This?", [image, "This?"]), ("print(1)", [code])]


ODD: list[Any] = [None, True, 7, "", "\0", [], [1], {}, {"a": []}]
KEYS = ["parent", "message", "current_node", "id", "type", "uuid", "sessionId"]


async def test_values_of_another_kind_are_stored_or_refused(
    database: db.Database, tmp_path: Path
) -> None:
    for key, odd in itertools.product(KEYS, ODD):
        await import_odd(database, tmp_path, key, odd)


async def import_odd(database: db.Database, tmp_path: Path, key: str, odd: Any) -> None:
    """Import chats in which a key has a value of another kind."""
    tree = chatgpt("a", a=node(None, "user", "A"), b=node("a", "user", "B")) | {key: odd}
    tree["mapping"]["b"][key] = odd
    lines = [record("user", "user", "A"), record("user", "user", "B") | {key: odd}]

    for path in (file(tmp_path, [tree]), file(tmp_path, lines, "s.jsonl")):
        with contextlib.suppress(NotImportable):
            await import_chats(database, path, owner=None)


async def test_a_tree_that_is_none_is_refused(database: db.Database, tmp_path: Path) -> None:
    given = chatgpt("a", a=node("b", "user", "A"), b=node("a", "user", "B"))
    before = await snapshot(database)

    with pytest.raises(NotImportable, match=r"^conversation 1: node a is its own ancestor\.$"):
        await import_chats(database, file(tmp_path, given), owner=None)

    assert await snapshot(database) == before


def record(type: str, role: str, content: Any, **more: Any) -> dict[str, Any]:
    """A line of a session of Claude Code."""
    return {
        "parentUuid": None,
        "isSidechain": False,
        "userType": "external",
        "cwd": "/home/ada/frost",
        "sessionId": "2ff46cd5",
        "version": "2.1.63",
        "gitBranch": "main",
        "type": type,
        "message": {"role": role, "content": content} | more,
        "uuid": "4d21",
        "timestamp": "2026-03-01T22:38:47.557Z",
    }


async def test_the_title_that_a_person_gave_a_session_stays(
    database: db.Database, tmp_path: Path
) -> None:
    made = {"type": "ai-title", "aiTitle": "Look at a folder", "sessionId": "2ff46cd5"}
    given = {"type": "custom-title", "customTitle": "Frost", "sessionId": "2ff46cd5"}
    lines = [
        made,
        record("user", "user", "What is here?"),
        given,
        given | {"customTitle": "Frost and ice"},
        made | {"aiTitle": "List files"},
        given | {"customTitle": ""},
    ]

    await import_chats(database, file(tmp_path, lines, "s.jsonl"), owner=None)

    assert await rows(database, "SELECT title FROM conversations") == ["Frost and ice"]


async def test_a_record_that_a_session_repeats_is_imported_once(
    database: db.Database, tmp_path: Path
) -> None:
    first, second = record("user", "user", "Yes"), record("user", "user", "Yes") | {"uuid": "4d22"}

    path = file(tmp_path, [first, second, first], "s.jsonl")
    found = await import_chats(database, path, owner=None)

    assert found.lines() == [
        "Added 1 conversation and 2 messages.",
        "Left out:",
        "  conversation 1, line 3: a record was left out, because the same one is there before.",
    ]


async def test_a_session_of_claude_code_is_a_conversation(
    database: db.Database, tmp_path: Path
) -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "plan.md"}
    lines = [
        {"type": "file-history-snapshot", "messageId": "4d21", "snapshot": {}},
        {"type": "summary", "summary": "Look at the folder", "leafUuid": "4d23"},
        record("user", "user", "What is here?"),
        record("assistant", "assistant", [use], id="msg_1", model="claude-sonnet-4-5"),
        record("user", "user", [result]) | {"toolUseResult": {"stdout": "plan.md"}},
        {"type": "system", "subtype": "compact_boundary", "content": "Compacted", "uuid": "4d25"},
    ]

    found = await import_chats(database, file(tmp_path, lines, "s.jsonl"), owner=None)

    assert found.lines() == [
        "Added 1 conversation and 4 messages.",
        "Left out:",
        '  conversation 1, line 1: a record of type "file-history-snapshot" was left out, because'
        " it is no message.",
    ]
    assert await rows(database, MESSAGES) == [
        ("Look at the folder", 1, "USER", "What is here?", None),
        ("Look at the folder", 2, "ASSISTANT", "", None),
        ("Look at the folder", 3, "TOOL", "plan.md", None),
        ("Look at the folder", 4, "SYSTEM", "Compacted", None),
    ]
    about = "SELECT conversation_metadata - 'import' FROM conversations"
    assert await rows(database, about) == [
        {
            "title": "Look at the folder",
            "sessionId": "2ff46cd5",
            "cwd": "/home/ada/frost",
            "version": "2.1.63",
            "gitBranch": "main",
            "userType": "external",
        }
    ]
    told = "SELECT parts, message_metadata, timestamp::text FROM messages WHERE sequence = 2"
    assert await rows(database, told) == [
        (
            [use],
            {
                "parentUuid": None,
                "isSidechain": False,
                "type": "assistant",
                "uuid": "4d21",
                "message": {"id": "msg_1", "model": "claude-sonnet-4-5"},
            },
            "2026-03-01 22:38:47.557+00",
        )
    ]


async def test_sharegpt_is_read(database: db.Database, tmp_path: Path) -> None:
    call = {"name": "lookup", "arguments": {"q": "bus"}}
    lines = [
        {
            "conversations": [
                {"from": "human", "value": "What is this?", "weight": 0},
                {"from": "function_call", "value": json.dumps(call)},
                {"from": "observation", "value": '{"answer": "a bus"}'},
                {"from": "gpt", "value": "A bus."},
            ],
            "system": "Be brief.",
            "tools": "[]",
        },
        {"id": "x", "items": [{"from": "human", "value": "Hello"}]},
    ]

    await import_chats(database, file(tmp_path, lines, "s.jsonl"), owner=None)

    assert await rows(database, MESSAGES) == [
        ("What is this?", 1, "SYSTEM", "Be brief.", None),
        ("What is this?", 2, "USER", "What is this?", None),
        ("What is this?", 3, "ASSISTANT", "", None),
        ("What is this?", 4, "TOOL", '{"answer": "a bus"}', None),
        ("What is this?", 5, "ASSISTANT", "A bus.", None),
        ("Hello", 1, "USER", "Hello", None),
    ]
    parts = "SELECT parts FROM messages WHERE parts IS NOT NULL"
    assert await rows(database, parts) == [[{"type": "function", "function": call}]]


async def test_variants_of_sharegpt_are_read(database: db.Database, tmp_path: Path) -> None:
    chats = [
        {"conversations": []},
        {"conversations": [{"role": "user", "content": "A"}, {"role": "ai", "value": "B"}]},
        {"items": [{"from": "human", "value": ["C", "D"]}]},
        {"messages": [{"from": "human", "value": "E"}, {"from": "gpt", "value": "F"}]},
    ]
    path = file(tmp_path, chats)
    assert formats.recognise(path) == formats.CHATS

    found = await import_chats(database, path, owner=None)

    assert found.left_out == ["conversation 1 was left out, because it has no messages."]
    assert [row[2:4] for row in await rows(database, MESSAGES)] == [
        ("USER", "A"),
        ("ASSISTANT", "B"),
        ("USER", "C\nD"),
        ("USER", "E"),
        ("ASSISTANT", "F"),
    ]


async def test_an_export_of_claude_is_read_and_continued(
    database: db.Database, tmp_path: Path
) -> None:
    messages = [
        {"uuid": "1", "sender": "human", "text": "A", "content": [], "attachments": []},
        {
            "uuid": "2",
            "sender": "assistant",
            "text": "",
            "content": [{"type": "text", "text": "B"}],
        },
    ]
    chat = {"uuid": "c", "name": "Frost", "chat_messages": messages[:1]}
    path = file(tmp_path, [chat])
    assert formats.recognise(path) == formats.CHATS
    await import_chats(database, path, owner=None)
    file(tmp_path, [chat | {"chat_messages": messages}])

    found = await import_chats(database, path, owner=None)

    assert found.added == {"messages": 1}
    assert [row[:4] for row in await rows(database, MESSAGES)] == [
        ("Frost", 1, "USER", "A"),
        ("Frost", 2, "ASSISTANT", "B"),
    ]


async def test_what_is_beside_the_texts_of_chatgpt_is_read(
    database: db.Database, tmp_path: Path
) -> None:
    contents = [
        {"content_type": "reasoning_recap", "content": "Thought for 5 s"},
        {"content_type": "tether_browsing_display", "result": "# Frost", "summary": None},
        {"content_type": "execution_output", "text": "1"},
        {"content_type": "system_error", "name": "Error", "text": "None found"},
    ]
    nodes = {
        str(number): node(str(number - 1) if number else None, "tool", content=content)
        for number, content in enumerate(contents)
    }
    empty = {"title": "None", "mapping": None, "current_node": None}

    found = await import_chats(database, file(tmp_path, [empty, chatgpt("3", **nodes)]), owner=None)

    assert found.changed == []
    assert found.left_out == ["conversation 1 was left out, because it has no messages."]
    texts = "SELECT content FROM messages ORDER BY sequence"
    assert await rows(database, texts) == ["Thought for 5 s", "# Frost", "1", "None found"]


async def test_an_unknown_sender_is_refused(database: db.Database, tmp_path: Path) -> None:
    given = {"conversations": [{"from": "human", "value": "A"}, {"from": "cat", "value": "B"}]}
    before = await snapshot(database)

    with pytest.raises(
        NotImportable, match=r'^conversation 1, message 2: its sender is "cat", not'
    ):
        await import_chats(database, file(tmp_path, given), owner=None)

    assert await snapshot(database) == before


async def test_results_of_tools_are_messages_of_the_tools(
    database: db.Database, tmp_path: Path
) -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
    text = [{"type": "text", "text": "-4 °C"}]
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": text, "is_error": False}
    given = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 1024,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": "Oslo?"},
            {"role": "assistant", "content": [{"type": "text", "text": "I look."}, use]},
            {"role": "user", "content": [result, {"type": "text", "text": "And Bergen?"}]},
        ],
    }

    found = await import_chats(database, file(tmp_path, given), owner=None)

    assert found.changed == []
    assert await rows(database, MESSAGES) == [
        ("Oslo?", 1, "SYSTEM", "Be brief.", None),
        ("Oslo?", 2, "USER", "Oslo?", None),
        ("Oslo?", 3, "ASSISTANT", "I look.", None),
        ("Oslo?", 4, "TOOL", "-4 °C", None),
        ("Oslo?", 5, "USER", "And Bergen?", None),
    ]
    about = "SELECT conversation_metadata - 'import' FROM conversations"
    assert await rows(database, about) == [{"model": "claude-sonnet-4-5", "max_tokens": 1024}]
