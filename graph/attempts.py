"""Attempts of agents at tasks. Claims begin them, and what agents do with them ends them."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

import db
from db import AttemptStatus
from graph.core.connections import Connection
from graph.core.entities import Node, entity
from graph.core.fields import collection, connected, one, related
from graph.core.filters import (
    DateTimeFilter,
    EnumFilter,
    IDFilter,
    IntFilter,
    filters,
    ordering,
    through,
)


@filters(db.TaskAttempt)
class TaskAttemptFilter:
    id: IDFilter | None
    number: IntFilter | None
    status: EnumFilter[AttemptStatus] | None
    progress_percent: IntFilter | None
    heartbeat_at: DateTimeFilter | None
    started_at: DateTimeFilter | None
    ended_at: DateTimeFilter | None
    task_id: IDFilter | None
    agent_id: IDFilter | None
    task = through(db.TaskAttempt.task)
    agent = through(db.TaskAttempt.agent)


TaskAttemptOrder = ordering(db.TaskAttempt, db.TaskAttempt.started_at)


@entity(db.TaskAttempt, where=TaskAttemptFilter, order=TaskAttemptOrder)
class TaskAttempt(Node):
    number: int
    status: AttemptStatus
    heartbeat_at: datetime | None
    lease_expires_at: datetime | None
    lease_lost: bool
    cancel_requested: bool
    pause_requested: bool
    progress_percent: int | None
    status_message: str | None
    checkpoint: JSON | None
    handover: str | None
    result: JSON | None
    error: JSON | None
    started_at: datetime
    ended_at: datetime | None
    traceparent: str | None
    task = related(db.TaskAttempt.task)
    current_task = related(db.TaskAttempt.current_task)
    agent = related(db.TaskAttempt.agent)
    usage_records = connected(db.TaskAttempt.usage_records)


@strawberry.type
class Query:
    task_attempt: TaskAttempt | None = one(db.TaskAttempt)
    task_attempts: Connection[TaskAttempt] = collection(db.TaskAttempt)
