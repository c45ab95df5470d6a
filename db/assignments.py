"""Assignments: the user who is to answer a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import and_, exists, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.base import any_of
from db.errors import Invalid
from db.interactions import HumanInteraction, InteractionStatus, InteractionType
from db.members import ProjectMember
from db.rights import Right
from db.rules import ROLES
from db.users import User, UserRole

ANSWERING = {role for role, rights in ROLES.items() if Right.ANSWER in rights}
"""The roles of members who may answer requests."""


async def check(session: AsyncSession, values: Mapping[str, Any]) -> None:
    """Raise Invalid if the user to whom a request is assigned could not see or answer it.

    The rows that decide it are locked until the transaction ends. Whoever changes them then finds
    the request, and withdraws it.
    """
    user_id, path = values["assignee_id"], ("assignee_id",)
    is_answered = values.get("requires_acknowledgement", True)
    # The user first, as by whoever deletes the user, and then the memberships.
    found_user = select(User.id, User.role, User.is_active).where(User.id == user_id)
    user = found_user.with_for_update(read=True).cte("locked_user")
    member = select(ProjectMember.role).where(
        ProjectMember.project_id == values["project_id"],
        ProjectMember.user_id == select(user.c.id).scalar_subquery(),
    )
    role = select(member.with_for_update(read=True).cte("member").c.role).scalar_subquery()
    found = (await session.execute(select(user.c.role, user.c.is_active, role))).one_or_none()
    if found is None:
        raise Invalid("There is no such user.", path)  # any more
    user_role, is_active, member_role = found
    if not is_active:
        raise Invalid("This user is not active.", path)
    if user_role is UserRole.ADMIN:
        return
    if member_role is None:
        raise Invalid("This user is not a member of the project, and would not see it.", path)
    if is_answered and member_role not in ANSWERING:
        raise Invalid("This user is a member of the project who may not answer requests.", path)


async def withdraw(session: AsyncSession, user_id: UUID, project_id: UUID | None = None) -> None:
    """Assign to nobody what waits for a user, where that user may not answer any more.

    It would be in no inbox, and the task that it blocks would not go on. Without `project_id`, it
    is what waits in all projects.
    """
    request = HumanInteraction.__table__.c
    is_answered = or_(
        request.type != InteractionType.NOTIFICATION, request.requires_acknowledgement
    )
    is_member = exists().where(
        ProjectMember.project_id == request.project_id,
        ProjectMember.user_id == user_id,
        or_(any_of(ProjectMember.role, ANSWERING), ~is_answered),
    )
    is_active = exists().where(User.id == user_id, User.is_active)
    is_administrator = exists().where(User.id == user_id, User.role == UserRole.ADMIN)
    may_answer = and_(is_active, or_(is_administrator, is_member))
    await session.execute(
        update(HumanInteraction)
        .where(
            request.assignee_id == user_id,
            request.status == InteractionStatus.PENDING,
            true() if project_id is None else request.project_id == project_id,
            ~may_answer,
        )
        .values(assignee_id=None)
        .execution_options(synchronize_session=False)
    )
