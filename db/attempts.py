"""Attempts of agents at tasks."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.base import CRUD, LongText, check, defaulted, to_many, to_one

if TYPE_CHECKING:
    from db.agents import Agent
    from db.tasks import Task
    from db.usage import UsageRecord


class AttemptStatus(StrEnum):
    """The status of an attempt."""

    RUNNING = "RUNNING"
    """The agent is working."""
    SUCCEEDED = "SUCCEEDED"
    """The task was completed."""
    FAILED = "FAILED"
    """The agent could not do it."""
    LEASE_LOST = "LEASE_LOST"
    """The agent sent no heartbeat in time, and lost the task."""
    CANCELLED = "CANCELLED"
    """The task was cancelled."""
    RELEASED = "RELEASED"
    """The agent gave the task back."""


class TaskAttempt(CRUD):
    """An attempt of an agent at a task. Its id proves that the agent still holds the task."""

    __tablename__ = "task_attempts"
    __table_args__ = (
        UniqueConstraint("task_id", "number"),
        check("number > 0", "number_positive", "Attempts are counted from 1.", "number"),
        check(
            "progress_percent BETWEEN 0 AND 100",
            "progress_percent_range",
            "Progress is 0 to 100 percent.",
            "progress_percent",
        ),
        Index(None, "started_at", "id"),
        Index(None, "agent_id", "started_at", "id"),
        Index(None, "task_id", "started_at", "id"),
    )

    task_id: Mapped[UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    agent_id: Mapped[UUID | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    number: Mapped[int] = mapped_column(doc="The number of the attempt at its task, from 1.")
    status: Mapped[AttemptStatus] = defaulted(AttemptStatus.RUNNING, index=True, doc="Its status.")
    heartbeat_at: Mapped[datetime | None] = mapped_column(
        doc="When the agent last sent a heartbeat."
    )
    progress_percent: Mapped[int | None] = mapped_column(
        doc="The progress in percent, from 0 to 100."
    )
    status_message: Mapped[LongText | None] = mapped_column(
        doc="The last message of the agent about its progress."
    )
    result: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True), doc="What it produced.")
    error: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True), doc="Why it failed.")
    started_at: Mapped[datetime] = mapped_column(server_default=func.now(), doc="When it began.")
    ended_at: Mapped[datetime | None] = mapped_column(doc="When it ended.")

    task: Mapped[Task] = to_one(
        "attempts", "The task that it is an attempt at.", foreign_keys=[task_id]
    )
    current_task: Mapped[Task | None] = to_many(
        "current_attempt",
        "The task, while this is its running attempt.",
        foreign_keys="Task.current_attempt_id",
    )
    agent: Mapped[Agent | None] = to_one("attempts", "The agent that made it.")
    usage_records: Mapped[list[UsageRecord]] = to_many(
        "attempt", "The calls of AI models that it made."
    )
