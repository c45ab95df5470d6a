"""Tools that agents can call, and the tools of each agent."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry
from pydantic import BaseModel, Field, StringConstraints
from strawberry import Maybe
from strawberry.scalars import JSON

import db
from db import Right, ToolSource, ToolStatus, tools
from graph.core.connections import Connection
from graph.core.entities import Node, column, entity
from graph.core.fields import collection, connected, one, related
from graph.core.filters import (
    BooleanFilter,
    DateTimeFilter,
    EnumFilter,
    IDFilter,
    StringFilter,
    contains,
    filters,
    ordering,
    through,
)
from graph.core.history import history
from graph.core.inputs import Repeatable, Versioned, changed_values, input_of, new_values
from graph.core.mutations import mutation
from graph.core.payloads import Deleted
from graph.core.scalars import ID, Line, Metadata, Name, Text, matching

Url = Annotated[
    str,
    StringConstraints(max_length=2000),
    matching(r"https?://[!-~]+", "this must be a URL that begins with http:// or https://"),
]


@filters(db.Tool)
class ToolFilter:
    id: IDFilter | None
    name: StringFilter | None
    tool_version: StringFilter | None
    capability: StringFilter | None
    source: EnumFilter[ToolSource] | None
    status: EnumFilter[ToolStatus] | None
    definition_hash: StringFilter | None
    created_at: DateTimeFilter | None
    updated_at: DateTimeFilter | None
    project_id: IDFilter | None
    project = through(db.Tool.project)
    metadata_contains: JSON | None = contains(db.Tool.tool_metadata)


ToolOrder = ordering(db.Tool, db.Tool.created_at, db.Tool.updated_at, db.Tool.name)


@entity(db.Tool, where=ToolFilter, order=ToolOrder)
class Tool(Node):
    name: str
    tool_version: str
    description: str | None
    capability: str | None
    source: ToolSource
    tool_schema: JSON | None
    documentation_url: str | None
    status: ToolStatus
    definition_hash: str
    metadata: JSON = column(db.Tool.tool_metadata)
    version: int
    created_at: datetime
    updated_at: datetime
    project = related(db.Tool.project)
    agents = connected(db.Tool.agents)
    history = history(db.Tool)


@filters(db.AgentTool)
class AgentToolFilter:
    is_active: BooleanFilter | None
    added_at: DateTimeFilter | None
    agent_id: IDFilter | None
    tool_id: IDFilter | None
    agent = through(db.AgentTool.agent)
    tool = through(db.AgentTool.tool)


@entity(db.AgentTool, where=AgentToolFilter)
class AgentTool:
    configuration: JSON
    is_active: bool
    added_at: datetime
    agent = related(db.AgentTool.agent)
    tool = related(db.AgentTool.tool)


@strawberry.type
class Query:
    tool: Tool | None = one(db.Tool)
    tools: Connection[Tool] = collection(db.Tool)


class ToolValues(BaseModel):
    """The fields that all inputs of new tools share."""

    id: ID[db.Tool] | None = None
    name: Name
    tool_version: Name = tools.FIRST_VERSION
    description: Text | None = None
    capability: Line | None = None
    source: ToolSource = ToolSource.USER_DEFINED
    tool_schema: JSON | None = None
    documentation_url: Url | None = None
    metadata: Metadata | None = None


@input_of(db.Tool)
class CreateToolInput(ToolValues, Repeatable):
    """The tool to create."""

    project_id: ID[db.Project] | None = Field(
        default=None,
        description="The project of the tool. A tool without a project is shared by all projects;"
        " only administrators can create one.",
    )


@input_of(db.Tool)
class UpdateToolInput(Versioned):
    """The changes to a tool. An omitted field stays as it is; null clears it."""

    id: ID[db.Tool]
    name: Maybe[Name] = None
    tool_version: Maybe[Name] = None
    description: Maybe[Text | None] = None
    capability: Maybe[Line | None] = None
    source: Maybe[ToolSource] = None
    tool_schema: Maybe[JSON | None] = None
    documentation_url: Maybe[Url | None] = None
    metadata: Maybe[Metadata] = None


@input_of(db.Tool)
class DeleteToolInput(Versioned):
    """The tool to delete."""

    id: ID[db.Tool]


@input_of(db.Tool)
class TransitionToolInput(Versioned):
    """The new status of a tool."""

    id: ID[db.Tool]
    to: ToolStatus = Field(description="The new status.")


@input_of(db.AgentTool)
class AttachToolInput(Repeatable):
    """The tool to give to an agent, or its new configuration if the agent has it."""

    agent_id: ID[db.Agent]
    tool_id: ID[db.Tool]
    configuration: Metadata | None = None
    is_active: bool = True


@input_of(db.AgentTool)
class DetachToolInput(Repeatable):
    """The tool to take from an agent."""

    agent_id: ID[db.Agent]
    tool_id: ID[db.Tool]


@strawberry.type
class Mutation:
    @mutation(Right.EDIT)
    async def create_tool(self, session: db.WriteSession, input: CreateToolInput) -> db.Tool:
        """Create a tool, with the status DISCOVERED."""
        return await tools.create(session, new_values(input))

    @mutation(Right.EDIT)
    async def update_tool(self, session: db.WriteSession, input: UpdateToolInput) -> db.Tool:
        """Change a tool."""
        tool = await session.fetch(db.Tool, input.id, version=input.expected_version)
        return await tool.update(session, **changed_values(input))

    @mutation(Right.EDIT)
    async def delete_tool(
        self, session: db.WriteSession, input: DeleteToolInput
    ) -> Deleted[db.Tool]:
        """Delete a tool, and take it from all agents."""
        tool = await session.fetch(db.Tool, input.id, version=input.expected_version)
        await tool.delete(session)
        return Deleted(tool.id)

    @mutation(Right.EDIT)
    async def transition_tool(
        self, session: db.WriteSession, input: TransitionToolInput
    ) -> db.Tool:
        """Change the status of a tool."""
        tool = await session.fetch(db.Tool, input.id, version=input.expected_version)
        tool.transition(input.to)
        return tool

    @mutation(Right.EDIT)
    async def attach_tool(self, session: db.WriteSession, input: AttachToolInput) -> db.Agent:
        """Give an agent a tool of its project or a tool that all projects share."""
        agent = await session.fetch(db.Agent, input.agent_id, at=("agent_id",))
        await tools.attach(session, agent, new_values(input))
        return agent

    @mutation(Right.EDIT)
    async def detach_tool(self, session: db.WriteSession, input: DetachToolInput) -> db.Agent:
        """Take a tool from an agent."""
        agent = await session.fetch(db.Agent, input.agent_id, at=("agent_id",))
        await tools.detach(session, agent, input.tool_id)
        return agent
