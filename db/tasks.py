"""Tasks and the dependencies between them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ForeignKey,
    Index,
    String,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, column_property, declared_attr, mapped_column

from db import leases
from db.agents import Agent
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
    where_set,
)
from db.errors import Invalid
from db.transitions import Transitions
from db.usage_totals import cost_of, tree_cost_of

if TYPE_CHECKING:
    from db.attempts import TaskAttempt
    from db.budgets import Budget
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


TO_DO = {TaskStatus.PENDING, TaskStatus.ASSIGNED}
"""The statuses of a task that an agent may claim once it waits for nothing."""

WAITING = TO_DO | {TaskStatus.BLOCKED}
"""The statuses of a task that has not ended, and that no attempt is running on."""

UNSUCCESSFUL = {TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.SKIPPED}
"""The final statuses for which a dependency's `on_failure` applies."""

ENDED = UNSUCCESSFUL | {TaskStatus.COMPLETED}
"""The final statuses; a person can reopen a task that has one of them."""

TASK_TRANSITIONS = Transitions(
    "task",
    {
        # A claim begins an attempt. Where none runs, people may end a task by hand.
        TaskStatus.PENDING: {
            TaskStatus.ASSIGNED,
            TaskStatus.IN_PROGRESS,
            TaskStatus.BLOCKED,
            *ENDED,
        },
        TaskStatus.ASSIGNED: {
            TaskStatus.PENDING,
            TaskStatus.IN_PROGRESS,
            TaskStatus.BLOCKED,
            *ENDED,
        },
        # The attempt ends: it is to be done again, it is parked, or the task ends.
        TaskStatus.IN_PROGRESS: {
            *WAITING,
            TaskStatus.COMPLETED,
            TaskStatus.FAILED,
            TaskStatus.CANCELLED,
        },
        TaskStatus.BLOCKED: {*TO_DO, *ENDED},
        # Reopened, tried again, done by hand after all, or given up.
        TaskStatus.COMPLETED: TO_DO,
        TaskStatus.FAILED: {*TO_DO, TaskStatus.COMPLETED, TaskStatus.CANCELLED},
        TaskStatus.CANCELLED: TO_DO,
        TaskStatus.SKIPPED: TO_DO,
    },
)
"""The statuses that may follow each status of a task."""


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


MOST_RESOURCES = 20
"""How many resources a task may name."""


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
        # For orders by when they are due, which show only tasks that are due at some time.
        Index(None, "due_at", "id", postgresql_where=text("due_at IS NOT NULL")),
        Index(None, "project_id", "due_at", "id", postgresql_where=text("due_at IS NOT NULL")),
        where_set("parent_task_id", "created_at", "id"),
        where_set("agent_id", "created_at", "id"),
        where_set("created_by_user_id", "created_at", "id"),
        where_set("created_by_agent_id", "created_at", "id"),
        check(
            f"cardinality(resource_keys) <= {MOST_RESOURCES}"
            " AND array_position(resource_keys, NULL) IS NULL",
            "resource_keys_few",
            f"A task names at most {MOST_RESOURCES} resources.",
            "resource_keys",
        ),
        # The tasks that are ready, in the order in which they are claimed.
        Index(
            "ix_tasks_ready",
            "project_id",
            text("task_urgency(priority, available_at)"),
            "id",
            postgresql_where=text(
                "status IN ('PENDING', 'ASSIGNED') AND unmet_dependency_count = 0"
            ),
        ),
        # What a claim reads, each in the order in which it is claimed: the tasks of a type, and
        # those that are assigned to an agent. A claim finds the first one without reading tasks of
        # other types or agents, or those that are not available yet.
        Index(
            "ix_tasks_claimable",
            "project_id",
            text("coalesce(type, '')"),
            "priority",
            "available_at",
            "id",
            postgresql_where=text("status = 'PENDING' AND unmet_dependency_count = 0"),
        ),
        Index(
            "ix_tasks_assigned",
            "agent_id",
            "priority",
            "available_at",
            "id",
            postgresql_where=text("status = 'ASSIGNED' AND unmet_dependency_count = 0"),
        ),
        # What does not go on by itself, and what others may wait for in vain.
        Index(
            "ix_tasks_halted",
            "project_id",
            "status",
            "id",
            postgresql_where=text("status IN ('BLOCKED', 'FAILED', 'CANCELLED', 'SKIPPED')"),
        ),
        # The resources in use, and the tasks that wait for people.
        Index(
            "ix_tasks_using_resources",
            "project_id",
            postgresql_where=text("status = 'IN_PROGRESS' AND resource_keys <> '{}'"),
        ),
        Index(
            "ix_tasks_resource_keys",
            "resource_keys",
            postgresql_using="gin",
            postgresql_where=text("status = 'IN_PROGRESS' AND resource_keys <> '{}'"),
        ),
        Index(
            "ix_tasks_in_review",
            "project_id",
            postgresql_where=text("blocked_reason = 'HUMAN_INPUT'"),
        ),
        # A column of a unique index of all rows is a key for PostgreSQL: to change it, it waits for
        # all transactions that refer to the row.
        Index(
            "uq_tasks_current_attempt_id",
            "current_attempt_id",
            unique=True,
            postgresql_where=text("current_attempt_id IS NOT NULL"),
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
    priority: Mapped[Priority] = mapped_column()
    acceptance_criteria: Mapped[LongText | None] = mapped_column(
        doc="What has to be true when it is done."
    )
    resource_keys: Mapped[list[str]] = mapped_column(
        ARRAY(String(255)),
        default=list,
        server_default=text("'{}'::varchar[]"),
        doc="Names of what it needs for itself, such as a branch or a machine. Of the tasks of a"
        " project that name the same one, only one is in progress at a time.",
    )
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
        3,
        doc="With how many attempts that failed, or lost their lease, it is FAILED. Attempts that"
        " were released do not count.",
    )
    retry_backoff_seconds: Mapped[int] = defaulted(
        30, doc="The wait before the second attempt, in seconds; doubled for each further one."
    )
    current_attempt_id: Mapped[UUID | None] = mapped_column(
        # The two tables refer to each other, so this foreign key is added after both.
        ForeignKey("task_attempts.id", ondelete="SET NULL", use_alter=True),
    )
    lease_expires_at: Mapped[datetime | None] = column_property(
        leases.of_attempt(leases.lease.expires_at, current_attempt_id).scalar_subquery(),
        deferred=True,
        doc="When the agent that works on it loses it, unless it sends a heartbeat before.",
    )
    cancel_requested: Mapped[bool] = defaulted(
        False, doc="Whether the agent that works on it has been asked to stop."
    )
    task_metadata: Mapped[Metadata]
    version: Mapped[Version] = mapped_column()
    # One number, so that it can be the position of a cursor. The migration 0019 makes the function.
    urgency: Mapped[int] = column_property(
        func.task_urgency(priority, available_at, type_=BigInteger),
        deferred=True,
        doc="The place in the order in which tasks are claimed, by priority and then by"
        " available_at; the smallest is the first.",
    )

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
    budgets: Mapped[list[Budget]] = children("task", "The budgets of it with its subtasks.")

    @declared_attr
    def cost(cls) -> Mapped[Decimal]:
        """What the calls of AI models for it cost."""
        return cost_of("task_id", cls.id, "What the calls of AI models for it cost, in US dollars.")

    @declared_attr
    def total_cost(cls) -> Mapped[Decimal]:
        """What the calls of AI models for it and its subtasks cost."""
        return tree_cost_of(
            cls.id,
            "What the calls of AI models for it and for its subtasks, at any depth, cost, in US"
            " dollars.",
        )

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
