"""Chats in OpenAI's message format, as JSON or JSONL.

A message is an object with a `role`. A conversation is a list of messages, or an object with such a
list as `messages` (fine-tuning files) or `traj` (the runs of tau-bench). A file contains one
conversation, a list of them, or one on each line. Messages on lines of their own are together one
conversation.

A conversation is identified by its project, a hash of its content, and, for equal conversations in
one file, its number among them. Its unique address (`conversation_url`) is made from these, so that
a second import finds it without a search, even after it was moved to another project. A changed
conversation is another one.

Conversations are written in batches, each in one transaction, so that an interrupted import is
completed by starting it again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.dialects import postgresql

from db.agents import Agent
from db.ai_models import AIModel
from db.base import new_id
from db.conversations import SUMMARY_LENGTH, Conversation, Message, MessageSender, summarize
from db.engine import Database
from db.imports.files import (
    NotImportable,
    Progress,
    Source,
    as_json,
    kind,
    moment,
    no_progress,
    opened,
    quoted,
    read_value,
    refuse_bad_name,
    refuse_unstorable,
    storing,
)
from db.imports.report import Report
from db.projects import Project
from db.scopes import Viewer
from db.sessions import WriteSession
from db.text import canonical_json, composed
from db.writes import insert_many

SENDERS = {
    "system": MessageSender.SYSTEM,
    "developer": MessageSender.SYSTEM,
    "user": MessageSender.USER,
    "assistant": MessageSender.ASSISTANT,
    "tool": MessageSender.TOOL,
    "function": MessageSender.TOOL,
}

TITLE_LENGTH = 255

# The keys of a conversation's messages, and of a message's time.
MESSAGES = ("messages", "traj")
TIMES = (
    *("timestamp", "created_at", "createdAt", "create_time", "created"),
    *("time", "date", "ts"),
)

# Keys of texts beside the messages, which are stored only in the metadata.
BESIDE = ("chosen", "rejected", "prompt", "completion", "response", "system")

# The keys of the text of a part, if it has no type or one of these; otherwise only `text`.
TEXTS = ("text", "value", "content", "parts", "output", "refusal")
TEXT_TYPES = (
    *(None, "text", "input_text", "output_text", "refusal"),
    *("tool_result", "tool-result", "function_call_output"),
)
# The types of calls of tools, which have no text.
CALL_TYPES = ("tool_use", "server_tool_use", "tool_call", "tool-call", "function_call")

# Keys that some programs use instead of `content`.
INSTEAD_OF_CONTENT = ("parts", "text", "value", "refusal")
# The length of a title that is made from a message.
EXCERPT_LENGTH = 80

MAX_MESSAGES = 100_000

# The size of a transaction: large enough that a commit costs little, small enough for the memory.
BATCH_CONVERSATIONS = 200
BATCH_MESSAGES = 5_000
BATCH_BYTES = 1_000_000


@dataclass(slots=True)
class Chat:
    """A conversation that was read from a file."""

    place: str
    hash: str
    occurrence: int
    size: int
    title: str | None
    summary: str
    time: datetime | None
    about: dict[str, Any]
    messages: list[dict[str, Any]]

    def counts(self) -> dict[str, int]:
        """Its counts for the report."""
        return {"conversations": 1, "messages": len(self.messages)}


@dataclass(slots=True)
class _Target:
    """The target of the import. The project's id is set when it was found or made."""

    owner: UUID | None
    project: str
    agent: str
    model: str | None
    project_id: UUID | None = None


class _Conversations:
    """The conversations of a file, one by one and unchanged."""

    def __init__(self, source: Source, report: Report) -> None:
        self._events = source.events()
        self._report = report
        self._number = 0

    def read(self, end: str | None = None) -> Iterator[Any]:
        """Those up to the end of a list or the file; single messages together are one."""
        messages: list[Any] | None = None
        for number, event in enumerate(self._events):
            if event[0] == end:
                # An empty list is an empty conversation.
                if number == 0:
                    messages = []
                break
            if event[0] == "start_array" and end is None and messages is None:
                yield from self.read("end_array")
                continue
            place = f"conversation {self._number + 1}"
            if messages is not None:
                place = f"{place}, message {len(messages) + 1}"
            value = read_value(self._events, event, place, self._report)
            if number == 0 and _is_message(value):
                messages = []
            if messages is None:
                self._number += 1
                yield value
            elif len(messages) < MAX_MESSAGES:
                messages.append(value)
            else:
                raise NotImportable(f"{place}: {MAX_MESSAGES:,} are the most in a conversation.")
        if messages is not None:
            self._number += 1
            yield messages


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value and not value.keys() & MESSAGES


def read_chats(source: Source, report: Report) -> Iterator[Chat]:
    """The conversations of a file, one by one. Raises NotImportable."""
    occurrences: Counter[bytes] = Counter()
    for number, item in enumerate(_Conversations(source, report).read(), 1):
        place = f"conversation {number}"
        messages, about = _messages(item, place)
        if not messages:
            report.leave_out(f"{place} was left out, because it has no messages.")
            continue
        refuse_unstorable(about, place)
        time = _Time.of(about)
        otherwise = "the time of the import" if time.key is None else "the time of the conversation"
        rows = [
            _message(message, f"{place}, message {count}", otherwise, report)
            for count, message in enumerate(messages, 1)
        ]
        if any(row["timestamp"] is None for row in rows):
            time.report_notes(place, "the time of the import", report)
        _report_metadata(about, place, report)
        content = canonical_json([messages, about])
        hash = hashlib.sha256(content)
        occurrences[hash.digest()[:16]] += 1
        yield Chat(
            place=place,
            hash=hash.hexdigest(),
            occurrence=occurrences[hash.digest()[:16]],
            size=len(content),
            title=_title(about, rows, place, report),
            summary=_summary(about, rows, place, report),
            time=time.value,
            about=about,
            messages=rows,
        )
    if not occurrences:
        raise NotImportable(f"{source.name} has no conversation in it.")
    if source.has_mark:
        report.change(f"{source.name} begins with a byte order mark, which was skipped.")


def _messages(item: Any, place: str) -> tuple[list[Any], dict[str, Any]]:
    """The messages of a conversation, and its other keys."""
    if isinstance(item, list):
        return item, {}
    if not isinstance(item, dict):
        raise NotImportable(f"{place}: it is {kind(item)}, not a list of messages or an object.")
    keys = [key for key in MESSAGES if key in item]
    if keys:
        key = next((key for key in keys if item[key]), keys[0])
        messages = item[key]
        if messages is not None and not isinstance(messages, list):
            raise NotImportable(f'{place}: "{key}" is {kind(messages)}, not a list.')
        return messages or [], {name: item[name] for name in item if name != key}
    if _is_message(item):
        raise NotImportable(f"{place}: it is a single message, not a list of messages.")
    raise NotImportable(
        f'{place}: it has neither "messages" nor "traj", and no "role" to be a message itself.'
    )


def _report_metadata(about: dict[str, Any], place: str, report: Report) -> None:
    """Report texts beside the messages, which are stored only in the metadata."""
    beside = [
        key for key, value in about.items() if value and (key in BESIDE or _holds_messages(value))
    ]
    if beside:
        named = ", ".join(map(quoted, beside))
        stand = "stands" if len(beside) == 1 else "stand"
        report.change(f"{named} beside the messages {stand} in the metadata alone.", place)
    if "import" in about:
        report.change('"import" stands in the metadata as import.import.', place)


def _holds_messages(value: Any) -> bool:
    return any(map(_is_message, value)) if isinstance(value, list) else _is_message(value)


def _message(item: Any, place: str, otherwise: str, report: Report) -> dict[str, Any]:
    """A message as a row; keys without a column are stored in its metadata."""
    if not isinstance(item, dict):
        raise NotImportable(f"{place}: it is {kind(item)}, not an object.")
    refuse_unstorable(item, place)
    about = dict(item)
    role = about.get("role")
    sender = SENDERS.get(role.strip().lower()) if isinstance(role, str) else None
    if sender is None:
        named = "it has no role" if role is None else f"the role {quoted(str(role))} is unknown"
        raise NotImportable(f"{place}: {named}; a role is one of {', '.join(SENDERS)}.")
    if role == sender.lower():
        del about["role"]

    content, parts = _content(about, place, report)
    calls = about.pop("tool_calls", None)
    if calls is not None and not isinstance(calls, list):
        raise NotImportable(f'{place}: "tool_calls" is {kind(calls)}, not a list.')
    parts += calls or []
    # The older form, with a single call.
    if (call := about.pop("function_call", None)) is not None:
        parts.append({"type": "function_call", "function_call": call})
    if content is None and not parts:
        report.change("it has no content, so its text is empty.", place)
    time = _Time.of(about)
    time.report_notes(place, otherwise, report)
    if time.key is not None:
        del about[time.key]
    return {
        "sender": sender,
        "content": content or "",
        "parts": as_json(parts) if parts else None,
        "timestamp": time.value,
        "message_metadata": as_json(about),
    }


def _content(about: dict[str, Any], place: str, report: Report) -> tuple[str | None, list[Any]]:
    """Remove the content from the keys of a message; return its text and its parts."""
    content = about.pop("content", None)
    if content in (None, "", [], {}):
        key = next((key for key in INSTEAD_OF_CONTENT if _text(about.get(key))), None)
        if key is not None:
            report.change(f"it has no content, so its {quoted(key)} is taken for it.", place)
            content = about.pop(key)
            if key == "refusal":
                content = [{"type": key, key: content}]
    if content is None:
        return None, []
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list | dict):
        raise NotImportable(
            f"{place}: the content is {kind(content)}, not a text or a list of parts."
        )
    parts = content if isinstance(content, list) else [content]
    texts = [_text(part) for part in parts]
    for what in dict.fromkeys(
        _part(part)
        for part, said in zip(parts, texts, strict=True)
        if said is None and _type(part) not in CALL_TYPES
    ):
        report.change(f"{what} has no text known here, so it stands in the parts alone.", place)
    return "\n".join(text for text in texts if text is not None) or None, list(parts)


def _text(value: Any) -> str | None:
    """The text of a part, nested texts included; None if it has no plain text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        texts = [text for item in value if (text := _text(item)) is not None]
        return "\n".join(texts) if texts else None
    if isinstance(value, dict):
        keys = TEXTS if _type(value) in TEXT_TYPES else TEXTS[:1]
        found = [text for key in keys if (text := _text(value.get(key))) is not None]
        return next(filter(None, found), "") if found else None
    return None


def _type(part: Any) -> Any:
    return part.get("type", part.get("content_type")) if isinstance(part, dict) else None


def _part(part: Any) -> str:
    type = _type(part)
    if isinstance(type, str):
        return f"its part of type {quoted(type)}"
    return "its part without a type" if isinstance(part, dict) else f"its part, {kind(part)},"


@dataclass(slots=True)
class _Time:
    """The time of a message or conversation, its key, and notes for the report by key."""

    key: str | None
    value: datetime | None
    notes: dict[str, str]

    @classmethod
    def of(cls, about: dict[str, Any]) -> _Time:
        """The first of the times that can be parsed."""
        notes: dict[str, str] = {}
        for key in TIMES:
            if about.get(key) is None:
                continue
            time, note = moment(about[key])
            if note:
                notes[key] = note
            if time is not None:
                return cls(key, time, notes)
        return cls(None, None, notes)

    def report_notes(self, place: str, otherwise: str, report: Report) -> None:
        """Report the notes, and what is used instead of times that cannot be parsed."""
        instead = otherwise if self.key is None else f"its {self.key}"
        for key, note in self.notes.items():
            rest = (
                ""
                if key == self.key
                else (f", so it stays in the metadata and {instead} stands in its place")
            )
            report.change(f"its {key} {note}{rest}.", place)


def _title(
    about: dict[str, Any], rows: list[dict[str, Any]], place: str, report: Report
) -> str | None:
    for key in ("title", "name"):
        title = about.get(key)
        if isinstance(title, str) and title.strip():
            title = title.strip()
            if len(title) > TITLE_LENGTH:
                report.change(
                    f"its {key} has {len(title):,} characters and was cut after"
                    f" {TITLE_LENGTH - 1}; the metadata has all of it.",
                    place,
                )
            return _cut(title, TITLE_LENGTH)
    task, trial = about.get("task_id"), about.get("trial")
    if isinstance(task, int | str):
        title = f"Task {task}" if trial is None else f"Task {task}, trial {trial}"
        return _cut(title, TITLE_LENGTH)
    for row in rows:
        if row["sender"] is MessageSender.USER and row["content"].strip():
            return _cut(row["content"].strip().splitlines()[0], EXCERPT_LENGTH)
    return None


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _summary(about: dict[str, Any], rows: list[dict[str, Any]], place: str, report: Report) -> str:
    summary = about.get("summary")
    if isinstance(summary, str) and 0 < len(summary) <= SUMMARY_LENGTH:
        return summary
    if summary:
        report.change(
            f"its summary is not a text of at most {SUMMARY_LENGTH} characters, so it stays in the"
            " metadata and the beginning of the first message stands in its place.",
            place,
        )
    return summarize(rows[0]["content"])


async def import_chats(
    database: Database,
    path: Path,
    *,
    owner: UUID | None,
    project: str | None = None,
    agent: str = "assistant",
    model: str | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Import conversations into a project of the owner, by default named after the file.

    The project, the agent for messages of the assistant, and its model are created if they do not
    exist. `progress` is called with the work done and the total. Raises NotImportable before
    anything was added, unless the file or the project changes during the import.
    """
    named = composed(path.stem if project is None else project)
    target = _Target(owner, named, composed(agent), model)
    refuse_bad_name(target.project, "project")
    refuse_bad_name(target.agent, "agent")
    if model is not None:
        refuse_bad_name(model, "model", 100)
    report = Report()
    with opened(path, progress) as source:
        for _ in read_chats(source, report):
            # An import can be interrupted here.
            await asyncio.sleep(0)
        source.second_pass()
        for batch in _batches(read_chats(source, Report())):
            await _write(database, source, target, batch, report)
        source.finish()
    return report


def _batches(chats: Iterator[Chat]) -> Iterator[list[Chat]]:
    batch: list[Chat] = []
    messages = size = 0
    for chat in chats:
        batch.append(chat)
        messages += len(chat.messages)
        size += chat.size
        if len(batch) == BATCH_CONVERSATIONS or messages > BATCH_MESSAGES or size > BATCH_BYTES:
            yield batch
            batch, messages, size = [], 0, 0
    if batch:
        yield batch


async def _write(
    database: Database, source: Source, target: _Target, batch: list[Chat], report: Report
) -> None:
    """Add the conversations that do not exist yet, in one transaction."""
    source.refuse_change()
    with storing(f"{batch[0].place} to {batch[-1].place}"):
        async with database.write(Viewer(is_administrator=True)) as session:
            # Imports into one project wait for each other, so that none adds a conversation twice.
            # A long conversation may take longer than the timeouts of requests.
            await session.execute(text("SET LOCAL lock_timeout = '10min'"))
            await session.execute(text("SET LOCAL statement_timeout = '10min'"))
            key = func.hashtextextended(f"import of chats: {target.owner}: {target.project}", 0)
            await session.execute(select(func.pg_advisory_xact_lock(key)))
            project_id = await _project(session, target, source.file)
            by_url = {_url(project_id, chat): chat for chat in batch}
            there = set(
                await session.scalars(
                    select(Conversation.conversation_url).where(
                        Conversation.conversation_url.in_(by_url)
                    )
                )
            )
            new = {url: chat for url, chat in by_url.items() if url not in there}
            if new:
                await _insert(session, target, project_id, new, source.file)
    target.project_id = project_id
    for url, chat in by_url.items():
        (report.added if url in new else report.already_there).update(chat.counts())


def _url(project_id: UUID, chat: Chat) -> str:
    """The address of the conversation: the same at every import, and hard to guess."""
    identity = f"{project_id} {chat.hash} {chat.occurrence}"
    return base64.urlsafe_b64encode(hashlib.sha256(identity.encode()).digest()[:18]).decode()


async def _project(session: WriteSession, target: _Target, file: str) -> UUID:
    """The id of the project, which is made if it does not exist."""
    if target.project_id is not None:
        lock = {"read": True, "key_share": True}
        if await session.get(Project, target.project_id, with_for_update=lock) is None:
            raise NotImportable(f"The project {quoted(target.project)} was deleted meanwhile.")
        return target.project_id
    found = await session.scalar(
        select(Project.id)
        .where(Project.name == target.project, Project.owner_id.is_not_distinct_from(target.owner))
        .order_by(Project.id)
        .limit(1)
        .with_for_update(read=True, key_share=True)
    )
    if found is not None:
        return found
    project = await Project.create(
        session,
        name=target.project,
        owner_id=target.owner,
        project_metadata={"import": {"source": "chats", "file": file}},
    )
    return project.id


async def _agent(session: WriteSession, target: _Target, project_id: UUID) -> UUID:
    """The id of the agent for the assistant; it and its model are made if they do not exist."""
    if target.model is not None:
        # Another import may make the model at the same time, for another project.
        model = postgresql.insert(AIModel).values(id=target.model, provider="unknown")
        await session.execute(model.on_conflict_do_nothing())
    found = await session.scalar(
        select(Agent.id).where(Agent.project_id == project_id, Agent.name == target.agent)
    )
    if found is not None:
        return found
    agent = await Agent.create(
        session,
        project_id=project_id,
        name=target.agent,
        type="ASSISTANT",
        model_id=target.model,
    )
    return agent.id


async def _insert(
    session: WriteSession, target: _Target, project_id: UUID, chats: dict[str, Chat], file: str
) -> None:
    agent_id = await _agent(session, target, project_id)
    now = (await session.execute(select(func.now()))).scalar_one()
    conversations: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    for url, chat in chats.items():
        origin = {
            "source": "chats",
            "file": file,
            "hash": chat.hash,
            "occurrence": chat.occurrence,
        }
        if "import" in chat.about:
            origin["import"] = chat.about["import"]
        id = new_id()
        times = [row["timestamp"] or chat.time or now for row in chat.messages]
        conversations.append(
            {
                "id": id,
                "project_id": project_id,
                "agent_id": agent_id,
                "title": chat.title,
                "summary": chat.summary,
                "conversation_url": url,
                "last_message_at": max(times),
                "last_sequence": len(times),
                "conversation_metadata": as_json(chat.about | {"import": origin}),
            }
        )
        for sequence, (row, time) in enumerate(zip(chat.messages, times, strict=True), 1):
            spoken = row["sender"] is MessageSender.ASSISTANT
            messages.append(
                row
                | {
                    "id": new_id(),
                    "conversation_id": id,
                    "sequence": sequence,
                    "agent_id": agent_id if spoken else None,
                    "model_id": target.model if spoken else None,
                    "timestamp": time,
                }
            )
    await insert_many(session, Conversation, conversations)
    await insert_many(session, Message, messages)
