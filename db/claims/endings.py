"""The end of an attempt, and what becomes of its task."""

from __future__ import annotations

from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    Boolean,
    ColumnElement,
    Executable,
    Interval,
    String,
    Text,
    Uuid,
    case,
    delete,
    event,
    exists,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from db import leases, telemetry
from db.agents import Agent, AgentStatus
from db.attempts import AttemptStatus, TaskAttempt
from db.base import constant
from db.claims import conditions
from db.claims.conditions import ASSIGNED, PENDING
from db.claims.heartbeats import own_attempt
from db.dependencies import completing, ended_unsuccessfully
from db.errors import LeaseLost, Path
from db.interactions import HumanInteraction
from db.leases import lease
from db.projects import Project
from db.rights import Right
from db.scopes import Viewer, acts_for, scope
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

LONGEST_WAIT = 24 * 60 * 60
"""The longest wait before the next attempt, in seconds, unless the first one is longer."""

MOST_DOUBLINGS = 30
"""How often the wait is doubled at most. Then a wait of one second exceeds a day."""

FAILED, CANCELLED = constant(TaskStatus.FAILED), constant(TaskStatus.CANCELLED)

RESULT = JSONB(none_as_null=True)

LOST = {"code": "LEASE_LOST", "message": "The agent sent no heartbeat in time."}
"""The error of a task that is FAILED because its attempts lost their leases."""


def _held(viewer: Viewer, right: Right, how: Ending, *rows: Any) -> CTE:
    """The lease of an attempt that runs, locked after these rows in their order.

    An agent ends its own attempts only.
    """
    locked = (
        select(TaskAttempt.id, Task.cancel_requested, Task.max_attempts)
        .join(Task, Task.id == TaskAttempt.task_id)
        .join(Project, Project.id == Task.project_id)
        .where(
            TaskAttempt.id == value("attempt_id", Uuid),
            TaskAttempt.ended_at.is_(None),  # has no index: it is found by its key
            acts_for(viewer, TaskAttempt.agent_id),
            scope(Task, viewer, right),
        )
        .with_for_update(key_share=True, of=list(rows))
        .cte("locked")
    )
    is_expired = lease.expires_at <= func.statement_timestamp()
    return (
        select(lease.attempt_id, lease.task_id, locked.c.cancel_requested, locked.c.max_attempts)
        .join(locked, locked.c.id == lease.attempt_id)
        .where(is_expired if how is Ending.EXPIRE else true())
        # A lease that is locked is prolonged at this moment.
        .with_for_update(of=leases.table, skip_locked=how is Ending.EXPIRE)
        .cte("held")
    )


@Statement
def _completed(viewer: Viewer, right: Right) -> Executable:
    """Complete the task of an attempt that runs. Returns the attempt, or nothing."""
    held = _held(viewer, right, Ending.COMPLETE, Project, Task, TaskAttempt)
    result = value("result", RESULT)
    # Evaluated in this order, as the events of the task name the actor.
    follows = set_actor(), completing(held.c.task_id, result)
    done = select(held.c.attempt_id, *follows).cte("done")
    freed = delete(leases.table).where(lease.attempt_id == done.c.attempt_id)
    return (
        update(TaskAttempt)
        .where(TaskAttempt.id == done.c.attempt_id)
        .values(
            status=OF_ATTEMPT[Ending.COMPLETE], ended_at=func.statement_timestamp(), result=result
        )
        .returning(TaskAttempt.id)
        .add_cte(freed.cte("freed"))
    )


@Statement
def _ended(viewer: Viewer, right: Right, how: Ending, is_alone: bool) -> Executable:
    """End an attempt that runs, without completing its task. Returns the task and its new status.

    It returns nothing if the attempt does not run. A task that is to be cancelled is so now. With
    `is_alone`, it is a transaction of its own, and returns the attempt. It then does nothing unless
    the task can be done again: if the task ends, more statements follow.
    """
    now = func.statement_timestamp()
    # Whoever ends a task locks its project.
    held = _held(viewer, right, how, *([] if is_alone else [Project]), Task, TaskAttempt)
    used = select(func.count() + 1).select_from(TaskAttempt)
    used = used.where(TaskAttempt.task_id == held.c.task_id, TaskAttempt.status.in_(USED_UP))
    number = used.correlate(held).scalar_subquery()
    used_up = number >= held.c.max_attempts
    to: Any = {
        Ending.FAIL: case((or_(used_up, ~value("retryable", Boolean)), FAILED), else_=PENDING),
        Ending.EXPIRE: case((used_up, FAILED), else_=PENDING),
        Ending.RELEASE: PENDING,
        Ending.PARK: constant(TaskStatus.BLOCKED),
    }[how]
    to = case((held.c.cancel_requested, CANCELLED), else_=to)
    attempt_status = case((held.c.cancel_requested, CANCELLED), else_=constant(OF_ATTEMPT[how]))
    columns = [
        held.c.attempt_id,
        held.c.task_id,
        to.label("status"),
        attempt_status.label("attempt_status"),
    ]
    if how is Ending.FAIL:
        columns.append(number.label("used"))
    ending = select(*columns).cte("ending")
    new = ending.c
    met = [new.status == PENDING] if is_alone else []

    of_attempt: dict[str, Any] = {"status": new.attempt_status, "ended_at": now}
    of_task: dict[str, Any] = {
        "status": new.status,
        "current_attempt_id": None,
        "cancel_requested": False,
        "agent_id": case((new.status == PENDING, null()), else_=Task.agent_id),
        "version": Task.version + 1,
    }
    match how:
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
    ended = update(TaskAttempt).where(TaskAttempt.id == new.attempt_id, *met)
    freed = delete(leases.table).where(lease.attempt_id == new.attempt_id, *met)
    changed = update(Task).where(Task.id == new.task_id, *met).values(of_task)
    ended = ended.values(of_attempt)
    if not is_alone:
        changed = changed.returning(Task.id, Task.status)
        return changed.add_cte(ended.cte("ended"), freed.cte("freed"))
    done = changed.returning(set_actor()).cte("changed")
    return ended.returning(TaskAttempt.id).add_cte(done, freed.cte("freed"))


def _backoff(used: Any) -> ColumnElement[Any]:
    """The wait before the next attempt: doubled for each that has failed, up to a day."""
    first = Task.retry_backoff_seconds
    doubled = first * func.power(2, func.least(used - 1, MOST_DOUBLINGS))
    seconds = func.least(doubled, func.greatest(first, LONGEST_WAIT))
    return seconds * literal_column("interval '1 second'", Interval)


async def _end_alone(session: WriteSession, how: Ending, attempt_id: UUID, **values: Any) -> bool:
    """End an attempt in one transaction, and return whether that is done."""
    is_complete = how is Ending.COMPLETE
    statement, options = (_completed, ()) if is_complete else (_ended, (how, True))
    rows = await session.alone(
        statement,
        session.right,
        *options,
        model=TaskAttempt,
        outcome={"task_attempts": [attempt_id]},
        changed=CHANGED,
        attempt_id=attempt_id,
        **values,
    )
    if rows:
        note_end(session, attempt_id)
    return bool(rows)


def note_end(session: WriteSession, attempt_id: UUID) -> None:
    """Note for the traces that an attempt has ended, once that is committed."""
    if telemetry.ended_attempts is None:
        return
    if session.has_begun:
        event.listen(
            session.sync_session,
            "after_commit",
            lambda _: telemetry.note_end(attempt_id),
            once=True,
        )
    else:
        telemetry.note_end(attempt_id)


_task = Task.__table__.c
CHANGED = frozenset(
    str(each)
    for each in (
        *lease,
        _task.agent_id,
        _task.available_at,
        _task.blocked_reason,
        _task.cancel_requested,
        _task.completed_at,
        _task.current_attempt_id,
        _task.error,
        _task.result,
        _task.status,
        _task.unmet_dependency_count,
        _task.updated_at,
        _task.version,
    )
)
"""The columns that ending an attempt may change besides its own."""


async def _end(session: WriteSession, how: Ending, attempt_id: UUID, **values: Any) -> UUID | None:
    """End an attempt that runs, with all that follows for other tasks; return its task, or None."""
    rows = await session.run(_ended, session.right, how, False, attempt_id=attempt_id, **values)
    for task_id, status in rows:
        note_end(session, attempt_id)
        if status in UNSUCCESSFUL:
            await ended_unsuccessfully(session, [task_id])
        return task_id  # type: ignore[no-any-return]
    return None


async def check(
    session: WriteSession,
    how: Ending,
    attempt_id: UUID,
    path: Path = ("attempt_id",),
    **values: Any,
) -> None:
    """Raise why an attempt cannot be ended, unless it has ended in just this way already.

    Raises NotFound, Denied and LeaseLost.
    """
    attempt = await own_attempt(session, attempt_id, path)
    ends = {OF_ATTEMPT[how]}
    if how is not Ending.COMPLETE:  # its cancellation was requested before
        ends.add(AttemptStatus.CANCELLED)
    is_same = attempt.status in ends and all(
        canonical_json(getattr(attempt, name)) == canonical_json(values[name])
        for name in ("result", "error", "handover")
        if name in values
    )
    if is_same and how is Ending.RELEASE:
        is_same = not await session.scalar(select(_was_parked(attempt)))
    if not is_same:
        task = await session.get_one(Task, attempt.task_id)
        raise LeaseLost(attempt_id, attempt.status, task.status, path)


def _was_parked(attempt: TaskAttempt) -> ColumnElement[bool]:
    """Whether an attempt has ended because of a request to people, and not by itself."""
    return exists().where(
        HumanInteraction.task_id == attempt.task_id,
        HumanInteraction.blocks_task,
        HumanInteraction.created_at.between(attempt.started_at, attempt.ended_at),
    )


async def complete(session: WriteSession, attempt_id: UUID, result: Any) -> None:
    """Complete the task of an attempt. Raises NotFound, Denied and LeaseLost."""
    if not await _end_alone(session, Ending.COMPLETE, attempt_id, result=result):
        await check(session, Ending.COMPLETE, attempt_id, result=result)


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
    if retryable and await _end_alone(session, Ending.FAIL, attempt_id, **values):
        return
    if await _end(session, Ending.FAIL, attempt_id, **values) is None:
        await check(session, Ending.FAIL, attempt_id, **values)


async def release(
    session: WriteSession, attempt_id: UUID, handover: str | None, checkpoint: Any = None
) -> None:
    """Give the task of an attempt back, so that any agent can take it. It does not count as failed.

    Raises NotFound, Denied and LeaseLost.
    """
    values = {"handover": handover, "checkpoint": checkpoint}
    if await _end_alone(session, Ending.RELEASE, attempt_id, **values):
        return
    if await _end(session, Ending.RELEASE, attempt_id, **values) is None:
        await check(session, Ending.RELEASE, attempt_id, **values)


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
    task_id = await _end(session, Ending.PARK, attempt_id, **values)
    if task_id is None:
        await check(session, Ending.PARK, attempt_id, path)
    return task_id


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
    if await _end_alone(session, Ending.EXPIRE, attempt_id):
        return True
    return await _end(session, Ending.EXPIRE, attempt_id) is not None


EXPIRED = select(lease.attempt_id).where(lease.expires_at <= func.statement_timestamp())
"""The attempts whose leases have run out."""
