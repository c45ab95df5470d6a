"""Members: the users of a project and their roles. They separate tenants."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import ForeignKey, Index, exists, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, choice, to_one
from db.errors import AlreadyExists, Invalid

if TYPE_CHECKING:
    from db.projects import Project
    from db.users import User


class MemberRole(StrEnum):
    """What a member may do in a project."""

    OWNER = "OWNER"
    """Sees and edits everything in it, and manages its members."""
    EDITOR = "EDITOR"
    """Sees and edits everything in it."""
    APPROVER = "APPROVER"
    """Sees everything in it, and answers the requests of agents."""
    VIEWER = "VIEWER"
    """Sees everything in it."""


class ProjectMember(Base):
    """A user's membership in a project, with their role."""

    __tablename__ = "project_members"
    __table_args__ = (Index(None, "user_id", "project_id"),)

    project_id: Mapped[UUID] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    role: Mapped[MemberRole] = mapped_column(choice(MemberRole), doc="What the member may do.")

    project: Mapped[Project] = to_one("members", "The project that the user is a member of.")
    user: Mapped[User] = to_one("memberships", "The user who is a member.")


async def add_member(
    session: AsyncSession, project: Project, user_id: UUID, role: MemberRole
) -> ProjectMember:
    """Make a user a member. Raises AlreadyExists."""
    if await session.get(ProjectMember, (project.id, user_id)) is not None:
        raise AlreadyExists("This user is a member already.", ("email",))
    member = ProjectMember(project_id=project.id, user_id=user_id, role=role)
    session.add(member)
    await session.flush()
    return member


async def change_role(
    session: AsyncSession, project: Project, user_id: UUID, role: MemberRole
) -> ProjectMember:
    """Change the role of a member. The caller has locked the project. Raises Invalid."""
    member = await _member(session, project, user_id)
    if role is not MemberRole.OWNER:
        await _keep_an_owner(session, project, member)
    member.role = role
    await session.flush()
    return member


async def remove_member(session: AsyncSession, project: Project, user_id: UUID) -> None:
    """Remove a member. The caller has locked the project. Raises Invalid."""
    member = await _member(session, project, user_id)
    await _keep_an_owner(session, project, member)
    await session.delete(member)
    await session.flush()


async def _member(session: AsyncSession, project: Project, user_id: UUID) -> ProjectMember:
    member = await session.get(ProjectMember, (project.id, user_id))
    if member is None:
        raise Invalid("This user is not a member of the project.", ("user_id",))
    return member


async def _keep_an_owner(session: AsyncSession, project: Project, member: ProjectMember) -> None:
    """Raise Invalid if the member is the project's `owner` or its only member with that role."""
    if member.user_id == project.owner_id:
        raise Invalid(
            "The project belongs to this user: give it to somebody else first, with updateProject.",
            ("user_id",),
        )
    if member.role is not MemberRole.OWNER:
        return
    others = select(
        exists().where(
            ProjectMember.project_id == project.id,
            ProjectMember.user_id != member.user_id,
            ProjectMember.role == MemberRole.OWNER,
        )
    )
    if not await session.scalar(others):
        raise Invalid("This is the only owner: make somebody else an owner first.", ("user_id",))
