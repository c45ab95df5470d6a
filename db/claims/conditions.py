"""What an agent can claim: one condition each.

The conditions are SQL on models, or on aliases of them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Function,
    Integer,
    String,
    and_,
    case,
    cast,
    func,
    literal_column,
    not_,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import aliased

from db.parameters import constant
from db.projects import ProjectStatus
from db.tasks import BlockedReason, Task, TaskStatus

PENDING, ASSIGNED = constant(TaskStatus.PENDING), constant(TaskStatus.ASSIGNED)
HUMAN_INPUT = constant(BlockedReason.HUMAN_INPUT)
ZERO = literal_column("0", Integer)
ANY_TYPE = literal_column("''", String)
"""The type of a task without a type, which every agent takes."""

PRIORITIES: tuple[ColumnElement[int], ...] = tuple(map(literal_column, ("5", "1", "-1")))
"""From the most urgent to the least."""


def levels() -> Any:
    """The priorities as rows, in this order."""
    return func.generate_series(*PRIORITIES).table_valued("priority").render_derived(name="level")


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
    count = count.where(task.project_id == project.id, is_in_review(task)).correlate_except(task)
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


def resources_in_use(project_id: Any) -> Function[Any]:
    """The resources that tasks in progress of a project use, as the statement sees them."""
    task = aliased(Task)
    used = select(func.unnest(task.resource_keys)).where(
        task.project_id == project_id,
        task.status == constant(TaskStatus.IN_PROGRESS),
        task.resource_keys != literal_column("'{}'"),
    )
    used = used.correlate_except(task)
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
