"""Leases: which attempt holds which task, and until when. An attempt runs as long as it has one.

Every heartbeat writes its lease. So leases have a narrow table of their own, without an index on
what a heartbeat changes: the new version of a row replaces the old one on the same page.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    ForeignKey,
    Interval,
    Select,
    Table,
    Uuid,
    func,
    select,
)

from db.base import Base, Timestamp, check
from db.statements import value

# A table without a model: the API shows leases as columns of tasks and attempts.
table = Table(
    "task_leases",
    Base.metadata,
    Column(
        "attempt_id", Uuid, ForeignKey("task_attempts.id", ondelete="CASCADE"), primary_key=True
    ),
    Column(
        "task_id", Uuid, ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False, unique=True
    ),
    # If the agent is deleted, the lease runs out, and the task is claimed by another one.
    Column("agent_id", Uuid, ForeignKey("agents.id", ondelete="SET NULL"), index=True),
    Column("expires_at", Timestamp, nullable=False),
    Column("heartbeat_at", Timestamp, nullable=False),
    check("isfinite(expires_at)", "expires_at_finite", "A time is finite.", "expires_at"),
    check("isfinite(heartbeat_at)", "heartbeat_at_finite", "A time is finite.", "heartbeat_at"),
)
lease = table.c

DEFAULT_SECONDS = 60
"""How long a lease lasts, in seconds, unless the agent says otherwise."""

LONGEST_SECONDS = 24 * 60 * 60
"""How long a lease may last, in seconds."""


def of_attempt(shown: Any, attempt_id: Any) -> Select[Any]:
    """Selects something of the lease of an attempt, for a column property."""
    return select(shown).where(lease.attempt_id == attempt_id).correlate_except(table)


def until(begin: ColumnElement[Any] | None = None) -> ColumnElement[Any]:
    """The time at which a lease of the value `lease_seconds` ends, from now or another time on."""
    start = func.statement_timestamp() if begin is None else begin
    return start + value("lease_seconds", Interval)


def duration(seconds: int) -> timedelta:
    """The value for `until`."""
    return timedelta(seconds=seconds)
