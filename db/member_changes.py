"""Changes of members: how users join and leave a project, and get another role in it.

What is assigned to a member who may not answer any more is assigned to nobody.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from db import assignments
from db.errors import AlreadyExists, Invalid
from db.members import MemberRole, ProjectMember
from db.projects import Project


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
    await assignments.withdraw(session, user_id, project.id)
    return member


async def remove_member(session: AsyncSession, project: Project, user_id: UUID) -> None:
    """Remove a member. The caller has locked the project. Raises Invalid."""
    member = await _member(session, project, user_id)
    await _keep_an_owner(session, project, member)
    await session.delete(member)
    await session.flush()
    await assignments.withdraw(session, user_id, project.id)


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
