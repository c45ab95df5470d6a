"""Answers of people to the requests and notifications of agents."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeVar

import strawberry
from pydantic import Field
from sqlalchemy import inspect
from strawberry.scalars import JSON

import db
from db import AnswerOutcome, Right, interaction_answers
from graph.core.connections import Connection
from graph.core.entities import Node, entity
from graph.core.fields import collection, one, related
from graph.core.filters import (
    DateTimeFilter,
    EnumFilter,
    IDFilter,
    StringFilter,
    filters,
    ordering,
    through,
)
from graph.core.inputs import Repeatable, input_of
from graph.core.mutations import mutation
from graph.core.payloads import Changed
from graph.core.scalars import FILLED, ID, Text

Interaction = TypeVar("Interaction", bound=db.HumanInteraction)


@filters(db.InteractionAnswer)
class InteractionAnswerFilter:
    id: IDFilter | None
    outcome: EnumFilter[AnswerOutcome] | None
    content_hash: StringFilter | None
    answered_at: DateTimeFilter | None
    interaction_id: IDFilter | None
    user_id: IDFilter | None
    interaction = through(db.InteractionAnswer.interaction)
    user = through(db.InteractionAnswer.user)


InteractionAnswerOrder = ordering(db.InteractionAnswer, db.InteractionAnswer.answered_at)


@entity(db.InteractionAnswer, where=InteractionAnswerFilter, order=InteractionAnswerOrder)
class InteractionAnswer(Node):
    outcome: AnswerOutcome
    comment: str | None
    content_hash: str
    answered_at: datetime
    interaction = related(db.InteractionAnswer.interaction)
    user = related(db.InteractionAnswer.user)


@strawberry.type
class Query:
    interaction_answer: InteractionAnswer | None = one(db.InteractionAnswer)
    interaction_answers: Connection[InteractionAnswer] = collection(db.InteractionAnswer)


class AnswerValues(Repeatable):
    """The fields that all inputs of answers share."""

    id: ID[db.HumanInteraction] = Field(description="What you answer.")
    content_hash: str = Field(
        description="The `contentHash` of what you have read. If the content was changed since,"
        " nothing is done, and a Conflict shows it as it is now."
    )


@input_of(db.ApprovalRequest)
class RespondToApprovalInput(AnswerValues):
    """Your decision on a request for approval."""

    approved: bool
    comment: Text | None = None


@input_of(db.FeedbackRequest)
class SubmitFeedbackInput(AnswerValues):
    """Your opinion on what an agent did."""

    feedback: JSON
    rating: Annotated[int, Field(ge=1, le=5)] | None = None


@input_of(db.ClarificationRequest)
class AnswerClarificationInput(AnswerValues):
    """Your answer to a question."""

    answer: Annotated[Text, FILLED]


@input_of(db.Notification)
class AcknowledgeNotificationInput(AnswerValues):
    """The notification that you have read."""


@input_of(db.HumanInteraction)
class CancelInteractionInput(Repeatable):
    """The request or notification to withdraw."""

    id: ID[db.HumanInteraction]


async def _answer(
    session: db.WriteSession,
    model: type[Interaction],
    outcome: AnswerOutcome,
    input: AnswerValues,
    **values: Any,
) -> Changed[Interaction]:
    """Answer a request of this model; `values` are those of its columns."""
    kind: Any = inspect(model).polymorphic_identity
    id = await interaction_answers.answer(
        session, input.id, kind, outcome, input.content_hash, **values
    )
    return Changed(id)


@strawberry.type
class Mutation:
    @mutation(Right.ANSWER)
    async def respond_to_approval(
        self, session: db.WriteSession, input: RespondToApprovalInput
    ) -> Changed[db.ApprovalRequest]:
        """Approve or reject a request.

        One rejection rejects it; the last approval that it requires approves it. You cannot approve
        what was asked with a token of yours.
        """
        outcome = AnswerOutcome.APPROVED if input.approved else AnswerOutcome.REJECTED
        values = {"approved": input.approved, "comment": input.comment}
        return await _answer(session, db.ApprovalRequest, outcome, input, **values)

    @mutation(Right.ANSWER)
    async def submit_feedback(
        self, session: db.WriteSession, input: SubmitFeedbackInput
    ) -> Changed[db.FeedbackRequest]:
        """Give an agent the feedback that it asked for."""
        values = {"feedback": input.feedback, "rating": input.rating}
        return await _answer(session, db.FeedbackRequest, AnswerOutcome.ANSWERED, input, **values)

    @mutation(Right.ANSWER)
    async def answer_clarification(
        self, session: db.WriteSession, input: AnswerClarificationInput
    ) -> Changed[db.ClarificationRequest]:
        """Answer the question of an agent."""
        outcome, answer = AnswerOutcome.ANSWERED, input.answer
        return await _answer(session, db.ClarificationRequest, outcome, input, answer=answer)

    @mutation(Right.ANSWER)
    async def acknowledge_notification(
        self, session: db.WriteSession, input: AcknowledgeNotificationInput
    ) -> Changed[db.Notification]:
        """Confirm that you have read a notification."""
        return await _answer(session, db.Notification, AnswerOutcome.ACKNOWLEDGED, input)

    @mutation(Right.WORK)
    async def cancel_interaction(
        self, session: db.WriteSession, input: CancelInteractionInput
    ) -> Changed[db.HumanInteraction]:
        """Withdraw a request or notification that nobody has answered.

        The task that it blocked goes back to its agent. An agent withdraws only its own.
        """
        return Changed(await interaction_answers.cancel(session, input.id))
