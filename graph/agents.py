"""Agents: the programs that work on the tasks of a project."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated

import strawberry
from pydantic import Field
from strawberry import Maybe
from strawberry.scalars import JSON

import db
from db import AgentStatus, Right, readiness, terminations
from db.claims import IdleReason, idle
from db.tools import MOST_TOOLS
from graph.core.computed import computed, computed_type, value
from graph.core.connections import Connection
from graph.core.entities import Node, column, describe_enum, entity
from graph.core.fields import collection, connected, listed, one, related
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
from graph.core.scalars import ID, Line, Metadata, Name, Text

describe_enum(IdleReason)

Capacity = Annotated[int, Field(ge=1, le=1000)]


@filters(db.Agent)
class AgentFilter:
    id: IDFilter | None
    name: StringFilter | None
    type: StringFilter | None
    status: EnumFilter[AgentStatus] | None
    is_active: BooleanFilter | None
    last_seen_at: DateTimeFilter | None
    created_at: DateTimeFilter | None
    updated_at: DateTimeFilter | None
    project_id: IDFilter | None
    model_id: IDFilter | None
    project = through(db.Agent.project)
    model = through(db.Agent.model)
    metadata_contains: JSON | None = contains(db.Agent.agent_metadata)


AgentOrder = ordering(db.Agent, db.Agent.created_at, db.Agent.updated_at, db.Agent.name)


@computed_type
class Idle:
    """The reason why an agent gets no task."""

    code: IdleReason = value("The reason, for programs.")
    message: str = value("The reason, in a sentence for people.")
    until: datetime | None = value("When the first task that is ready becomes available.")


@entity(db.Agent, where=AgentFilter, order=AgentOrder)
class Agent(Node):
    name: str
    type: str
    description: str | None
    status: AgentStatus
    is_active: bool
    prompt_template: str | None
    configuration: JSON
    max_concurrent_tasks: int
    last_seen_at: datetime | None
    cost: Decimal
    metadata: JSON = column(db.Agent.agent_metadata)
    version: int
    created_at: datetime
    updated_at: datetime
    project = related(db.Agent.project)
    model = related(db.Agent.model)
    tasks = connected(db.Agent.tasks)
    created_tasks = connected(db.Agent.created_tasks)
    conversations = connected(db.Agent.conversations)
    messages = connected(db.Agent.messages)
    access_tokens = connected(db.Agent.access_tokens)
    tools = listed(db.Agent.tools, most=MOST_TOOLS)
    attempts = connected(db.Agent.attempts)
    sent_communications = connected(db.Agent.sent_communications)
    received_communications = connected(db.Agent.received_communications)
    subscriptions = connected(db.Agent.subscriptions)
    interactions = connected(db.Agent.interactions)
    asked_interactions = connected(db.Agent.asked_interactions)
    usage_records = connected(db.Agent.usage_records)
    budgets = connected(db.Agent.budgets)
    history = history(db.Agent)
    why_idle = computed(
        Idle,
        readiness.why_idle,
        by=db.Agent.id,
        order=("code",),
        most=10,
        description="What keeps it from getting a task of its type now; empty if it could get one."
        f" If more than {idle.MOST_READ:,} such tasks are available, so many of them decide.",
    )


@strawberry.type
class Query:
    agent: Agent | None = one(db.Agent)
    agents: Connection[Agent] = collection(db.Agent)


@input_of(db.Agent)
class CreateAgentInput(Repeatable):
    """The agent to create."""

    id: ID[db.Agent] | None = None
    project_id: ID[db.Project]
    name: Name
    type: Line
    description: Text | None = None
    is_active: bool = True
    model_id: ID[db.AIModel] | None = None
    prompt_template: Text | None = None
    configuration: Metadata | None = None
    max_concurrent_tasks: Capacity = 1
    metadata: Metadata | None = None


@input_of(db.Agent)
class UpdateAgentInput(Versioned):
    """The changes to an agent. An omitted field stays as it is; null clears it."""

    id: ID[db.Agent]
    name: Maybe[Name] = None
    type: Maybe[Line] = None
    description: Maybe[Text | None] = None
    is_active: Maybe[bool] = None
    model_id: Maybe[ID[db.AIModel] | None] = None
    prompt_template: Maybe[Text | None] = None
    configuration: Maybe[Metadata] = None
    max_concurrent_tasks: Maybe[Capacity] = None
    metadata: Maybe[Metadata] = None


@input_of(db.Agent)
class DeleteAgentInput(Versioned):
    """The agent to delete."""

    id: ID[db.Agent]


@input_of(db.Agent)
class TransitionAgentInput(Versioned):
    """The new status of an agent."""

    id: ID[db.Agent]
    to: AgentStatus = Field(description="The new status.")


@strawberry.type
class Mutation:
    @mutation(Right.EDIT)
    async def create_agent(self, session: db.WriteSession, input: CreateAgentInput) -> db.Agent:
        """Create an agent of a project, with the status CREATED."""
        await session.fetch(db.Project, input.project_id, at=("project_id",), lock=False)
        await session.refer(db.Agent, new_values(input))
        return await db.Agent.create(session, **new_values(input))

    @mutation(Right.EDIT)
    async def update_agent(self, session: db.WriteSession, input: UpdateAgentInput) -> db.Agent:
        """Change an agent."""
        agent = await session.fetch(db.Agent, input.id, version=input.expected_version)
        await session.refer(db.Agent, changed_values(input))
        return await agent.update(session, **changed_values(input))

    @mutation(Right.EDIT)
    async def delete_agent(
        self, session: db.WriteSession, input: DeleteAgentInput
    ) -> Deleted[db.Agent]:
        """Delete an agent.

        Its tasks become unassigned. Its messages in conversations stay; its communications with
        other agents are deleted.
        """
        await terminations.delete_agent(session, input.id, version=input.expected_version)
        return Deleted(input.id)

    @mutation(Right.WORK)
    async def transition_agent(
        self, session: db.WriteSession, input: TransitionAgentInput
    ) -> db.Agent:
        """Change the status of an agent. An agent changes only its own.

        If it is TERMINATED, the tasks that are assigned to it become unassigned, and the messages
        that it has not acknowledged FAILED. To keep an agent from work whatever it says, set its
        `isActive` to false.
        """
        return await terminations.transition_agent(
            session, input.id, input.to, version=input.expected_version
        )
