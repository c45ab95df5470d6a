"""Projects: the work of a team of agents."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import strawberry
from pydantic import AfterValidator, Field
from strawberry import Maybe
from strawberry.scalars import JSON

import db
from db import ProjectStatus, Right, conversations, obstacles
from db.events.topics import Topic
from db.obstacles import StuckReason
from graph.core.computed import computed, computed_type, keyed, value
from graph.core.connections import Connection
from graph.core.entities import Node, column, describe_enum, entity
from graph.core.fields import collection, connected, one, related
from graph.core.filters import (
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
from graph.core.scalars import ID, Metadata, Name
from graph.core.updates import Update, changed, followed, update_type

describe_enum(StuckReason)

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


def _counts(value: Any) -> Any:
    for count in value.values():
        if type(count) is not int or not 0 <= count <= 1_000_000_000:
            raise ValueError('these must be whole numbers by type, such as {"deploy": 1}')
    if any(not type.strip() for type in value):
        raise ValueError("name each type; tasks without a type cannot be limited")
    return value


ByType = Annotated[Metadata, AfterValidator(_counts)]


@filters(db.Project)
class ProjectFilter:
    id: IDFilter | None
    name: StringFilter | None
    status: EnumFilter[ProjectStatus] | None
    created_at: DateTimeFilter | None
    updated_at: DateTimeFilter | None
    owner_id: IDFilter | None
    owner = through(db.Project.owner)
    metadata_contains: JSON | None = contains(db.Project.project_metadata)


ProjectOrder = ordering(db.Project, db.Project.created_at, db.Project.updated_at, db.Project.name)


@computed_type
class Stuck:
    """A reason why tasks of a project do not go on until somebody does something."""

    code: StuckReason = value("The reason, for programs.")
    message: str = value("The reason, in a sentence for people.")
    task = keyed(db.Task, "The task that failed, is held and so on, or that a budget is for.")
    type: str | None = value(
        "The type of the tasks, if no agent takes it or no task of it may run."
    )
    agent = keyed(db.Agent, "The agent that the tasks are assigned to, or that a budget is for.")
    budget = keyed(db.Budget, "The budget that is used up.")
    until: datetime | None = value("When the budget begins anew; else null.")
    task_count: int | None = value(
        "How many tasks do not go on because of it, those included that wait for others of them; at"
        f" most {obstacles.MOST_COUNTED:,} are counted. Null for the whole project and for budgets."
    )


@entity(db.Project, where=ProjectFilter, order=ProjectOrder)
class Project(Node):
    name: str
    description: JSON | None
    status: ProjectStatus
    max_tasks_per_agent: int | None
    max_tasks_in_review: int | None
    max_tasks_by_type: JSON
    cost: Decimal
    metadata: JSON = column(db.Project.project_metadata)
    version: int
    created_at: datetime
    updated_at: datetime
    owner = related(db.Project.owner)
    agents = connected(db.Project.agents)
    tasks = connected(db.Project.tasks)
    conversations = connected(db.Project.conversations)
    members = connected(db.Project.members)
    tools = connected(db.Project.tools)
    communications = connected(db.Project.communications)
    interactions = connected(db.Project.interactions)
    usage_records = connected(db.Project.usage_records)
    budgets = connected(db.Project.budgets)
    webhooks = connected(db.Project.webhooks)
    history = history(db.Project)
    why_stuck = computed(
        Stuck,
        obstacles.why_stuck,
        by=db.Project.id,
        order=("number", "type", "task_id", "agent_id", "budget_id"),
        most=obstacles.MOST,
        description="What keeps tasks of it from going on until somebody does something; empty if"
        " each goes on by itself, waits for an answer of a person, or waits for such a task, and if"
        " the project has ended. If more than"
        f" {obstacles.MOST_READ:,} tasks were cancelled, skipped or are blocked, so many of each"
        " decide.",
    )


@strawberry.type
class Query:
    project: Project | None = one(db.Project)
    projects: Connection[Project] = collection(db.Project)


@update_type
class ProjectUpdate(Update):
    """A change of anything in a project."""

    project = changed(db.Project, "The project as it is now; none if it was deleted.")


@strawberry.type
class Subscription:
    project: ProjectUpdate = followed(
        ProjectUpdate,
        lambda id: [Topic(project_id=id)],
        model=db.Project,
        subject=db.Project,
        description="A project, and each change of anything in it.",
    )


@input_of(db.Project)
class CreateProjectInput(Repeatable):
    """The project to create. You become its owner."""

    id: ID[db.Project] | None = None
    name: Name
    description: JSON | None = None
    max_tasks_per_agent: Count | None = None
    max_tasks_in_review: Count | None = None
    max_tasks_by_type: ByType | None = None
    metadata: Metadata | None = None


@input_of(db.Project)
class UpdateProjectInput(Versioned):
    """The changes to a project. An omitted field stays as it is; null clears it."""

    id: ID[db.Project]
    name: Maybe[Name] = None
    description: Maybe[JSON | None] = None
    metadata: Maybe[Metadata] = None
    owner_id: Maybe[ID[db.User] | None] = None
    max_tasks_per_agent: Maybe[Count | None] = None
    max_tasks_in_review: Maybe[Count | None] = None
    max_tasks_by_type: Maybe[ByType] = None


@input_of(db.Project)
class DeleteProjectInput(Versioned):
    """The project to delete."""

    id: ID[db.Project]


@input_of(db.Project)
class TransitionProjectInput(Versioned):
    """The new status of a project."""

    id: ID[db.Project]
    to: ProjectStatus = Field(description="The new status.")


@strawberry.type
class Mutation:
    @mutation(Right.USE)
    async def create_project(
        self, session: db.WriteSession, input: CreateProjectInput
    ) -> db.Project:
        """Create a project, with the status DRAFT."""
        owner = session.viewer.user_id
        return await db.Project.create(session, owner_id=owner, **new_values(input))

    @mutation(Right.EDIT)
    async def update_project(
        self, session: db.WriteSession, input: UpdateProjectInput
    ) -> db.Project:
        """Change a project. Only its owners can change `ownerId`."""
        # The new owner also becomes a member with the role OWNER.
        right = Right.EDIT if input.owner_id is None else Right.OWN
        project = await session.fetch(
            db.Project, input.id, version=input.expected_version, right=right
        )
        await session.refer(db.Project, changed_values(input))
        return await project.update(session, **changed_values(input))

    @mutation(Right.OWN)
    async def delete_project(
        self, session: db.WriteSession, input: DeleteProjectInput
    ) -> Deleted[db.Project]:
        """Delete a project with its members, agents, tools, tasks, communications, interactions,
        conversations and usage records.
        """
        project = await session.fetch(db.Project, input.id, version=input.expected_version)
        await conversations.lock_all(session, db.Conversation.project_id == project.id)
        await project.delete(session)
        return Deleted(project.id)

    @mutation(Right.EDIT)
    async def transition_project(
        self, session: db.WriteSession, input: TransitionProjectInput
    ) -> db.Project:
        """Change the status of a project."""
        project = await session.fetch(db.Project, input.id, version=input.expected_version)
        project.transition(input.to)
        return project
