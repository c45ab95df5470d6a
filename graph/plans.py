"""Plans: a project with its agents, tools and tasks, created in one mutation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import strawberry
from pydantic import BaseModel, Field
from strawberry.scalars import JSON

import db
from db import Right, plans
from graph.agents import Capacity
from graph.core.inputs import Repeatable, input_of, new_values
from graph.core.mutations import mutation
from graph.core.payloads import Changed
from graph.core.scalars import ID, Line, Metadata, Name, Text, bare
from graph.tasks import PlannedTaskInput
from graph.tools import ToolValues


@input_of(db.Tool)
class PlannedToolInput(ToolValues):
    """A tool of a plan. It belongs to the plan's project."""

    reference: Line | None = Field(
        default=None, description="A name of your choice, by which agents of this plan refer to it."
    )


@input_of(db.Agent)
class PlannedAgentInput(BaseModel):
    """An agent of a plan."""

    reference: Line | None = Field(
        default=None, description="A name of your choice, by which tasks of this plan refer to it."
    )
    id: ID[db.Agent] | None = None
    name: Name
    type: Line
    description: Text | None = None
    model_id: ID[db.AIModel] | None = None
    prompt_template: Text | None = None
    configuration: Metadata | None = None
    max_concurrent_tasks: Capacity = 1
    metadata: Metadata | None = None
    tools: Annotated[list[str], Field(max_length=100)] = Field(
        default=[],
        description="Its tools: references of this plan, or ids of tools that all projects share.",
    )


@input_of(db.Project)
class CreateProjectPlanInput(Repeatable):
    """The project to create, with its agents, tools and tasks. You become its owner."""

    id: ID[db.Project] | None = None
    name: Name
    description: JSON | None = None
    metadata: Metadata | None = None
    agents: Annotated[list[PlannedAgentInput], Field(max_length=100)] = Field(
        default=[], description="Its agents, at most 100."
    )
    tools: Annotated[list[PlannedToolInput], Field(max_length=100)] = Field(
        default=[], description="Its own tools, at most 100."
    )
    tasks: Annotated[list[PlannedTaskInput], Field(max_length=1000)] = Field(
        default=[], description="Its tasks, at most 1,000."
    )


@dataclass
class ProjectPlan:
    """The project and its new agents, tools and tasks."""

    project: db.Project
    agents: list[Changed[db.Agent]]
    tools: list[Changed[db.Tool]]
    tasks: list[Changed[db.Task]]


@strawberry.type
class Mutation:
    @mutation(Right.USE, reports_all=True)
    async def create_project_plan(
        self, session: db.WriteSession, input: CreateProjectPlanInput
    ) -> ProjectPlan:
        """Create a project, with the status PLANNING, and its agents, tools and tasks.

        On an error, nothing is created.
        """
        tool_references = {tool.reference for tool in input.tools}
        agents = [
            plans.PlannedAgent(
                new_values(agent),
                agent.reference,
                [tool if tool in tool_references else bare(tool, db.Tool) for tool in agent.tools],
            )
            for agent in input.agents
        ]
        tools = [plans.PlannedTool(new_values(tool), tool.reference) for tool in input.tools]
        references = {task.reference for task in input.tasks}, {agent.reference for agent in agents}
        tasks = [task.planned(*references) for task in input.tasks]
        project = await db.Project.create(
            session,
            owner_id=session.viewer.user_id,
            status=db.ProjectStatus.PLANNING,
            **new_values(input),
        )
        added = await plans.add_plan(session, project, agents, tools, tasks)
        agent_ids, tool_ids, task_ids = added
        return ProjectPlan(
            project,
            [Changed(id) for id in agent_ids],
            [Changed(id) for id in tool_ids],
            [Changed(id) for id in task_ids],
        )
