"""The end of an attempt, and what becomes of its task."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Executable,
    Interval,
    String,
    Text,
    Uuid,
    case,
    delete,
    false,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, array

from db import leases
from db.agents import Agent, AgentStatus
from db.attempts import AttemptStatus, TaskAttempt
from db.claims import conditions
from db.claims.conditions import ASSIGNED, PENDING, constant
from db.claims.heartbeats import is_own, own_attempt
from db.dependencies import count_down, ended_unsuccessfully
from db.errors import LeaseLost, Path
from db.leases import lease
from db.projects import Project
from db.rights import Right
from db.scopes import Viewer, scope
from db.sessions import WriteSession
from db.statements import Statement, value
from db.tasks import UNSUCCESSFUL, BlockedReason, Task, TaskStatus
from db.text import canonical_json
from db.writes import set_actor


class Ending(StrEnum):
    """How an attempt ends."""

    COMPLETE = "COMPLETE"
    FAIL = "FAIL"
    RELEASE = "RELEASE"
    PARK = "PARK"
    EXPIRE = "EXPIRE"


OF_ATTEMPT = {
    Ending.COMPLETE: AttemptStatus.SUCCEEDED,
    Ending.FAIL: AttemptStatus.FAILED,
    Ending.RELEASE: AttemptStatus.RELEASED,
    Ending.PARK: AttemptStatus.RELEASED,
    Ending.EXPIRE: AttemptStatus.LEASE_LOST,
}
"""The status of an attempt that ends so, unless its task is to be cancelled."""

WITH_CHECKPOINT = Ending.FAIL, Ending.RELEASE, Ending.PARK
"""The ways to end an attempt so that another one goes on from its checkpoint."""

USED_UP = constant(AttemptStatus.FAILED), constant(AttemptStatus.LEASE_LOST)
"""The statuses of the attempts that count towards `max_attempts`."""

A_DAY = 24 * 60 * 60
"""The longest wait before the next attempt, in seconds, unless the first one is longer."""

MOST_DOUBLINGS = 30

FAILED, CANCELLED = constant(TaskStatus.FAILED), constant(TaskStatus.CANCELLED)

RESULT = JSONB(none_as_null=True)

LOST = {"code": "LEASE_LOST", "message": "The agent sent no heartbeat in time."}
"""The error of a task that is FAILED because its attempts lost their leases."""


@Statement
def _ended(viewer: Viewer, right: Right, how: Ending) -> Executable:
    """End an attempt that runs. Returns its task, and the status of the task, or nothing.

    To complete it, which is what happens most, is a transaction of its own: it counts down what
    waited for the task, and returns the attempt.

    An agent ends its own attempts only. A task that is to be cancelled is so now, unless it is
    completed.
    """
    attempt_id, now = value("attempt_id", Uuid), func.statement_timestamp()
    above = (
        select(Project.id)
        .join(Task, Task.project_id == Project.id)
        .join(TaskAttempt, TaskAttempt.task_id == Task.id)
        .where(TaskAttempt.id == attempt_id, is_own(viewer), scope(Task, viewer, right))
        .with_for_update(key_share=True, of=Project)
        .cte("project")
    )
    task = (
        select(Task.id, Task.cancel_requested, Task.max_attempts)
        .join(TaskAttempt, TaskAttempt.task_id == Task.id)
        .where(TaskAttempt.id == attempt_id, Task.project_id.in_(select(above.c.id)))
        .with_for_update(key_share=True, of=Task)
        .cte("task")
    )
    attempt = (
        select(TaskAttempt.id, task.c.cancel_requested, task.c.max_attempts)
        .join(task, task.c.id == TaskAttempt.task_id)
        .where(TaskAttempt.id == attempt_id, TaskAttempt.status == AttemptStatus.RUNNING)
        .with_for_update(key_share=True, of=TaskAttempt)
        .cte("attempt")
    )
    is_over = lease.expires_at <= now if how is Ending.EXPIRE else true()
    held = (
        select(lease.attempt_id, lease.task_id, attempt.c.cancel_requested, attempt.c.max_attempts)
        .join(attempt, attempt.c.id == lease.attempt_id)
        .where(is_over)
        # A lease that is locked is prolonged at this moment.
        .with_for_update(of=leases.table, skip_locked=how is Ending.EXPIRE)
        .cte("held")
    )
    used = select(func.count() + 1).select_from(TaskAttempt)
    used = used.where(TaskAttempt.task_id == held.c.task_id, TaskAttempt.status.in_(USED_UP))
    used_up = used.correlate(held).scalar_subquery() >= held.c.max_attempts
    to: Any = {
        Ending.COMPLETE: constant(TaskStatus.COMPLETED),
        Ending.FAIL: case((or_(used_up, ~value("retryable", Boolean)), FAILED), else_=PENDING),
        Ending.EXPIRE: case((used_up, FAILED), else_=PENDING),
        Ending.RELEASE: PENDING,
        Ending.PARK: constant(TaskStatus.BLOCKED),
    }[how]
    is_cancelled = false() if how is Ending.COMPLETE else held.c.cancel_requested
    ending = select(
        held.c.attempt_id,
        held.c.task_id,
        case((is_cancelled, CANCELLED), else_=to).label("status"),
        case((is_cancelled, CANCELLED), else_=constant(OF_ATTEMPT[how])).label("of_attempt"),
        used.correlate(held).scalar_subquery().label("used"),
    ).cte("ending")
    new = ending.c

    of_attempt: dict[str, Any] = {"status": new.of_attempt, "ended_at": now}
    of_task: dict[str, Any] = {
        "status": new.status,
        "current_attempt_id": None,
        "cancel_requested": False,
        "agent_id": case((new.status == PENDING, null()), else_=Task.agent_id),
        "version": Task.version + 1,
    }
    match how:
        case Ending.COMPLETE:
            of_attempt["result"] = value("result", RESULT)
            of_task |= {"result": value("result", RESULT), "error": None, "completed_at": now}
        case Ending.FAIL:
            of_attempt["error"] = of_task["error"] = value("error", RESULT)
            wait = case((new.status == PENDING, now + _backoff(new.used)), else_=Task.available_at)
            of_task["available_at"] = wait
        case Ending.EXPIRE:
            lost = literal(LOST, RESULT)
            of_task["error"] = case((new.status == FAILED, lost), else_=Task.error)
        case Ending.RELEASE:
            of_attempt["handover"] = value("handover", Text)
        case Ending.PARK:
            of_task["blocked_reason"] = case((new.status != CANCELLED, value("reason", String)))
    if how in WITH_CHECKPOINT:
        checkpoint = func.coalesce(value("checkpoint", RESULT), TaskAttempt.checkpoint)
        of_attempt["checkpoint"] = checkpoint
    ended = update(TaskAttempt).where(TaskAttempt.id == new.attempt_id).values(of_attempt)
    freed = delete(leases.table).where(lease.attempt_id == new.attempt_id)
    changed = update(Task).where(Task.id == new.task_id).values(of_task)
    if how is Ending.COMPLETE:
        # In RETURNING, because it is done once for each row that is written.
        counted = changed.returning(set_actor(), count_down(array([Task.id]))).cte("counted")
        return ended.returning(TaskAttempt.id).add_cte(counted, freed.cte("freed"))
    return changed.returning(Task.id, Task.status).add_cte(ended.cte("ended"), freed.cte("freed"))


def _backoff(used: Any) -> ColumnElement[Any]:
    """The wait before the next attempt: doubled for each that has failed, up to a day."""
    first = Task.retry_backoff_seconds
    doubled = first * func.power(2, func.least(used - 1, MOST_DOUBLINGS))
    seconds = func.least(doubled, func.greatest(first, A_DAY))
    return seconds * literal_column("interval '1 second'", Interval)


async def _end(
    session: WriteSession,
    how: Ending,
    attempt_id: UUID,
    path: Path = ("attempt_id",),
    **values: Any,
) -> UUID | None:
    """End an attempt, and return its task. Returns None if it had ended in this way before.

    Raises NotFound, Denied, and LeaseLost if it has ended in another way.
    """
    task_id = await _run(session, how, attempt_id, **values)
    if task_id is None:
        await _check(session, how, attempt_id, path, values)
    return task_id


async def _run(session: WriteSession, how: Ending, attempt_id: UUID, **values: Any) -> UUID | None:
    """End an attempt that runs, with all that follows for other tasks; return its task, or None."""
    for task_id, status in await session.run(
        _ended, session.right, how, attempt_id=attempt_id, **values
    ):
        if status in UNSUCCESSFUL:
            await ended_unsuccessfully(session, [task_id])
        return task_id  # type: ignore[no-any-return]
    return None


async def _check(
    session: WriteSession, how: Ending, attempt_id: UUID, path: Path, values: Mapping[str, Any]
) -> None:
    """Raise why an attempt cannot be ended, unless it has ended in just this way already."""
    attempt = await own_attempt(session, attempt_id, path)
    same = [
        canonical_json(getattr(attempt, name)) == canonical_json(values[name])
        for name in ("result", "error", "handover")
        if name in values
    ]
    if attempt.status is not OF_ATTEMPT[how] or not all(same):
        task = await session.get_one(Task, attempt.task_id)
        raise LeaseLost(attempt_id, attempt.status, task.status, path)


async def complete(session: WriteSession, attempt_id: UUID, result: Any) -> None:
    """Complete the task of an attempt. Raises NotFound, Denied and LeaseLost."""
    values = {"attempt_id": attempt_id, "result": result}
    rows = await session.alone(
        _ended,
        session.right,
        Ending.COMPLETE,
        model=TaskAttempt,
        outcome={"task_attempts": [attempt_id]},
        changed=_CHANGED,
        **values,
    )
    if not rows:
        await _check(session, Ending.COMPLETE, attempt_id, ("attempt_id",), values)


_CHANGED = (*Task.__table__.c, *lease)
"""The columns that completing an attempt may change besides its own."""


async def fail(
    session: WriteSession,
    attempt_id: UUID,
    error: Any,
    *,
    retryable: bool = True,
    checkpoint: Any = None,
) -> None:
    """End an attempt that has failed. Raises NotFound, Denied and LeaseLost.

    The task is tried again after a while, or is FAILED if it is not retryable, or if its attempts
    are used up.
    """
    values = {"error": error, "retryable": retryable, "checkpoint": checkpoint}
    await _end(session, Ending.FAIL, attempt_id, **values)


async def release(
    session: WriteSession, attempt_id: UUID, handover: str | None, checkpoint: Any = None
) -> None:
    """Give the task of an attempt back, so that any agent can take it. It does not count as failed.

    Raises NotFound, Denied and LeaseLost.
    """
    await _end(session, Ending.RELEASE, attempt_id, handover=handover, checkpoint=checkpoint)


async def park(
    session: WriteSession,
    attempt_id: UUID,
    reason: BlockedReason = BlockedReason.HUMAN_INPUT,
    path: Path = ("attempt_id",),
    *,
    checkpoint: Any = None,
) -> UUID | None:
    """End an attempt because its task waits for a person; `wake` gives it back to the same agent.

    Returns the task. It does not count as failed. Raises NotFound, Denied and LeaseLost.
    """
    values = {"reason": reason, "checkpoint": checkpoint}
    return await _end(session, Ending.PARK, attempt_id, path, **values)


async def wake(session: WriteSession, task_id: UUID) -> bool:
    """Let a task that waits for a person go on, with its agent unless that is TERMINATED.

    Returns False if it does not wait for one.
    """
    return bool(await session.run(_woken, task_id=task_id))


@Statement
def _woken(viewer: Viewer) -> Executable:
    now = func.statement_timestamp()
    agent = select(Agent.id).where(
        Agent.id == Task.agent_id, Agent.status != AgentStatus.TERMINATED
    )
    agent_id = agent.correlate(Task).scalar_subquery()
    return (
        update(Task)
        .where(Task.id == value("task_id", Uuid), conditions.is_in_review(Task))
        .values(
            status=case((agent_id.is_(None), PENDING), else_=ASSIGNED),
            agent_id=agent_id,
            blocked_reason=None,
            available_at=func.least(Task.available_at, now),
            version=Task.version + 1,
        )
        .returning(Task.id)
    )


async def expire(session: WriteSession, attempt_id: UUID) -> bool:
    """End an attempt whose lease has run out. Returns False if that is not so any more."""
    return await _run(session, Ending.EXPIRE, attempt_id) is not None


EXPIRED = select(lease.attempt_id).where(lease.expires_at <= func.statement_timestamp())
"""The attempts whose leases have run out."""
