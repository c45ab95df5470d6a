"""Requests: how agents ask people, and block a task until they have answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import inspect, select

from db import assignments, claims, dependencies
from db.attempts import TaskAttempt
from db.errors import Invalid, LeaseLost
from db.interactions import HumanInteraction
from db.scopes import acts_for, scope
from db.sessions import WriteSession
from db.tasks import BlockedReason, Task, TaskStatus


async def add(
    session: WriteSession,
    model: type[HumanInteraction],
    values: Mapping[str, Any],
    *,
    attempt_id: UUID | None = None,
    blocks_task: bool = False,
    checkpoint: Any = None,
) -> UUID:
    """Add an interaction, and return its id.

    It is about the task of an attempt, if one is given, or about what the values name. If it blocks
    the task, the attempt ends with this checkpoint, and so does its lease, in the same transaction.
    Raises NotFound, Denied, Invalid, LeaseLost, and Rejected with all errors.
    """
    values = {**values, "agent_id": session.in_own_name(values.get("agent_id"))}
    if blocks_task and values.get("requires_acknowledgement") is False:
        raise Invalid(
            "Nobody has to acknowledge this, so the task would stay blocked.",
            ("requires_acknowledgement",),
        )
    if not blocks_task and checkpoint is not None:
        raise Invalid(
            "This does not end the attempt. Send the checkpoint with a heartbeat.", ("checkpoint",)
        )
    task = None
    if attempt_id is not None:
        if blocks_task:
            task_id = await _block(session, attempt_id, checkpoint)
        else:
            task_id = (await claims.own_attempt(session, attempt_id)).task_id
        task = await session.get_one(Task, task_id, populate_existing=True)
        values = _about(task, values)
    elif blocks_task:
        raise Invalid("Say which attempt at the task is yours.", ("attempt_id",))
    elif values.get("project_id") is None:
        raise Invalid("Name the project, or your attempt at a task of it.", ("project_id",))
    if values.get("assignee_id") is not None:
        await session.check_new(model, values)
        await assignments.check(session, values)
        if values.get("required_approvals", 1) > 1:
            raise Invalid(
                "One user cannot give several approvals; assign this to nobody.",
                ("required_approvals",),
            )
    known = {
        "type": inspect(model).polymorphic_identity,
        "asked_by_user_id": session.viewer.user_id,
        "asked_by_agent_id": session.viewer.agent_id,
        "blocks_task": blocks_task,
    }
    id = await session.insert(model, values, known=known)
    if blocks_task and task is not None and task.status is not TaskStatus.BLOCKED:
        # Its cancellation was requested before.
        await dependencies.withdraw_requests(session, [task.id])
    return id


def _about(task: Task, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the task of the attempt and its project. Raises Invalid for others."""
    if values.get("task_id") not in (None, task.id):
        raise Invalid("This attempt is at another task.", ("task_id",))
    if values.get("project_id") not in (None, task.project_id):
        raise Invalid("This attempt is at a task of another project.", ("project_id",))
    return {**values, "task_id": task.id, "project_id": task.project_id}


async def _block(session: WriteSession, attempt_id: UUID, checkpoint: Any) -> UUID:
    """Block the task of a running attempt, which ends with this checkpoint; return the task.

    If an earlier request of the same attempt blocks it, so does this one.
    """
    blocked = (
        select(Task.id)
        .join(TaskAttempt, TaskAttempt.task_id == Task.id)
        .where(
            TaskAttempt.id == attempt_id,
            TaskAttempt.number == Task.attempt_count,
            Task.blocked_reason == BlockedReason.HUMAN_INPUT,
            acts_for(session.viewer, Task.agent_id),
            scope(Task, session.viewer, session.right),
        )
        .with_for_update(key_share=True, of=Task)
    )
    # In the order of all that ends an attempt: the project is locked before the task.
    await dependencies.lock(session, attempt_id, TaskAttempt)
    task_id: UUID | None = await session.scalar(blocked)
    if task_id is not None:
        if checkpoint is not None:
            attempt = await session.get_one(TaskAttempt, attempt_id)
            await attempt.update(session, checkpoint=checkpoint)
        return task_id
    task_id = await claims.park(session, attempt_id, checkpoint=checkpoint)
    if task_id is None:  # the agent has given the task back before
        attempt = await session.get_one(TaskAttempt, attempt_id)
        task = await session.get_one(Task, attempt.task_id)
        raise LeaseLost(attempt_id, attempt.status, task.status)
    return task_id
