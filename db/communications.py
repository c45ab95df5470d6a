"""Communications: messages from agent to agent."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.base import CRUD, Metadata, Priority, ShortText, check, defaulted, to_many, to_one

if TYPE_CHECKING:
    from db.agents import Agent
    from db.projects import Project
    from db.tasks import Task


class CommunicationStatus(StrEnum):
    """The status of a communication."""

    SENT = "SENT"
    """Sent, not received yet."""
    DELIVERED = "DELIVERED"
    """Received."""
    ACKNOWLEDGED = "ACKNOWLEDGED"
    """Received and acknowledged."""
    EXPIRED = "EXPIRED"
    """Not received before `expiresAt`."""
    FAILED = "FAILED"
    """It could not be delivered."""


class Communication(CRUD):
    """A message from one agent to another of the same project."""

    __tablename__ = "communications"
    __table_args__ = (
        check("priority BETWEEN 1 AND 5", "priority_range", "A priority is 1 to 5.", "priority"),
        Index(None, "sent_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "priority", "id"),
        Index(None, "project_id", "sent_at", "id"),
        Index(None, "project_id", "priority", "id"),
        Index(None, "from_agent_id", "sent_at", "id"),
        Index(None, "to_agent_id", "sent_at", "id"),
        Index(None, "task_id", "sent_at", "id"),
        Index(None, "reply_to_id", "sent_at", "id"),
    )

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    from_agent_id: Mapped[UUID] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"))
    to_agent_id: Mapped[UUID] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"))
    type: Mapped[ShortText] = mapped_column(
        doc="The kind of message, which the agents define, such as `REQUEST`."
    )
    content: Mapped[Any] = mapped_column(JSONB, doc="The content of the message.")
    priority: Mapped[Priority]
    status: Mapped[CommunicationStatus] = defaulted(
        CommunicationStatus.SENT, index=True, doc="Its status."
    )
    correlation_id: Mapped[ShortText | None] = mapped_column(
        index=True, doc="An id that all messages of one exchange share."
    )
    reply_to_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("communications.id", ondelete="SET NULL")
    )
    task_id: Mapped[UUID | None] = mapped_column(ForeignKey("tasks.id", ondelete="SET NULL"))
    sent_at: Mapped[datetime] = mapped_column(server_default=func.now(), doc="When it was sent.")
    delivered_at: Mapped[datetime | None] = mapped_column(doc="When it was received.")
    acknowledged_at: Mapped[datetime | None] = mapped_column(doc="When it was acknowledged.")
    expires_at: Mapped[datetime | None] = mapped_column(
        doc="When it expires if it has not been received."
    )
    communication_metadata: Mapped[Metadata]

    project: Mapped[Project] = to_one("communications", "The project of both agents.")
    from_agent: Mapped[Agent] = to_one(
        "sent_communications", "The agent that sent it.", foreign_keys=[from_agent_id]
    )
    to_agent: Mapped[Agent] = to_one(
        "received_communications", "The agent that it is for.", foreign_keys=[to_agent_id]
    )
    task: Mapped[Task | None] = to_one("communications", "The task that it is about.")
    reply_to: Mapped[Communication | None] = to_one(
        "replies", "The message that it answers.", remote_side="Communication.id"
    )
    replies: Mapped[list[Communication]] = to_many("reply_to", "The answers to it.")
