"""Writes the conversations of a file, or of a folder of sessions, into a project.

A conversation that was imported before (`known_chats.py`) gets the messages that are new in the
file; what was done with it here stays. If the file has no id for it, it is identified by its
content, and a changed conversation is another one.

Conversations are written in batches, each in one transaction, so that an interrupted import is
completed by starting it again. A dry run is one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql

from db.agents import Agent
from db.ai_models import AIModel
from db.base import new_id
from db.conversations import Conversation, ConversationStatus, Message, MessageSender
from db.engine import Database
from db.imports import claude_code_sessions
from db.imports.chats import Chat, read_chats
from db.imports.files import (
    Empty,
    NotImportable,
    Progress,
    Source,
    as_json,
    no_progress,
    opened,
    quoted,
    refuse_bad_name,
    storing,
)
from db.imports.known_chats import Known, Match, find_known, url
from db.imports.report import Report
from db.imports.transactions import Begin, transactions
from db.projects import Project
from db.sessions import WriteSession
from db.text import composed
from db.writes import insert_many

# The size of a transaction: large enough that a commit costs little, small enough for the memory.
BATCH_CONVERSATIONS = 200
BATCH_MESSAGES = 5_000
BATCH_BYTES = 1_000_000


@dataclass(slots=True)
class _Target:
    """The target of the import. The project's id is set when it was found or made."""

    owner: UUID | None
    project: str
    agent: str
    model: str | None
    project_id: UUID | None = None


async def import_chats(
    database: Database,
    path: Path,
    *,
    owner: UUID | None,
    project: str | None = None,
    agent: str = "assistant",
    model: str | None = None,
    preview: bool = False,
    progress: Progress = no_progress,
) -> Report:
    """Import conversations into a project of the owner, by default named after the file.

    `path` is a file, or a folder with sessions of Claude Code. The project, the agent for messages
    of the assistant, and its model are created if they do not exist. With `preview`, all is
    one transaction that is rolled back, and the report says what would be done. `progress` is
    called with the work done and the total. Raises NotImportable before anything was added, unless
    a file or the project changes during the import.
    """
    is_folder, name = _named(path)
    named = composed(name)
    target = _Target(owner, named if project is None else composed(project), composed(agent), model)
    refuse_bad_name(target.project, "project")
    refuse_bad_name(target.agent, "agent")
    if model is not None:
        refuse_bad_name(model, "model", 100)
    report = Report(is_preview=preview)
    if is_folder:
        await _import_folder(database, path, target, report, progress)
        return report
    with opened(path, progress) as source:
        await _check(source, report)
        source.second_pass()
        async with transactions(database, is_preview=preview) as begin:
            await _import(begin, source, target, report)
        source.finish()
    return report


def _named(path: Path) -> tuple[bool, str]:
    """Whether it is a folder, and the name of the project for it."""
    is_folder = path.is_dir()
    return is_folder, (path.absolute().name if is_folder else path.stem) or "chats"


async def _import_folder(
    database: Database, folder: Path, target: _Target, report: Report, progress: Progress
) -> None:
    """Import the sessions in a folder, after all were checked."""
    files = claude_code_sessions.find_files(folder)
    total, done = 2 * len(files), 0
    kept = []
    for file in files:
        with opened(file) as source:
            try:
                await _check(source, report, f"{file.relative_to(folder)}, ")
                kept.append(file)
            except Empty as error:
                report.leave_out(f"{error}")
        progress(done := done + 1, total)
    if not kept:
        raise NotImportable(f"{folder} has no session of Claude Code with messages in it.")
    async with transactions(database, is_preview=report.is_preview) as begin:
        for file in kept:
            with opened(file) as source:
                await _import(begin, source, target, report)
            progress(done := done + 1, total)
    progress(total, total)


async def _check(source: Source, report: Report, place: str = "") -> None:
    for _ in read_chats(source, report, place):
        # An import can be interrupted here.
        await asyncio.sleep(0)


async def _import(begin: Begin, source: Source, target: _Target, report: Report) -> None:
    for batch in _batches(read_chats(source, Report())):
        await _write(begin, source, target, batch, report)


def _batches(groups: Iterator[list[Chat]]) -> Iterator[list[list[Chat]]]:
    """Conversations, each with its branches, that are written at once; none is there twice."""
    batch: dict[tuple[str, int], list[Chat]] = {}
    count = messages = size = 0
    for group in groups:
        key = (group[0].hash, group[0].number)
        if key in batch:
            yield list(batch.values())
            batch, count, messages, size = {}, 0, 0, 0
        batch[key] = group
        count += len(group)
        messages += sum(len(chat.messages) for chat in group)
        size += sum(chat.size for chat in group)
        if count >= BATCH_CONVERSATIONS or messages > BATCH_MESSAGES or size > BATCH_BYTES:
            yield list(batch.values())
            batch, count, messages, size = {}, 0, 0, 0
    if batch:
        yield list(batch.values())


async def _write(
    begin: Begin,
    source: Source,
    target: _Target,
    batch: list[list[Chat]],
    report: Report,
) -> None:
    """Add what is new in conversations, in one transaction."""
    source.refuse_change()
    done = Report()
    with storing(f"{batch[0][0].place} to {batch[-1][-1].place}"):
        async with begin() as session:
            # Imports into one project wait for each other, so that none adds a conversation twice.
            key = func.hashtextextended(f"import of chats: {target.owner}: {target.project}", 0)
            await session.execute(select(func.pg_advisory_xact_lock(key)))
            project_id = await _project(session, target, source.file)
            matches = await find_known(session, project_id, batch)
            for match in matches:
                if match.known is not None:
                    there = len(match.chat.messages) - len(match.new)
                    done.already_there.update({"conversations": 1, "messages": there})
            if any(match.new for match in matches):
                await _Writer(session, target, project_id, source.file, done).write(matches)
    target.project_id = project_id
    report.include(done)


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


class _Writer:
    """Writes new conversations, and the new messages of those that were imported before."""

    def __init__(
        self, session: WriteSession, target: _Target, project_id: UUID, file: str, report: Report
    ) -> None:
        self._session = session
        self._target = target
        self._project_id = project_id
        self._file = file
        self._report = report
        self._conversations: list[dict[str, Any]] = []
        self._messages: list[dict[str, Any]] = []
        # The messages that branches have copies of, by the hash of the conversation and their ids.
        self._originals: dict[tuple[str, str], UUID] = {}

    async def write(self, matches: list[Match]) -> None:
        """Add what is new."""
        self._agent_id = await _agent(self._session, self._target, self._project_id)
        self._now = (await self._session.execute(select(func.now()))).scalar_one()
        for match in matches:
            if match.known is None:
                self._begin(match)
            elif match.new:
                await self._continue(match, match.known)
        await insert_many(self._session, Conversation, self._conversations)
        for first in range(0, len(self._messages), BATCH_MESSAGES):
            messages = self._messages[first : first + BATCH_MESSAGES]
            await insert_many(self._session, Message, messages)

    def _begin(self, match: Match) -> None:
        chat, id = match.chat, new_id()
        latest = self._add(match, id, 0)
        self._conversations.append(
            {
                "id": id,
                "project_id": self._project_id,
                "agent_id": self._agent_id,
                "title": chat.title,
                "summary": chat.summary,
                "conversation_url": url(self._project_id, chat, match.number),
                "last_message_at": latest,
                "last_sequence": len(chat.messages),
                "conversation_metadata": as_json(self._metadata(match)),
            }
        )
        self._report.added.update(chat.counts())

    async def _continue(self, match: Match, known: Known) -> None:
        """Add the new messages at the end of a conversation, unless it is archived."""
        chat, new = match.chat, len(match.new)
        at = f"{chat.place} {quoted(chat.title or '')}"
        found = await self._session.scalar(
            select(Conversation).where(Conversation.id == known.id).with_for_update()
        )
        if found is None or found.status is ConversationStatus.ARCHIVED:
            self._report.step("Kept", f"{at}: it is archived, so {_messages(new)} cannot be added.")
            return
        latest = self._add(match, known.id, found.last_sequence)
        values: dict[str, Any] = {
            "last_sequence": found.last_sequence + new,
            "last_message_at": max(latest, found.last_message_at or latest),
            "conversation_metadata": found.conversation_metadata | self._metadata(match),
        }
        if found.title == known.origin.get("title"):
            values["title"] = chat.title
        found.change(**values)
        self._report.updated["conversations"] += 1
        self._report.added["messages"] += new
        self._report.step("Updated", f"{at}: {_messages(new)}.")

    def _add(self, match: Match, conversation: UUID, sequence: int) -> datetime:
        """Add the new messages after a position; returns the time of the latest."""
        chat = match.chat
        for id, original in match.originals.items():
            self._originals.setdefault((chat.hash, id), original)
        times = []
        for count, place in enumerate(match.new, 1):
            row, message = chat.messages[place], new_id()
            time = row["timestamp"] or chat.time or self._now
            times.append(time)
            original = message
            if chat.ids:
                original = self._originals.setdefault((chat.hash, chat.ids[place]), message)
            spoken = row["sender"] is MessageSender.ASSISTANT
            self._messages.append(
                row
                | {
                    "id": message,
                    "conversation_id": conversation,
                    "parent_message_id": None if original == message else original,
                    "sequence": sequence + count,
                    "agent_id": self._agent_id if spoken else None,
                    "model_id": self._target.model if spoken else None,
                    "timestamp": time,
                }
            )
        return max(times)

    def _metadata(self, match: Match) -> dict[str, Any]:
        chat = match.chat
        origin: dict[str, Any] = {
            "source": "chats",
            "file": self._file,
            "hash": chat.hash,
            "occurrence": match.number,
        }
        if chat.ids:
            origin |= {"last": chat.ids[-1], "title": chat.title}
        if "import" in chat.about:
            origin["import"] = chat.about["import"]
        return chat.about | {"import": origin}


def _messages(count: int) -> str:
    return "1 new message" if count == 1 else f"{count:,} new messages"
