"""Agents: the programs that work on the tasks of a project."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ColumnElement, ForeignKey, Index, UniqueConstraint, and_, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from db.base import (
    CRUD,
    ComposedName,
    LongText,
    Metadata,
    ShortText,
    Version,
    check,
    children,
    defaulted,
    to_many,
    to_one,
)
from db.parameters import constant
from db.transitions import Transitions
from db.usage_totals import cost_of

if TYPE_CHECKING:
    from db.agent_subscriptions import AgentSubscription
    from db.ai_models import AIModel
    from db.attempts import TaskAttempt
    from db.budgets import Budget
    from db.communications import Communication
    from db.conversations import Conversation, Message
    from db.interactions import HumanInteraction
    from db.projects import Project
    from db.tasks import Task
    from db.tools import AgentTool
    from db.usage import UsageRecord
    from db.users import AccessToken


class AgentStatus(StrEnum):
    """The status of an agent. Whether it is busy follows from its tasks."""

    CREATED = "CREATED"
    """Created, not started yet."""
    INITIALIZING = "INITIALIZING"
    """Starting up."""
    READY = "READY"
    """Started, and able to work."""
    ACTIVE = "ACTIVE"
    """Taking tasks."""
    PAUSED = "PAUSED"
    """Temporarily not taking tasks."""
    ERROR = "ERROR"
    """It failed, and has to be initialized again."""
    TERMINATED = "TERMINATED"
    """Ended; it cannot be started again."""


WORKING = (AgentStatus.READY, AgentStatus.ACTIVE)
"""The statuses of an agent that gets tasks."""

# An agent may fail or be terminated at any time.
END = {AgentStatus.ERROR, AgentStatus.TERMINATED}


class Agent(CRUD):
    """A program that works on the tasks of a project, mostly with an AI model."""

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
    name: Mapped[ComposedName] = mapped_column(doc="The name, unique in its project.")
    type: Mapped[ShortText] = mapped_column(
        index=True, doc="What kind of work it does: DEVELOPER, RESEARCHER, …"
    )
    description: Mapped[LongText | None] = mapped_column(
        doc="A description, such as what it is good at."
    )
    status: Mapped[AgentStatus] = defaulted(
        AgentStatus.CREATED, index=True, doc="Its status; `transitionAgent` changes it."
    )
    is_active: Mapped[bool] = defaulted(True, doc="Whether it may be assigned tasks.")
    model_id: Mapped[str | None] = mapped_column(ForeignKey("ai_models.id", ondelete="SET NULL"))
    prompt_template: Mapped[LongText | None] = mapped_column(doc="The template of its prompt.")
    configuration: Mapped[Any] = mapped_column(
        JSONB, default=dict, server_default=text("'{}'::jsonb"), doc="Settings for the program."
    )
    max_concurrent_tasks: Mapped[int] = defaulted(
        1, doc="How many tasks it may have in progress at once."
    )
    agent_metadata: Mapped[Metadata]
    version: Mapped[Version] = mapped_column()

    project: Mapped[Project] = to_one("agents", "The project it works on.")
    model: Mapped[AIModel | None] = to_one("agents", "The AI model it uses.")
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
    access_tokens: Mapped[list[AccessToken]] = children("agent", "Its access tokens.")
    tools: Mapped[list[AgentTool]] = children(
        "agent", "Its tools, each with its configuration.", order_by="AgentTool.tool_id"
    )
    attempts: Mapped[list[TaskAttempt]] = to_many("agent", "Its attempts at tasks.")
    sent_communications: Mapped[list[Communication]] = children(
        "from_agent",
        "The messages that it sent to other agents.",
        foreign_keys="Communication.from_agent_id",
    )
    received_communications: Mapped[list[Communication]] = children(
        "to_agent",
        "The messages that other agents sent to it.",
        foreign_keys="Communication.to_agent_id",
    )
    subscriptions: Mapped[list[AgentSubscription]] = children(
        "agent", "The topics that it subscribes to."
    )
    interactions: Mapped[list[HumanInteraction]] = to_many(
        "agent",
        "Its requests and notifications for people.",
        foreign_keys="HumanInteraction.agent_id",
    )
    asked_interactions: Mapped[list[HumanInteraction]] = to_many(
        "asked_by_agent",
        "The requests and notifications that were made with its token.",
        foreign_keys="HumanInteraction.asked_by_agent_id",
    )
    usage_records: Mapped[list[UsageRecord]] = to_many("agent", "Its calls of AI models.")
    budgets: Mapped[list[Budget]] = children("agent", "The budgets of its own.")

    @declared_attr
    def cost(cls) -> Mapped[Decimal]:
        """What its calls of AI models cost."""
        return cost_of("agent_id", cls.id, "What its calls of AI models cost, in US dollars.")

    __mapper_args__ = {"version_id_col": version}

    transitions = Transitions(
        "agent",
        {
            AgentStatus.CREATED: {AgentStatus.INITIALIZING, AgentStatus.READY} | END,
            AgentStatus.INITIALIZING: {AgentStatus.READY} | END,
            AgentStatus.READY: {AgentStatus.ACTIVE} | END,
            AgentStatus.ACTIVE: {AgentStatus.PAUSED} | END,
            AgentStatus.PAUSED: {AgentStatus.ACTIVE} | END,
            AgentStatus.ERROR: {AgentStatus.INITIALIZING, AgentStatus.TERMINATED},
            AgentStatus.TERMINATED: set(),
        },
    )

    def transition(self, to: AgentStatus) -> None:
        """Change its status. Raises IllegalTransition."""
        self.transitions.check(self.status, to)
        self.status = to


def is_working(agent: Any) -> ColumnElement[bool]:
    """Whether an agent gets tasks. `agent` is the model, an alias, or the columns of its table."""
    return and_(agent.is_active, agent.status.in_([constant(each) for each in WORKING]))
