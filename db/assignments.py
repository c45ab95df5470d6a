"""Assignments: the user who is to answer a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.base import any_of
from db.errors import Invalid
from db.interactions import HumanInteraction, InteractionStatus
from db.members import ProjectMember
from db.rights import Right
from db.rules import ROLES
from db.users import User, UserRole

ANSWERING = {role for role, rights in ROLES.items() if Right.ANSWER in rights}
"""The roles of members who may answer requests."""


async def check(session: AsyncSession, values: Mapping[str, Any]) -> None:
    """Raise Invalid if the user to whom a request is assigned could not see or answer it."""
    user_id, path = values["assignee_id"], ("assignee_id",)
    is_member = (ProjectMember.project_id == values["project_id"], ProjectMember.user_id == User.id)
    role = select(ProjectMember.role).where(*is_member).scalar_subquery()
    found = await session.execute(select(User.role, User.is_active, role).where(User.id == user_id))
    user_role, is_active, member_role = found.one()
    if not is_active:
        raise Invalid("This user is not active.", path)
    if user_role is UserRole.ADMIN:
        return
    if member_role is None:
        raise Invalid("This user is not a member of the project, and would not see it.", path)
    is_answered = values.get("requires_acknowledgement", True)
    if is_answered and member_role not in ANSWERING:
        raise Invalid("This user is a member of the project who may not answer requests.", path)


async def withdraw(session: AsyncSession, user_id: UUID) -> None:
    """Assign to nobody what waits for a user, where that user may not answer any more.

    It would be in no inbox, and the task that it blocks would not go on.
    """
    answers_there = exists().where(
        ProjectMember.project_id == HumanInteraction.project_id,
        ProjectMember.user_id == user_id,
        any_of(ProjectMember.role, ANSWERING),
    )
    may_answer = exists().where(
        User.id == user_id, User.is_active, or_(User.role == UserRole.ADMIN, answers_there)
    )
    await session.execute(
        update(HumanInteraction)
        .where(
            HumanInteraction.assignee_id == user_id,
            HumanInteraction.status == InteractionStatus.PENDING,
            ~may_answer,
        )
        .values(assignee_id=None)
        .execution_options(synchronize_session=False)
    )
