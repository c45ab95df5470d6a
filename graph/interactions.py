"""Human interactions: requests and notifications of agents for people."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeVar

import strawberry
from pydantic import Field
from sqlalchemy import ColumnElement, Uuid, cast, exists, or_, select
from sqlalchemy import Text as TextType
from sqlalchemy.orm import aliased
from strawberry.scalars import JSON

import db
from db import (
    InteractionStatus,
    InteractionType,
    NotificationLevel,
    OnExpiry,
    Right,
    interaction_answers,
    interactions,
    requests,
)
from db.events.topics import Topic
from db.parameters import bind
from graph.core.connections import Connection
from graph.core.context import Context
from graph.core.entities import Node, column, entity
from graph.core.errors import BadInput
from graph.core.fields import argument, awaited, collection, listed, one, related
from graph.core.filters import (
    BooleanFilter,
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
from graph.core.history import history
from graph.core.inputs import Repeatable, input_of, new_values
from graph.core.mutations import mutation
from graph.core.payloads import Changed
from graph.core.scalars import ID, Line, Metadata, Priority
from graph.core.updates import Update, at_start, changed, followed, update_type


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
    asked_by_user_id: IDFilter | None
    asked_by_agent_id: IDFilter | None
    blocks_task: BooleanFilter | None
    project = through(db.HumanInteraction.project)
    task = through(db.HumanInteraction.task)
    agent = through(db.HumanInteraction.agent)
    assignee = through(db.HumanInteraction.assignee)
    asked_by_user = through(db.HumanInteraction.asked_by_user)
    asked_by_agent = through(db.HumanInteraction.asked_by_agent)
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
    blocks_task: bool
    on_expiry: OnExpiry
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
    asked_by_user = related(db.HumanInteraction.asked_by_user)
    asked_by_agent = related(db.HumanInteraction.asked_by_agent)
    answers = listed(db.HumanInteraction.answers, most=interactions.MOST_APPROVALS)
    history = history(db.HumanInteraction)


@entity(db.ApprovalRequest)
class ApprovalRequest(HumanInteraction):
    required_approvals: int
    approval_count: int
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


MOST_SECONDS = 55
"""How long a service can wait for an answer at once. Many proxies give up after 60 seconds."""


async def _until_answered(context: Context, id: str, timeout_seconds: int | None = None) -> None:
    """Wait until a request is answered, cancelled or expired, at most so many seconds."""
    seconds = MOST_SECONDS if timeout_seconds is None else timeout_seconds
    if not 0 <= seconds <= MOST_SECONDS:
        raise BadInput(f"timeoutSeconds must be between 0 and {MOST_SECONDS}, not {seconds}.")
    key = keys(db.HumanInteraction, id)

    async def is_pending() -> bool:
        async with context.read() as session:
            return await interaction_answers.is_pending(session, context.viewer, key)

    await context.database.answers.wait(key, is_pending, seconds)


@strawberry.type
class Query:
    human_interaction: HumanInteraction | None = one(db.HumanInteraction)
    human_interactions: Connection[HumanInteraction] = collection(db.HumanInteraction)
    pending_interactions: Connection[HumanInteraction] = collection(
        db.HumanInteraction,
        conditions=interaction_answers.waits_for,
        order="PRIORITY_DESC",
        description="What waits for your answer in all your projects, the most urgent first:"
        " requests that are assigned to you or to nobody, and that you neither made nor answered"
        " yourself. Notifications only if they need to be acknowledged.",
    )
    await_interaction: HumanInteraction | None = awaited(
        db.HumanInteraction,
        _until_answered,
        arguments=[
            argument(
                "timeout_seconds",
                int | None,
                f"How long to wait, in seconds: at most {MOST_SECONDS}, and as long unless said"
                " otherwise.",
            )
        ],
        description="The interaction with this id, as soon as it is no longer PENDING, or as it is"
        " when the time is over; at once if you may not see it. The whole operation waits.",
    )


@update_type
class InteractionUpdate(Update):
    """A change of an interaction, or an answer to it."""

    interaction = changed(db.HumanInteraction, "The interaction as it is now.")


@update_type
class InboxUpdate(Update):
    """A change of an interaction that you may answer."""

    interaction = changed(
        db.HumanInteraction, "The interaction as it is now; it may no longer wait for you."
    )
    interactions = at_start(
        db.HumanInteraction,
        conditions=interaction_answers.waits_for,
        order="PRIORITY_DESC",
        description="What waits for your answer; none in a message with an event.",
    )


def _is_for(event: Any, row: Any, viewer: db.Viewer) -> list[ColumnElement[bool]]:
    """Whether a request was or is for a viewer, so that they learn that it no longer is."""
    asked = aliased(db.HumanInteraction)
    found = select(asked.id).where(
        asked.id == row.c.object_id, *interaction_answers.is_for(asked, viewer)
    )
    was_theirs = event.before["assignee_id"].astext == cast(bind(viewer.user_id, Uuid), TextType)
    is_gone = event.action == bind(db.EventAction.DELETED, db.Event.action.type)
    return [or_(is_gone, was_theirs, exists(found.correlate(row)))]


@strawberry.type
class Subscription:
    interaction_updated: InteractionUpdate = followed(
        InteractionUpdate,
        lambda id: [
            Topic("HumanInteraction", str(id)),
            Topic("InteractionAnswer", parent_id=id),
        ],
        model=db.HumanInteraction,
        subject=db.HumanInteraction,
        description="An interaction, and each change of it and answer to it.",
    )
    inbox: InboxUpdate = followed(
        InboxUpdate,
        lambda _: [Topic("HumanInteraction"), Topic("InteractionAnswer")],
        model=db.HumanInteraction,
        conditions=_is_for,
        description="What waits for your answer in all your projects, as `pendingInteractions`, and"
        " each change of it.",
    )


Interaction = TypeVar("Interaction", bound=db.HumanInteraction)


class InteractionValues(Repeatable):
    """The fields that all inputs of interactions share."""

    id: ID[db.HumanInteraction] | None = None
    project_id: ID[db.Project] | None = Field(
        default=None, description="The id of the project. The attempt says it, if you give one."
    )
    title: Line
    content: JSON
    priority: Priority = 3
    task_id: ID[db.Task] | None = Field(
        default=None,
        description="The id of the task that it is about. The attempt says it, if you give one.",
    )
    agent_id: ID[db.Agent] | None = None
    conversation_id: ID[db.Conversation] | None = None
    assignee_id: ID[db.User] | None = None
    expires_at: datetime | None = None
    on_expiry: OnExpiry = OnExpiry.KEEP
    metadata: Metadata | None = None
    block_task: bool = Field(
        default=False,
        description="Whether to block the task until this is answered, cancelled or expired. It"
        " ends the attempt and its lease. Give attemptId too.",
    )
    attempt_id: ID[db.TaskAttempt] | None = Field(
        default=None,
        description="Your attempt at the task that this is about. To block the task, it must be"
        " running.",
    )
    checkpoint: JSON | None = Field(
        default=None,
        description="If this blocks the task: what the next attempt needs to go on from here.",
    )


@input_of(db.ApprovalRequest)
class RequestApprovalInput(InteractionValues):
    """The request to approve or reject something."""

    required_approvals: Annotated[int, Field(ge=1, le=interactions.MOST_APPROVALS)] = 1


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
    id = await requests.add(
        session,
        model,
        row,
        attempt_id=input.attempt_id,
        blocks_task=input.block_task,
        checkpoint=input.checkpoint,
    )
    return Changed(id)


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
