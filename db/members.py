"""Members: the users of a project and their roles. They separate tenants."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, choice, to_one

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
