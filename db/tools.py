"""Tools that agents can call, and the tools of each agent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from db.base import (
    CRUD,
    LOGGED,
    Base,
    ComposedName,
    LongText,
    Metadata,
    ShortText,
    Version,
    children,
    defaulted,
    to_one,
)
from db.errors import Denied, Invalid
from db.projects import Project
from db.text import canonical_json
from db.transitions import Transitions

if TYPE_CHECKING:
    from db.agents import Agent
    from db.sessions import WriteSession


FIRST_VERSION = "1"

# The most tools of an agent: models choose badly among more, and providers accept few more.
MOST_TOOLS = 100
TOO_MANY_TOOLS = f"An agent has at most {MOST_TOOLS} tools. Detach one first, or use two agents."


class ToolSource(StrEnum):
    """Where a tool comes from."""

    BUILT_IN = "BUILT_IN"
    """Part of the software that runs the agents."""
    USER_DEFINED = "USER_DEFINED"
    """Written by its users."""
    MCP = "MCP"
    """Offered by a server of the Model Context Protocol."""
    EXTERNAL_API = "EXTERNAL_API"
    """An API of a third party."""
    CUSTOM = "CUSTOM"
    """Anything else."""


class ToolStatus(StrEnum):
    """The stage of a tool between discovery and use."""

    DISCOVERED = "DISCOVERED"
    """Discovered, not evaluated yet."""
    EVALUATING = "EVALUATING"
    """Being evaluated."""
    APPROVED = "APPROVED"
    """Approved for use."""
    INTEGRATED = "INTEGRATED"
    """In use."""
    DEPRECATED = "DEPRECATED"
    """Still in use, but not to be used for anything new."""
    REJECTED = "REJECTED"
    """Not approved."""


class Tool(CRUD):
    """A tool that agents can call. All projects share a tool without a project."""

    __tablename__ = "tools"
    __table_args__ = (
        # Name and version of a shared tool, which has no project, are unique too.
        UniqueConstraint("project_id", "name", "tool_version", postgresql_nulls_not_distinct=True),
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "name", "id"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "project_id", "name", "id"),
    )

    project_id: Mapped[UUID | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    name: Mapped[ComposedName] = mapped_column(doc="The name by which agents call it.")
    tool_version: Mapped[ComposedName] = mapped_column(
        default=FIRST_VERSION,
        server_default=FIRST_VERSION,
        doc="The version, as its authors number it.",
    )
    description: Mapped[LongText | None] = mapped_column(
        doc="What it does. The model of an agent reads this."
    )
    capability: Mapped[ShortText | None] = mapped_column(
        index=True, doc="What it can be used for, such as `search` or `deploy`."
    )
    source: Mapped[ToolSource] = defaulted(ToolSource.USER_DEFINED, doc="Where it comes from.")
    tool_schema: Mapped[Any | None] = mapped_column(
        JSONB(none_as_null=True), doc="The JSON Schema of its arguments."
    )
    documentation_url: Mapped[LongText | None] = mapped_column(doc="The URL of its documentation.")
    status: Mapped[ToolStatus] = defaulted(
        ToolStatus.DISCOVERED, index=True, doc="Its stage; `transitionTool` changes it."
    )
    definition_hash: Mapped[ShortText] = mapped_column(
        info=LOGGED,
        doc="SHA-256, in hex, of its description and schema. It shows whether the definition was"
        " changed.",
    )
    tool_metadata: Mapped[Metadata]
    version: Mapped[Version] = mapped_column()

    project: Mapped[Project | None] = to_one(
        "tools", "The project it belongs to; null if all projects share it."
    )
    agents: Mapped[list[AgentTool]] = children("tool", "The agents that have it.")

    __mapper_args__ = {"version_id_col": version}

    transitions = Transitions(
        "tool",
        {
            ToolStatus.DISCOVERED: {ToolStatus.EVALUATING, ToolStatus.REJECTED},
            ToolStatus.EVALUATING: {ToolStatus.APPROVED, ToolStatus.REJECTED},
            ToolStatus.APPROVED: {ToolStatus.INTEGRATED, ToolStatus.REJECTED},
            ToolStatus.INTEGRATED: {ToolStatus.DEPRECATED},
            ToolStatus.DEPRECATED: set(),
            ToolStatus.REJECTED: set(),
        },
    )

    def transition(self, to: ToolStatus) -> None:
        """Change its status. Raises IllegalTransition."""
        self.transitions.check(self.status, to)
        self.status = to

    @classmethod
    async def create(cls, session: AsyncSession, **values: Any) -> Self:
        """Add a tool with the hash of its definition."""
        return await super().create(session, **with_definition_hash(values))

    async def update(self, session: AsyncSession, **values: Any) -> Self:
        """Set these values, and the hash of a new definition."""
        if values.keys() & {"description", "tool_schema"}:
            current = {"description": self.description, "tool_schema": self.tool_schema}
            values = with_definition_hash(current | values)
        return await super().update(session, **values)


class AgentTool(Base):
    """A tool of an agent, with its configuration for this agent."""

    __tablename__ = "agent_tools"
    __table_args__ = (Index(None, "tool_id", "agent_id"),)

    agent_id: Mapped[UUID] = mapped_column(
        ForeignKey("agents.id", ondelete="CASCADE"), primary_key=True
    )
    tool_id: Mapped[UUID] = mapped_column(
        ForeignKey("tools.id", ondelete="CASCADE"), primary_key=True
    )
    configuration: Mapped[Any] = mapped_column(
        JSONB,
        default=dict,
        server_default=text("'{}'::jsonb"),
        doc="The configuration of the tool for this agent.",
    )
    is_active: Mapped[bool] = defaulted(True, doc="Whether the agent may call it.")
    added_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), doc="When the agent got it."
    )

    agent: Mapped[Agent] = to_one("tools", "The agent that has the tool.")
    tool: Mapped[Tool] = to_one("agents", "The tool that the agent has.")


def with_definition_hash(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a tool with the hash of its definition, which ignores the order of keys."""
    definition = [values.get("description"), values.get("tool_schema")]
    return {**values, "definition_hash": hashlib.sha256(canonical_json(definition)).hexdigest()}


async def create(session: WriteSession, values: Mapping[str, Any]) -> Tool:
    """Add a tool of a project that the viewer may edit.

    Only administrators add one that all projects share. Raises NotFound and Denied.
    """
    project_id = values.get("project_id")
    if project_id is not None:
        await session.fetch(Project, project_id, at=("project_id",), lock=False)
    elif not session.viewer.is_administrator:
        raise Denied("Only administrators can create a tool without a project; give projectId.")
    return await Tool.create(session, **values)


async def attach(session: WriteSession, agent: Agent, values: Mapping[str, Any]) -> None:
    """Give an agent a tool, or replace the configuration of one that it has.

    The caller has locked the agent, so that its tools can be counted. Raises Rejected and Invalid.
    """
    await session.refer(AgentTool, values, project_id=agent.project_id)
    # Locked, since whoever deletes a tool does not lock the agent.
    edges = select(AgentTool.tool_id).where(AgentTool.agent_id == agent.id)
    has = list(await session.scalars(edges.order_by(AgentTool.tool_id).with_for_update()))
    if values["tool_id"] not in has and len(has) >= MOST_TOOLS:
        raise Invalid(TOO_MANY_TOOLS, ("tool_id",))
    setup = {"configuration": {}, "is_active": True, **values}
    await session.merge(AgentTool(**{**setup, "agent_id": agent.id}))
    await session.flush()


async def detach(session: WriteSession, agent: Agent, tool_id: UUID) -> None:
    """Take a tool from an agent. Raises Invalid."""
    # Locked, as when it is attached.
    edge = await session.get(AgentTool, (agent.id, tool_id), with_for_update=True)
    if edge is None:
        raise Invalid("The agent does not have this tool.", ("tool_id",))
    await session.delete(edge)
    await session.flush()
