"""Why an agent gets no task: for claims that find none, and for `Agent.whyIdle`."""

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
    Integer,
    Select,
    String,
    Text,
    Uuid,
    and_,
    case,
    column,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import aliased

from db import budget_room
from db.agents import WORKING, Agent, is_working
from db.base import constant
from db.claims.conditions import (
    ANY_TYPE,
    ASSIGNED,
    ZERO,
    hands_out,
    has_room_for,
    is_available,
    is_ready,
    kind,
    levels,
    resources_in_use,
    running,
    takes_more_reviews,
    uses_none_of,
)
from db.projects import Project
from db.rights import Right
from db.scopes import Viewer, scope
from db.sessions import WriteSession
from db.statements import Statement, value
from db.tasks import Task

MOST_READ = 10_000
"""How many tasks that are available are read to find what keeps an agent from all of them."""

MOST_COMPARED = 1_000
"""How many of these are compared with the tasks of full budgets and their subtasks."""


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
    """The tasks that are ready are assigned to other agents, or of other types than the claim
    names. A claim that names none, and `whyIdle`, take the type of the agent."""
    NOTHING_READY = "NOTHING_READY"
    """No task is ready: all wait for others or for people, are in progress, or have ended."""


class Idle(NamedTuple):
    """Why an agent gets nothing, in words too, and when a task that is ready becomes available."""

    reason: IdleReason
    message: str
    available_at: datetime | None = None


def _number(number: int) -> ColumnElement[int]:
    return literal_column(str(number), Integer)


def _text(*parts: Any) -> ColumnElement[str]:
    """A text of constants and columns."""
    constants = [
        literal_column(f"'{part}'", Text) if isinstance(part, str) else part for part in parts
    ]
    return func.concat(*constants, type_=Text)


def why_idle(viewer: Viewer, right: Right, agent_id: Any, types: Any) -> Select[Any]:
    """Why an agent gets no task of these types, in words too; no row if it can claim something.

    The reason is the first that holds. Where it depends on each of the tasks that are available,
    the first MOST_READ decide.
    """
    task = aliased(Task)
    pending = and_(task.project_id == Agent.project_id, is_ready(task))
    fitting = and_(pending, kind(task) == func.any(types))
    assigned = and_(task.agent_id == Agent.id, is_ready(task, ASSIGNED))

    runs = running(Agent.id).table_valued(column("running", Integer)).render_derived(name="runs")
    limits = func.left_by_type(Project.id).table_valued(column("left", JSONB))
    limits = limits.render_derived(name="limits")
    full = budget_room.full_tasks(Project.id).correlate(Project).lateral("full")
    # OFFSET 0: it is computed once, and not for each task.
    resources = select(resources_in_use(Project.id).label("keys")).offset(ZERO)
    used = resources.correlate(Project).lateral("used")

    # When the first task becomes available, by the index of each queue.
    kinds = func.unnest(types).table_valued(column("kind", String)).render_derived(name="kinds")
    level = levels()
    heads = []
    for condition, source in (
        (and_(pending, kind(task) == kinds.c.kind), kinds.join(level, true())),
        (assigned, level),
    ):
        queue = select(task.available_at).where(condition, task.priority == level.c.priority)
        queue = queue.order_by(task.available_at, task.id).limit(_number(1))
        head = queue.correlate(Agent, kinds, level).lateral("head")
        heads.append(select(head.c.available_at).select_from(source.join(head, true())))
    all_heads = union_all(*(each.correlate(Agent) for each in heads)).subquery("heads")
    earliest = select(func.min(all_heads.c.available_at).label("at")).lateral("earliest")

    def any_free(*, has_room: bool = False, is_outside: bool = False) -> ColumnElement[bool]:
        """Whether there is an available task whose resources are free.

        With `has_room`, the project allows another one of its type. With `is_outside`, it is not
        below a task whose budget is full, nor such a task itself.
        """
        found: list[Any] = []
        for rows in (fitting, assigned):
            few = select(task.id, task.type, task.resource_keys).where(rows, is_available(task))
            row = few.limit(_number(MOST_READ)).correlate(Agent).subquery().c
            each = select(row.id).where(uses_none_of(row, used.c["keys"]))
            if has_room:
                each = each.where(has_room_for(limits.c.left, row.type))
            if is_outside:
                id = each.limit(_number(MOST_COMPARED)).correlate(limits, used).subquery().c.id
                each = select(id).where(budget_room.is_outside(id, full.c.ids))
            found.append(each.correlate(limits, used, full))
        return or_(*map(exists, found))

    number = runs.c.running
    statuses = " or ".join(WORKING)
    others = func.array_to_string(func.array_remove(types, ANY_TYPE), literal_column("''', '''"))
    exceeded = budget_room.exceeded(Agent.id).correlate(Agent).subquery("exceeded")
    reasons: list[tuple[Any, IdleReason, ColumnElement[str]]] = [
        (
            ~Agent.is_active,
            IdleReason.AGENT_NOT_ACTIVE,
            _text("This agent is not active: set isActive to let it work."),
        ),
        (
            ~is_working(Agent),
            IdleReason.AGENT_NOT_ACTIVE,
            _text(
                "This agent is ",
                Agent.status,
                f". Agents get tasks while they are {statuses}; transitionAgent changes the"
                " status.",
            ),
        ),
        (
            ~hands_out(Project),
            IdleReason.PROJECT_NOT_IN_PROGRESS,
            _text(
                "The project is ",
                Project.status,
                ". Tasks are handed out only while it is IN_PROGRESS.",
            ),
        ),
        (
            number >= Agent.max_concurrent_tasks,
            IdleReason.AGENT_AT_CAPACITY,
            _text(
                "This agent works on as many tasks as it may at once: ",
                number,
                " of ",
                Agent.max_concurrent_tasks,
                ".",
            ),
        ),
        (
            number >= Project.max_tasks_per_agent,
            IdleReason.PROJECT_LIMIT,
            _text(
                "This agent works on as many tasks as its project allows: ",
                Project.max_tasks_per_agent,
                ".",
            ),
        ),
        (
            ~takes_more_reviews(Project),
            IdleReason.PROJECT_LIMIT,
            _text("As many tasks of the project wait for people as may (maxTasksInReview)."),
        ),
        (
            and_(earliest.c.at.is_(None), exists(select(task.id).where(pending).correlate(Agent))),
            IdleReason.WRONG_TYPE,
            _text("Tasks are ready, but none is of the type ''", others, "'', or without a type."),
        ),
        (
            earliest.c.at.is_(None),
            IdleReason.NOTHING_READY,
            _text("No task is ready: all wait, are in progress, or have ended."),
        ),
        (
            earliest.c.at > func.statement_timestamp(),
            IdleReason.BACKOFF,
            _text("The tasks that are ready are not available yet."),
        ),
        (
            ~any_free(),
            IdleReason.RESOURCE_RESERVED,
            _text("The tasks that are ready need resources that tasks in progress use."),
        ),
        (
            ~any_free(has_room=True),
            IdleReason.PROJECT_LIMIT,
            _text("As many tasks of these types are in progress as the project allows."),
        ),
        (
            ~and_(
                budget_room.has_room(Project.id, Agent), any_free(has_room=True, is_outside=True)
            ),
            IdleReason.BUDGET,
            func.coalesce(
                select(exceeded.c.words).scalar_subquery(),
                _text("The tasks that are ready wait for room in a hard budget. Try again."),
            ),
        ),
    ]
    places = [_number(place) for place in range(len(reasons))]
    first_met = case(*((met, place) for place, (met, *_) in zip(places, reasons, strict=True)))
    # OFFSET 0: it is found once, and not for each column.
    first = select(first_met.label("place")).offset(ZERO)
    found = first.correlate(Agent, Project, runs, limits, full, used, earliest).lateral("found")
    is_here = [found.c.place == place for place in places]
    code = case(*zip(is_here, (constant(code) for _, code, _ in reasons), strict=True))
    is_later = code == constant(IdleReason.BACKOFF)
    return (
        select(
            code.label("code"),
            case(*zip(is_here, (words for *_, words in reasons), strict=True)).label("message"),
            case((is_later, earliest.c.at)).label("available_at"),
        )
        .join_from(Agent, Project, Project.id == Agent.project_id)
        .join(runs, true())
        .join(limits, true())
        .join(full, true())
        .join(used, true())
        .join(earliest, true())
        .join(found, true())
        .where(Agent.id == agent_id, scope(Agent, viewer, right), found.c.place.is_not(None))
    )


@Statement
def _idle(viewer: Viewer, right: Right) -> Executable:
    return why_idle(viewer, right, value("agent_id", Uuid), value("types", ARRAY(String)))


async def idle(session: WriteSession, agent_id: UUID, types: Sequence[str] | None) -> Idle | None:
    """Why an agent gets nothing; None if there is something. Raises NotFound and Denied."""
    agent = await session.fetch(Agent, agent_id, at=("agent_id",), lock=False)
    kinds = ["", *(types or [agent.type])]
    for found in await session.run(_idle, session.right, agent_id=agent_id, types=kinds):
        return Idle(IdleReason(found.code), found.message, found.available_at)
    return None
