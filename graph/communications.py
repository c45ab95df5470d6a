"""Communications: messages from one agent to another."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Any

import strawberry
from pydantic import Field
from sqlalchemy import ColumnElement, Uuid
from strawberry.scalars import JSON

import db
from db import CommunicationStatus, Right, Viewer, communications
from db.events.topics import Topic
from db.parameters import apply, bind
from graph.core.connections import Connection
from graph.core.entities import Node, column, entity
from graph.core.fields import argument, collection, connected, one, related
from graph.core.filters import (
    DateTimeFilter,
    EnumFilter,
    IDFilter,
    IntFilter,
    StringFilter,
    contains,
    filters,
    keys,
    ordering,
    through,
)
from graph.core.inputs import Repeatable, input_of, new_values
from graph.core.mutations import at_most, limited, mutation
from graph.core.payloads import Changed
from graph.core.scalars import ID, Line, Metadata, Priority
from graph.core.updates import Update, at_start, changed, followed, update_type


@filters(db.Communication)
class CommunicationFilter:
    id: IDFilter | None
    type: StringFilter | None
    priority: IntFilter | None
    status: EnumFilter[CommunicationStatus] | None
    topic: StringFilter | None
    correlation_id: StringFilter | None
    sent_at: DateTimeFilter | None
    delivered_at: DateTimeFilter | None
    lease_expires_at: DateTimeFilter | None
    acknowledged_at: DateTimeFilter | None
    expires_at: DateTimeFilter | None
    created_at: DateTimeFilter | None
    updated_at: DateTimeFilter | None
    project_id: IDFilter | None
    from_agent_id: IDFilter | None
    to_agent_id: IDFilter | None
    task_id: IDFilter | None
    reply_to_id: IDFilter | None
    project = through(db.Communication.project)
    from_agent = through(db.Communication.from_agent)
    to_agent = through(db.Communication.to_agent)
    task = through(db.Communication.task)
    metadata_contains: JSON | None = contains(db.Communication.communication_metadata)


CommunicationOrder = ordering(
    db.Communication,
    db.Communication.sent_at,
    db.Communication.updated_at,
    db.Communication.priority,
)


@entity(db.Communication, where=CommunicationFilter, order=CommunicationOrder)
class Communication(Node):
    type: str
    content: JSON
    priority: int
    status: CommunicationStatus
    topic: str | None
    correlation_id: str | None
    sent_at: datetime
    delivered_at: datetime | None
    lease_expires_at: datetime | None
    acknowledged_at: datetime | None
    expires_at: datetime | None
    metadata: JSON = column(db.Communication.communication_metadata)
    created_at: datetime
    updated_at: datetime
    project = related(db.Communication.project)
    from_agent = related(db.Communication.from_agent)
    to_agent = related(db.Communication.to_agent)
    task = related(db.Communication.task)
    reply_to = related(db.Communication.reply_to)
    replies = connected(db.Communication.replies)


def _unacknowledged(row: Any, viewer: Viewer, agent_id: Any) -> list[ColumnElement[bool]]:
    """The conditions that an agent, by default the viewer, has not acknowledged a message."""
    key = viewer.agent_id if agent_id is None else apply(partial(keys, db.Agent), agent_id)
    return [row.to_agent_id == bind(key, Uuid), communications.is_unacknowledged(row)]


@strawberry.type
class Query:
    communication: Communication | None = one(db.Communication)
    communications: Connection[Communication] = collection(db.Communication)
    agent_inbox: Connection[Communication] = collection(
        db.Communication,
        arguments=[argument("agent_id", strawberry.ID | None, "The agent; by default, you.")],
        conditions=_unacknowledged,
        order="PRIORITY_DESC",
        description="The messages that an agent has not acknowledged, the most urgent first. It"
        " only shows them; `receiveCommunications` gives each to one receiver. There are none if"
        " you may not see the agent.",
    )


@update_type
class AgentInboxUpdate(Update):
    """A change of a message to an agent."""

    communication = changed(db.Communication, "The message as it is now.")
    communications = at_start(
        db.Communication,
        db.Communication.to_agent_id,
        conditions=lambda row, viewer: [communications.is_unacknowledged(row)],
        order="PRIORITY_DESC",
        description="The messages that the agent has not acknowledged; none in a message with an"
        " event.",
    )


@strawberry.type
class Subscription:
    agent_inbox: AgentInboxUpdate = followed(
        AgentInboxUpdate,
        lambda id: [Topic("Communication", parent_id=id)],
        model=db.Communication,
        subject=db.Agent,
        argument_name="agent_id",
        otherwise="; by default, you",
        default_key=lambda viewer: viewer.agent_id,
        description="The messages to an agent, as `agentInbox`, and each change of one.",
    )


class MessageValues(Repeatable):
    """The fields that all inputs of messages share."""

    type: Line
    content: JSON
    priority: Priority = 3
    expires_at: datetime | None = None
    metadata: Metadata | None = None


@input_of(db.Communication)
class SendCommunicationInput(MessageValues):
    """The message to send to another agent of the same project."""

    id: ID[db.Communication] | None = None
    from_agent_id: ID[db.Agent]
    to_agent_id: ID[db.Agent]
    correlation_id: Line | None = None
    reply_to_id: ID[db.Communication] | None = None
    task_id: ID[db.Task] | None = None


@input_of(db.Communication)
class ReplyInput(MessageValues):
    """The answer to a message."""

    id: ID[db.Communication] | None = None
    reply_to_id: ID[db.Communication]


@input_of(db.Communication)
class BroadcastInput(MessageValues):
    """The message to send to all other agents of a project."""

    from_agent_id: ID[db.Agent]
    correlation_id: Line | None = None
    task_id: ID[db.Task] | None = None


@input_of(db.Communication)
class PublishInput(BroadcastInput):
    """The message to publish to a topic."""

    topic: Line


@input_of(db.Communication)
class ReceiveCommunicationsInput(Repeatable):
    """How many messages to receive, and for how long."""

    agent_id: ID[db.Agent] | None = Field(
        default=None, description="The agent that receives them; by default, you."
    )
    limit: Annotated[int, Field(ge=1, le=communications.MOST_RECEIVED)] = Field(
        default=10,
        description=f"How many to receive at most: 1 to {communications.MOST_RECEIVED}.",
    )
    lease_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=communications.LEASE_SECONDS,
        description="How long you have to acknowledge them, in seconds, before they are given"
        " again: 1 to 3,600.",
    )


@input_of(db.Communication)
class AcknowledgeCommunicationsInput(Repeatable):
    """The messages to acknowledge."""

    ids: Annotated[list[ID[db.Communication]], Field(min_length=1, max_length=100)] = Field(
        description="The messages, at most 100."
    )


@strawberry.type
class Mutation:
    @mutation(Right.WORK)
    async def send_communication(
        self, session: db.WriteSession, input: SendCommunicationInput
    ) -> Changed[db.Communication]:
        """Send a message from an agent to another agent of its project."""
        return Changed(await communications.send(session, new_values(input)))

    @mutation(Right.WORK)
    async def reply(self, session: db.WriteSession, input: ReplyInput) -> Changed[db.Communication]:
        """Answer a message: from the agent that it was sent to, to the one that sent it.

        The answer has the task of the message, and its correlation id or else its id as such.
        """
        return Changed(await communications.reply(session, input.reply_to_id, new_values(input)))

    @mutation(Right.WORK, most=at_most(communications.MOST_RECEIVERS))
    async def broadcast(
        self, session: db.WriteSession, input: BroadcastInput
    ) -> list[Changed[db.Communication]]:
        """Send a message to each other active agent of the sender's project."""
        return await _broadcast(session, input, None)

    @mutation(Right.WORK, most=at_most(communications.MOST_RECEIVERS))
    async def publish(
        self, session: db.WriteSession, input: PublishInput
    ) -> list[Changed[db.Communication]]:
        """Send a message to each other active agent of the project that subscribes to a topic."""
        return await _broadcast(session, input, input.topic)

    @mutation(Right.WORK, most=limited(communications.MOST_RECEIVED))
    async def receive_communications(
        self, session: db.WriteSession, input: ReceiveCommunicationsInput
    ) -> list[Changed[db.Communication]]:
        """Receive the next messages of an agent, the most urgent first. Each has one receiver.

        Acknowledge them before their lease ends; otherwise they are given again.
        """
        ids = await communications.receive(
            session, input.agent_id, input.limit, input.lease_seconds
        )
        return [Changed(id) for id in ids]

    @mutation(Right.WORK)
    async def acknowledge_communications(
        self, session: db.WriteSession, input: AcknowledgeCommunicationsInput
    ) -> list[Changed[db.Communication]]:
        """Acknowledge messages that were received, so that they are not given again."""
        ids = await communications.acknowledge(session, input.ids)
        return [Changed(id) for id in ids]


async def _broadcast(
    session: db.WriteSession, input: BroadcastInput, topic: str | None
) -> list[Changed[db.Communication]]:
    values = new_values(input)
    ids = await communications.broadcast(session, values.pop("from_agent_id"), values, topic)
    return [Changed(id) for id in ids]
