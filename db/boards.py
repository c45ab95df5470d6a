"""What people do with tasks by hand: hold, release, complete, cancel, try again and reopen them.

A task that an attempt is running on belongs to its agent. People can ask the agent to stop:
`cancel_requested` is set, and the next heartbeat tells it. If the agent ends the attempt in any
other way than completing the task, or its lease runs out, the task is CANCELLED then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Executable,
    Uuid,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.orm import aliased, join

from db.attempts import TaskAttempt
from db.base import any_of
from db.claims.endings import USED_UP
from db.dependencies import (
    complete,
    each_row,
    ended_unsuccessfully,
    lock,
    recount_waiting,
    withdraw_requests,
)
from db.errors import IllegalTransition, Invalid
from db.scopes import Viewer
from db.sessions import WriteSession
from db.statements import Statement, value
from db.tasks import (
    ENDED,
    TASK_TRANSITIONS,
    TO_DO,
    UNSUCCESSFUL,
    WAITING,
    BlockedReason,
    OnFailure,
    Task,
    TaskDependency,
    TaskStatus,
)
from db.transitions import Transitions

TARGETS = {TaskStatus.PENDING, TaskStatus.BLOCKED, *ENDED} - {TaskStatus.SKIPPED}


def _by_hand(status: TaskStatus) -> set[TaskStatus] | frozenset[TaskStatus]:
    if status is TaskStatus.IN_PROGRESS:
        return {TaskStatus.CANCELLED}
    moves = TASK_TRANSITIONS.table[status] & TARGETS
    return moves - TO_DO if status in TO_DO else moves


BY_HAND = Transitions("task", {status: _by_hand(status) for status in TaskStatus})
"""The statuses to which people may set a task. PENDING becomes ASSIGNED if it has an agent."""


async def transition(
    session: WriteSession,
    id: UUID,
    to: TaskStatus,
    reason: BlockedReason | None = None,
    *,
    version: int | None = None,
) -> UUID:
    """Set the status of a task by hand, and return its id.

    Raises NotFound, Denied, Conflict, Invalid and IllegalTransition.
    """
    await lock(session, id)
    task = await session.fetch(Task, id, version=version)
    BY_HAND.check(task.status, to)
    if reason is not None and to is not TaskStatus.BLOCKED:
        raise Invalid("Only a task that becomes BLOCKED has a reason.", ("blocked_reason",))
    if reason is BlockedReason.HUMAN_INPUT:
        fault = "A task waits for a person's answer only after a request for it."
        raise Invalid(f"{fault} Use MANUAL or EXTERNAL.", ("blocked_reason",))
    before = task.status
    if task.blocked_reason is BlockedReason.HUMAN_INPUT:
        await withdraw_requests(session, [id])
    match to:
        case TaskStatus.PENDING if before in UNSUCCESSFUL:
            await _reopen(session, task, 1)
        case TaskStatus.PENDING:
            await task.update(session, **_to_do(task, 1))
            if before is TaskStatus.COMPLETED:
                await recount_waiting(session, [id])
        case TaskStatus.BLOCKED:
            await task.update(session, status=to, blocked_reason=reason or BlockedReason.MANUAL)
        case TaskStatus.COMPLETED:
            if before in UNSUCCESSFUL:
                now = func.statement_timestamp()
                await task.update(session, status=to, blocked_reason=None, completed_at=now)
                await _unskip(session, id)
            else:
                await complete(session, id, task.result)
        case TaskStatus.FAILED:
            await task.update(session, status=to, blocked_reason=None)
            await ended_unsuccessfully(session, [id])
        case _:
            await _cancel(session, id)
    return id


async def cancel(session: WriteSession, id: UUID, *, version: int | None = None) -> UUID:
    """Cancel a task with its subtasks that have not ended, and return its id.

    If an attempt is running on one of them, its agent is asked to stop. Raises NotFound, Denied,
    Conflict and IllegalTransition.
    """
    await lock(session, id)
    task = await session.fetch(Task, id, version=version)
    BY_HAND.check(task.status, TaskStatus.CANCELLED)
    await _cancel(session, id)
    return id


async def retry(
    session: WriteSession, id: UUID, attempts: int = 1, *, version: int | None = None
) -> UUID:
    """Let a task that ended without success be done after all, and return its id.

    What was skipped because of it is reopened, unless another task that failed still stands in the
    way. At least this many further attempts may be made. Raises NotFound, Denied, Conflict and
    IllegalTransition.
    """
    await lock(session, id)
    task = await session.fetch(Task, id, version=version)
    if task.status not in UNSUCCESSFUL:
        allowed = [status for status in BY_HAND.allowed(task.status) if status not in TO_DO]
        fault = IllegalTransition("task", task.status, TaskStatus.PENDING, allowed)
        fault.path = ("id",)
        raise fault
    await _reopen(session, task, attempts)
    return id


def _to_do(task: Task, attempts: int) -> dict[str, Any]:
    """The values that let a task be claimed, for at least this many further attempts.

    After an attempt, its agent is whoever made that, and not the one it was assigned to; only a
    task that is BLOCKED goes on with the same agent.
    """
    is_free = task.status is not TaskStatus.BLOCKED and task.attempt_count > 0
    agent_id = None if is_free else task.agent_id
    used = select(func.count()).select_from(TaskAttempt)
    used = used.where(TaskAttempt.task_id == task.id, TaskAttempt.status.in_(USED_UP))
    return {
        "status": TaskStatus.PENDING if agent_id is None else TaskStatus.ASSIGNED,
        "agent_id": agent_id,
        "blocked_reason": None,
        "completed_at": None,
        "cancel_requested": False,
        "max_attempts": func.greatest(Task.max_attempts, used.scalar_subquery() + attempts),
    }


async def _reopen(session: WriteSession, task: Task, attempts: int) -> None:
    values = _to_do(task, attempts)
    if task.attempt_count:  # it may wait before it is tried again
        now = func.statement_timestamp()
        values |= {"available_at": func.least(Task.available_at, now), "error": None}
    await task.update(session, **values)
    await _unskip(session, task.id)


async def _unskip(session: WriteSession, id: UUID) -> None:
    """Reopen what was skipped because of a task, and recount all that waits for any of them."""
    obstacles: dict[UUID, set[UUID]] = {}
    for skipped, obstacle in await session.run(_skipped_after, task=id):
        obstacles.setdefault(skipped, set())
        if obstacle is not None:
            obstacles[skipped].add(obstacle)
    reopened = freed(id, obstacles)
    if reopened:
        await session.run(_reopened, tasks=reopened)
    await recount_waiting(session, [id, *reopened])


def freed(first: UUID, obstacles: Mapping[UUID, Collection[UUID]]) -> list[UUID]:
    """What has no obstacles left, once the first one is none, and once what is freed is none."""
    held: dict[UUID, list[UUID]] = {}
    left = {id: {each for each in found if each != first} for id, found in obstacles.items()}
    for id, found in left.items():
        for obstacle in found:
            held.setdefault(obstacle, []).append(id)
    free = [id for id, found in left.items() if not found]
    for id in free:  # it grows meanwhile
        for other in held.get(id, ()):
            left[other].discard(id)
            if not left[other]:
                free.append(other)
    return free


@Statement
def _skipped_after(viewer: Viewer) -> Executable:
    """The skipped tasks that a task leads to, each with each of its obstacles.

    An obstacle is a task that has ended without success, and over whose edge it is skipped; or its
    parent that is skipped too.
    """
    start = select(value("task", Uuid).label("id"))
    reached = start.cte("reached", recursive=True)
    dependent, subtask, skipped = aliased(Task), aliased(Task), TaskStatus.SKIPPED
    row = each_row(
        select(dependent.id).where(
            dependent.id == TaskDependency.dependent_id, dependent.status == skipped
        ),
        "dependent",
    )
    step = union_all(
        select(row.c.id)
        .select_from(join(TaskDependency, row, true()))
        .where(
            TaskDependency.dependency_id == reached.c.id,
            TaskDependency.on_failure == OnFailure.SKIP,
        ),
        select(subtask.id).where(subtask.parent_task_id == reached.c.id, subtask.status == skipped),
    ).lateral("step")
    reached = reached.union(select(step.c.id).select_from(reached.join(step, true())))
    parent, dependency = aliased(Task), aliased(Task)
    obstacle = each_row(
        union_all(
            select(dependency.id)
            .join(TaskDependency, TaskDependency.dependency_id == dependency.id)
            .where(
                TaskDependency.dependent_id == reached.c.id,
                TaskDependency.on_failure == OnFailure.SKIP,
                any_of(dependency.status, UNSUCCESSFUL),
            ),
            select(parent.id)
            .join(Task, Task.parent_task_id == parent.id)
            .where(Task.id == reached.c.id, parent.status == skipped),
        ),
        "obstacle",
    )
    return (
        select(reached.c.id, obstacle.c.id)
        .select_from(reached.outerjoin(obstacle, true()))
        .where(reached.c.id != value("task", Uuid))
    )


@Statement
def _reopened(viewer: Viewer) -> Executable:
    """Lets skipped tasks be done after all."""
    status = case((Task.agent_id.is_(None), TaskStatus.PENDING), else_=TaskStatus.ASSIGNED)
    return (
        update(Task)
        .where(Task.id == func.any(value("tasks", ARRAY(Uuid))))
        .values(status=status, version=Task.version + 1)
    )


async def _cancel(session: WriteSession, id: UUID) -> None:
    found = await session.run(_cancelled, task=id)
    ended = [each for each, is_requested in found if not is_requested]
    if ended:
        await ended_unsuccessfully(session, ended)


@Statement
def _cancelled(viewer: Viewer) -> Executable:
    """Cancels a task and its descendants; where an attempt is running, it is only requested."""
    id = value("task", Uuid)
    below = select(Task.id).where(Task.id == id).cte("below", recursive=True)
    child = each_row(select(Task.id).where(Task.parent_task_id == below.c.id), "child")
    below = below.union(select(child.c.id).select_from(below.join(child, true())))
    is_running = Task.status == TaskStatus.IN_PROGRESS
    is_open = or_(
        any_of(Task.status, WAITING),
        and_(is_running, ~Task.cancel_requested),
        and_(Task.id == id, Task.status == TaskStatus.FAILED),
    )
    return (
        update(Task)
        .where(Task.id == func.any(func.array(select(below.c.id).scalar_subquery())), is_open)
        .values(
            status=case((is_running, Task.status), else_=literal(TaskStatus.CANCELLED)),
            blocked_reason=None,
            cancel_requested=is_running,
            version=Task.version + 1,
        )
        .returning(Task.id, Task.cancel_requested)
    )
