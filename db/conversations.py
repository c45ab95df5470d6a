"""Conversations and their messages."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Computed,
    Executable,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    Uuid,
    and_,
    case,
    column,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, aliased, mapped_column, query_expression

from db import dependencies
from db.base import (
    CRUD,
    UNLOGGED,
    LongText,
    Metadata,
    ShortText,
    Version,
    children,
    choice,
    defaulted,
    new_id,
    to_many,
    to_one,
    with_defaults,
)
from db.errors import Denied, Invalid, Rejected
from db.projects import Project
from db.rights import Right
from db.scopes import Viewer, scope
from db.statements import Statement, value
from db.writes import (
    NUMBER,
    given_rows,
    given_values,
    insert_many,
    references,
    rows_refer,
    set_actor,
)

if TYPE_CHECKING:
    from db.agents import Agent
    from db.ai_models import AIModel
    from db.interactions import HumanInteraction
    from db.sessions import WriteSession
    from db.usage import UsageRecord
    from db.users import User

SUMMARY_LENGTH = 50


class ConversationStatus(StrEnum):
    """Whether a conversation is active."""

    ACTIVE = "ACTIVE"
    """Messages can be added."""
    ARCHIVED = "ARCHIVED"
    """No messages can be added or changed."""


class MessageSender(StrEnum):
    """The role of a message's sender, as in the APIs of chat models."""

    USER = "USER"
    """A person, or a program that acts for one."""
    ASSISTANT = "ASSISTANT"
    """The agent or its model."""
    SYSTEM = "SYSTEM"
    """Instructions for the model."""
    TOOL = "TOOL"
    """The result of a tool that the model called."""


def random_slug() -> str:
    """A random address of a conversation, which cannot be guessed."""
    return secrets.token_urlsafe(12)


class Conversation(CRUD):
    """A chat of people, agents and models."""

    __tablename__ = "conversations"
    __table_args__ = (
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "project_id", "updated_at", "id"),
        Index(None, "user_id", "created_at", "id"),
        Index(None, "agent_id", "created_at", "id"),
    )

    project_id: Mapped[UUID | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    agent_id: Mapped[UUID | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    title: Mapped[ShortText | None] = mapped_column(doc="The title.")
    summary: Mapped[str] = mapped_column(
        String(SUMMARY_LENGTH),
        default="",
        server_default="",
        doc="A short summary; unless supplied, the beginning of the first message.",
    )
    conversation_url: Mapped[ShortText] = mapped_column(
        unique=True,
        default=random_slug,
        doc="The unique address; unless supplied, a random string.",
    )
    status: Mapped[ConversationStatus] = defaulted(
        ConversationStatus.ACTIVE, index=True, doc="Whether it is active."
    )
    # The events of messages tell when these change.
    last_message_at: Mapped[datetime | None] = mapped_column(
        doc="The time of the newest message.", info=UNLOGGED
    )
    last_sequence: Mapped[int] = defaulted(
        0,
        info=UNLOGGED,
        doc="The highest `sequence` that a message has had, deleted ones included.",
    )
    conversation_metadata: Mapped[Metadata]
    version: Mapped[Version] = mapped_column()

    project: Mapped[Project | None] = to_one("conversations", "The project it belongs to.")
    user: Mapped[User | None] = to_one("conversations", "The user who takes part in it.")
    agent: Mapped[Agent | None] = to_one("conversations", "The agent that takes part in it.")
    messages: Mapped[list[Message]] = children("conversation", "The messages, in order.")
    interactions: Mapped[list[HumanInteraction]] = to_many(
        "conversation", "The requests and notifications of agents that it led to."
    )
    usage_records: Mapped[list[UsageRecord]] = to_many(
        "conversation", "The calls of AI models for it."
    )

    __mapper_args__ = {"version_id_col": version}


class Message(CRUD):
    """A message of a conversation."""

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("conversation_id", "sequence"),
        Index(None, "sequence", "id"),
        Index(None, "timestamp", "id"),
        Index(None, "conversation_id", "timestamp", "id"),
        Index(None, "user_id", "sequence", "id"),
        Index(None, "agent_id", "sequence", "id"),
        Index(None, "model_id", "sequence", "id"),
        Index(None, "parent_message_id", "sequence", "id"),
        Index("ix_messages_search", "search", postgresql_using="gin"),
    )

    conversation_id: Mapped[UUID] = mapped_column(
        ForeignKey("conversations.id", ondelete="CASCADE")
    )
    parent_message_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("messages.id", ondelete="SET NULL")
    )
    sequence: Mapped[int] = mapped_column(doc="The position in the conversation, from 1.")
    sender: Mapped[MessageSender] = mapped_column(
        choice(MessageSender), doc="The role of the sender, as in the APIs of chat models."
    )
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    agent_id: Mapped[UUID | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    model_id: Mapped[str | None] = mapped_column(ForeignKey("ai_models.id", ondelete="SET NULL"))
    content: Mapped[LongText] = mapped_column(doc="The text of the message.")
    parts: Mapped[Any | None] = mapped_column(
        JSONB(none_as_null=True), doc="Tool calls and other structured content."
    )
    timestamp: Mapped[datetime] = mapped_column(server_default=func.now(), doc="When it was sent.")
    edited_at: Mapped[datetime | None] = mapped_column(doc="When it was last edited.")
    message_metadata: Mapped[Metadata]
    # Computed by a function of the database, which the migration 0004 makes.
    search: Mapped[str] = mapped_column(
        TSVECTOR,
        Computed("search_vector(content)", persisted=True),
        deferred=True,
        doc="The words for the full-text search.",
    )
    # Not stored: the statement of a search gives it a value.
    rank: Mapped[int | None] = query_expression()

    conversation: Mapped[Conversation] = to_one("messages", "The conversation it belongs to.")
    user: Mapped[User | None] = to_one("messages", "The user who wrote it.")
    agent: Mapped[Agent | None] = to_one("messages", "The agent that wrote it.")
    model: Mapped[AIModel | None] = to_one("messages", "The AI model that wrote it.")
    parent_message: Mapped[Message | None] = to_one(
        "copies",
        "The message of another conversation that it was copied from.",
        remote_side="Message.id",
    )
    copies: Mapped[list[Message]] = to_many(
        "parent_message", "Its copies in conversations that were forked."
    )
    usage_records: Mapped[list[UsageRecord]] = to_many(
        "message", "The calls of AI models that produced it."
    )


def summarize(content: str) -> str:
    """The summary of a conversation that begins with this text."""
    return content[:SUMMARY_LENGTH]


_CHANGED = frozenset(
    str(Conversation.__table__.c[name])
    for name in ("last_sequence", "last_message_at", "summary", "updated_at")
)
"""The columns of a conversation that `_appended` changes."""


@Statement
def _appended(
    viewer: Viewer, right: Right, names: tuple[str, ...], checked: tuple[str, ...], is_one: bool
) -> Executable:
    """Add messages with these columns at the end of a conversation that is not archived.

    The viewer needs the right on it, and has to see what the `checked` columns refer to. Returns
    the ids of the messages, or nothing. The update locks the row first, and reads it anew if
    another transaction has changed it: no two messages get the same sequence.
    """
    given, count = given_rows(Message, names, is_one).cte("given"), value("count", Integer)
    new = given.c
    timestamp: Any = func.now()
    latest: Any = timestamp
    if "timestamp" in names:
        timestamp = func.coalesce(new.timestamp, timestamp)
        latest = select(func.max(timestamp)).scalar_subquery()
    is_first = and_(Conversation.last_sequence == 0, Conversation.summary == "")
    conversation = (
        update(Conversation)
        .where(
            Conversation.id == value("conversation_id", Uuid),
            Conversation.status != ConversationStatus.ARCHIVED,
            scope(Conversation, viewer, right),
            *rows_refer(Message, checked, viewer, Conversation.project_id, given),
        )
        .values(
            last_sequence=Conversation.last_sequence + count,
            last_message_at=func.greatest(Conversation.last_message_at, latest),
            summary=case((is_first, value("summary", Text)), else_=Conversation.summary),
        )
        .returning(Conversation.id, (Conversation.last_sequence - count).label("before"))
        .cte("conversation")
        .c
    )
    messages: dict[str, Any] = {name: new[name] for name in names}
    messages |= {
        "timestamp": timestamp,
        "conversation_id": conversation.id,
        "sequence": conversation.before + new[NUMBER],
    }
    rows = select(*messages.values())
    inserted = insert(Message).from_select(list(messages), rows, include_defaults=False)
    return inserted.returning(Message.id, set_actor())


async def start(
    session: WriteSession, values: Mapping[str, Any], message: Mapping[str, Any] | None = None
) -> Conversation:
    """Start a conversation, with its first message if there is one.

    Raises NotFound, Denied, Invalid, and Rejected with all errors.
    """
    project_id = values.get("project_id")
    if project_id is not None:
        await session.fetch(Project, project_id, at=("project_id",), lock=False)
    elif session.viewer.user_id is None:
        raise Denied("An agent can start conversations only in its project; give projectId.")
    row = {**values, "agent_id": session.in_own_name(values.get("agent_id"))}
    await session.refer(Conversation, row, project_id=project_id)
    conversation = await Conversation.create(session, user_id=session.viewer.user_id, **row)
    if message is not None:
        await append(session, conversation.id, {("message",): message})
    return conversation


async def change(
    session: WriteSession, conversation: Conversation, values: Mapping[str, Any]
) -> Conversation:
    """Change a conversation. The caller has locked the row. Raises Invalid and Rejected."""
    _refuse_archived(conversation, "id")
    await session.refer(Conversation, values, project_id=conversation.project_id)
    return await conversation.update(session, **values)


async def append(
    session: WriteSession,
    conversation_id: UUID,
    messages: Mapping[Any, Mapping[str, Any]],
) -> list[UUID]:
    """Add messages, by their paths in the input, at the end of a conversation; return their ids.

    Raises NotFound, Denied, Invalid, and Rejected with all errors.
    """
    rows = {at: {"id": new_id()} | dict(row) for at, row in messages.items()}
    for at, row in rows.items():
        if row["sender"] is MessageSender.ASSISTANT or row.get("agent_id") is not None:
            row["agent_id"] = session.in_own_name(row.get("agent_id"), (*at, "agent_id"))
    names = {name for row in rows.values() for name in row}
    checked = tuple(sorted(names & references(Message).keys()))
    for row in rows.values():
        if row["sender"] is MessageSender.USER:
            row["user_id"] = session.viewer.user_id
    new = [with_defaults(Message, row) for row in rows.values()]
    columns = tuple(sorted({name for row in new for name in row}))
    is_done = not session.has_begun and await session.alone(
        _appended,
        session.right,
        columns,
        checked,
        len(new) == 1,
        model=Message,
        outcome={"conversations": [conversation_id], "messages": [row["id"] for row in new]},
        changed=_CHANGED,
        **given_values(Message, columns, new),
        conversation_id=conversation_id,
        count=len(new),
        summary=summarize(new[0]["content"]),
    )
    if not is_done:
        conversation = await session.fetch(Conversation, conversation_id, at=("conversation_id",))
        await session.refer_all(Message, rows, project_id=conversation.project_id)
        return await append_messages(session, conversation, rows)
    return [row["id"] for row in new]


async def append_messages(
    session: WriteSession,
    conversation: Conversation,
    messages: Mapping[tuple[str | int, ...], Mapping[str, Any]],
) -> list[UUID]:
    """Add messages, by their paths in the input, in this order; return their ids.

    The caller has locked the conversation or made it in this transaction: two transactions would
    otherwise use the same sequence. Raises Invalid and Rejected.
    """
    if not messages:
        return []
    _refuse_archived(conversation, "conversation_id")
    taken = await session.taken(Message, {at: row.get("id") for at, row in messages.items()})
    if taken:
        raise Rejected(taken)
    now = await session.scalar(select(func.now()))
    rows: list[dict[str, Any]] = [
        {"id": new_id(), "timestamp": now}
        | dict(message)
        | {"conversation_id": conversation.id, "sequence": sequence}
        for sequence, message in enumerate(messages.values(), conversation.last_sequence + 1)
    ]
    await insert_many(session, Message, rows)
    values: dict[str, Any] = {
        "last_sequence": rows[-1]["sequence"],
        "last_message_at": func.greatest(
            Conversation.last_message_at, max(row["timestamp"] for row in rows)
        ),
    }
    if not conversation.last_sequence and not conversation.summary:
        values["summary"] = summarize(rows[0].get("content", ""))
    await _touch(session, conversation, **values)
    return [row["id"] for row in rows]


async def edit_message(
    session: AsyncSession, conversation: Conversation, message: Message, **values: Any
) -> None:
    """Change a message. The caller has locked it and its conversation. Raises Invalid."""
    _refuse_archived(conversation, "id")
    message.change(**values)
    if not session.is_modified(message):
        return
    await message.update(session, edited_at=func.now())
    await _touch(session, conversation)


async def delete_message(
    session: AsyncSession, conversation: Conversation, message: Message
) -> None:
    """Delete a message. The caller has locked it and its conversation. Raises Invalid."""
    _refuse_archived(conversation, "id")
    await message.delete(session)
    newest = select(func.max(Message.timestamp)).where(Message.conversation_id == conversation.id)
    await _touch(session, conversation, last_message_at=newest.scalar_subquery())


# The columns of a copy that it has of its own; all others are those of the message.
_OWN_COLUMNS = {"id", "conversation_id", "parent_message_id", "created_at", "updated_at", "search"}


@Statement
def _copied(viewer: Viewer) -> Executable:
    """Copies messages, given by their ids, with new ids, into a conversation."""
    source: Any = aliased(Message)
    ids = func.unnest(value("ids", ARRAY(Uuid)), value("new_ids", ARRAY(Uuid)))
    given = ids.table_valued(column("id", Uuid), column("new_id", Uuid)).render_derived("given").c
    columns: dict[str, Any] = {
        each.name: getattr(source, each.name)
        for each in Message.__table__.columns
        if each.name not in _OWN_COLUMNS
    }
    columns |= {
        "id": given.new_id,
        "conversation_id": value("conversation_id", Uuid),
        "parent_message_id": source.id,
    }
    rows = select(*columns.values()).where(source.id == given.id)
    return insert(Message).from_select(list(columns), rows, include_defaults=False)


async def fork(session: WriteSession, message_id: UUID, values: Mapping[str, Any]) -> Conversation:
    """Start a conversation with copies of the messages of another one, up to a message.

    The copies have the same positions, and name the messages as their parents. Raises NotFound,
    Denied and Rejected.
    """
    at = ("message_id",)
    # First, as by whoever deletes the project or one of its agents, and then changes conversations.
    await dependencies.lock(session, message_id, Message)
    message = await session.fetch(Message, message_id, at=at, lock=False)
    # The lock keeps the messages from being deleted. One that was so before is not found again.
    source = await session.fetch(Conversation, message.conversation_id, at=at)
    await session.fetch(Message, message_id, at=at, lock=False)
    errors = await session.taken(Conversation, {(): values.get("id")})
    if errors:
        raise Rejected(errors)
    before = (Message.conversation_id == source.id, Message.sequence <= message.sequence)
    found = select(Message.id, Message.timestamp).where(*before).order_by(Message.sequence)
    copied = (await session.execute(found)).all()
    same = {"project_id": source.project_id, "agent_id": source.agent_id, "title": source.title}
    same |= {"summary": source.summary, "user_id": session.viewer.user_id}
    last = {
        "last_sequence": message.sequence,
        "last_message_at": max(row.timestamp for row in copied),
    }
    conversation = await Conversation.create(session, **same | last | dict(values))
    await session.run(
        _copied,
        ids=[row.id for row in copied],
        new_ids=[new_id() for _ in copied],
        conversation_id=conversation.id,
    )
    return conversation


async def lock_all(session: AsyncSession, which: ColumnElement[bool]) -> None:
    """Lock the conversations of an agent, a user or a project that is to be deleted.

    It is called before that is locked: whoever adds a message locks the conversation first, and
    then, by the foreign keys, the agent and the user.
    """
    found = select(Conversation.id).where(which).order_by(Conversation.id)
    await session.execute(found.with_for_update(key_share=True))


def _refuse_archived(conversation: Conversation, at: str) -> None:
    """Raise Invalid if the conversation is archived."""
    if conversation.status is ConversationStatus.ARCHIVED:
        raise Invalid("This conversation is archived.", (at,))


async def _touch(session: AsyncSession, conversation: Conversation, **values: Any) -> None:
    """Update columns that depend on the messages. That is not an edit: the version is the same."""
    changed = update(Conversation).where(Conversation.id == conversation.id)
    await session.execute(
        changed.values(updated_at=func.now(), **values),
        execution_options={"synchronize_session": False},
    )
    await session.refresh(conversation)
