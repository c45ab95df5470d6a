"""Conversations that have grown since they were imported: the new messages are added to them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import db
from db.imports import NotImportable, formats, import_chats
from db.imports.report import Report
from tests.test_imports_chats import chatgpt, file, node, record, rows
from tests.world import snapshot

MESSAGES = """
    SELECT c.title, m.content, m.parent_message_id IS NOT NULL FROM messages m
    JOIN conversations c ON c.id = m.conversation_id ORDER BY c.id, m.sequence
"""

TREE = {
    "root": node(None),
    "ask": node("root", "user", "Will it freeze?"),
    "first": node("ask", "assistant", "No."),
    "again": node("ask", "assistant", "Yes, at night."),
}


async def imported(database: db.Database, path: Path, **options: Any) -> Report:
    """Import chats; a second import must add nothing, and a dry run must say the same."""
    before = await snapshot(database)
    told = await import_chats(database, path, owner=None, preview=True, **options)
    assert await snapshot(database) == before
    report = await import_chats(database, path, owner=None, **options)
    assert (told.added, told.updated) == (report.added, report.updated)
    after = await snapshot(database)
    again = await import_chats(database, path, owner=None, **options)
    assert await snapshot(database) == after
    assert again.lines()[0].startswith("Nothing was added: ")
    return report


async def change(database: db.Database, statement: str) -> None:
    """Change something in Troupe."""
    async with database.write(db.Viewer(is_administrator=True)) as session:
        await session.execute(text(statement))


async def test_a_longer_branch_is_continued_and_a_new_one_is_a_fork(
    database: db.Database, tmp_path: Path
) -> None:
    await imported(database, file(tmp_path, [chatgpt("again", **TREE)]))
    # The branch that was not the current one is now, and a third one begins.
    more = TREE | {
        "thanks": node("first", "user", "Thanks."),
        "other": node("root", "user", "Will it rain?"),
    }

    report = await imported(database, file(tmp_path, [chatgpt("thanks", **more)]))

    assert report.lines() == [
        "Added 1 conversation and 2 messages.",
        "Updated 1 conversation.",
        "Already there: 2 conversations and 4 messages.",
        "Updated:",
        '  conversation 1 "Frost": 1 new message.',
    ]
    assert await rows(database, MESSAGES) == [
        ("Frost", "Will it freeze?", False),
        ("Frost", "Yes, at night.", False),
        ("Frost", "Will it freeze?", True),
        ("Frost", "No.", False),
        ("Frost", "Thanks.", False),
        ("Frost", "Will it rain?", False),
    ]


async def test_a_file_with_fewer_branches_continues_them_and_adds_others(
    database: db.Database, tmp_path: Path
) -> None:
    more = {f"more {number}": node("ask", "assistant", f"{number}") for number in range(20)}
    await imported(database, file(tmp_path, [chatgpt("again", **TREE, **more)]))
    await change(
        database,
        "DELETE FROM conversations WHERE title = 'Frost' AND id = ANY ("
        "SELECT conversation_id FROM messages WHERE content IN ('No.', '3', '4'))",
    )
    few = {key: TREE[key] for key in ("root", "ask")} | {"more 19": more["more 19"]}
    fewer = few | {
        "thanks": node("more 19", "user", "Thanks."),
        "other": node("root", "user", "Will it rain?"),
    }

    report = await imported(database, file(tmp_path, [chatgpt("thanks", **fewer)]))

    assert report.added == {"conversations": 1, "messages": 2}
    assert report.updated == {"conversations": 1}
    # A file that is older has nothing new, whichever branch it has.
    report = await imported(database, file(tmp_path, [chatgpt("more 19", **few)]))
    assert report.added == {}


async def test_a_fork_of_what_was_there_names_its_originals(
    database: db.Database, tmp_path: Path
) -> None:
    first = {key: TREE[key] for key in ("root", "ask", "first")}
    await imported(database, file(tmp_path, [chatgpt("first", **first)]))

    report = await imported(database, file(tmp_path, [chatgpt("again", **TREE)]))

    assert report.added == {"conversations": 1, "messages": 2}
    assert [row[1:] for row in await rows(database, MESSAGES)] == [
        ("Will it freeze?", False),
        ("No.", False),
        ("Will it freeze?", True),
        ("Yes, at night.", False),
    ]


async def test_what_was_done_with_a_conversation_is_kept(
    database: db.Database, tmp_path: Path
) -> None:
    line = {key: TREE[key] for key in ("root", "ask", "again")}
    await imported(database, file(tmp_path, [chatgpt("again", **line)]))
    await change(
        database,
        "WITH added AS (INSERT INTO messages (conversation_id, sequence, sender, content)"
        " SELECT id, 3, 'USER', 'Ours' FROM conversations)"
        " UPDATE conversations SET last_sequence = 3, title = 'Ours',"
        " conversation_metadata = conversation_metadata || '{\"ours\": 1}'",
    )
    await change(database, "DELETE FROM messages WHERE content = 'Will it freeze?'")
    line["wow"] = node("again", "user", "Wow.")

    report = await imported(
        database, file(tmp_path, [chatgpt("wow", **line) | {"title": "Theirs"}])
    )

    assert report.added == {"messages": 1}
    assert await rows(database, MESSAGES) == [
        ("Ours", "Yes, at night.", False),
        ("Ours", "Ours", False),
        ("Ours", "Wow.", False),
    ]
    query = "SELECT last_sequence, conversation_metadata -> 'ours' FROM conversations"
    assert await rows(database, query) == [(4, 1)]


async def test_a_new_title_is_taken_unless_it_was_changed_here(
    database: db.Database, tmp_path: Path
) -> None:
    line = {key: TREE[key] for key in ("root", "ask", "again")}
    await imported(database, file(tmp_path, [chatgpt("again", **line)]))
    line["wow"] = node("again", "user", "Wow.")

    await imported(database, file(tmp_path, [chatgpt("wow", **line) | {"title": "Theirs"}]))

    assert await rows(database, "SELECT title FROM conversations") == ["Theirs"]


async def test_nothing_is_added_to_an_archived_conversation(
    database: db.Database, tmp_path: Path
) -> None:
    line = {key: TREE[key] for key in ("root", "ask", "again")}
    await imported(database, file(tmp_path, [chatgpt("again", **line)]))
    await change(database, "UPDATE conversations SET status = 'ARCHIVED'")
    line["wow"] = node("again", "user", "Wow.")

    report = await imported(database, file(tmp_path, [chatgpt("wow", **line)]))

    assert report.lines() == [
        "Nothing was added: 1 conversation and 2 messages are already there.",
        "Kept:",
        '  conversation 1 "Frost": it is archived, so 1 new message cannot be added.',
    ]


async def test_a_branch_continues_the_conversation_that_is_furthest_on(
    database: db.Database, tmp_path: Path
) -> None:
    line = {key: TREE[key] for key in ("root", "ask", "again")}
    await imported(database, file(tmp_path, [chatgpt("again", **line)]))
    await change(database, "UPDATE conversations SET status = 'ARCHIVED'")
    line |= {"wow": node("again", "user", "Wow."), "oh": node("again", "user", "Oh.")}
    report = await imported(database, file(tmp_path, [chatgpt("wow", **line)]))
    assert report.added == {"conversations": 1, "messages": 3}

    # Both branches contain the last message of the archived conversation.
    report = await imported(database, file(tmp_path, [chatgpt("oh", **line)]))

    assert report.added == {}


async def test_a_conversation_that_is_in_a_file_twice_is_one(
    database: db.Database, tmp_path: Path
) -> None:
    line = {key: TREE[key] for key in ("root", "ask")}
    longer = line | {"again": TREE["again"]}
    chats = [chatgpt("ask", **line), chatgpt("again", **longer)]

    report = await imported(database, file(tmp_path, chats))

    assert (report.added, report.updated) == (
        {"conversations": 1, "messages": 2},
        {"conversations": 1},
    )
    assert [row[1] for row in await rows(database, MESSAGES)] == [
        "Will it freeze?",
        "Yes, at night.",
    ]


def said(uuid: str, content: Any, **more: Any) -> dict[str, Any]:
    """A line of a session of Claude Code."""
    return record("user", "user", content) | {"uuid": uuid} | more


RESULT = [
    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "plan.md"},
    {"type": "text", "text": "There it is."},
]
AGENT = {"isSidechain": True}
SESSION = [
    said("1", "What is here?"),
    said("2", "List the files.", **AGENT),
    said("3", RESULT),
    said("4", "plan.md", parentUuid="2", **AGENT),
]


async def test_a_session_that_goes_on_is_continued(database: db.Database, tmp_path: Path) -> None:
    path = file(tmp_path, SESSION[:3], "s.jsonl")
    await imported(database, path)
    file(tmp_path, [*SESSION, said("5", "And now?")], "s.jsonl")

    report = await imported(database, path)

    assert report.lines() == [
        "Added 2 messages.",
        "Updated 2 conversations.",
        "Already there: 2 conversations and 4 messages.",
        "Updated:",
        '  conversation 1, session 2ff46cd5 "What is here?": 1 new message.',
        '  conversation 1, session 2ff46cd5 agent 2 "List the files.": 1 new message.',
    ]
    assert [row[:2] for row in await rows(database, MESSAGES)] == [
        ("What is here?", "What is here?"),
        ("What is here?", "plan.md"),
        ("What is here?", "There it is."),
        ("What is here?", "And now?"),
        ("List the files.", "List the files."),
        ("List the files.", "plan.md"),
    ]


async def test_a_last_line_that_is_cut_off_is_left_out(
    database: db.Database, tmp_path: Path
) -> None:
    path = file(tmp_path, [SESSION[0]], "s.jsonl")
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(said("2", "What is new?"))[:-20])

    report = await imported(database, path)

    assert report.added == {"conversations": 1, "messages": 1}
    assert report.left_out == ["conversation 1, message 2: it is cut off, so it was left out."]
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(said("2", "What is new?"))[-20:])
    assert (await imported(database, path)).added == {"messages": 1}


async def test_a_folder_of_sessions_is_imported(database: db.Database, tmp_path: Path) -> None:
    folder = tmp_path / "-home-ada-frost"
    agents = folder / "other" / "subagents"
    agents.mkdir(parents=True)
    older = file(folder, [said("1", "First")], "s2.jsonl")
    file(
        folder, [said("1", "Second", sessionId="b"), said("1", "Third", sessionId="c")], "s1.jsonl"
    )
    file(agents, [said("1", "Fourth", agentId="a7", **AGENT)], "agent-a7.jsonl")
    file(folder, [{"type": "summary", "summary": "None", "leafUuid": "9"}], "empty.jsonl")
    file(folder, [{"some": "thing"}], "other.jsonl")
    os.utime(older, (1, 1))
    assert formats.located(folder) == folder
    assert formats.recognise(folder) == formats.CHATS

    report = await imported(database, folder)

    assert report.added == {"conversations": 4, "messages": 4}
    assert report.left_out == [
        "empty.jsonl, conversation 1 was left out, because it has no messages.",
        f"{folder}/empty.jsonl has no conversation in it.",
    ]
    contents = [row[1] for row in await rows(database, MESSAGES)]
    assert contents[0] == "First"
    assert sorted(contents) == ["First", "Fourth", "Second", "Third"]
    assert await rows(database, "SELECT name FROM projects") == ["-home-ada-frost"]


async def test_a_session_in_several_files_of_a_folder_is_one(
    database: db.Database, tmp_path: Path
) -> None:
    first, more = file(tmp_path, SESSION[:1], "a.jsonl"), file(tmp_path, SESSION, "b.jsonl")
    os.utime(first, (1, 1))
    os.utime(more, (2, 2))
    file(tmp_path, SESSION, "c.jsonl")

    report = await imported(database, tmp_path)

    assert report.added == {"conversations": 2, "messages": 5}
    assert report.updated == {"conversations": 1}


async def test_a_folder_is_refused_as_a_whole(database: db.Database, tmp_path: Path) -> None:
    file(tmp_path, [said("1", "First")], "a.jsonl")
    path = file(tmp_path, [said("1", "First", sessionId="b")], "b.jsonl")
    with path.open("a", encoding="utf-8") as lines:
        lines.write("no JSON\n")
    before = await snapshot(database)

    with pytest.raises(NotImportable, match=r"b\.jsonl is not JSON: .* at line 2, column"):
        await import_chats(database, tmp_path, owner=None)

    assert await snapshot(database) == before
