"""Human interactions: what agents ask of people, and tell them."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, exists, or_, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from db.base import CRUD, LongText, Metadata, ShortText, check, choice, stored_text, to_one
from db.errors import Invalid
from db.members import ProjectMember
from db.users import User, UserRole

if TYPE_CHECKING:
    from db.agents import Agent
    from db.conversations import Conversation
    from db.projects import Project
    from db.tasks import Task


class InteractionType(StrEnum):
    """What is wanted of people."""

    APPROVAL = "APPROVAL"
    """A yes or a no."""
    FEEDBACK = "FEEDBACK"
    """An opinion on something that was done."""
    CLARIFICATION = "CLARIFICATION"
    """The answer to a question."""
    NOTIFICATION = "NOTIFICATION"
    """That they know something."""


class InteractionStatus(StrEnum):
    """What became of an interaction. It leaves PENDING once."""

    PENDING = "PENDING"
    """Waiting for somebody."""
    APPROVED = "APPROVED"
    """Somebody said yes."""
    REJECTED = "REJECTED"
    """Somebody said no."""
    ANSWERED = "ANSWERED"
    """Somebody gave feedback or an answer."""
    ACKNOWLEDGED = "ACKNOWLEDGED"
    """Somebody has read it."""
    EXPIRED = "EXPIRED"
    """Nobody answered in time. That is never an approval."""
    CANCELLED = "CANCELLED"
    """It was withdrawn."""


class NotificationLevel(StrEnum):
    """How serious a notification is."""

    INFO = "INFO"
    """Good to know."""
    WARNING = "WARNING"
    """Something may need attention."""
    ERROR = "ERROR"
    """Something went wrong."""
    CRITICAL = "CRITICAL"
    """Somebody should look at once."""


def _only_for(kind: InteractionType, *columns: str) -> CheckConstraint:
    """The rule that rows of other types leave these columns alone."""
    return check(
        f"type = '{kind}' OR num_nonnulls({', '.join(columns)}) = 0",
        f"{kind.lower()}_only",
        f"Only an interaction of the type {kind} has {' and '.join(columns)}.",
    )


class HumanInteraction(CRUD):
    """Something that an agent asks of people, or tells them."""

    __tablename__ = "human_interactions"
    __table_args__ = (
        check("priority BETWEEN 1 AND 5", "priority_range", "A priority is 1 to 5.", "priority"),
        check("rating BETWEEN 1 AND 5", "rating_range", "A rating is 1 to 5.", "rating"),
        check(
            "(status IN ('PENDING', 'EXPIRED', 'CANCELLED')) = (responded_at IS NULL)",
            "responded_once",
            "An interaction has the time of its response once it is responded to, and only then.",
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
            for noun in ("project", "task", "agent", "conversation", "assignee", "responded_by")
        ),
        Index(None, "project_id", "priority", "id"),
    )

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    type: Mapped[InteractionType] = mapped_column(
        choice(InteractionType), index=True, doc="What is wanted of people."
    )
    task_id: Mapped[UUID | None] = mapped_column(ForeignKey("tasks.id", ondelete="SET NULL"))
    agent_id: Mapped[UUID | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    conversation_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("conversations.id", ondelete="SET NULL")
    )
    title: Mapped[ShortText] = mapped_column(doc="What it is about, in a line.")
    content: Mapped[Any] = mapped_column(JSONB, doc="What exactly is put before people.")
    content_hash: Mapped[ShortText] = mapped_column(
        doc="SHA-256, in hex, of the title, a line break, and the text of the content as an answer"
        " has it: the proof of what was put before people."
    )
    status: Mapped[InteractionStatus] = mapped_column(
        choice(InteractionStatus),
        default=InteractionStatus.PENDING,
        server_default=InteractionStatus.PENDING,
        index=True,
        doc="What became of it.",
    )
    priority: Mapped[int] = mapped_column(
        default=3, server_default=text("3"), doc="From 1 to 5; 5 is the most urgent."
    )
    assignee_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    expires_at: Mapped[datetime | None] = mapped_column(doc="Until when it can be answered.")
    responded_by_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL")
    )
    responded_at: Mapped[datetime | None] = mapped_column(doc="When it was answered.")
    interaction_metadata: Mapped[Metadata] = mapped_column(
        doc="Whatever else clients keep with it."
    )

    project: Mapped[Project] = to_one("interactions", "The project that it is part of.")
    task: Mapped[Task | None] = to_one("interactions", "The task that it is about.")
    agent: Mapped[Agent | None] = to_one("interactions", "The agent that asks.")
    conversation: Mapped[Conversation | None] = to_one(
        "interactions", "The conversation that it came up in."
    )
    assignee: Mapped[User | None] = to_one(
        "assigned_interactions",
        "The user who is asked; none if any member may answer.",
        foreign_keys=[assignee_id],
    )
    responded_by: Mapped[User | None] = to_one(
        "answered_interactions", "The user who answered.", foreign_keys=[responded_by_id]
    )

    __mapper_args__ = {"polymorphic_on": type, "with_polymorphic": "*"}

    @classmethod
    async def create(cls, session: AsyncSession, **values: Any) -> Self:
        """Add an interaction with the hash of what it puts before people."""
        written = await stored_text(session, values["content"])
        hash = content_hash(values["title"], written)
        return await super().create(session, content_hash=hash, **values)


class ApprovalRequest(HumanInteraction):
    """An agent asks for a yes or a no."""

    approved: Mapped[bool | None] = mapped_column(doc="The answer.")
    comment: Mapped[LongText | None] = mapped_column(doc="What was said with the answer.")

    __mapper_args__ = {"polymorphic_identity": InteractionType.APPROVAL}


class FeedbackRequest(HumanInteraction):
    """An agent asks for an opinion on something that was done."""

    feedback: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True), doc="The opinion.")
    rating: Mapped[int | None] = mapped_column(doc="From 1 to 5; 5 is the best.")

    __mapper_args__ = {"polymorphic_identity": InteractionType.FEEDBACK}


class ClarificationRequest(HumanInteraction):
    """An agent asks a question, which stands in the content."""

    answer: Mapped[LongText | None] = mapped_column(doc="The answer.")

    __mapper_args__ = {"polymorphic_identity": InteractionType.CLARIFICATION}


class Notification(HumanInteraction):
    """An agent tells people something."""

    # Nullable in the table, where rows of other types have none; and without a default there,
    # which would be the column's in every row, of whatever type.
    level: Mapped[NotificationLevel] = mapped_column(
        choice(NotificationLevel), nullable=True, doc="How serious it is."
    )
    requires_acknowledgement: Mapped[bool] = mapped_column(
        nullable=True, doc="Whether somebody has to say that they have read it."
    )

    __mapper_args__ = {"polymorphic_identity": InteractionType.NOTIFICATION}

    @classmethod
    async def create(cls, session: AsyncSession, **values: Any) -> Self:
        """Add a notification; it is for information, and asks for nothing, unless said."""
        quiet = {"level": NotificationLevel.INFO, "requires_acknowledgement": False}
        return await super().create(session, **quiet | values)


async def refuse_outsider(session: AsyncSession, project_id: UUID, user_id: UUID | None) -> None:
    """See that a user who is to answer can see what is asked. Raises Invalid."""
    insider = or_(
        exists().where(ProjectMember.project_id == project_id, ProjectMember.user_id == User.id),
        User.role == UserRole.ADMIN,
    )
    if user_id is None or await session.scalar(select(insider).where(User.id == user_id)):
        return
    raise Invalid(
        "This user is not a member of the project, and would not see it.", ("assignee_id",)
    )


def content_hash(title: str, content: str) -> str:
    """SHA-256, in hex, of the title, a line break, and the content as an answer shows it."""
    return hashlib.sha256(f"{title}\n{content}".encode()).hexdigest()
