"""Requests: how agents ask people, and block a task until they have answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import exists, inspect, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from db import claims, dependencies
from db.attempts import TaskAttempt
from db.errors import Invalid, LeaseLost
from db.interactions import HumanInteraction
from db.members import ProjectMember
from db.scopes import scope
from db.sessions import WriteSession
from db.tasks import BlockedReason, Task, TaskStatus
from db.users import User, UserRole


async def add(
    session: WriteSession,
    model: type[HumanInteraction],
    values: Mapping[str, Any],
    *,
    blocking: UUID | None = None,
) -> UUID:
    """Add an interaction to the project that the values name; return its id.

    With the id of an attempt as `blocking`, its lease ends and its task is blocked in the same
    transaction. Raises NotFound, Denied, Invalid, LeaseLost, and Rejected with all errors.
    """
    values = {**values, "agent_id": session.in_own_name(values.get("agent_id"))}
    if blocking is not None:
        if values.get("requires_acknowledgement") is False:
            raise Invalid(
                "Nobody has to acknowledge this, so the task would stay blocked.",
                ("requires_acknowledgement",),
            )
        values = {**values, "task_id": await _block(session, blocking, values.get("task_id"))}
    if values.get("assignee_id") is not None:
        await session.check_new(model, values)
        await _refuse_outsider(session, values["project_id"], values["assignee_id"])
        if values.get("required_approvals", 1) > 1:
            raise Invalid(
                "One user cannot give several approvals; assign this to nobody.",
                ("required_approvals",),
            )
    known = {
        "type": inspect(model).polymorphic_identity,
        "asked_by_user_id": session.viewer.user_id,
        "asked_by_agent_id": session.viewer.agent_id,
        "blocks_task": blocking is not None,
    }
    id = await session.insert(model, values, known=known)
    if blocking is not None:
        task = await session.get_one(Task, values["task_id"], populate_existing=True)
        if task.status is not TaskStatus.BLOCKED:  # its cancellation was requested before
            await dependencies.withdraw_requests(session, [task.id])
    return id


async def _block(session: WriteSession, attempt_id: UUID, named: UUID | None) -> UUID:
    """Block the task of a running attempt, and return it.

    If an earlier request of the same attempt blocks it, so does this one.
    """
    own = true() if session.viewer.agent_id is None else Task.agent_id == session.viewer.agent_id
    blocked = (
        select(Task.id)
        .join(TaskAttempt, TaskAttempt.task_id == Task.id)
        .where(
            TaskAttempt.id == attempt_id,
            TaskAttempt.number == Task.attempt_count,
            Task.blocked_reason == BlockedReason.HUMAN_INPUT,
            own,
            scope(Task, session.viewer, session.right),
        )
        .with_for_update(key_share=True, of=Task)
    )
    # In the order of all that ends an attempt: the project is locked before the task.
    await dependencies.lock(session, attempt_id, TaskAttempt)
    task_id: UUID | None = await session.scalar(blocked)
    if task_id is None:
        task_id = await claims.park(session, attempt_id)
    if task_id is None:  # the agent has given the task back before
        attempt = await session.get_one(TaskAttempt, attempt_id)
        task = await session.get_one(Task, attempt.task_id)
        raise LeaseLost(attempt_id, attempt.status, task.status)
    if named not in (None, task_id):
        raise Invalid("This attempt is at another task.", ("task_id",))
    return task_id


async def _refuse_outsider(session: AsyncSession, project_id: UUID, user_id: UUID) -> None:
    """Raise Invalid if the user who is to answer may not see the project."""
    insider = or_(
        exists().where(ProjectMember.project_id == project_id, ProjectMember.user_id == User.id),
        User.role == UserRole.ADMIN,
    )
    if await session.scalar(select(insider).where(User.id == user_id)):
        return
    raise Invalid(
        "This user is not a member of the project, and would not see it.", ("assignee_id",)
    )
