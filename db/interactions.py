"""Human interactions: requests and notifications of agents for people."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Computed,
    ForeignKey,
    Index,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.base import (
    CRUD,
    LOGGED,
    LongText,
    Metadata,
    Priority,
    ShortText,
    check,
    children,
    choice,
    defaulted,
    to_one,
)
from db.transitions import Transitions

if TYPE_CHECKING:
    from db.agents import Agent
    from db.conversations import Conversation
    from db.interaction_answers import InteractionAnswer
    from db.projects import Project
    from db.tasks import Task
    from db.users import User


class InteractionType(StrEnum):
    """The type of an interaction: what people are asked for."""

    APPROVAL = "APPROVAL"
    """A decision, yes or no."""
    FEEDBACK = "FEEDBACK"
    """An opinion on something that was done."""
    CLARIFICATION = "CLARIFICATION"
    """The answer to a question."""
    NOTIFICATION = "NOTIFICATION"
    """Nothing; it informs them."""


class InteractionStatus(StrEnum):
    """The status of an interaction. It changes once, from PENDING."""

    PENDING = "PENDING"
    """Not answered yet."""
    APPROVED = "APPROVED"
    """A user approved it."""
    REJECTED = "REJECTED"
    """A user rejected it."""
    ANSWERED = "ANSWERED"
    """A user gave feedback or an answer."""
    ACKNOWLEDGED = "ACKNOWLEDGED"
    """A user has read it."""
    EXPIRED = "EXPIRED"
    """It was not answered before `expiresAt`. That is never an approval."""
    CANCELLED = "CANCELLED"
    """It was withdrawn."""


class NotificationLevel(StrEnum):
    """The severity of a notification."""

    INFO = "INFO"
    """Information."""
    WARNING = "WARNING"
    """Something may need attention."""
    ERROR = "ERROR"
    """Something went wrong."""
    CRITICAL = "CRITICAL"
    """It needs attention at once."""


class OnExpiry(StrEnum):
    """What happens to a task that a request blocks when the request expires."""

    KEEP = "KEEP"
    """It stays blocked until a person releases it."""
    FAIL = "FAIL"
    """It fails."""
    RELEASE = "RELEASE"
    """Its agent can work on it again."""


MOST_APPROVALS = 20
"""The largest number of approvals that a request may need."""


def _only_for(kind: InteractionType, *columns: str) -> CheckConstraint:
    """The CHECK that these columns are null in rows of other types."""
    return check(
        f"type = '{kind}' OR num_nonnulls({', '.join(columns)}) = 0",
        f"{kind.lower()}_only",
        f"Only an interaction of the type {kind} has {' and '.join(columns)}.",
    )


class HumanInteraction(CRUD):
    """A request or notification of an agent for people."""

    __tablename__ = "human_interactions"
    __table_args__ = (
        check("priority BETWEEN 1 AND 5", "priority_range", "A priority is 1 to 5.", "priority"),
        check("rating BETWEEN 1 AND 5", "rating_range", "A rating is 1 to 5.", "rating"),
        check(
            "(status IN ('PENDING', 'EXPIRED', 'CANCELLED')) = (responded_at IS NULL)",
            "responded_once",
            "An interaction has the time of its response once it is responded to, and only then.",
        ),
        check(
            f"required_approvals BETWEEN 1 AND {MOST_APPROVALS}",
            "required_approvals_range",
            f"A request needs 1 to {MOST_APPROVALS} approvals.",
            "required_approvals",
        ),
        check(
            "approval_count BETWEEN 0 AND required_approvals",
            "approval_count_range",
            "A request has no more approvals than it needs.",
        ),
        check(
            "type = 'APPROVAL' OR (required_approvals = 1 AND approval_count = 0)",
            "approvals_only",
            "Only a request for an approval counts approvals.",
        ),
        _only_for(InteractionType.APPROVAL, "approved", "comment"),
        _only_for(InteractionType.FEEDBACK, "feedback", "rating"),
        _only_for(InteractionType.CLARIFICATION, "answer"),
        check(
            "num_nonnulls(level, requires_acknowledgement)"
            " = CASE type WHEN 'NOTIFICATION' THEN 2 ELSE 0 END",
            "notification_only",
            "A notification has a level and says whether it needs to be acknowledged; nothing else"
            " has these.",
        ),
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "priority", "id"),
        *(
            Index(None, f"{noun}_id", "created_at", "id")
            for noun in (
                "project",
                "task",
                "agent",
                "conversation",
                "assignee",
                "responded_by",
                "asked_by_user",
                "asked_by_agent",
            )
        ),
        Index(None, "project_id", "priority", "id"),
        # What people still have to answer, and what has expired.
        Index(
            "ix_human_interactions_pending",
            "project_id",
            "priority",
            "id",
            postgresql_where=text("status = 'PENDING'"),
        ),
        Index(
            "ix_human_interactions_expiring",
            "expires_at",
            postgresql_where=text("status = 'PENDING' AND expires_at IS NOT NULL"),
        ),
    )

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    type: Mapped[InteractionType] = mapped_column(
        choice(InteractionType), index=True, doc="The type: what people are asked for."
    )
    task_id: Mapped[UUID | None] = mapped_column(ForeignKey("tasks.id", ondelete="SET NULL"))
    agent_id: Mapped[UUID | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    conversation_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("conversations.id", ondelete="SET NULL")
    )
    title: Mapped[ShortText] = mapped_column(doc="The subject, in one line.")
    content: Mapped[Any] = mapped_column(JSONB, doc="What people are asked or told.")
    # Computed by a function of the database, which the migration 0012 makes: nothing can change
    # the content without changing it.
    content_hash: Mapped[ShortText] = mapped_column(
        Computed("content_hash(title, content)", persisted=True),
        info=LOGGED,
        doc="SHA-256, in hex, of the title, a line break, and the content as the API returns it. An"
        " answer names it, so that it proves what people were asked.",
    )
    asked_by_user_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL")
    )
    asked_by_agent_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("agents.id", ondelete="SET NULL")
    )
    blocks_task: Mapped[bool] = defaulted(
        False, doc="Whether the task is blocked until this is answered, cancelled or expired."
    )
    on_expiry: Mapped[OnExpiry] = defaulted(
        OnExpiry.KEEP, doc="What happens to the task that it blocks when it expires."
    )
    required_approvals: Mapped[int] = defaulted(
        1, doc="How many people have to approve it. One rejection rejects it."
    )
    approval_count: Mapped[int] = defaulted(0, doc="How many people have approved it.")
    status: Mapped[InteractionStatus] = defaulted(
        InteractionStatus.PENDING, index=True, doc="Its status."
    )
    priority: Mapped[Priority]
    assignee_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    expires_at: Mapped[datetime | None] = mapped_column(
        doc="When it expires if it has not been answered."
    )
    responded_by_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL")
    )
    responded_at: Mapped[datetime | None] = mapped_column(doc="When it was answered.")
    interaction_metadata: Mapped[Metadata]

    project: Mapped[Project] = to_one("interactions", "The project that it is part of.")
    task: Mapped[Task | None] = to_one("interactions", "The task that it is about.")
    agent: Mapped[Agent | None] = to_one(
        "interactions", "The agent that asks.", foreign_keys=[agent_id]
    )
    conversation: Mapped[Conversation | None] = to_one(
        "interactions", "The conversation that it comes from."
    )
    assignee: Mapped[User | None] = to_one(
        "assigned_interactions",
        "The user who is to answer; null if any member may.",
        foreign_keys=[assignee_id],
    )
    responded_by: Mapped[User | None] = to_one(
        "answered_interactions", "The user who answered.", foreign_keys=[responded_by_id]
    )

    asked_by_user: Mapped[User | None] = to_one(
        "asked_interactions",
        "The user whose token it was asked with. They cannot approve it.",
        foreign_keys=[asked_by_user_id],
    )
    asked_by_agent: Mapped[Agent | None] = to_one(
        "asked_interactions",
        "The agent whose token it was asked with.",
        foreign_keys=[asked_by_agent_id],
    )
    answers: Mapped[list[InteractionAnswer]] = children(
        "interaction",
        "The answers of people, the earliest first.",
        order_by="InteractionAnswer.id",
    )

    __mapper_args__ = {"polymorphic_on": type, "with_polymorphic": "*"}

    transitions = Transitions.once("request", InteractionStatus.PENDING)


class ApprovalRequest(HumanInteraction):
    """An agent asks for a decision, yes or no."""

    approved: Mapped[bool | None] = mapped_column(doc="The answer.")
    comment: Mapped[LongText | None] = mapped_column(doc="A comment on the answer.")

    __mapper_args__ = {"polymorphic_identity": InteractionType.APPROVAL}


class FeedbackRequest(HumanInteraction):
    """An agent asks for an opinion on something that was done."""

    feedback: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True), doc="The opinion.")
    rating: Mapped[int | None] = mapped_column(doc="From 1 to 5; 5 is the best.")

    __mapper_args__ = {"polymorphic_identity": InteractionType.FEEDBACK}


class ClarificationRequest(HumanInteraction):
    """An agent asks a question, which is in the content."""

    answer: Mapped[LongText | None] = mapped_column(doc="The answer.")

    __mapper_args__ = {"polymorphic_identity": InteractionType.CLARIFICATION}


class Notification(HumanInteraction):
    """An agent informs people."""

    # Nullable and without a server default, because rows of the other types share the table.
    level: Mapped[NotificationLevel] = mapped_column(
        choice(NotificationLevel), nullable=True, doc="Its severity."
    )
    requires_acknowledgement: Mapped[bool] = mapped_column(
        nullable=True, doc="Whether a user has to acknowledge it."
    )

    __mapper_args__ = {"polymorphic_identity": InteractionType.NOTIFICATION}
