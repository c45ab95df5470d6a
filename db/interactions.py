"""Human interactions: requests and notifications of agents for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    Text,
    cast,
    exists,
    func,
    inspect,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from db.base import (
    CRUD,
    LOGGED,
    LongText,
    Metadata,
    Priority,
    ShortText,
    check,
    choice,
    defaulted,
    to_one,
)
from db.errors import Invalid
from db.members import ProjectMember
from db.parameters import bind
from db.users import User, UserRole
from db.writes import COMPUTE

if TYPE_CHECKING:
    from db.agents import Agent
    from db.conversations import Conversation
    from db.projects import Project
    from db.sessions import WriteSession
    from db.tasks import Task


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


def _only_for(kind: InteractionType, *columns: str) -> CheckConstraint:
    """The CHECK that these columns are null in rows of other types."""
    return check(
        f"type = '{kind}' OR num_nonnulls({', '.join(columns)}) = 0",
        f"{kind.lower()}_only",
        f"Only an interaction of the type {kind} has {' and '.join(columns)}.",
    )


def _content_hash(new: Mapping[str, Any]) -> ColumnElement[str]:
    """SHA-256, in hex, of the title, a line break, and the content as the API returns it."""
    content = cast(cast(new["content"], JSONB), Text)
    hashed = func.sha256(func.convert_to(func.concat(new["title"], "\n", content), "UTF8"))
    return func.encode(hashed, "hex")


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
        choice(InteractionType), index=True, doc="The type: what people are asked for."
    )
    task_id: Mapped[UUID | None] = mapped_column(ForeignKey("tasks.id", ondelete="SET NULL"))
    agent_id: Mapped[UUID | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    conversation_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("conversations.id", ondelete="SET NULL")
    )
    title: Mapped[ShortText] = mapped_column(doc="The subject, in one line.")
    content: Mapped[Any] = mapped_column(JSONB, doc="What people are asked or told.")
    content_hash: Mapped[ShortText] = mapped_column(
        info={COMPUTE: _content_hash, **LOGGED},
        doc="SHA-256, in hex, of the title, a line break, and the content as the API returns it. It"
        " proves what people were asked.",
    )
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
    agent: Mapped[Agent | None] = to_one("interactions", "The agent that asks.")
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

    __mapper_args__ = {"polymorphic_on": type, "with_polymorphic": "*"}

    @classmethod
    async def create(cls, session: AsyncSession, **values: Any) -> Self:
        """Add an interaction with the hash of its title and content."""
        new = {"title": bind(values["title"], Text), "content": bind(values["content"], JSONB)}
        return await super().create(session, content_hash=_content_hash(new), **values)


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


async def add(
    session: WriteSession, model: type[HumanInteraction], values: Mapping[str, Any]
) -> UUID:
    """Add an interaction to the project that the values name; return its id.

    Raises NotFound, Denied, and Rejected with all errors.
    """
    if values.get("assignee_id") is not None:
        await session.check_new(model, values)
        await _refuse_outsider(session, values["project_id"], values["assignee_id"])
    identity = inspect(model).polymorphic_identity
    return await session.insert(model, values, known={"type": identity})


async def _refuse_outsider(session: AsyncSession, project_id: UUID, user_id: UUID) -> None:
    """Raise Invalid if the user who is to answer may not see the project."""
    insider = or_(
        exists().where(ProjectMember.project_id == project_id, ProjectMember.user_id == User.id),
        User.role == UserRole.ADMIN,
    )
    if await session.scalar(select(insider).where(User.id == user_id)):
        return
    raise Invalid(
        "This user is not a member of the project, and would not see it.", ("assignee_id",)
    )
