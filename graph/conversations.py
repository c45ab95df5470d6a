"""Conversations and their messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import strawberry
from pydantic import BaseModel, Field, StringConstraints
from strawberry import Maybe
from strawberry.scalars import JSON

import db
from db import (
    ConversationStatus,
    EventAction,
    MessageSender,
    Right,
    conversations,
    dependencies,
)
from db.events.topics import Topic
from db.search import MOST_PARTS, highlights
from graph.core.computed import computed, computed_type, value
from graph.core.connections import Connection
from graph.core.entities import Node, column, entity
from graph.core.fields import argument, collection, connected, one, one_by, related
from graph.core.filters import (
    DateTimeFilter,
    EnumFilter,
    IDFilter,
    IntFilter,
    StringFilter,
    contains,
    filters,
    ordering,
    search_ordering,
    through,
)
from graph.core.history import history
from graph.core.inputs import Repeatable, Versioned, changed_values, input_of, new_values
from graph.core.mutations import mutation
from graph.core.payloads import Changed, Deleted
from graph.core.scalars import ID, Line, Metadata, Text, matching
from graph.core.searches import WORDS, checked_query, search
from graph.core.updates import Update, at_start, changed, followed, update_type

Slug = Annotated[
    str,
    matching(
        r"[A-Za-z0-9._~-]{1,255}", "this must have 1 to 255 letters of A to Z, digits and . _ ~ -"
    ),
]
Summary = Annotated[str, StringConstraints(max_length=conversations.SUMMARY_LENGTH)]


@filters(db.Conversation)
class ConversationFilter:
    id: IDFilter | None
    title: StringFilter | None
    summary: StringFilter | None
    conversation_url: StringFilter | None
    status: EnumFilter[ConversationStatus] | None
    last_message_at: DateTimeFilter | None
    created_at: DateTimeFilter | None
    updated_at: DateTimeFilter | None
    project_id: IDFilter | None
    user_id: IDFilter | None
    agent_id: IDFilter | None
    project = through(db.Conversation.project)
    user = through(db.Conversation.user)
    agent = through(db.Conversation.agent)
    metadata_contains: JSON | None = contains(db.Conversation.conversation_metadata)


ConversationOrder = ordering(
    db.Conversation, db.Conversation.created_at, db.Conversation.updated_at
)


@entity(db.Conversation, where=ConversationFilter, order=ConversationOrder)
class Conversation(Node):
    title: str | None
    summary: str
    conversation_url: str
    status: ConversationStatus
    last_message_at: datetime | None
    metadata: JSON = column(db.Conversation.conversation_metadata)
    version: int
    created_at: datetime
    updated_at: datetime
    project = related(db.Conversation.project)
    user = related(db.Conversation.user)
    agent = related(db.Conversation.agent)
    messages = connected(db.Conversation.messages)
    interactions = connected(db.Conversation.interactions)
    usage_records = connected(db.Conversation.usage_records)
    history = history(db.Conversation)


@filters(db.Message)
class MessageFilter:
    id: IDFilter | None
    sequence: IntFilter | None
    sender: EnumFilter[MessageSender] | None
    content: StringFilter | None
    timestamp: DateTimeFilter | None
    created_at: DateTimeFilter | None
    conversation_id: IDFilter | None
    parent_message_id: IDFilter | None
    user_id: IDFilter | None
    agent_id: IDFilter | None
    model_id: IDFilter | None
    conversation = through(db.Message.conversation)
    agent = through(db.Message.agent)
    model = through(db.Message.model)
    metadata_contains: JSON | None = contains(db.Message.message_metadata)


MessageOrder = ordering(db.Message, db.Message.sequence, db.Message.timestamp)
MessageSearchOrder = search_ordering("MessageSearchOrder", MessageOrder)


@computed_type
class HighlightPart:
    """A part of an excerpt of a text."""

    text: str = value("The text, which may contain HTML.")
    is_match: bool = value("Whether this is one of the words of the query.")


@entity(db.Message, where=MessageFilter, order=MessageOrder)
class Message(Node):
    sequence: int
    sender: MessageSender
    content: str
    parts: JSON | None
    timestamp: datetime
    edited_at: datetime | None
    metadata: JSON = column(db.Message.message_metadata)
    created_at: datetime
    conversation = related(db.Message.conversation)
    user = related(db.Message.user)
    agent = related(db.Message.agent)
    model = related(db.Message.model)
    parent_message = related(db.Message.parent_message)
    copies = connected(db.Message.copies)
    usage_records = connected(db.Message.usage_records)
    history = history(db.Message)
    highlights = computed(
        HighlightPart,
        lambda viewer, id, query: highlights(viewer, id, checked_query(query)),
        by=db.Message.id,
        order=("number",),
        most=MOST_PARTS,
        arguments=[argument("query", str, WORDS)],
        description="An excerpt of its content, from its first 20,000 characters, with the words of"
        " a query, such as that of `searchMessages`: in parts, which are words of the query or the"
        " text between. An ellipsis (…) stands for text that is left out.",
    )


@strawberry.type
class Query:
    conversation: Conversation | None = one(db.Conversation)
    conversations: Connection[Conversation] = collection(db.Conversation)
    conversation_by_url: Conversation | None = one_by(
        db.Conversation.conversation_url,
        "url",
        "The conversation with this URL; null if there is none or you may not see it.",
    )
    message: Message | None = one(db.Message)
    messages: Connection[Message] = collection(db.Message)
    search_messages: Connection[Message] = search(
        db.Message.search,
        MessageSearchOrder,
        "The messages with all these words, in any order; the best matches first, and of equal ones"
        ' the newest. Supports `or`, `-word` and "a phrase".',
    )


@update_type
class MessageUpdate(Update):
    """A message that was added to a conversation."""

    message = changed(db.Message, "The message.")
    messages = at_start(
        db.Message,
        db.Message.conversation_id,
        description="The messages of the conversation; none in a message with an event.",
    )


@strawberry.type
class Subscription:
    message_added: MessageUpdate = followed(
        MessageUpdate,
        lambda id: [Topic("Message", parent_id=id)],
        model=db.Message,
        subject=db.Conversation,
        argument_name="conversation_id",
        actions=[EventAction.CREATED],
        description="The messages of a conversation, and each that is added.",
    )


@input_of(db.Message)
class MessageInput(BaseModel):
    """A message to add."""

    id: ID[db.Message] | None = None
    sender: MessageSender
    content: Text
    parts: JSON | None = None
    timestamp: datetime | None = None
    agent_id: ID[db.Agent] | None = None
    model_id: ID[db.AIModel] | None = None
    metadata: Metadata | None = None


@input_of(db.Conversation)
class StartConversationInput(Repeatable):
    """The conversation to start. You become its user."""

    id: ID[db.Conversation] | None = None
    project_id: ID[db.Project] | None = None
    agent_id: ID[db.Agent] | None = None
    title: Line | None = None
    summary: Summary | None = None
    conversation_url: Slug | None = None
    metadata: Metadata | None = None
    message: MessageInput | None = Field(default=None, description="The first message.")


@input_of(db.Conversation)
class UpdateConversationInput(Versioned):
    """The changes to a conversation. An omitted field stays as it is; null clears it."""

    id: ID[db.Conversation]
    agent_id: Maybe[ID[db.Agent] | None] = None
    title: Maybe[Line | None] = None
    summary: Maybe[Summary] = None
    conversation_url: Maybe[Slug] = None
    metadata: Maybe[Metadata] = None


@input_of(db.Conversation)
class DeleteConversationInput(Versioned):
    """The conversation to delete."""

    id: ID[db.Conversation]


@input_of(db.Message)
class AppendMessagesInput(Repeatable):
    """The messages to add at the end of a conversation."""

    conversation_id: ID[db.Conversation]
    messages: Annotated[list[MessageInput], Field(min_length=1, max_length=1000)] = Field(
        description="The messages in order, at most 1,000."
    )


@input_of(db.Message)
class DeleteMessageInput(Repeatable):
    """The message to delete."""

    id: ID[db.Message]


@input_of(db.Message)
class EditMessageInput(Repeatable):
    """The changes to a message. An omitted field stays as it is."""

    id: ID[db.Message]
    content: Maybe[Text] = None
    parts: Maybe[JSON | None] = None
    metadata: Maybe[Metadata] = None


@input_of(db.Conversation)
class ArchiveConversationInput(Versioned):
    """The conversation to archive."""

    id: ID[db.Conversation]


@input_of(db.Conversation)
class UnarchiveConversationInput(Versioned):
    """The conversation to reopen."""

    id: ID[db.Conversation]


@input_of(db.Conversation)
class ForkConversationInput(Repeatable):
    """The message to go on from, in a conversation of its own."""

    id: ID[db.Conversation] | None = Field(
        default=None, description="The id of the new conversation."
    )
    message_id: ID[db.Message] = Field(description="The last message that is copied.")
    title: Line | None = None
    conversation_url: Slug | None = None
    metadata: Metadata | None = None


@dataclass
class Appended:
    """The conversation and its new messages."""

    conversation: Changed[db.Conversation]
    messages: list[Changed[db.Message]]


async def _locked_message(session: db.WriteSession, id: UUID) -> tuple[db.Conversation, db.Message]:
    """A message and its conversation. Deletions lock the conversation first, too."""
    message = await session.fetch(db.Message, id, lock=False)
    conversation = await session.fetch(db.Conversation, message.conversation_id)
    return conversation, await session.fetch(db.Message, id)


@strawberry.type
class Mutation:
    @mutation(Right.WORK)
    async def start_conversation(
        self, session: db.WriteSession, input: StartConversationInput
    ) -> db.Conversation:
        """Start a conversation, optionally with its first message."""
        message = None if input.message is None else new_values(input.message)
        return await conversations.start(session, new_values(input), message)

    @mutation(Right.EDIT)
    async def update_conversation(
        self, session: db.WriteSession, input: UpdateConversationInput
    ) -> db.Conversation:
        """Change a conversation."""
        conversation = await session.fetch(
            db.Conversation, input.id, version=input.expected_version
        )
        return await conversations.change(session, conversation, changed_values(input))

    @mutation(Right.EDIT)
    async def delete_conversation(
        self, session: db.WriteSession, input: DeleteConversationInput
    ) -> Deleted[db.Conversation]:
        """Delete a conversation and its messages."""
        await dependencies.lock(session, input.id, db.Conversation)
        conversation = await session.fetch(
            db.Conversation, input.id, version=input.expected_version
        )
        await conversation.delete(session)
        return Deleted(conversation.id)

    @mutation(Right.WORK)
    async def append_messages(
        self, session: db.WriteSession, input: AppendMessagesInput
    ) -> Appended:
        """Add messages at the end of a conversation: all of them or, on an error, none."""
        messages: dict[tuple[str | int, ...], dict[str, Any]] = {
            ("messages", index): new_values(message) for index, message in enumerate(input.messages)
        }
        ids = await conversations.append(session, input.conversation_id, messages)
        return Appended(Changed(input.conversation_id), [Changed(id) for id in ids])

    @mutation(Right.EDIT)
    async def edit_message(self, session: db.WriteSession, input: EditMessageInput) -> db.Message:
        """Change the content of a message, and set its `editedAt`."""
        conversation, message = await _locked_message(session, input.id)
        await conversations.edit_message(session, conversation, message, **changed_values(input))
        return message

    @mutation(Right.EDIT)
    async def archive_conversation(
        self, session: db.WriteSession, input: ArchiveConversationInput
    ) -> db.Conversation:
        """Archive a conversation. It cannot be changed until it is reopened."""
        conversation = await session.fetch(
            db.Conversation, input.id, version=input.expected_version
        )
        return await conversation.update(session, status=ConversationStatus.ARCHIVED)

    @mutation(Right.EDIT)
    async def unarchive_conversation(
        self, session: db.WriteSession, input: UnarchiveConversationInput
    ) -> db.Conversation:
        """Reopen a conversation that was archived."""
        conversation = await session.fetch(
            db.Conversation, input.id, version=input.expected_version
        )
        return await conversation.update(session, status=ConversationStatus.ACTIVE)

    @mutation(Right.WORK)
    async def fork_conversation(
        self, session: db.WriteSession, input: ForkConversationInput
    ) -> db.Conversation:
        """Start a conversation with copies of the messages of another one, up to a message.

        You become its user. `parentMessage` of each copy is the message that it was copied from.
        """
        return await conversations.fork(session, input.message_id, new_values(input))

    @mutation(Right.EDIT)
    async def delete_message(
        self, session: db.WriteSession, input: DeleteMessageInput
    ) -> Deleted[db.Message]:
        """Delete a message. The `sequence` of the other messages stays the same."""
        await dependencies.lock(session, input.id, db.Message)
        conversation, message = await _locked_message(session, input.id)
        await conversations.delete_message(session, conversation, message)
        return Deleted(message.id)
