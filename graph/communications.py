"""Communications: messages from one agent to another."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

import db
from db import CommunicationStatus, Right
from graph.core.connections import Connection
from graph.core.entities import Node, column, entity
from graph.core.fields import collection, connected, one, related
from graph.core.filters import (
    DateTimeFilter,
    EnumFilter,
    IDFilter,
    IntFilter,
    StringFilter,
    contains,
    filters,
    ordering,
    through,
)
from graph.core.inputs import Repeatable, input_of, new_values
from graph.core.mutations import mutation
from graph.core.payloads import Changed
from graph.core.scalars import ID, Line, Metadata, Priority


@filters(db.Communication)
class CommunicationFilter:
    id: IDFilter | None
    type: StringFilter | None
    priority: IntFilter | None
    status: EnumFilter[CommunicationStatus] | None
    correlation_id: StringFilter | None
    sent_at: DateTimeFilter | None
    delivered_at: DateTimeFilter | None
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
    correlation_id: str | None
    sent_at: datetime
    delivered_at: datetime | None
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


@strawberry.type
class Query:
    communication: Communication | None = one(db.Communication)
    communications: Connection[Communication] = collection(db.Communication)


@input_of(db.Communication)
class SendCommunicationInput(Repeatable):
    """The message to send to another agent of the same project."""

    id: ID[db.Communication] | None = None
    from_agent_id: ID[db.Agent]
    to_agent_id: ID[db.Agent]
    type: Line
    content: JSON
    priority: Priority = 3
    correlation_id: Line | None = None
    reply_to_id: ID[db.Communication] | None = None
    task_id: ID[db.Task] | None = None
    expires_at: datetime | None = None
    metadata: Metadata | None = None


@strawberry.type
class Mutation:
    @mutation(Right.WORK)
    async def send_communication(
        self, session: db.WriteSession, input: SendCommunicationInput
    ) -> Changed[db.Communication]:
        """Send a message from an agent to another agent of its project."""
        session.in_own_name(input.from_agent_id, ("from_agent_id",))
        return Changed(
            await session.insert(db.Communication, new_values(input), below="from_agent")
        )
