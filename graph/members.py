"""Members: the users of a project and their roles."""

from __future__ import annotations

import strawberry
from pydantic import Field
from sqlalchemy import select

import db
from db import MemberRole, Right, member_changes
from db.errors import Invalid
from graph.core.entities import entity
from graph.core.fields import related
from graph.core.filters import EnumFilter, IDFilter, filters, through
from graph.core.inputs import Repeatable, input_of
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
class AddProjectMemberInput(Repeatable):
    """The user to add to a project, and their role."""

    project_id: ID[db.Project]
    email: Line = Field(description="The email of the user. It may be a user you cannot see yet.")
    role: MemberRole


@input_of(db.ProjectMember)
class UpdateProjectMemberInput(Repeatable):
    """The new role of a member."""

    project_id: ID[db.Project]
    user_id: ID[db.User]
    role: MemberRole


@input_of(db.ProjectMember)
class RemoveProjectMemberInput(Repeatable):
    """The member to remove from a project."""

    project_id: ID[db.Project]
    user_id: ID[db.User]


@strawberry.type
class Mutation:
    @mutation(Right.OWN)
    async def add_project_member(
        self, session: db.WriteSession, input: AddProjectMemberInput
    ) -> db.Project:
        """Add a user to a project. Only for its owners."""
        project = await _locked_project(session, input.project_id)
        # Without a scope: the owner may not see the user yet, and the email is known already.
        by_email = select(db.User.id).where(db.User.email == input.email)
        user_id = await session.scalar(by_email)
        if user_id is None:
            raise Invalid(f"There is no user with the email {input.email!r}.", ("email",))
        await member_changes.add_member(session, project, user_id, input.role)
        return project

    @mutation(Right.OWN)
    async def update_project_member(
        self, session: db.WriteSession, input: UpdateProjectMemberInput
    ) -> db.Project:
        """Change the role of a member of a project. Only for its owners."""
        project = await _locked_project(session, input.project_id)
        await member_changes.change_role(session, project, input.user_id, input.role)
        return project

    @mutation(Right.OWN)
    async def remove_project_member(
        self, session: db.WriteSession, input: RemoveProjectMemberInput
    ) -> db.Project:
        """Remove a member from a project. Only for its owners, and for members who leave."""
        leaves = input.user_id == session.viewer.user_id
        project = await _locked_project(session, input.project_id, Right.VIEW if leaves else None)
        await member_changes.remove_member(session, project, input.user_id)
        return project


async def _locked_project(
    session: db.WriteSession, id: object, right: Right | None = None
) -> db.Project:
    """The project, locked: if two owners leave at once, one of them must remain."""
    return await session.fetch(db.Project, id, at=("project_id",), right=right)
