"""What an agent can claim, and why it gets nothing: one condition each.

The conditions are SQL on models, or on aliases of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Executable,
    Function,
    Integer,
    Select,
    String,
    Uuid,
    and_,
    case,
    cast,
    column,
    exists,
    func,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import aliased

from db import budgets
from db.agents import Agent, AgentStatus
from db.projects import Project, ProjectStatus
from db.rights import Right
from db.scopes import Viewer, scope
from db.sessions import WriteSession
from db.statements import Statement, value
from db.tasks import BlockedReason, Task, TaskStatus


class IdleReason(StrEnum):
    """Why an agent gets no task."""

    AGENT_NOT_ACTIVE = "AGENT_NOT_ACTIVE"
    """The agent is neither READY nor ACTIVE, or `isActive` is false."""
    PROJECT_NOT_IN_PROGRESS = "PROJECT_NOT_IN_PROGRESS"
    """The project is paused, or not in progress for another reason."""
    AGENT_AT_CAPACITY = "AGENT_AT_CAPACITY"
    """The agent has `maxConcurrentTasks` tasks in progress."""
    PROJECT_LIMIT = "PROJECT_LIMIT"
    """A limit of the project: of tasks per agent, of tasks of a type, or of tasks in review."""
    BUDGET = "BUDGET"
    """A hard budget has no room for the tasks that are ready."""
    RESOURCE_RESERVED = "RESOURCE_RESERVED"
    """The tasks that are ready name resources that tasks in progress use."""
    BACKOFF = "BACKOFF"
    """The tasks that are ready are not available yet, such as after a failed attempt."""
    WRONG_TYPE = "WRONG_TYPE"
    """The tasks that are ready are of other types, or assigned to other agents."""
    NOTHING_READY = "NOTHING_READY"
    """No task is ready: all wait for others or for people, are in progress, or have ended."""


def constant(member: StrEnum) -> ColumnElement[str]:
    """A member of an enum as a constant, not as a parameter: a partial index needs that."""
    return literal_column(f"'{member}'", String)


PENDING, ASSIGNED = constant(TaskStatus.PENDING), constant(TaskStatus.ASSIGNED)
HUMAN_INPUT = constant(BlockedReason.HUMAN_INPUT)
ZERO = literal_column("0", Integer)
ANY_TYPE = literal_column("''", String)
"""The type of a task without a type, which every agent takes."""

INFINITE = 1_000_000_000

WORKING = (AgentStatus.READY, AgentStatus.ACTIVE)
"""The statuses of an agent that gets tasks."""


def is_working(agent: Any) -> ColumnElement[bool]:
    """Whether an agent gets tasks."""
    return and_(agent.is_active, agent.status.in_([constant(each) for each in WORKING]))


def hands_out(project: Any) -> ColumnElement[bool]:
    """Whether the tasks of a project are handed out."""
    return project.status == constant(ProjectStatus.IN_PROGRESS)  # type: ignore[no-any-return]


def capacity(agent: Any, project: Any) -> ColumnElement[int]:
    """How many tasks an agent may have in progress."""
    return func.least(agent.max_concurrent_tasks, project.max_tasks_per_agent)


def running(agent_id: Any) -> Function[int]:
    """How many tasks an agent has in progress, those included that were committed just now."""
    return func.running_tasks(agent_id, type_=Integer)


def is_in_review(task: Any) -> ColumnElement[bool]:
    """Whether a task waits for a person."""
    return task.blocked_reason == HUMAN_INPUT  # type: ignore[no-any-return]


def takes_more_reviews(project: Any) -> ColumnElement[bool]:
    """Whether fewer tasks of a project wait for people than may."""
    task = aliased(Task)
    count = select(func.count()).select_from(task)
    count = count.where(task.project_id == project.id, is_in_review(task))
    most = project.max_tasks_in_review
    return or_(most.is_(None), count.scalar_subquery() < most)


def is_ready(task: Any, status: ColumnElement[Any] = PENDING) -> ColumnElement[bool]:
    """Whether a task has this status, and waits for no other."""
    return and_(task.status == status, task.unmet_dependency_count == ZERO)


def is_available(task: Any) -> ColumnElement[bool]:
    """Whether the time has come from which on a task can be started."""
    return task.available_at <= func.statement_timestamp()  # type: ignore[no-any-return]


def kind(task: Any) -> ColumnElement[str]:
    """The type of a task, as the index has it."""
    return func.coalesce(task.type, ANY_TYPE)


def has_free_resources(task: Any) -> ColumnElement[bool]:
    """Whether no task in progress uses a resource that a task names."""
    in_use = func.resources_in_use(task.project_id, task.resource_keys)
    return or_(task.resource_keys == literal_column("'{}'"), ~in_use)


def resources_in_use(project_id: Any) -> Function[Any]:
    """The resources that tasks in progress of a project use, as the statement sees them."""
    task = aliased(Task)
    used = select(func.unnest(task.resource_keys)).where(
        task.project_id == project_id,
        task.status == constant(TaskStatus.IN_PROGRESS),
        task.resource_keys != literal_column("'{}'"),
    )
    return func.array(used.scalar_subquery(), type_=Task.resource_keys.type)


def uses_none_of(task: Any, resources: Any) -> ColumnElement[bool]:
    """Whether a task uses none of these resources."""
    uses: ColumnElement[bool] = task.resource_keys.op("&&", is_comparison=True)(resources)
    return not_(uses)


def reserves_resources(task: Any) -> ColumnElement[bool]:
    """The same, and no other claim can find so until the transaction ends."""
    reserved = func.reserve_resources(task.project_id, task.resource_keys)
    return or_(task.resource_keys == literal_column("'{}'"), reserved)


def left_of_type(left: Any, type: Any) -> ColumnElement[int]:
    """How many more tasks of a type may be in progress; NULL is no limit.

    `left` is what the function `left_by_type` of the database returns.
    """
    return cast(left.op("->>")(type), Integer)


def limits_types(project: Any) -> ColumnElement[bool]:
    """Whether a project limits how many tasks of a type may be in progress."""
    return project.max_tasks_by_type != literal_column("'{}'", JSONB)  # type: ignore[no-any-return]


def left_by_type(project_id: Any, has_limits: Any) -> ColumnElement[Any]:
    """How many more tasks of each type may be in progress; NULL without limits."""
    return case((has_limits, func.left_by_type(project_id, type_=JSONB)))


def has_room_for(left: Any, type: Any) -> ColumnElement[bool]:
    """Whether one more task of a type may be in progress."""
    number = left_of_type(left, type)
    return or_(number.is_(None), number > ZERO)


class Idle(NamedTuple):
    """Why an agent gets nothing, in words too, and when a task that is ready becomes available."""

    reason: IdleReason
    message: str
    available_at: datetime | None = None


@Statement
def _idle(viewer: Viewer, right: Right) -> Executable:
    return idle_reason(viewer, right, value("agent_id", Uuid), value("types", ARRAY(String)))


def idle_reason(viewer: Viewer, right: Right, agent_id: Any, types: Any) -> Select[Any]:
    """Why an agent gets no task of these types; the reason is NULL if it can claim something."""
    task = aliased(Task)
    pending = and_(task.project_id == Agent.project_id, is_ready(task))
    fitting = and_(pending, kind(task) == func.any(types))
    assigned = and_(task.agent_id == Agent.id, is_ready(task, ASSIGNED))
    runs = running(Agent.id).table_valued(column("running", Integer))
    runs = runs.render_derived(name="runs")
    limits = func.left_by_type(Project.id).table_valued(column("left", JSONB))
    limits = limits.render_derived(name="limits")
    has_room, count = has_room_for(limits.c.left, task.type), runs.c.running
    in_review = ~takes_more_reviews(Project)
    full = budgets.full_tasks(Project.id).correlate(Project).lateral("full")

    def some(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        found = (select(task.id).where(each, *conditions) for each in (fitting, assigned))
        return or_(*(exists(each.correlate(Agent, limits, full)) for each in found))

    is_startable = is_available(task), has_free_resources(task)
    is_outside = budgets.is_outside(task.id, full.c.ids)

    available = func.least(
        *(
            select(func.min(task.available_at)).where(each).correlate(Agent).scalar_subquery()
            for each in (fitting, assigned)
        )
    )
    reason = case(
        (~is_working(Agent), constant(IdleReason.AGENT_NOT_ACTIVE)),
        (~hands_out(Project), constant(IdleReason.PROJECT_NOT_IN_PROGRESS)),
        (count >= Agent.max_concurrent_tasks, constant(IdleReason.AGENT_AT_CAPACITY)),
        (count >= capacity(Agent, Project), constant(IdleReason.PROJECT_LIMIT)),
        (in_review, constant(IdleReason.PROJECT_LIMIT)),
        (
            and_(budgets.has_room(Project.id, Agent), some(*is_startable, has_room, is_outside)),
            null(),
        ),
        (some(*is_startable, has_room), constant(IdleReason.BUDGET)),
        (some(*is_startable), constant(IdleReason.PROJECT_LIMIT)),
        (some(is_available(task)), constant(IdleReason.RESOURCE_RESERVED)),
        (some(), constant(IdleReason.BACKOFF)),
        (
            exists(select(task.id).where(pending).correlate(Agent)),
            constant(IdleReason.WRONG_TYPE),
        ),
        else_=constant(IdleReason.NOTHING_READY),
    )
    later = case((reason == constant(IdleReason.BACKOFF), available))
    facts = (
        count,
        Agent.status,
        Agent.is_active,
        Agent.max_concurrent_tasks,
        Agent.type,
        Project.status.label("project_status"),
        Project.max_tasks_per_agent,
        in_review.label("in_review"),
    )
    return (
        select(reason.label("reason"), *facts, later.label("available_at"))
        .join(Project, Project.id == Agent.project_id)
        .join(runs, true())
        .join(limits, true())
        .join(full, true())
        .where(Agent.id == agent_id, scope(Agent, viewer, right))
    )


def _words(found: Any, types: Sequence[str]) -> str:
    """A sentence for a reason: what is the case, and what to do."""
    match found.reason:
        case IdleReason.AGENT_NOT_ACTIVE if not found.is_active:
            return "This agent is not active: set isActive to let it work."
        case IdleReason.AGENT_NOT_ACTIVE:
            return (
                f"This agent is {found.status}. Agents get tasks while they are"
                f" {' or '.join(WORKING)}; transitionAgent changes the status."
            )
        case IdleReason.PROJECT_NOT_IN_PROGRESS:
            return f"The project is {found.project_status}. Tasks are handed out IN_PROGRESS only."
        case IdleReason.AGENT_AT_CAPACITY:
            most = found.max_concurrent_tasks
            return (
                f"This agent works on as many tasks as it may at once: {found.running} of {most}."
            )
        case IdleReason.PROJECT_LIMIT if found.in_review:
            return "As many tasks of the project wait for people as may (maxTasksInReview)."
        case IdleReason.PROJECT_LIMIT if found.running >= (found.max_tasks_per_agent or INFINITE):
            most = found.max_tasks_per_agent
            return f"This agent works on as many tasks as its project allows: {most}."
        case IdleReason.PROJECT_LIMIT:
            return "As many tasks of these types are in progress as the project allows."
        case IdleReason.BUDGET:
            return "The tasks that are ready wait for room in a hard budget. Try again."
        case IdleReason.RESOURCE_RESERVED:
            return "The tasks that are ready need resources that tasks in progress use."
        case IdleReason.BACKOFF:
            return "The tasks that are ready are not available yet; availableAt is the first time."
        case IdleReason.WRONG_TYPE:
            kinds = ", ".join(repr(each) for each in types)
            return f"Tasks are ready, but none is of the type {kinds}, or without a type."
        case _:
            return "No task is ready: all wait, are in progress, or have ended."


async def idle(session: WriteSession, agent_id: UUID, types: Sequence[str] | None) -> Idle | None:
    """Why an agent gets nothing; None if there is something. Raises NotFound and Denied."""
    agent = await session.fetch(Agent, agent_id, at=("agent_id",), lock=False)
    kinds = [agent.type] if types is None else list(types)
    rows = await session.run(_idle, session.right, agent_id=agent_id, types=["", *kinds])
    (found,) = rows
    if found.reason is None:
        return None
    return Idle(IdleReason(found.reason), _words(found, kinds), found.available_at)
