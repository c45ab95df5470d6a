"""Plans: a project with its agents and tasks, made in one piece."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import strawberry
from pydantic import BaseModel, Field
from strawberry.scalars import JSON

import db
from db import plans
from graph.agents import Capacity
from graph.context import Info
from graph.mutations import given, input_of, mutation
from graph.scalars import AgentID, AIModelID, Line, Metadata, ProjectID, Text
from graph.tasks import PlannedTaskInput
from graph.viewer import users_only


@input_of(db.Agent)
class PlannedAgentInput(BaseModel):
    """An agent of a plan."""

    reference: Line | None = Field(
        default=None, description="A name of your own, by which tasks of this plan refer to it."
    )
    id: AgentID | None = None
    name: Line
    type: Line
    description: Text | None = None
    model_id: AIModelID | None = None
    prompt_template: Text | None = None
    configuration: Metadata | None = None
    max_concurrent_tasks: Capacity = 1
    metadata: Metadata | None = None


@input_of(db.Project)
class CreateProjectPlanInput(BaseModel):
    """A project with all that belongs to its plan. Whoever makes it owns it."""

    id: ProjectID | None = None
    name: Line
    description: JSON | None = None
    metadata: Metadata | None = None
    agents: Annotated[list[PlannedAgentInput], Field(max_length=100)] = Field(
        default=[], description="Its agents, at most 100."
    )
    tasks: Annotated[list[PlannedTaskInput], Field(max_length=1000)] = Field(
        default=[], description="Its tasks, at most 1,000."
    )


@dataclass
class ProjectPlan:
    """What a plan made."""

    project: db.Project
    agents: list[db.Agent]
    tasks: list[db.Task]


@strawberry.type
class Mutation:
    @mutation(users_only)
    async def create_project_plan(self, info: Info, input: CreateProjectPlanInput) -> ProjectPlan:
        """Make a project in PLANNING with agents, tasks and the edges between them, all or none."""
        agents = [given(agent) for agent in input.agents]
        tasks = [task.planned(info.context.created_by) for task in input.tasks]
        async with info.context.write() as session:
            project = await db.Project.create(
                session,
                owner_id=session.viewer.user_id,
                status=db.ProjectStatus.PLANNING,
                **given(input),
            )
            references = [agent.reference for agent in input.agents]
            agent_ids, task_ids = await plans.add_plan(session, project, references, agents, tasks)
        return ProjectPlan(
            project,
            [db.Agent(id=id) for id in agent_ids],
            [db.Task(id=id) for id in task_ids],
        )
