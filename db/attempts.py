"""Attempts of agents at tasks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    ForeignKey,
    Index,
    Select,
    String,
    UniqueConstraint,
    and_,
    cast,
    exists,
    func,
    inspect,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, column_property, declared_attr, mapped_column

from db import leases
from db.agents import Agent, is_working
from db.base import CRUD, UNLOGGED, LongText, Timestamp, check, defaulted, to_many, to_one
from db.leases import lease
from db.projects import Project, ProjectStatus
from db.tasks import Task
from db.transitions import Transitions
from db.users import AccessToken

if TYPE_CHECKING:
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


_TASK, _PROJECT, _AGENT = (model.__table__.alias() for model in (Task, Project, Agent))


def _held(attempt_id: Any) -> Select[Any]:
    """Selects the task of an attempt, while the attempt holds it."""
    found = select(lease.attempt_id).join(_TASK, _TASK.c.id == lease.task_id)
    return found.where(lease.attempt_id == attempt_id).correlate_except(
        leases.table, _TASK, _PROJECT
    )


def _derived(expression: Callable[[Any], Any]) -> Any:
    """A column property, from the SQL that a function makes of the attempt."""

    def made(cls: Any) -> Any:
        return column_property(expression(cls), deferred=True, doc=expression.__doc__)

    return declared_attr(made)


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
    progress_percent: Mapped[int | None] = mapped_column(
        doc="The progress in percent, from 0 to 100."
    )
    status_message: Mapped[LongText | None] = mapped_column(
        doc="The last message of the agent about its progress."
    )
    checkpoint: Mapped[Any | None] = mapped_column(
        JSONB(none_as_null=True), doc="What the next attempt needs to go on from here."
    )
    handover: Mapped[LongText | None] = mapped_column(
        doc="A note for who takes the task next, from the agent that gave it back."
    )
    result: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True), doc="What it produced.")
    error: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True), doc="Why it failed.")
    started_at: Mapped[datetime] = mapped_column(server_default=func.now(), doc="When it began.")
    ended_at: Mapped[datetime | None] = mapped_column(doc="When it ended.")
    claim_traceparent: Mapped[str | None] = mapped_column(
        String(55),
        doc="The `traceparent` (W3C Trace Context) of the operation that has claimed the task.",
        info=UNLOGGED,
    )

    @_derived
    def heartbeat_at(cls: Any) -> Any:
        """When the agent last sent a heartbeat; null once it has ended."""
        return leases.of_attempt(lease.heartbeat_at, cls.id).scalar_subquery()

    @_derived
    def lease_expires_at(cls: Any) -> Any:
        """When the agent loses the task, unless it sends a heartbeat before."""
        return leases.of_attempt(lease.expires_at, cls.id).scalar_subquery()

    @_derived
    def lease_lost(cls: Any) -> Any:
        """Whether the agent no longer holds the task: the attempt has ended."""
        return ~exists(leases.of_attempt(lease.task_id, cls.id))

    @_derived
    def cancel_requested(cls: Any) -> Any:
        """Whether the agent is asked to stop, because the task is to be cancelled."""
        return exists(_held(cls.id).where(_TASK.c.cancel_requested))

    @_derived
    def pause_requested(cls: Any) -> Any:
        """Whether the agent is asked to pause: the project or the agent is paused or ended."""
        held = _held(cls.id).join(_PROJECT, _PROJECT.c.id == _TASK.c.project_id)
        # Not by more joins: nearly always, the agent works, and nothing else is looked up.
        idle = select(_AGENT.c.id).where(_AGENT.c.id == cls.agent_id, ~is_working(_AGENT.c))
        return or_(
            exists(held.where(_PROJECT.c.status != ProjectStatus.IN_PROGRESS)),
            and_(
                exists(idle.correlate_except(_AGENT)),
                exists(leases.of_attempt(lease.task_id, cls.id)),
            ),
        )

    @declared_attr
    def traceparent(cls: Any) -> Any:
        claim, key = cls.claim_traceparent, func.replace(cast(cls.id, String), "-", "")
        # As in `telemetry.span_id_of`.
        span = func.right(key, literal_column("16"), type_=String)
        before = func.left(claim, literal_column("36"), type_=String)
        return column_property(
            before + span + func.right(claim, literal_column("3"), type_=String),
            deferred=True,
            doc="The `traceparent` (W3C Trace Context) that the agent goes on with: its spans are"
            " below that of the attempt. Null if the server sends no traces.",
        )

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

    transitions = Transitions.once("attempt", AttemptStatus.RUNNING)


_attempt, _token = TaskAttempt.__table__.alias(), AccessToken.__table__.alias()
_checkpoint = (
    select(_attempt.c.checkpoint)
    .where(_attempt.c.task_id == Task.id, _attempt.c.checkpoint.is_not(None))
    .order_by(_attempt.c.number.desc())
    .limit(literal_column("1"))
)
_signs = (
    select(func.max(_token.c.last_used_at)).where(_token.c.agent_id == Agent.id),
    select(func.max(_attempt.c.started_at)).where(_attempt.c.agent_id == Agent.id),
    select(func.max(lease.heartbeat_at)).where(lease.agent_id == Agent.id),
)
inspect(Task).add_property(
    "checkpoint",
    column_property(
        _checkpoint.correlate_except(_attempt).scalar_subquery(),
        deferred=True,
        doc="The last checkpoint that an attempt has left: where the next one goes on.",
    ),
)
# Read from what is written anyway: an agent shows itself too often to write it down each time.
inspect(Agent).add_property(
    "last_seen_at",
    column_property(
        func.greatest(
            *(
                sign.correlate_except(_token, _attempt, leases.table).scalar_subquery()
                for sign in _signs
            ),
            type_=Timestamp(),
        ),
        deferred=True,
        doc="When it last used a token of its own, to the minute, or began an attempt, or sent a"
        " heartbeat for an attempt that runs.",
    ),
)
