"""Agents: the workers of a project."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.base import (
    CRUD,
    ComposedName,
    LongText,
    Metadata,
    ShortText,
    Version,
    check,
    children,
    choice,
    to_many,
    to_one,
)
from db.transitions import Transitions

if TYPE_CHECKING:
    from db.ai_models import AIModel
    from db.attempts import TaskAttempt
    from db.communications import Communication
    from db.conversations import Conversation, Message
    from db.interactions import HumanInteraction
    from db.projects import Project
    from db.tasks import Task
    from db.tools import AgentTool
    from db.usage import UsageRecord
    from db.users import AccessToken


class AgentStatus(StrEnum):
    """Where an agent is in its life. Whether it is busy follows from its tasks."""

    CREATED = "CREATED"
    """Written down, not started yet."""
    INITIALIZING = "INITIALIZING"
    """Starting up."""
    READY = "READY"
    """Able to work."""
    ACTIVE = "ACTIVE"
    """Taking tasks."""
    PAUSED = "PAUSED"
    """Not taking tasks for now."""
    ERROR = "ERROR"
    """Something went wrong; it has to be initialized anew."""
    TERMINATED = "TERMINATED"
    """Gone for good."""


# Whatever an agent was about to do, it may fail or be ended.
END = {AgentStatus.ERROR, AgentStatus.TERMINATED}


class Agent(CRUD):
    """A worker of a project: a program, mostly one that runs on an AI model."""

    __tablename__ = "agents"
    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        check(
            "max_concurrent_tasks > 0",
            "max_concurrent_tasks_positive",
            "An agent works at 1 task at once or more.",
            "max_concurrent_tasks",
        ),
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "name", "id"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "project_id", "name", "id"),
        Index(None, "model_id", "created_at", "id"),
    )

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    name: Mapped[ComposedName] = mapped_column(doc="Its name, unique in its project.")
    type: Mapped[ShortText] = mapped_column(
        index=True, doc="What kind of work it does: DEVELOPER, RESEARCHER, …"
    )
    description: Mapped[LongText | None] = mapped_column(doc="What it is good at.")
    status: Mapped[AgentStatus] = mapped_column(
        choice(AgentStatus),
        default=AgentStatus.CREATED,
        server_default=AgentStatus.CREATED,
        index=True,
        doc="Where it is in its life; `transitionAgent` moves it.",
    )
    is_active: Mapped[bool] = mapped_column(
        default=True, server_default=text("true"), doc="Whether it may be given work at all."
    )
    model_id: Mapped[str | None] = mapped_column(ForeignKey("ai_models.id", ondelete="SET NULL"))
    prompt_template: Mapped[LongText | None] = mapped_column(doc="The prompt it works from.")
    configuration: Mapped[Any] = mapped_column(
        JSONB, default=dict, server_default=text("'{}'::jsonb"), doc="Settings for its worker."
    )
    max_concurrent_tasks: Mapped[int] = mapped_column(
        default=1, server_default=text("1"), doc="How many tasks it may have in progress at once."
    )
    last_seen_at: Mapped[datetime | None] = mapped_column(doc="When it last called in.")
    agent_metadata: Mapped[Metadata] = mapped_column(doc="Whatever else clients keep with it.")
    version: Mapped[Version] = mapped_column(doc="Counts the changes; send it as expectedVersion.")

    project: Mapped[Project] = to_one("agents", "The project it works on.")
    model: Mapped[AIModel | None] = to_one("agents", "The AI model it runs on.")
    tasks: Mapped[list[Task]] = to_many(
        "agent", "The tasks assigned to it.", foreign_keys="Task.agent_id"
    )
    created_tasks: Mapped[list[Task]] = to_many(
        "created_by_agent", "The tasks it created.", foreign_keys="Task.created_by_agent_id"
    )
    conversations: Mapped[list[Conversation]] = to_many(
        "agent", "The conversations it takes part in."
    )
    messages: Mapped[list[Message]] = to_many("agent", "The messages it wrote.")
    access_tokens: Mapped[list[AccessToken]] = children(
        "agent", "The tokens that open the API as this agent."
    )
    tools: Mapped[list[AgentTool]] = children(
        "agent", "The tools it has, and how each is set up.", order_by="AgentTool.tool_id"
    )
    attempts: Mapped[list[TaskAttempt]] = to_many("agent", "Its attempts at tasks.")
    sent_communications: Mapped[list[Communication]] = children(
        "from_agent", "What it said to other agents.", foreign_keys="Communication.from_agent_id"
    )
    received_communications: Mapped[list[Communication]] = children(
        "to_agent", "What other agents said to it.", foreign_keys="Communication.to_agent_id"
    )
    interactions: Mapped[list[HumanInteraction]] = to_many("agent", "What it asks of people.")
    usage_records: Mapped[list[UsageRecord]] = to_many("agent", "Its calls of AI models.")

    __mapper_args__ = {"version_id_col": version}

    transitions = Transitions(
        "agent",
        {
            AgentStatus.CREATED: {AgentStatus.INITIALIZING} | END,
            AgentStatus.INITIALIZING: {AgentStatus.READY} | END,
            AgentStatus.READY: {AgentStatus.ACTIVE} | END,
            AgentStatus.ACTIVE: {AgentStatus.PAUSED} | END,
            AgentStatus.PAUSED: {AgentStatus.ACTIVE} | END,
            AgentStatus.ERROR: {AgentStatus.INITIALIZING, AgentStatus.TERMINATED},
            AgentStatus.TERMINATED: set(),
        },
    )

    def transition(self, to: AgentStatus) -> None:
        """Move it to another state of its life. Raises IllegalTransition."""
        self.transitions.check(self.status, to)
        self.status = to
