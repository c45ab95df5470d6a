"""Projects: the goals of teams of agents. Rows of a project are visible to its members only."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from db.base import CRUD, ComposedName, Metadata, Version, check, children, defaulted, to_one
from db.members import MemberRole, ProjectMember
from db.transitions import Transitions
from db.usage_totals import cost_of

if TYPE_CHECKING:
    from db.agents import Agent
    from db.budgets import Budget
    from db.communications import Communication
    from db.conversations import Conversation
    from db.interactions import HumanInteraction
    from db.tasks import Task
    from db.tools import Tool
    from db.usage import UsageRecord
    from db.users import User
    from db.webhooks import Webhook


class ProjectStatus(StrEnum):
    """The status of a project."""

    DRAFT = "DRAFT"
    """Its goal is being described."""
    PLANNING = "PLANNING"
    """Its tasks are being planned."""
    IN_PROGRESS = "IN_PROGRESS"
    """Its tasks are assigned to agents."""
    PAUSED = "PAUSED"
    """No task is assigned until it is resumed."""
    COMPLETED = "COMPLETED"
    """Its goal was reached."""
    CANCELLED = "CANCELLED"
    """It was ended before that."""
    ARCHIVED = "ARCHIVED"
    """It is only kept for reference."""


class Project(CRUD):
    """A goal that a team of agents works towards, with its agents, tasks and so on."""

    __tablename__ = "projects"
    __table_args__ = (
        check(
            "max_tasks_per_agent > 0",
            "max_tasks_per_agent_positive",
            "An agent may have 1 task in progress or more.",
            "max_tasks_per_agent",
        ),
        check(
            "max_tasks_in_review > 0",
            "max_tasks_in_review_positive",
            "At least 1 task may wait for people.",
            "max_tasks_in_review",
        ),
        check(
            "jsonb_typeof(max_tasks_by_type) = 'object'"
            " AND NOT jsonb_path_exists(max_tasks_by_type, '$.* ?"
            ' (@.type() != "number" || @ < 0 || @ > 1000000000 || @ != @.floor())\')'
            " AND NOT jsonb_exists(max_tasks_by_type, '')",
            "max_tasks_by_type_numbers",
            "The limits by type are an object of whole numbers, and each type has a name.",
            "max_tasks_by_type",
        ),
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "name", "id"),
        Index(None, "owner_id", "created_at", "id"),
    )

    name: Mapped[ComposedName] = mapped_column(doc="The name.")
    description: Mapped[Any | None] = mapped_column(
        JSONB(none_as_null=True), doc="A description, as structured text."
    )
    status: Mapped[ProjectStatus] = defaulted(
        ProjectStatus.DRAFT, index=True, doc="Its status; `transitionProject` changes it."
    )
    owner_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    max_tasks_per_agent: Mapped[int | None] = mapped_column(
        doc="How many tasks each of its agents may have in progress at most."
    )
    max_tasks_in_review: Mapped[int | None] = mapped_column(
        doc="While so many of its tasks wait for people, no further task is handed out."
    )
    max_tasks_by_type: Mapped[Any] = mapped_column(
        JSONB,
        default=dict,
        server_default=text("'{}'::jsonb"),
        doc='How many tasks of a type may be in progress at most, such as `{"deploy": 1}`.',
    )
    project_metadata: Mapped[Metadata]
    version: Mapped[Version] = mapped_column()

    owner: Mapped[User | None] = to_one("projects", "The user who owns it.")
    agents: Mapped[list[Agent]] = children("project", "The agents that work on it.")
    tasks: Mapped[list[Task]] = children("project", "Its tasks, subtasks included.")
    conversations: Mapped[list[Conversation]] = children("project", "Its conversations.")
    members: Mapped[list[ProjectMember]] = children(
        "project", "The users who may see it, with their roles."
    )
    tools: Mapped[list[Tool]] = children(
        "project", "The tools that belong to it; only its agents can have them."
    )
    communications: Mapped[list[Communication]] = children(
        "project", "The messages between its agents."
    )
    interactions: Mapped[list[HumanInteraction]] = children(
        "project", "The requests and notifications of its agents for people."
    )
    usage_records: Mapped[list[UsageRecord]] = children("project", "The calls of AI models for it.")
    budgets: Mapped[list[Budget]] = children("project", "Its budgets, those of parts included.")
    webhooks: Mapped[list[Webhook]] = children(
        "project", "The addresses that are sent its events. Only its owners see them."
    )

    @declared_attr
    def cost(cls) -> Mapped[Decimal]:
        """What the calls of AI models for it cost."""
        return cost_of("project_id", cls.id, "What its calls of AI models cost, in US dollars.")

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
        """Change its status. Raises IllegalTransition."""
        self.transitions.check(self.status, to)
        self.status = to

    @classmethod
    async def create(cls, session: AsyncSession, **values: Any) -> Self:
        """Add a project. Its owner becomes a member with the role OWNER."""
        project = await super().create(session, **values)
        await project._add_owner_as_member(session)
        return project

    async def update(self, session: AsyncSession, **values: Any) -> Self:
        """Set these values. A new owner becomes a member; the previous one stays a member."""
        await super().update(session, **values)
        if "owner_id" in values:
            await self._add_owner_as_member(session)
        return self

    async def _add_owner_as_member(self, session: AsyncSession) -> None:
        if self.owner_id is not None:
            await session.merge(
                ProjectMember(project_id=self.id, user_id=self.owner_id, role=MemberRole.OWNER)
            )
            await session.flush()
