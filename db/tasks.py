"""Tasks and the dependencies between them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from db.base import (
    CRUD,
    Base,
    LongText,
    Metadata,
    Priority,
    ShortText,
    Version,
    check,
    children,
    choice,
    defaulted,
    to_many,
    to_one,
)
from db.errors import Invalid

if TYPE_CHECKING:
    from db.agents import Agent
    from db.attempts import TaskAttempt
    from db.communications import Communication
    from db.interactions import HumanInteraction
    from db.projects import Project
    from db.usage import UsageRecord
    from db.users import User


class TaskStatus(StrEnum):
    """The status of a task. A task that waits for others is PENDING."""

    PENDING = "PENDING"
    """To be done by any agent that fits."""
    ASSIGNED = "ASSIGNED"
    """To be done by the agent it is assigned to."""
    IN_PROGRESS = "IN_PROGRESS"
    """An agent works on it."""
    BLOCKED = "BLOCKED"
    """It cannot be worked on; `blockedReason` says why."""
    COMPLETED = "COMPLETED"
    """It was done."""
    FAILED = "FAILED"
    """Its last attempt failed."""
    CANCELLED = "CANCELLED"
    """It was cancelled."""
    SKIPPED = "SKIPPED"
    """It cannot be done, because a task it depends on failed, was cancelled or was skipped."""


class BlockedReason(StrEnum):
    """Why a task is blocked."""

    HUMAN_INPUT = "HUMAN_INPUT"
    """It waits for a person's answer."""
    EXTERNAL = "EXTERNAL"
    """It waits for something outside of Troupe."""
    MANUAL = "MANUAL"
    """A person has blocked it."""


class OnFailure(StrEnum):
    """What happens to a task when one that it depends on fails, is cancelled or is skipped."""

    SKIP = "SKIP"
    """It is skipped too."""
    HOLD = "HOLD"
    """It keeps waiting."""
    IGNORE = "IGNORE"
    """It proceeds as if the other one were completed."""


class Task(CRUD):
    """A piece of work. It may have subtasks, and depend on other tasks of its project."""

    __tablename__ = "tasks"
    __table_args__ = (
        check("priority BETWEEN 1 AND 5", "priority_1_to_5", "A priority is 1 to 5.", "priority"),
        check(
            "(status = 'BLOCKED') = (blocked_reason IS NOT NULL)",
            "blocked_why",
            "A blocked task says why it is blocked, and no other task does.",
            "blocked_reason",
        ),
        check(
            "parent_task_id <> id",
            "not_its_own_parent",
            "A task cannot be its own parent.",
            "parent_task_id",
        ),
        check(
            "unmet_dependency_count >= 0",
            "unmet_dependency_count_natural",
            "A number of dependencies is 0 or more.",
            "unmet_dependency_count",
        ),
        check(
            "attempt_count >= 0",
            "attempt_count_natural",
            "A number of attempts is 0 or more.",
            "attempt_count",
        ),
        check(
            "max_attempts > 0",
            "max_attempts_positive",
            "A task may have 1 attempt or more.",
            "max_attempts",
        ),
        check(
            "retry_backoff_seconds >= 0",
            "retry_backoff_seconds_natural",
            "A time to wait is 0 seconds or more.",
            "retry_backoff_seconds",
        ),
        check(
            "estimated_seconds >= 0",
            "estimated_seconds_natural",
            "An estimate is 0 seconds or more.",
            "estimated_seconds",
        ),
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "priority", "id"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "project_id", "updated_at", "id"),
        Index(None, "project_id", "priority", "id"),
        Index(None, "parent_task_id", "created_at", "id"),
        Index(None, "agent_id", "created_at", "id"),
        Index(None, "created_by_user_id", "created_at", "id"),
        Index(None, "created_by_agent_id", "created_at", "id"),
        # For assigning tasks to agents: those that are ready, by priority, and those whose lease
        # has expired.
        Index(
            "ix_tasks_ready",
            "project_id",
            text("priority DESC"),
            "available_at",
            "id",
            postgresql_where=text(
                "status IN ('PENDING', 'ASSIGNED') AND unmet_dependency_count = 0"
            ),
        ),
        Index(
            "ix_tasks_lease_expires_at",
            "lease_expires_at",
            postgresql_where=text("lease_expires_at IS NOT NULL"),
        ),
    )

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    parent_task_id: Mapped[UUID | None] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    agent_id: Mapped[UUID | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    created_by_user_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL")
    )
    created_by_agent_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("agents.id", ondelete="SET NULL")
    )
    title: Mapped[ShortText] = mapped_column(doc="What is to be done, in one line.")
    description: Mapped[LongText | None] = mapped_column(doc="What is to be done, in full.")
    type: Mapped[ShortText | None] = mapped_column(
        doc="What kind of work it is, for agents that take only some kinds."
    )
    status: Mapped[TaskStatus] = defaulted(TaskStatus.PENDING, index=True, doc="Its status.")
    blocked_reason: Mapped[BlockedReason | None] = mapped_column(
        choice(BlockedReason), doc="Why it is blocked, while its status is BLOCKED."
    )
    priority: Mapped[Priority]
    input: Mapped[Any | None] = mapped_column(
        JSONB(none_as_null=True), doc="The input for the agent."
    )
    result: Mapped[Any | None] = mapped_column(
        JSONB(none_as_null=True), doc="The result of the agent."
    )
    error: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True), doc="Why it failed.")
    available_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), doc="No agent can start it before this time."
    )
    due_at: Mapped[datetime | None] = mapped_column(doc="When it should be done.")
    started_at: Mapped[datetime | None] = mapped_column(doc="When its first attempt began.")
    completed_at: Mapped[datetime | None] = mapped_column(doc="When it was completed.")
    estimated_seconds: Mapped[int | None] = mapped_column(
        doc="An estimate of how long it takes, in seconds."
    )
    unmet_dependency_count: Mapped[int] = defaulted(
        0,
        doc="How many tasks it still waits for: its dependencies, its subtasks, and the"
        " dependencies of its ancestors.",
    )
    attempt_count: Mapped[int] = defaulted(0, doc="How many attempts have begun.")
    max_attempts: Mapped[int] = defaulted(
        3, doc="How many attempts may be made before it is FAILED."
    )
    retry_backoff_seconds: Mapped[int] = defaulted(
        30, doc="The wait before the second attempt, in seconds; doubled for each further one."
    )
    current_attempt_id: Mapped[UUID | None] = mapped_column(
        # The two tables refer to each other, so this foreign key is added after both.
        ForeignKey("task_attempts.id", ondelete="SET NULL", use_alter=True),
        unique=True,
    )
    lease_expires_at: Mapped[datetime | None] = mapped_column(
        doc="When the agent that works on it loses it, unless it sends a heartbeat before."
    )
    cancel_requested: Mapped[bool] = defaulted(
        False, doc="Whether the agent that works on it has been asked to stop."
    )
    task_metadata: Mapped[Metadata]
    version: Mapped[Version] = mapped_column()

    project: Mapped[Project] = to_one("tasks", "The project it belongs to.")
    parent_task: Mapped[Task | None] = to_one(
        "subtasks", "The task that it is a subtask of.", remote_side="Task.id"
    )
    subtasks: Mapped[list[Task]] = children(
        "parent_task", "Its subtasks; it waits for all of them."
    )
    agent: Mapped[Agent | None] = to_one(
        "tasks", "The agent it is assigned to.", foreign_keys=[agent_id]
    )
    created_by_user: Mapped[User | None] = to_one("created_tasks", "The user who created it.")
    created_by_agent: Mapped[Agent | None] = to_one(
        "created_tasks", "The agent that created it.", foreign_keys=[created_by_agent_id]
    )
    dependencies: Mapped[list[TaskDependency]] = children(
        "dependent", "Its dependencies on other tasks.", foreign_keys="TaskDependency.dependent_id"
    )
    dependents: Mapped[list[TaskDependency]] = children(
        "dependency",
        "The dependencies of other tasks on it.",
        foreign_keys="TaskDependency.dependency_id",
    )
    attempts: Mapped[list[TaskAttempt]] = children(
        "task", "The attempts of agents at it.", foreign_keys="TaskAttempt.task_id"
    )
    current_attempt: Mapped[TaskAttempt | None] = to_one(
        "current_task", "The attempt that is running.", foreign_keys=[current_attempt_id]
    )
    communications: Mapped[list[Communication]] = to_many(
        "task", "The messages between agents about it."
    )
    interactions: Mapped[list[HumanInteraction]] = to_many(
        "task", "The requests and notifications of agents about it."
    )
    usage_records: Mapped[list[UsageRecord]] = to_many("task", "The calls of AI models for it.")

    __mapper_args__ = {"version_id_col": version}

    def assign(self, agent_id: UUID | None) -> None:
        """Assign it to an agent, or to nobody, and set PENDING and ASSIGNED accordingly.

        Raises Invalid while an agent works on it.
        """
        if self.status is TaskStatus.IN_PROGRESS and agent_id != self.agent_id:
            raise Invalid(
                "An agent is working on this task; it cannot be given away.", ("agent_id",)
            )
        if self.status in (TaskStatus.PENDING, TaskStatus.ASSIGNED):
            self.status = TaskStatus.PENDING if agent_id is None else TaskStatus.ASSIGNED
        self.agent_id = agent_id


class TaskDependency(Base):
    """A dependency of one task on another of the same project."""

    __tablename__ = "task_dependencies"
    __table_args__ = (
        Index(None, "dependency_id", "dependent_id"),
        check(
            "dependent_id <> dependency_id",
            "two_tasks",
            "A task cannot wait for itself.",
            "dependency_id",
        ),
    )

    dependent_id: Mapped[UUID] = mapped_column(
        ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True
    )
    dependency_id: Mapped[UUID] = mapped_column(
        ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True
    )
    on_failure: Mapped[OnFailure] = defaulted(
        OnFailure.SKIP,
        doc="What happens to the dependent task when the other fails, is cancelled or is skipped.",
    )

    dependent: Mapped[Task] = to_one(
        "dependencies", "The task that waits.", foreign_keys=[dependent_id]
    )
    dependency: Mapped[Task] = to_one(
        "dependents", "The task it waits for.", foreign_keys=[dependency_id]
    )


async def unassign(session: AsyncSession, agent: Agent) -> None:
    """Make the tasks assigned to an agent PENDING, before it is deleted or terminated."""
    # FOR UPDATE, unlike the lock of `fetch`, also blocks transactions that assign a task to it.
    await session.refresh(agent, with_for_update=True)
    await session.execute(
        update(Task)
        .where(Task.agent_id == agent.id, Task.status == TaskStatus.ASSIGNED)
        .values(status=TaskStatus.PENDING, agent_id=None, version=Task.version + 1)
        .execution_options(synchronize_session=False)
    )
