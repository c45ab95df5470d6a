"""Projects: what a team of agents works towards, and the wall between tenants."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from sqlalchemy import ForeignKey, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from db.base import CRUD, ComposedName, Metadata, Version, children, choice, to_one
from db.members import MemberRole, ProjectMember
from db.transitions import Transitions

if TYPE_CHECKING:
    from db.agents import Agent
    from db.communications import Communication
    from db.conversations import Conversation
    from db.interactions import HumanInteraction
    from db.tasks import Task
    from db.tools import Tool
    from db.usage import UsageRecord
    from db.users import User


class ProjectStatus(StrEnum):
    """Where a project is in its life."""

    DRAFT = "DRAFT"
    """Being written down."""
    PLANNING = "PLANNING"
    """Its tasks are being laid out."""
    IN_PROGRESS = "IN_PROGRESS"
    """Its tasks are handed out to agents."""
    PAUSED = "PAUSED"
    """No task is handed out until it goes on."""
    COMPLETED = "COMPLETED"
    """Its goal was reached."""
    CANCELLED = "CANCELLED"
    """It was given up."""
    ARCHIVED = "ARCHIVED"
    """Kept for the record."""


class Project(CRUD):
    """A goal that a team of agents works towards, with all that belongs to it."""

    __tablename__ = "projects"
    __table_args__ = (
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "name", "id"),
        Index(None, "owner_id", "created_at", "id"),
    )

    name: Mapped[ComposedName] = mapped_column(doc="The name people know it by.")
    description: Mapped[Any | None] = mapped_column(
        JSONB(none_as_null=True), doc="What it is about, as structured text."
    )
    status: Mapped[ProjectStatus] = mapped_column(
        choice(ProjectStatus),
        default=ProjectStatus.DRAFT,
        server_default=ProjectStatus.DRAFT,
        index=True,
        doc="Where it is in its life; `transitionProject` moves it.",
    )
    owner_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    project_metadata: Mapped[Metadata] = mapped_column(doc="Whatever else clients keep with it.")
    version: Mapped[Version] = mapped_column(doc="Counts the changes; send it as expectedVersion.")

    owner: Mapped[User | None] = to_one("projects", "The user it belongs to.")
    agents: Mapped[list[Agent]] = children("project", "The agents that work on it.")
    tasks: Mapped[list[Task]] = children("project", "What there is to do, subtasks included.")
    conversations: Mapped[list[Conversation]] = children(
        "project", "The conversations held for it."
    )
    members: Mapped[list[ProjectMember]] = children("project", "Who may see it, and do what in it.")
    tools: Mapped[list[Tool]] = children("project", "The tools that only its agents can have.")
    communications: Mapped[list[Communication]] = children(
        "project", "What its agents said to each other."
    )
    interactions: Mapped[list[HumanInteraction]] = children(
        "project", "What its agents ask of people."
    )
    usage_records: Mapped[list[UsageRecord]] = children("project", "The calls of AI models for it.")

    __mapper_args__ = {"version_id_col": version}

    transitions = Transitions(
        "project",
        {
            ProjectStatus.DRAFT: {ProjectStatus.PLANNING, ProjectStatus.CANCELLED},
            ProjectStatus.PLANNING: {
                ProjectStatus.DRAFT,
                ProjectStatus.IN_PROGRESS,
                ProjectStatus.CANCELLED,
            },
            ProjectStatus.IN_PROGRESS: {
                ProjectStatus.PAUSED,
                ProjectStatus.COMPLETED,
                ProjectStatus.CANCELLED,
            },
            ProjectStatus.PAUSED: {ProjectStatus.IN_PROGRESS, ProjectStatus.CANCELLED},
            ProjectStatus.COMPLETED: {ProjectStatus.ARCHIVED},
            ProjectStatus.CANCELLED: {ProjectStatus.ARCHIVED},
            ProjectStatus.ARCHIVED: set(),
        },
    )

    def transition(self, to: ProjectStatus) -> None:
        """Move it to another state of its life. Raises IllegalTransition."""
        self.transitions.check(self.status, to)
        self.status = to

    @classmethod
    async def create(cls, session: AsyncSession, **values: Any) -> Self:
        """Add a project. The user it belongs to is its first member."""
        project = await super().create(session, **values)
        await project._admit_owner(session)
        return project

    async def update(self, session: AsyncSession, **values: Any) -> Self:
        """Set these values. A new owner is a member, and an old one stays one."""
        await super().update(session, **values)
        if "owner_id" in values:
            await self._admit_owner(session)
        return self

    async def _admit_owner(self, session: AsyncSession) -> None:
        if self.owner_id is not None:
            await session.merge(
                ProjectMember(project_id=self.id, user_id=self.owner_id, role=MemberRole.OWNER)
            )
            await session.flush()
