"""Projects: what a team of agents works towards, and the wall between tenants."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import CRUD, Metadata, ShortText, Version, choice
from db.state import Transitions

if TYPE_CHECKING:
    from db.agents import Agent
    from db.conversations import Conversation
    from db.tasks import Task
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

    name: Mapped[ShortText] = mapped_column(doc="The name people know it by.")
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

    owner: Mapped[User | None] = relationship(
        back_populates="projects", lazy="raise", doc="The user it belongs to."
    )
    agents: Mapped[list[Agent]] = relationship(
        back_populates="project",
        cascade="all, delete-orphan",
        passive_deletes=True,
        lazy="raise",
        doc="The agents that work on it.",
    )
    tasks: Mapped[list[Task]] = relationship(
        back_populates="project",
        cascade="all, delete-orphan",
        passive_deletes=True,
        lazy="raise",
        doc="What there is to do, subtasks included.",
    )
    conversations: Mapped[list[Conversation]] = relationship(
        back_populates="project",
        cascade="all, delete-orphan",
        passive_deletes=True,
        lazy="raise",
        doc="The conversations held for it.",
    )

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
