"""Why tasks of a project do not go on until somebody does something.

A task that waits for others waits in the end for one that does not wait: one that is ready or in
progress, that people are asked about, or that has ended without success. So it is enough to find
the ones that do not move by themselves, and to count what waits for each. They are found by
indexes, however many tasks wait.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Select,
    String,
    Text,
    Uuid,
    and_,
    case,
    cast,
    column,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.orm import aliased, join

from db import budget_room
from db.agents import Agent, is_working
from db.base import Timestamp, any_of, constant
from db.budgets import Budget
from db.claims.conditions import ANY_TYPE, ASSIGNED, PENDING, ZERO, hands_out, is_ready, kind
from db.interactions import HumanInteraction, InteractionStatus
from db.parameters import correlated
from db.projects import Project, ProjectStatus
from db.scopes import Viewer, scope
from db.tasks import BlockedReason, Task, TaskStatus

MOST = 100
"""How many obstacles are found at most."""

MOST_COUNTED = 1_000
"""How many tasks are counted at most that an obstacle keeps from going on."""

MOST_READ = 10_000
"""How many tasks of a status, and how many that may wait for them, are read at most."""

FEW_DEPENDENTS = 100
"""At how many dependents of each of them it is looked first, to find one that waits."""

OVER = (ProjectStatus.COMPLETED, ProjectStatus.CANCELLED, ProjectStatus.ARCHIVED)
"""The statuses of projects in which nothing is to go on."""


class StuckReason(StrEnum):
    """Why tasks do not go on until somebody does something."""

    PROJECT_NOT_IN_PROGRESS = "PROJECT_NOT_IN_PROGRESS"
    """Tasks are ready, but the project has not been started, or is paused."""
    BUDGET = "BUDGET"
    """Tasks are ready, but a hard budget is used up."""
    NO_AGENT = "NO_AGENT"
    """Tasks are ready, but no agent of the project is READY or ACTIVE."""
    WRONG_TYPE = "WRONG_TYPE"
    """Tasks are ready, but no agent that is READY or ACTIVE is of their type. An agent may still
    claim them if it names their type."""
    PROJECT_LIMIT = "PROJECT_LIMIT"
    """Tasks are ready, but the project allows none of their type (`maxTasksByType`)."""
    AGENT_NOT_ACTIVE = "AGENT_NOT_ACTIVE"
    """Tasks are ready, but the agent that they are assigned to is neither READY nor ACTIVE."""
    FAILED = "FAILED"
    """A task failed."""
    CANCELLED = "CANCELLED"
    """A task was cancelled, and others wait for it."""
    SKIPPED = "SKIPPED"
    """A task was skipped, and others wait for it."""
    HELD = "HELD"
    """A person holds a task."""
    EXTERNAL = "EXTERNAL"
    """A task waits for something outside of Troupe."""
    APPROVAL = "APPROVAL"
    """A task waits for a person, but no request is open."""


NOTHING: dict[str, Any] = {
    "type": cast(null(), String),
    "task_id": cast(null(), Uuid),
    "agent_id": cast(null(), Uuid),
    "budget_id": cast(null(), Uuid),
    "until": cast(null(), Timestamp),
    "seeds": cast(null(), ARRAY(Uuid)),
}


def why_stuck(viewer: Viewer, project_id: Any) -> Select[Any]:
    """What keeps tasks of a project from going on until somebody does something.

    Whoever sees a project sees its tasks, agents and budgets.
    """
    project, agent, budget = aliased(Project), aliased(Agent), aliased(Budget)
    branches: list[Select[Any]] = []

    def because(
        reason: StuckReason, message: ColumnElement[str], source: Any, *met: Any, **about: Any
    ) -> None:
        number = literal_column(str(len(branches)), Integer)
        code = constant(reason)
        columns = {"number": number, "code": code, "message": message, **NOTHING, **about}
        statement = (
            select(*(each.label(name) for name, each in columns.items()))
            .select_from(project if source is None else join(project, source, true()))
            .where(project.id == project_id, scope(project, viewer))
            .where(~any_of(project.status, OVER), *met)
        )
        # Of each branch, the first in the order of the answer.
        order = [columns[name] for name in ("type", "task_id", "agent_id") if name in about]
        limited = statement.order_by(*order).limit(literal_column(str(MOST)))
        branches.append(correlated(limited, project_id))

    ready = aliased(Task)
    # As the index has it.
    is_free = and_(
        ready.project_id == project.id,
        ready.status.in_([PENDING, ASSIGNED]),
        ready.unmet_dependency_count == ZERO,
    )
    has_ready = exists(select(ready.id).where(is_free).correlate(project))
    because(
        StuckReason.PROJECT_NOT_IN_PROGRESS,
        func.concat("The project is ", project.status, ". Start it, or resume it.", type_=Text),
        None,
        ~hands_out(project),
        has_ready,
    )
    of_agents = select(agent.id).where(budget_room.is_for(budget, agent), is_working(agent))
    of_task = select(ready.id).where(is_free, func.is_in_task_tree(ready.id, budget.task_id))
    because(
        StuckReason.BUDGET,
        budget_room.in_words(budget),
        budget,
        budget.project_id == project.id,
        budget_room.is_used_up(budget),
        has_ready,
        or_(
            budget_room.is_for(budget),
            exists(of_agents.correlate(budget)),
            and_(budget.task_id.is_not(None), exists(of_task.correlate(project, budget))),
        ),
        agent_id=budget.agent_id,
        task_id=budget.task_id,
        budget_id=budget.id,
        until=budget.period_ends_at,
    )

    def tasks(*conditions: Any, within: tuple[Any, ...]) -> ColumnElement[Any]:
        few = select(ready.id).where(*conditions).limit(literal_column(str(MOST_COUNTED)))
        return func.array(few.correlate(*within).scalar_subquery(), type_=ARRAY(Uuid))

    worker = aliased(Agent)
    works = select(worker.id).where(worker.project_id == project.id, is_working(worker))
    because(
        StuckReason.NO_AGENT,
        _text("No agent of the project is READY or ACTIVE."),
        None,
        ~exists(works.correlate(project)),
        has_ready,
        seeds=tasks(is_free, within=(project,)),
    )
    kinds = func.ready_kinds(project.id).table_valued(column("kind", String))
    kinds = kinds.render_derived(name="kinds")
    takes = works.where(or_(kinds.c.kind == ANY_TYPE, worker.type == kinds.c.kind))
    of_kind = and_(ready.project_id == project.id, is_ready(ready), kind(ready) == kinds.c.kind)
    about_kind = {
        "type": func.nullif(kinds.c.kind, "", type_=String),
        "seeds": tasks(of_kind, within=(project, kinds)),
    }
    because(
        StuckReason.WRONG_TYPE,
        func.concat(
            "No agent that is READY or ACTIVE is of the type '",
            kinds.c.kind,
            "'. Only claims that name this type get such tasks.",
            type_=Text,
        ),
        kinds,
        exists(works.correlate(project)),
        ~exists(takes.correlate(project, kinds)),
        **about_kind,
    )
    because(
        StuckReason.PROJECT_LIMIT,
        func.concat(
            "The project allows no task of the type '",
            kinds.c.kind,
            "' to be in progress (maxTasksByType).",
            type_=Text,
        ),
        kinds,
        kinds.c.kind != ANY_TYPE,
        cast(project.max_tasks_by_type.op("->>")(kinds.c.kind), Integer) == ZERO,
        **about_kind,
    )
    assigned = and_(ready.agent_id == agent.id, is_ready(ready, ASSIGNED))
    because(
        StuckReason.AGENT_NOT_ACTIVE,
        func.concat(
            "Tasks are assigned to the agent ",
            agent.name,
            case(
                (agent.is_active, func.concat(", which is ", agent.status, ".")),
                else_=", which is not active.",
            ),
            type_=Text,
        ),
        agent,
        agent.project_id == project.id,
        ~is_working(agent),
        exists(works.correlate(project)),
        exists(select(ready.id).where(assigned).correlate(agent)),
        agent_id=agent.id,
        seeds=tasks(assigned, within=(agent,)),
    )

    def because_of(
        reason: StuckReason,
        message: str,
        status: TaskStatus,
        condition: Callable[[Any], ColumnElement[bool]],
    ) -> None:
        """By the tasks of a status that meet a condition."""
        task = aliased(Task)
        rows = select(task.id, task.blocked_reason).where(
            task.project_id == project.id, task.status == constant(status)
        )
        rows = rows.order_by(task.id).limit(literal_column(str(MOST_READ))).correlate(project)
        row = rows.lateral("task")
        because_each(reason, message, row, condition(row.c))

    def because_each(reason: StuckReason, message: str, row: Any, *met: Any) -> None:
        """By each of these tasks."""
        key = row.c.id
        seeds = func.array_append(literal_column("'{}'::uuid[]"), key, type_=ARRAY(Uuid))
        because(reason, _text(message), row, *met, task_id=key, seeds=seeds)

    def awaited(status: TaskStatus) -> Any:
        """The tasks of a status that others wait for."""
        limits = [literal_column(str(most), Integer) for most in (FEW_DEPENDENTS, MOST_READ)]
        found = func.awaited(project.id, constant(status), *limits)
        return found.table_valued(column("id", Uuid)).render_derived(name="awaited")

    because_of(
        StuckReason.FAILED,
        "This task failed. Retry it, or complete it by hand.",
        TaskStatus.FAILED,
        lambda row: true(),
    )
    because_each(
        StuckReason.CANCELLED,
        "Others wait for this task, which was cancelled. Retry it, or remove the dependencies.",
        awaited(TaskStatus.CANCELLED),
    )
    because_each(
        StuckReason.SKIPPED,
        "Others wait for this task, which was skipped. Retry it, or remove the dependencies.",
        awaited(TaskStatus.SKIPPED),
    )
    because_of(
        StuckReason.HELD,
        "A person holds this task. Release it.",
        TaskStatus.BLOCKED,
        lambda row: row.blocked_reason == constant(BlockedReason.MANUAL),
    )
    because_of(
        StuckReason.EXTERNAL,
        "This task waits for something outside of Troupe.",
        TaskStatus.BLOCKED,
        lambda row: row.blocked_reason == constant(BlockedReason.EXTERNAL),
    )
    because_of(
        StuckReason.APPROVAL,
        "This task waits for a person, but no request is open any more. Release it.",
        TaskStatus.BLOCKED,
        _is_not_asked,
    )
    found = union_all(*branches).subquery("obstacles")
    count = func.count_stuck(found.c.seeds, literal_column(str(MOST_COUNTED)), type_=Integer)
    shown = [each for each in found.c if each.name != "seeds"]
    return select(*shown, count.label("task_count"))


def _text(text: str) -> ColumnElement[str]:
    return literal_column(f"'{text}'", Text)


def _is_not_asked(blocked: Any) -> ColumnElement[bool]:
    """Whether a task waits for a person though no request for it is open."""
    request = aliased(HumanInteraction)
    asked = select(request.id).where(
        request.task_id == blocked.id,
        request.blocks_task,
        request.status == constant(InteractionStatus.PENDING),
    )
    is_for_people = blocked.blocked_reason == constant(BlockedReason.HUMAN_INPUT)
    return and_(is_for_people, ~exists(asked.correlate_except(request)))
