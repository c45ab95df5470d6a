"""Changes of users: their names stay unique, and one administrator stays active.

What is assigned to a user who may not answer any more is assigned to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from db import assignments, conversations
from db.conversations import Conversation
from db.errors import AlreadyExists, Denied, DomainError, Invalid, Rejected
from db.members import ProjectMember
from db.projects import Project
from db.sessions import WriteSession
from db.users import User, UserRole


async def create_user(session: AsyncSession, **values: Any) -> User:
    """Add a user. Raises Rejected."""
    await _refuse_taken(session, values)
    return await User.create(session, **values)


async def _refuse_taken(
    session: AsyncSession, values: Mapping[str, Any], user: User | None = None
) -> None:
    """Check that no other user has the name or the email address in these values.

    Raises Rejected with an AlreadyExists for each that another user has. Of two transactions that
    use the same one at once, the database refuses the second.
    """
    taken: list[DomainError] = []
    for column in (User.username, User.email):
        other = select(User.id).where(column == values.get(column.key))
        if user is not None:
            other = other.where(User.id != user.id)
        if column.key in values and await session.scalar(other):
            message = f"There is already a User with this {column.key}."
            taken.append(AlreadyExists(message, (column.key,)))
    if taken:
        raise Rejected(taken)


OWN = {"id", "display_name"}
"""What users may change of themselves; the rest is changed by administrators."""


async def change_user(session: WriteSession, user: User, **values: Any) -> User:
    """Change a user. The caller has locked the row. Raises Denied, Rejected and Invalid."""
    if not session.viewer.is_administrator and values.keys() - OWN:
        raise Denied("Only administrators can change more of a user than the display name.")
    await _refuse_taken(session, values, user)
    if values.get("role", UserRole.ADMIN) is not UserRole.ADMIN:
        await _keep_an_administrator(session, user, "role")
    if not values.get("is_active", True):
        await _keep_an_administrator(session, user, "is_active")
    await user.update(session, **values)
    if values.keys() & {"is_active", "role"}:
        await assignments.withdraw(session, user.id)
    return user


async def delete_user(session: WriteSession, id: UUID) -> None:
    """Delete a user. Raises NotFound and Invalid.

    The projects that they own or are in, and their conversations, are locked first, as by all who
    change what is in them.
    """
    member = ProjectMember.user_id == id
    joined = select(ProjectMember.project_id).where(member)
    projects = select(Project.id).where(or_(Project.owner_id == id, Project.id.in_(joined)))
    await session.execute(projects.order_by(Project.id).with_for_update(key_share=True))
    await conversations.lock_all(session, Conversation.user_id == id)
    user = await session.fetch(User, id)
    await _keep_an_administrator(session, user, "id")
    await user.delete(session)


# The key of an advisory lock, which nothing else uses ("admins", as bytes).
ADMINISTRATORS = int.from_bytes(b"admins")


async def _keep_an_administrator(session: AsyncSession, user: User, at: str) -> None:
    """Raise Invalid if there is no other active administrator.

    The advisory lock, held until the transaction ends, keeps two transactions from removing the
    last two administrators at once.
    """
    if user.role is not UserRole.ADMIN or not user.is_active:
        return
    await session.execute(select(func.pg_advisory_xact_lock(ADMINISTRATORS)))
    others = exists().where(User.role == UserRole.ADMIN, User.is_active, User.id != user.id)
    if not await session.scalar(select(others)):
        raise Invalid("This is the only active administrator: make somebody else one first.", (at,))
