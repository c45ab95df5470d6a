"""Members: which user may do what in which project."""

from __future__ import annotations

import strawberry
from pydantic import BaseModel, Field
from sqlalchemy import select

import db
from db import MemberRole, Right, members
from db.errors import Invalid
from graph.core.entities import entity
from graph.core.fields import related
from graph.core.filters import EnumFilter, IDFilter, filters, through
from graph.core.inputs import input_of
from graph.core.mutations import mutation
from graph.core.scalars import ID, Line


@filters(db.ProjectMember)
class ProjectMemberFilter:
    role: EnumFilter[MemberRole] | None
    project_id: IDFilter | None
    user_id: IDFilter | None
    project = through(db.ProjectMember.project)
    user = through(db.ProjectMember.user)


@entity(db.ProjectMember, where=ProjectMemberFilter)
class ProjectMember:
    role: MemberRole
    project = related(db.ProjectMember.project)
    user = related(db.ProjectMember.user)


@input_of(db.ProjectMember)
class AddProjectMemberInput(BaseModel):
    """A user to be made a member of a project."""

    project_id: ID[db.Project]
    email: Line = Field(description="The address of the user, who need not be known to you yet.")
    role: MemberRole


@input_of(db.ProjectMember)
class UpdateProjectMemberInput(BaseModel):
    """Another role for a member."""

    project_id: ID[db.Project]
    user_id: ID[db.User]
    role: MemberRole


@input_of(db.ProjectMember)
class RemoveProjectMemberInput(BaseModel):
    """A user to be a member no more."""

    project_id: ID[db.Project]
    user_id: ID[db.User]


@strawberry.type
class Mutation:
    @mutation(Right.OWN)
    async def add_project_member(
        self, session: db.WriteSession, input: AddProjectMemberInput
    ) -> db.Project:
        """Make a user a member of a project. Only its owners can."""
        project = await _project(session, input.project_id)
        # Whoever knows a user's address learns nothing from it that they did not know.
        addressed = select(db.User.id).where(db.User.email == input.email)
        user_id = await session.scalar(addressed)
        if user_id is None:
            raise Invalid(f"There is no user with the address {input.email!r}.", ("email",))
        await members.add_member(session, project, user_id, input.role)
        return project

    @mutation(Right.OWN)
    async def update_project_member(
        self, session: db.WriteSession, input: UpdateProjectMemberInput
    ) -> db.Project:
        """Give a member of a project another role. Only its owners can."""
        project = await _project(session, input.project_id)
        await members.change_role(session, project, input.user_id, input.role)
        return project

    @mutation(Right.OWN)
    async def remove_project_member(
        self, session: db.WriteSession, input: RemoveProjectMemberInput
    ) -> db.Project:
        """Make a user a member of a project no more. Its owners can, and everybody can leave."""
        leaves = input.user_id == session.viewer.user_id
        project = await _project(session, input.project_id, Right.VIEW if leaves else None)
        await members.remove_member(session, project, input.user_id)
        return project


async def _project(session: db.WriteSession, id: object, right: Right | None = None) -> db.Project:
    """The project, locked: two who leave at once must not leave it without an owner."""
    return await session.fetch(db.Project, id, at=("project_id",), right=right)
