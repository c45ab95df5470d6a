"""Human interactions: requests and notifications of agents for people."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import strawberry
from strawberry.scalars import JSON

import db
from db import InteractionStatus, InteractionType, NotificationLevel, Right, interactions
from graph.core.connections import Connection
from graph.core.entities import Node, column, entity
from graph.core.fields import collection, one, related
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
from graph.core.history import history
from graph.core.inputs import Repeatable, input_of, new_values
from graph.core.mutations import mutation
from graph.core.payloads import Changed
from graph.core.scalars import ID, Line, Metadata, Priority


@filters(db.HumanInteraction)
class HumanInteractionFilter:
    id: IDFilter | None
    type: EnumFilter[InteractionType] | None
    title: StringFilter | None
    content_hash: StringFilter | None
    status: EnumFilter[InteractionStatus] | None
    priority: IntFilter | None
    expires_at: DateTimeFilter | None
    responded_at: DateTimeFilter | None
    created_at: DateTimeFilter | None
    updated_at: DateTimeFilter | None
    project_id: IDFilter | None
    task_id: IDFilter | None
    agent_id: IDFilter | None
    conversation_id: IDFilter | None
    assignee_id: IDFilter | None
    responded_by_id: IDFilter | None
    project = through(db.HumanInteraction.project)
    task = through(db.HumanInteraction.task)
    agent = through(db.HumanInteraction.agent)
    assignee = through(db.HumanInteraction.assignee)
    metadata_contains: JSON | None = contains(db.HumanInteraction.interaction_metadata)


HumanInteractionOrder = ordering(
    db.HumanInteraction,
    db.HumanInteraction.created_at,
    db.HumanInteraction.updated_at,
    db.HumanInteraction.priority,
)


@entity(db.HumanInteraction, where=HumanInteractionFilter, order=HumanInteractionOrder)
class HumanInteraction(Node):
    type: InteractionType
    title: str
    content: JSON
    content_hash: str
    status: InteractionStatus
    priority: int
    expires_at: datetime | None
    responded_at: datetime | None
    metadata: JSON = column(db.HumanInteraction.interaction_metadata)
    created_at: datetime
    updated_at: datetime
    project = related(db.HumanInteraction.project)
    task = related(db.HumanInteraction.task)
    agent = related(db.HumanInteraction.agent)
    conversation = related(db.HumanInteraction.conversation)
    assignee = related(db.HumanInteraction.assignee)
    responded_by = related(db.HumanInteraction.responded_by)
    history = history(db.HumanInteraction)


@entity(db.ApprovalRequest)
class ApprovalRequest(HumanInteraction):
    approved: bool | None
    comment: str | None


@entity(db.FeedbackRequest)
class FeedbackRequest(HumanInteraction):
    feedback: JSON | None
    rating: int | None


@entity(db.ClarificationRequest)
class ClarificationRequest(HumanInteraction):
    answer: str | None


@entity(db.Notification)
class Notification(HumanInteraction):
    level: NotificationLevel
    requires_acknowledgement: bool


@strawberry.type
class Query:
    human_interaction: HumanInteraction | None = one(db.HumanInteraction)
    human_interactions: Connection[HumanInteraction] = collection(db.HumanInteraction)


Interaction = TypeVar("Interaction", bound=db.HumanInteraction)


class InteractionValues(Repeatable):
    """The fields that all inputs of interactions share."""

    id: ID[db.HumanInteraction] | None = None
    project_id: ID[db.Project]
    title: Line
    content: JSON
    priority: Priority = 3
    task_id: ID[db.Task] | None = None
    agent_id: ID[db.Agent] | None = None
    conversation_id: ID[db.Conversation] | None = None
    assignee_id: ID[db.User] | None = None
    expires_at: datetime | None = None
    metadata: Metadata | None = None


@input_of(db.ApprovalRequest)
class RequestApprovalInput(InteractionValues):
    """The request to approve or reject something."""


@input_of(db.FeedbackRequest)
class RequestFeedbackInput(InteractionValues):
    """The request for an opinion."""


@input_of(db.ClarificationRequest)
class RequestClarificationInput(InteractionValues):
    """The question to answer, in `content`."""


@input_of(db.Notification)
class NotifyInput(InteractionValues):
    """The notification to send."""

    level: NotificationLevel = NotificationLevel.INFO
    requires_acknowledgement: bool = False


async def _create(
    session: db.WriteSession, model: type[Interaction], input: InteractionValues
) -> Changed[Interaction]:
    row = new_values(input)
    row["agent_id"] = session.in_own_name(input.agent_id)
    return Changed(await interactions.add(session, model, row))


@strawberry.type
class Mutation:
    @mutation(Right.WORK)
    async def request_approval(
        self, session: db.WriteSession, input: RequestApprovalInput
    ) -> Changed[db.ApprovalRequest]:
        """Ask people to approve or reject something."""
        return await _create(session, db.ApprovalRequest, input)

    @mutation(Right.WORK)
    async def request_feedback(
        self, session: db.WriteSession, input: RequestFeedbackInput
    ) -> Changed[db.FeedbackRequest]:
        """Ask people for an opinion on something that was done."""
        return await _create(session, db.FeedbackRequest, input)

    @mutation(Right.WORK)
    async def request_clarification(
        self, session: db.WriteSession, input: RequestClarificationInput
    ) -> Changed[db.ClarificationRequest]:
        """Ask people a question."""
        return await _create(session, db.ClarificationRequest, input)

    @mutation(Right.WORK)
    async def notify(
        self, session: db.WriteSession, input: NotifyInput
    ) -> Changed[db.Notification]:
        """Notify people of something."""
        return await _create(session, db.Notification, input)
