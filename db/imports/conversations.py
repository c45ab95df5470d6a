"""Writes the conversations of a file into a project.

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
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.dialects import postgresql

from db.agents import Agent
from db.ai_models import AIModel
from db.base import new_id
from db.conversations import Conversation, Message, MessageSender
from db.engine import Database
from db.imports.chats import Chat, Key, read_chats
from db.imports.files import (
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
from db.imports.report import Report
from db.projects import Project
from db.scopes import Viewer
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
            by_url = {_url(project_id, chat.key): chat for chat in batch}
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


def _url(project_id: UUID, key: Key) -> str:
    """The address of a conversation: the same at every import, and hard to guess."""
    hash, occurrence = key
    identity = f"{project_id} {hash} {occurrence}"
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
    ids = await _originals(session, project_id, chats.values())
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
        own = [new_id() for _ in times]
        ids.update(((url, place), key) for place, key in enumerate(own))
        for place, (row, time) in enumerate(zip(chat.messages, times, strict=True)):
            spoken = row["sender"] is MessageSender.ASSISTANT
            original = chat.copied.get(place)
            messages.append(
                row
                | {
                    "id": own[place],
                    "conversation_id": id,
                    "parent_message_id": original
                    and ids.get((_url(project_id, original[0]), original[1])),
                    "sequence": place + 1,
                    "agent_id": agent_id if spoken else None,
                    "model_id": target.model if spoken else None,
                    "timestamp": time,
                }
            )
    await insert_many(session, Conversation, conversations)
    await insert_many(session, Message, messages)


async def _originals(
    session: WriteSession, project_id: UUID, chats: Collection[Chat]
) -> dict[tuple[str, int], UUID]:
    """The messages of earlier batches that some of these are copied from: the id of each, by the
    address of its conversation and its position.
    """
    urls = {_url(project_id, key) for chat in chats for key, _ in chat.copied.values()}
    if not urls:
        return {}
    found = await session.execute(
        select(Conversation.conversation_url, Message.sequence, Message.id)
        .join(Message, Message.conversation_id == Conversation.id)
        .where(Conversation.conversation_url.in_(urls))
    )
    return {(url, sequence - 1): id for url, sequence, id in found}
