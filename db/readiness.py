"""What tasks wait for, and how a project stands.

These functions make statements for one row, whose columns are the fields of what they compute.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Text,
    Uuid,
    and_,
    case,
    cast,
    column,
    exists,
    extract,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import aliased, join

from db import budget_room
from db.agents import Agent, is_working
from db.base import Timestamp, any_of, choice, constant
from db.budgets import Budget
from db.claims import idle
from db.claims.conditions import (
    ANY_TYPE,
    ASSIGNED,
    PENDING,
    ZERO,
    capacity,
    hands_out,
    has_room_for,
    is_available,
    kind,
    left_by_type,
    left_of_type,
    limits_types,
    resources_in_use,
    running,
    takes_more_reviews,
    uses_none_of,
)
from db.dependencies import holds_parent, is_met
from db.interactions import HumanInteraction, InteractionStatus
from db.parameters import correlated
from db.projects import Project
from db.rights import Right
from db.scopes import Viewer, scope
from db.tasks import (
    ENDED,
    TO_DO,
    UNSUCCESSFUL,
    BlockedReason,
    OnFailure,
    Task,
    TaskDependency,
    TaskStatus,
)


class WaitReason(StrEnum):
    """Why a task waits for another one."""

    DEPENDENCY = "DEPENDENCY"
    """It depends on it."""
    INHERITED = "INHERITED"
    """Its parent, or a task above that, depends on it."""
    SUBTASK = "SUBTASK"
    """It is its subtask."""


class NotReadyReason(StrEnum):
    """Why a task cannot be claimed now."""

    ENDED = "ENDED"
    """It has ended."""
    IN_PROGRESS = "IN_PROGRESS"
    """An agent is working on it."""
    APPROVAL = "APPROVAL"
    """It waits for a person's answer."""
    HELD = "HELD"
    """A person holds it."""
    EXTERNAL = "EXTERNAL"
    """It waits for something outside of Troupe."""
    DEPENDENCY = "DEPENDENCY"
    """It waits for another task."""
    BACKOFF = "BACKOFF"
    """It is not available yet, such as after a failed attempt."""
    PROJECT_NOT_IN_PROGRESS = "PROJECT_NOT_IN_PROGRESS"
    """Its project is paused, or not in progress for another reason."""
    PROJECT_LIMIT = "PROJECT_LIMIT"
    """A limit of the project: of tasks of its type, or of tasks in review."""
    WRONG_TYPE = "WRONG_TYPE"
    """No agent that is READY or ACTIVE is of its type. Still, a claim may name the type."""
    AGENT_NOT_ACTIVE = "AGENT_NOT_ACTIVE"
    """The agent that it is assigned to is neither READY nor ACTIVE, or its `isActive` is false."""
    AGENT_AT_CAPACITY = "AGENT_AT_CAPACITY"
    """Each agent that could take it has as many tasks in progress as it may."""
    BUDGET = "BUDGET"
    """A hard budget that concerns it has no room for another attempt."""
    RESOURCE_RESERVED = "RESOURCE_RESERVED"
    """It names a resource that a task in progress uses."""


def waits(viewer: Viewer, task_id: Any) -> Select[Any]:
    """What a task waits for, or has waited for: dependencies, those of its ancestors, subtasks."""
    above = func.task_lineage(task_id).table_valued(column("id", Uuid)).render_derived(name="above")
    dependency, subtask, edge = aliased(Task), aliased(Task), aliased(TaskDependency)
    own = edge.dependent_id == task_id
    dependencies = (
        select(
            dependency.id.label("task_id"),
            case(
                (own, constant(WaitReason.DEPENDENCY)), else_=constant(WaitReason.INHERITED)
            ).label("why"),
            edge.on_failure.label("on_failure"),
            is_met(dependency, edge).label("is_met"),
        )
        .select_from(above)
        .join(edge, edge.dependent_id == above.c.id)
        .join(dependency, dependency.id == edge.dependency_id)
        .where(scope(dependency, viewer))
    )
    subtasks = select(
        subtask.id,
        constant(WaitReason.SUBTASK),
        type_coerce(null(), choice(OnFailure)),
        ~holds_parent(subtask),
    ).where(subtask.parent_task_id == task_id, scope(subtask, viewer))
    both = (correlated(each, task_id) for each in (dependencies, subtasks))
    found = union_all(*both).subquery("awaited")
    return select(*found.c)


UNANSWERED = constant(InteractionStatus.PENDING)

NO_KEY, NO_TIME, NO_TEXT = cast(null(), Uuid), cast(null(), Timestamp), cast(null(), Text)


def why_not_ready(viewer: Viewer, task_id: Any) -> Select[Any]:
    """All that keeps a task from being claimed now; nothing if it can be claimed."""
    task, project, other = aliased(Task), aliased(Project), aliased(Task)
    budget, request = aliased(Budget), aliased(HumanInteraction)
    branches: list[Select[Any]] = []

    def because(
        reason: NotReadyReason,
        message: Any,
        *met: Any,
        beside: Any = None,
        about: Any = NO_KEY,
        until: Any = NO_TIME,
        resource: Any = NO_TEXT,
        interaction: Any = NO_KEY,
    ) -> None:
        columns = {
            "task_id": about,
            "until": until,
            "resource": resource,
            "interaction_id": interaction,
        }
        source = join(task, project, project.id == task.project_id)
        statement = (
            select(
                literal_column(str(len(branches)), Integer).label("number"),
                constant(reason).label("code"),
                message.label("message"),
                *(each.label(name) for name, each in columns.items()),
            )
            .select_from(source if beside is None else source.join(beside, true()))
            .where(task.id == task_id, scope(task, viewer), *met)
        )
        branches.append(correlated(statement, task_id))

    is_to_do = any_of(task.status, TO_DO)
    is_open = ~any_of(task.status, ENDED)
    status, reason = type_coerce(task.status, Text), NotReadyReason
    because(reason.ENDED, _text("It has ended: it is ") + status + _text("."), ~is_open)
    is_running = task.status == TaskStatus.IN_PROGRESS
    because(reason.IN_PROGRESS, _text("An agent is working on it."), is_running)
    asked = and_(request.task_id == task.id, request.blocks_task, request.status == UNANSWERED)
    is_asked = exists(select(request.id).where(asked, scope(request, viewer)).correlate(task))
    waits_for_people = task.blocked_reason == BlockedReason.HUMAN_INPUT
    because(
        reason.APPROVAL,
        _text("It waits for a person to answer."),
        waits_for_people,
        asked,
        scope(request, viewer),
        beside=request,
        until=request.expires_at,
        interaction=request.id,
    )
    because(
        reason.APPROVAL,
        _text(
            "It waits for a person, but no request is open any more. `transitionTask` releases it."
        ),
        waits_for_people,
        ~is_asked,
    )
    for code, blocked, message in (
        (reason.HELD, BlockedReason.MANUAL, "A person holds it. `transitionTask` releases it."),
        (reason.EXTERNAL, BlockedReason.EXTERNAL, "It waits for something outside of Troupe."),
    ):
        because(code, _text(message), task.blocked_reason == blocked)
    wait = waits(viewer, task_id).subquery("waits")
    because(
        reason.DEPENDENCY,
        _text("It waits for a task that is ")
        + type_coerce(other.status, Text)
        + case(
            (
                other.status == TaskStatus.FAILED,
                _text(": retry that task, complete it by hand, or remove the dependency."),
            ),
            (
                any_of(other.status, UNSUCCESSFUL),
                _text(": retry that task, or remove the dependency."),
            ),
            else_=_text("."),
        ),
        is_open,
        ~wait.c.is_met,
        other.id == wait.c.task_id,
        beside=join(wait, other, other.id == wait.c.task_id),
        about=other.id,
    )
    because(
        reason.BACKOFF,
        _text("It is not available yet."),
        is_to_do,
        ~is_available(task),
        until=task.available_at,
    )
    because(
        reason.PROJECT_NOT_IN_PROGRESS,
        _text("Its project is ") + type_coerce(project.status, Text) + _text("."),
        is_open,
        ~hands_out(project),
    )
    because(
        reason.PROJECT_LIMIT,
        _text("As many tasks of its project wait for people as may."),
        is_to_do,
        ~takes_more_reviews(project),
    )
    left = left_of_type(left_by_type(project.id, limits_types(project)), task.type)
    because(
        reason.PROJECT_LIMIT,
        _text("As many tasks of its type are in progress as may."),
        is_to_do,
        left <= 0,
    )

    def fitting(*conditions: Callable[[Any], Any]) -> Any:
        agent = aliased(Agent)
        fits = or_(
            and_(task.status == TaskStatus.ASSIGNED, agent.id == task.agent_id),
            and_(
                task.status == TaskStatus.PENDING,
                or_(kind(task) == ANY_TYPE, kind(task) == agent.type),
            ),
        )
        met = (condition(agent) for condition in conditions)
        found = select(agent.id).where(agent.project_id == task.project_id, fits, *met)
        return exists(found.correlate(task, project, budget))

    def has_room(agent: Any) -> Any:
        return running(agent.id) < capacity(agent, project)

    is_pending = task.status == TaskStatus.PENDING
    because(
        reason.WRONG_TYPE,
        case(
            (kind(task) == ANY_TYPE, _text("No agent of its project is READY or ACTIVE.")),
            else_=_text("No agent of its project that is READY or ACTIVE is of the type ")
            + task.type
            + _text(". Only a claim that names this type gets it."),
        ),
        is_pending,
        ~fitting(is_working),
    )
    because(
        reason.AGENT_NOT_ACTIVE,
        _text("The agent that it is assigned to is neither READY nor ACTIVE."),
        task.status == TaskStatus.ASSIGNED,
        ~fitting(is_working),
    )
    because(
        reason.AGENT_AT_CAPACITY,
        _text("Each agent that could take it has as many tasks in progress as it may."),
        fitting(is_working),
        ~fitting(is_working, has_room),
    )

    def may_spend(agent: Any) -> Any:
        return budget_room.has_room(agent.project_id, agent)

    because(
        reason.BUDGET,
        budget_room.in_words(budget),
        is_to_do,
        scope(budget, viewer),
        budget.project_id == task.project_id,
        budget_room.is_full(budget),
        case(
            # A budget of an agent or a model matters if no agent could take the task without it.
            (
                or_(budget.agent_id.is_not(None), budget.model_name.is_not(None)),
                and_(
                    fitting(is_working, has_room, lambda agent: budget_room.is_for(budget, agent)),
                    ~fitting(is_working, has_room, may_spend),
                ),
            ),
            else_=or_(budget.task_id.is_(None), func.is_in_task_tree(task.id, budget.task_id)),
        ),
        beside=budget,
        until=budget.period_ends_at,
    )
    name = func.unnest(task.resource_keys).table_valued("name", name="names")
    shared = select(func.min(name.c.name)).where(name.c.name == func.any(other.resource_keys))
    because(
        reason.RESOURCE_RESERVED,
        _text("It names a resource that a task in progress uses."),
        is_to_do,
        other.project_id == task.project_id,
        other.status == constant(TaskStatus.IN_PROGRESS),
        other.resource_keys != literal_column("'{}'"),  # as the index has it
        other.resource_keys.op("&&", is_comparison=True)(task.resource_keys),
        beside=other,
        about=other.id,
        resource=shared.correlate(task, other).scalar_subquery(),
    )
    found = union_all(*branches).subquery("reasons")
    return select(*found.c)


def _text(text: str) -> Any:
    return literal_column(f"'{text}'", Text)


def could_be_claimed(
    task: Any, viewer: Viewer, project_id: Any, agent_id: Any = None
) -> ColumnElement[bool]:
    """Whether a task of a project could be claimed now, by an agent if one is given.

    What concerns the agent and the project is found once, and not for each task. PostgreSQL reads
    a page in the order of `Task.urgency`, from the index: CASE keeps it from reading the tasks of
    a type and those of an agent from other indexes, and sorting them.
    """
    agent, project = aliased(Agent), aliased(Project)
    able = select(project.id).where(
        project.id == project_id,
        scope(project, viewer),
        hands_out(project),
        takes_more_reviews(project),
        budget_room.has_room(project.id),
    )
    fits: ColumnElement[bool] = true()
    if agent_id is not None:
        able = able.join(agent, agent.project_id == project.id).where(
            agent.id == agent_id,
            is_working(agent),
            running(agent.id) < capacity(agent, project),
            budget_room.has_room(project.id, agent),
        )
        own_type = able.with_only_columns(agent.type).scalar_subquery()
        is_own = task.agent_id == agent_id
        fits = case(
            (task.status == ASSIGNED, is_own),
            else_=or_(kind(task) == ANY_TYPE, kind(task) == own_type),
        )
    limits = able.with_only_columns(left_by_type(project.id, limits_types(project)))
    return and_(
        exists(able),
        task.project_id == project_id,
        task.status.in_([PENDING, ASSIGNED]),
        task.unmet_dependency_count == ZERO,
        fits,
        is_available(task),
        uses_none_of(task, resources_in_use(project_id)),
        has_room_for(limits.scalar_subquery(), task.type),
        budget_room.is_outside(task.id, budget_room.full_tasks(project_id).scalar_subquery()),
    )


def why_idle(viewer: Viewer, agent_id: Any) -> Select[Any]:
    """Why an agent gets no task of its type; nothing if it could get one."""
    reason = idle.why_idle(viewer, Right.VIEW, agent_id, array([ANY_TYPE, Agent.type]))
    found = correlated(reason, agent_id).subquery("idle").c
    return select(found.code, found.message, found.available_at.label("until"))


LONGEST_AGE = 2_000_000_000
"""The largest age that is told, in seconds."""


def stats(viewer: Viewer, project_id: Any) -> Select[Any]:
    """The numbers of a project's tasks. It reads each of them once."""
    now = func.statement_timestamp()
    is_free = and_(any_of(Task.status, TO_DO), Task.unmet_dependency_count == 0)
    is_ready = and_(is_free, Task.available_at <= now)
    is_done = Task.status == TaskStatus.COMPLETED

    def number(*met: Any) -> Any:
        return func.count().filter(and_(true(), *met))

    def done_in(period: str) -> Any:
        since = now - literal_column(f"interval '1 {period}'")
        return number(is_done, Task.completed_at >= since)

    age = extract("epoch", now - func.min(Task.available_at).filter(is_ready))
    columns = {
        **{status.lower(): number(Task.status == status) for status in TaskStatus},
        "total": func.count(),
        "waiting": number(any_of(Task.status, TO_DO), Task.unmet_dependency_count > 0),
        "ready": number(is_ready),
        "blocked_on_people": number(Task.blocked_reason == BlockedReason.HUMAN_INPUT),
        **{f"completed_last_{period}": done_in(period) for period in ("hour", "day", "week")},
        # A time may lie so far back that the seconds since then are too many for an Int.
        "oldest_ready_seconds": cast(
            case((age > LONGEST_AGE, LONGEST_AGE), else_=func.floor(age)), Integer
        ),
    }
    project = aliased(Project)
    counted = select(*(each.label(name) for name, each in columns.items())).where(
        Task.project_id == project.id
    )
    found = counted.correlate(project).lateral("counted")
    return (
        select(*found.c)
        .select_from(project)
        .join(found, true())
        .where(project.id == project_id, scope(project, viewer))
    )
