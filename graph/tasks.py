"""Tasks and the dependencies between them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Any

import strawberry
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Uuid, exists, func, literal_column, or_, select
from sqlalchemy.orm import aliased
from strawberry import Maybe
from strawberry.scalars import JSON

import db
from db import BlockedReason, OnFailure, Right, TaskStatus, dependencies, plans, readiness
from db.claims import conditions
from db.events.topics import Topic
from db.parameters import apply, bind
from db.readiness import NotReadyReason, WaitReason
from db.tasks import MOST_RESOURCES
from graph.core.computed import computed, computed_type, keyed, value
from graph.core.connections import Connection
from graph.core.entities import Node, column, describe_enum, entity
from graph.core.fields import argument, collection, connected, one, related
from graph.core.filters import (
    BooleanFilter,
    DateTimeFilter,
    EnumFilter,
    IDFilter,
    IntFilter,
    StringFilter,
    contains,
    filters,
    keys,
    ordering,
    sorted_by,
    through,
)
from graph.core.history import history
from graph.core.inputs import Repeatable, Versioned, changed_values, input_of, new_values
from graph.core.mutations import mutation
from graph.core.payloads import Changed, Deleted
from graph.core.scalars import ID, Line, Metadata, Priority, Text, bare
from graph.core.updates import Update, at_start, changed, followed, update_type

describe_enum(NotReadyReason)
describe_enum(WaitReason)

Seconds = Annotated[int, Field(ge=0, le=2_000_000_000)]
Attempts = Annotated[int, Field(ge=1, le=1000)]
Resources = Annotated[list[Line], Field(max_length=MOST_RESOURCES)]


@filters(db.Task)
class TaskFilter:
    id: IDFilter | None
    title: StringFilter | None
    description: StringFilter | None
    type: StringFilter | None
    status: EnumFilter[TaskStatus] | None
    blocked_reason: EnumFilter[BlockedReason] | None
    priority: IntFilter | None
    unmet_dependency_count: IntFilter | None
    available_at: DateTimeFilter | None
    due_at: DateTimeFilter | None
    completed_at: DateTimeFilter | None
    created_at: DateTimeFilter | None
    updated_at: DateTimeFilter | None
    cancel_requested: BooleanFilter | None
    project_id: IDFilter | None
    parent_task_id: IDFilter | None
    agent_id: IDFilter | None
    project = through(db.Task.project)
    parent_task = through(db.Task.parent_task)
    agent = through(db.Task.agent)
    metadata_contains: JSON | None = contains(db.Task.task_metadata)


TaskOrder = ordering(
    db.Task, db.Task.created_at, db.Task.updated_at, db.Task.priority, db.Task.due_at
)


@computed_type
class TaskWait:
    """A task that another one waits for."""

    task = keyed(db.Task, "The task it waits for.")
    why: WaitReason = value("Why it waits for it.")
    on_failure: OnFailure | None = value("What happens if the task fails; null for a subtask.")
    is_met: bool = value("Whether it no longer waits for it.")


@computed_type
class NotReady:
    """A reason why a task cannot be claimed now."""

    code: NotReadyReason = value("The reason, for programs.")
    message: str = value("The reason, in a sentence for people.")
    task = keyed(db.Task, "The task that it waits for, or that uses a resource it names.")
    until: datetime | None = value("Until when; null if that is not known.")
    resource: str | None = value("The resource that is in use.")
    interaction = keyed(db.HumanInteraction, "The request that people have to answer.")


@entity(db.Task, where=TaskFilter, order=TaskOrder)
class Task(Node):
    title: str
    description: str | None
    type: str | None
    status: TaskStatus
    blocked_reason: BlockedReason | None
    priority: int
    acceptance_criteria: str | None
    resource_keys: list[str]
    input: JSON | None
    result: JSON | None
    error: JSON | None
    checkpoint: JSON | None
    available_at: datetime
    due_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    estimated_seconds: int | None
    unmet_dependency_count: int
    attempt_count: int
    max_attempts: int
    retry_backoff_seconds: int
    lease_expires_at: datetime | None
    cancel_requested: bool
    cost: Decimal
    total_cost: Decimal
    metadata: JSON = column(db.Task.task_metadata)
    version: int
    created_at: datetime
    updated_at: datetime
    project = related(db.Task.project)
    parent_task = related(db.Task.parent_task)
    subtasks = connected(db.Task.subtasks)
    agent = related(db.Task.agent)
    created_by_user = related(db.Task.created_by_user)
    created_by_agent = related(db.Task.created_by_agent)
    dependencies = connected(db.Task.dependencies)
    dependents = connected(db.Task.dependents)
    attempts = connected(db.Task.attempts)
    current_attempt = related(db.Task.current_attempt)
    communications = connected(db.Task.communications)
    interactions = connected(db.Task.interactions)
    usage_records = connected(db.Task.usage_records)
    budgets = connected(db.Task.budgets)
    history = history(db.Task)
    waits_for = computed(
        TaskWait,
        readiness.waits,
        by=db.Task.id,
        order=("is_met", "task_id", "why"),
        most=1000,
        description="What it waits for, or has waited for: its dependencies, those of the tasks"
        " above it, and its subtasks. What is not met comes first.",
    )
    why_not_ready = computed(
        NotReady,
        readiness.why_not_ready,
        by=db.Task.id,
        order=("number", "task_id", "interaction_id"),
        most=1000,
        description="All that keeps it from being claimed now; empty if it can be claimed.",
    )


@filters(db.TaskDependency)
class TaskDependencyFilter:
    on_failure: EnumFilter[OnFailure] | None
    dependent_id: IDFilter | None
    dependency_id: IDFilter | None
    dependent = through(db.TaskDependency.dependent)
    dependency = through(db.TaskDependency.dependency)


@entity(db.TaskDependency, where=TaskDependencyFilter)
class TaskDependency:
    on_failure: OnFailure
    dependent = related(db.TaskDependency.dependent)
    dependency = related(db.TaskDependency.dependency)


def _could_be_claimed(
    row: Any, viewer: db.Viewer, project_id: Any, agent_id: Any
) -> list[ColumnElement[bool]]:
    project = bind(apply(partial(keys, db.Project), project_id), Uuid)
    agent = None if agent_id is None else bind(apply(partial(keys, db.Agent), agent_id), Uuid)
    return [readiness.could_be_claimed(row, viewer, project, agent)]


@strawberry.type
class Query:
    task: Task | None = one(db.Task)
    tasks: Connection[Task] = collection(db.Task)
    ready_tasks: Connection[Task] = collection(
        db.Task,
        arguments=[
            argument("project_id", strawberry.ID, "The id of the project."),
            argument(
                "agent_id",
                strawberry.ID | None,
                "The id of an agent of the project; without, the tasks that some agent could take.",
            ),
        ],
        conditions=_could_be_claimed,
        sorted_by=sorted_by("URGENCY", db.Task.urgency),
        description="The tasks of a project that could be claimed now, by an agent if you name one:"
        " the most urgent first, then those that have been available for longest. A claim prefers"
        " tasks that are assigned to the agent. There are none if you may not see the project or"
        " the agent.",
    )


@update_type
class TaskUpdate(Update):
    """A change of a task, or of an attempt at it."""

    task = changed(db.Task, "The task as it is now; none if it was deleted.")


@update_type
class ReadyTaskUpdate(Update):
    """A task that became ready."""

    task = changed(db.Task, "The task as it is now.")
    tasks = at_start(
        db.Task,
        db.Task.project_id,
        conditions=lambda row, viewer: [_is_ready(row)],
        order="PRIORITY_DESC",
        description="The tasks that are ready; none in a message with an event.",
    )


def _is_ready(task: Any) -> ColumnElement[bool]:
    return or_(conditions.is_ready(task), conditions.is_ready(task, conditions.ASSIGNED))


# The columns that decide whether a task is ready.
READINESS: Any = literal_column("'{status,unmet_dependency_count,agent_id}'::text[]")


def _became_ready(event: Any, row: Any, viewer: db.Viewer) -> list[ColumnElement[bool]]:
    task = aliased(db.Task)
    is_ready = select(task.id).where(task.id == row.c.object_id, _is_ready(task))
    return [func.jsonb_exists_any(event.after, READINESS), exists(is_ready.correlate(row))]


@strawberry.type
class Subscription:
    task_updated: TaskUpdate = followed(
        TaskUpdate,
        lambda id: [Topic("Task", str(id)), Topic("TaskAttempt", parent_id=id)],
        model=db.Task,
        subject=db.Task,
        description="A task, and each change of it and of its attempts.",
    )
    task_ready: ReadyTaskUpdate = followed(
        ReadyTaskUpdate,
        lambda id: [Topic("Task", project_id=id)],
        model=db.Task,
        subject=db.Project,
        argument_name="project_id",
        conditions=_became_ready,
        description="The tasks of a project that are ready, and each that becomes ready: it waits"
        " for no other task. Whether an agent may claim it also depends on limits and times.",
    )


class TaskValues(BaseModel):
    """The fields that all inputs of new tasks share."""

    id: ID[db.Task] | None = None
    title: Line
    description: Text | None = None
    type: Line | None = None
    priority: Priority = 3
    acceptance_criteria: Text | None = None
    resource_keys: Resources = []
    input: JSON | None = None
    available_at: datetime | None = None
    due_at: datetime | None = None
    estimated_seconds: Seconds | None = None
    max_attempts: Attempts = 3
    retry_backoff_seconds: Seconds = 30
    metadata: Metadata | None = None


@input_of(db.Task)
class CreateTaskInput(TaskValues, Repeatable):
    """The task to create."""

    project_id: ID[db.Project]
    parent_task_id: ID[db.Task] | None = None
    agent_id: ID[db.Agent] | None = None
    depends_on: list[ID[db.Task]] = Field(
        default=[],
        description="The tasks it depends on. It is skipped if one of them fails, is cancelled or"
        " is skipped.",
    )


@input_of(db.TaskDependency)
class PlannedDependencyInput(BaseModel):
    """A dependency of a planned task."""

    on: str = Field(
        description="The task it depends on: a reference of this plan, or the id of a task."
    )
    on_failure: OnFailure = OnFailure.SKIP


@input_of(db.Task)
class PlannedTaskInput(TaskValues):
    """A task of a plan."""

    reference: Line | None = Field(
        default=None,
        description="A name of your choice, by which other tasks of this plan refer to it.",
    )
    parent: str | None = Field(
        default=None,
        description="Its parent task: a reference of this plan, or the id of a task.",
    )
    agent: str | None = Field(
        default=None,
        description="The agent it is assigned to: a reference of this plan, or the id of an agent.",
    )
    depends_on: list[PlannedDependencyInput] = Field(default=[], description="Its dependencies.")

    def planned(
        self, tasks: Collection[str | None], agents: Collection[str | None]
    ) -> plans.PlannedTask:
        """The task for `db.plans`. `tasks` and `agents` are the references in the plan."""

        def resolved(name: str, model: type, references: Collection[str | None]) -> str:
            return name if name in references else bare(name, model)

        return plans.PlannedTask(
            new_values(self),
            self.reference,
            self.parent and resolved(self.parent, db.Task, tasks),
            self.agent and resolved(self.agent, db.Agent, agents),
            [(resolved(each.on, db.Task, tasks), each.on_failure) for each in self.depends_on],
        )


@input_of()
class CreateTasksInput(Repeatable):
    """The tasks to create."""

    project_id: ID[db.Project] = Field(description="The project of the tasks.")
    tasks: Annotated[list[PlannedTaskInput], Field(min_length=1, max_length=1000)] = Field(
        description="The tasks, at most 1,000."
    )


@input_of(db.Task)
class UpdateTaskInput(Versioned):
    """The changes to a task. An omitted field stays as it is; null clears it."""

    id: ID[db.Task]
    title: Maybe[Line] = None
    description: Maybe[Text | None] = None
    type: Maybe[Line | None] = None
    priority: Maybe[Priority] = None
    acceptance_criteria: Maybe[Text | None] = None
    resource_keys: Maybe[Resources] = None
    input: Maybe[JSON | None] = None
    available_at: Maybe[datetime] = None
    due_at: Maybe[datetime | None] = None
    estimated_seconds: Maybe[Seconds | None] = None
    max_attempts: Maybe[Attempts] = None
    retry_backoff_seconds: Maybe[Seconds] = None
    metadata: Maybe[Metadata] = None
    parent_task_id: Maybe[ID[db.Task] | None] = None
    agent_id: Maybe[ID[db.Agent] | None] = None


@input_of(db.Task)
class DeleteTaskInput(Versioned):
    """The task to delete."""

    id: ID[db.Task]


@input_of(db.TaskDependency)
class AddTaskDependencyInput(Repeatable):
    """The dependency to add: `dependentId` waits for `dependencyId`."""

    dependent_id: ID[db.Task]
    dependency_id: ID[db.Task]
    on_failure: OnFailure = OnFailure.SKIP


@input_of(db.TaskDependency)
class RemoveTaskDependencyInput(Repeatable):
    """The dependency to remove."""

    dependent_id: ID[db.Task]
    dependency_id: ID[db.Task]


@strawberry.type
class Mutation:
    @mutation(Right.WORK)
    async def create_task(
        self, session: db.WriteSession, input: CreateTaskInput
    ) -> Changed[db.Task]:
        """Create a task, with the status ASSIGNED if it has an agent, else PENDING.

        An agent creates only subtasks of tasks that it is working on.
        """
        planned = plans.PlannedTask(
            new_values(input),
            parent=str(input.parent_task_id) if input.parent_task_id else None,
            agent=str(input.agent_id) if input.agent_id else None,
            depends_on=[(str(id), OnFailure.SKIP) for id in input.depends_on],
        )
        return Changed(await plans.add_task(session, input.project_id, planned))

    @mutation(Right.EDIT, reports_all=True)
    async def create_tasks(
        self, session: db.WriteSession, input: CreateTasksInput
    ) -> list[Changed[db.Task]]:
        """Create tasks with dependencies between them: all or, on an error, none."""
        references = {task.reference for task in input.tasks}
        planned = [task.planned(references, ()) for task in input.tasks]
        project = await session.fetch(db.Project, input.project_id, at=("project_id",))
        ids = await plans.add_tasks(session, project, planned)
        return [Changed(id) for id in ids]

    @mutation(Right.EDIT)
    async def update_task(
        self, session: db.WriteSession, input: UpdateTaskInput
    ) -> Changed[db.Task]:
        """Change a task. Its status cannot be set; it follows from the work on the task."""
        values = changed_values(input)
        return Changed(
            await plans.change_task(session, input.id, values, version=input.expected_version)
        )

    @mutation(Right.EDIT)
    async def delete_task(
        self, session: db.WriteSession, input: DeleteTaskInput
    ) -> Deleted[db.Task]:
        """Delete a task and its subtasks. Tasks that depend on them no longer do."""
        await dependencies.lock(session, input.id)
        task = await session.fetch(db.Task, input.id, version=input.expected_version)
        await dependencies.delete_task(session, task)
        return Deleted(task.id)

    @mutation(Right.EDIT)
    async def add_task_dependency(
        self, session: db.WriteSession, input: AddTaskDependencyInput
    ) -> db.Task:
        """Make a task depend on another task of its project. A cycle is an error."""
        dependent, dependency = await dependencies.lock_ends(
            session, input.dependent_id, input.dependency_id
        )
        await dependencies.add_dependency(session, dependent, dependency, input.on_failure)
        return dependent

    @mutation(Right.EDIT)
    async def remove_task_dependency(
        self, session: db.WriteSession, input: RemoveTaskDependencyInput
    ) -> db.Task:
        """Remove a dependency of a task on another."""
        dependent, dependency = await dependencies.lock_ends(
            session, input.dependent_id, input.dependency_id
        )
        await dependencies.remove_dependency(session, dependent, dependency)
        return dependent
