"""The room in budgets: what they let an agent claim, and which usage they refuse.

A hard budget without room refuses the next claim. Usage is recorded nevertheless, because the money
is spent, unless the budget refuses it (`0027_budgets_refuse_usage.py` in `migrations/versions/`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    Executable,
    FromClause,
    Integer,
    Select,
    Text,
    Uuid,
    and_,
    case,
    cast,
    column,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import aliased

from db.agents import Agent
from db.base import any_of
from db.budgets import AMOUNT, SCOPES, Budget, BudgetPeriod, limit_of
from db.errors import BudgetExceeded, Path
from db.scopes import Viewer
from db.statements import Statement, value
from db.tasks import TO_DO, Task

if TYPE_CHECKING:
    from db.sessions import WriteSession


def locked(agent: Any) -> ColumnElement[Any]:
    """The hard budgets that concern an agent, and how many tasks it may claim; NULL without any.

    For the statement of a claim. Other claims wait for the budgets of the project until the
    transaction ends. What is reserved is added up once, here.
    """
    budget = aliased(Budget)
    has_hard = exists(
        select(budget.id).where(budget.project_id == agent.project_id, budget.is_hard)
    )
    return case((has_hard, func.lock_budgets(agent.id, type_=JSONB)))


def claims_left(locked: Any) -> ColumnElement[int]:
    """How many more tasks an agent may claim by the hard budgets that are not of a task.

    `locked` is the value of the expression that the function `locked` makes. NULL is no limit.
    """
    return cast(locked.op("->>")(literal_column("'left'")), Integer)


def reserves(task: Any, locked: Any) -> ColumnElement[bool]:
    """Whether each hard budget that concerns a task has room for an attempt, which is reserved.

    For the statement of a claim, of tasks that it has locked. A reservation holds as long as the
    task has a current attempt; of a task that is not claimed after all, it ends with the
    transaction.
    """
    return or_(locked.is_(None), func.reserve_budgets(task.id, locked))


def is_full(budget: Any) -> ColumnElement[bool]:
    """Whether a hard budget has no room for another attempt."""
    room = func.budget_room(budget.id, type_=Integer)
    return and_(budget.is_hard, room == literal_column("0", Integer))


def is_used_up(budget: Any) -> ColumnElement[bool]:
    """Whether a hard budget has no room for another attempt even when no other is running."""
    left = limit_of(budget) - func.budget_spent(budget.id, type_=AMOUNT)
    return and_(budget.is_hard, or_(left <= 0, left < budget.claim_reserve))


def is_for(budget: Any, agent: Any = None) -> ColumnElement[bool]:
    """Whether a budget concerns all that an agent does; without one, all in its project."""
    if agent is None:
        return and_(*(getattr(budget, name).is_(None) for name in sorted(SCOPES)))
    return and_(
        budget.project_id == agent.project_id,
        budget.task_id.is_(None),
        or_(budget.agent_id.is_(None), budget.agent_id == agent.id),
        or_(budget.model_name.is_(None), budget.model_name == agent.model_id),
    )


def has_room(project_id: Any, agent: Any = None) -> ColumnElement[bool]:
    """Whether no hard budget of a project keeps an agent, or all, from any task."""
    budget = aliased(Budget)
    found = select(budget.id).where(
        budget.project_id == project_id, is_for(budget, agent), is_full(budget)
    )
    return ~exists(found.correlate_except(budget))


def full_tasks(project_id: Any) -> Select[Any]:
    """The tasks of a project whose hard budgets are full, as an array; NULL if there are none."""
    budget = aliased(Budget)
    return select(func.array_agg(budget.task_id, type_=ARRAY(Uuid)).label("ids")).where(
        budget.project_id == project_id, budget.task_id.is_not(None), is_full(budget)
    )


def is_outside(task_id: Any, tasks: Any) -> ColumnElement[bool]:
    """Whether a task is none of these tasks, nor below one. It is so if `tasks` is NULL."""
    top = func.unnest(tasks).table_valued(column("id", Uuid)).render_derived(name="top")
    inside = select(top.c.id).where(func.is_in_task_tree(task_id, top.c.id))
    return or_(tasks.is_(None), ~exists(inside))


PERIODS = {BudgetPeriod.HOUR: "hourly ", BudgetPeriod.DAY: "daily ", BudgetPeriod.MONTH: "monthly "}


def in_words(budget: Any, *, is_claim: bool = True) -> ColumnElement[str]:
    """A sentence that names a budget without room, and says why a claim or usage is refused."""
    agent, task = aliased(Agent), aliased(Task)
    name = select(agent.name).where(agent.id == budget.agent_id).scalar_subquery()
    title = select(task.title).where(task.id == budget.task_id).scalar_subquery()

    def number(amount: Any) -> Any:
        return cast(func.trim_scale(amount), Text)

    reserved = (
        " is spent and ",
        number(func.budget_reserved(budget.id, type_=AMOUNT)),
        " reserved",
        # Otherwise it is not seen why there is no room, if something of the limit is left.
        case(
            (
                budget.claim_reserve > 0,
                func.concat("; a claim needs ", number(budget.claim_reserve)),
            )
        ),
        ".",
    )
    return func.concat(
        "The ",
        case(*((budget.period == period, word) for period, word in PERIODS.items()), else_=""),
        "budget of the ",
        case(
            (budget.agent_id.is_not(None), func.concat("agent ", name)),
            (budget.task_id.is_not(None), func.concat("task ", title)),
            (budget.model_name.is_not(None), func.concat("model ", budget.model_name)),
            else_="project",
        ),
        " has no room: of ",
        number(limit_of(budget)),
        case((budget.limit_cost.is_(None), " tokens, "), else_=" US dollars, "),
        number(func.budget_spent(budget.id, type_=AMOUNT)),
        *(reserved if is_claim else (" is spent, and it refuses usage.",)),
        type_=Text,
    )


def _shown(*, is_claim: bool) -> list[ColumnElement[Any]]:
    """What an error says of a budget that refuses a claim, or usage."""
    columns: dict[str, Any] = {
        "id": Budget.id,
        "words": in_words(Budget, is_claim=is_claim),
        "limit": limit_of(Budget),
        "spent": func.budget_spent(Budget.id, type_=AMOUNT),
        "reserved": func.budget_reserved(Budget.id, type_=AMOUNT),
        "period_ends_at": Budget.period_ends_at,
    }
    return [each.label(name) for name, each in columns.items()]


def error(row: Any, path: Path = ()) -> BudgetExceeded:
    """The error of a budget, from a row of `exceeded` or `refusing`."""
    shown = row.id, row.words, row.limit, row.spent, row.reserved, row.period_ends_at
    return BudgetExceeded(*shown, path)


# The most general comes first.
_BY_SCOPE = func.num_nonnulls(Budget.agent_id, Budget.task_id, Budget.model_name), Budget.id


def exceeded(agent_id: Any) -> Select[Any]:
    """The first hard budget that keeps an agent from claiming a task; that of the project first.

    A budget of a task counts only if something of it is ready.
    """
    agent, task = aliased(Agent), aliased(Task)
    waiting = select(task.id).where(
        task.project_id == Budget.project_id,
        any_of(task.status, TO_DO),
        task.unmet_dependency_count == 0,
        func.is_in_task_tree(task.id, Budget.task_id),
    )
    return (
        select(*_shown(is_claim=True))
        .join_from(Budget, agent, agent.project_id == Budget.project_id)
        .where(
            agent.id == agent_id,
            is_full(Budget),
            or_(is_for(Budget, agent), and_(Budget.task_id.is_not(None), exists(waiting))),
        )
        .order_by(*_BY_SCOPE)
        .limit(1)
    )


@Statement
def _exceeded(viewer: Viewer) -> Executable:
    return exceeded(value("agent_id", Uuid))


async def refuse_exceeded(session: WriteSession, agent_id: UUID) -> None:
    """Raise BudgetExceeded if a hard budget keeps an agent from claiming a task.

    For a claim that has found none.
    """
    for row in await session.run(_exceeded, agent_id=agent_id):
        raise error(row)


def _counts(budget: Any, call: Any) -> ColumnElement[bool]:
    """Whether what a call uses is spent of a budget of its project, as `count_usage` counts it."""
    return and_(
        or_(budget.agent_id.is_(None), budget.agent_id == call.agent_id),
        or_(budget.model_name.is_(None), budget.model_name == call.model_name),
        or_(budget.task_id.is_(None), func.is_in_task_tree(call.task_id, budget.task_id)),
    )


def let_record(project_id: Any, calls: FromClause) -> ColumnElement[bool]:
    """Whether no budget refuses to record one of these calls of a project.

    For the statement that records them. Others that record calls for the same budgets wait until
    the transaction ends, so that each knows what the others have spent.
    """
    budget = aliased(Budget)
    concerned = select(func.any_used_up(func.array_agg(budget.id), type_=Boolean)).where(
        budget.project_id == project_id,
        budget.refuses_usage,
        exists(select(1).select_from(calls).where(_counts(budget, calls.c))),
    )
    # It refers to nothing outside, so that PostgreSQL evaluates it once.
    return concerned.correlate(None).scalar_subquery().is_not(true())


def refusing(project_id: Any, calls: Any) -> Select[Any]:
    """The `number` of the first of these calls that a budget refuses, with the budget."""
    return (
        select(calls.number, *_shown(is_claim=False))
        .where(
            Budget.project_id == project_id,
            Budget.refuses_usage,
            _counts(Budget, calls),
            func.budget_spent(Budget.id, type_=AMOUNT) >= limit_of(Budget),
        )
        .order_by(calls.number, *_BY_SCOPE)
        .limit(1)
    )
