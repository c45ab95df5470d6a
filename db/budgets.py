"""Budgets: how much may be spent for a project, an agent, a task with its subtasks, or a model.

A trigger of `usage_totals` counts what is spent, in the transaction of the usage records. The
functions `lock_budgets` and `reserve_budgets` count what is reserved, in that of the claim. They
are in `0015_budgets.py` and `0017_leases.py` of `migrations/versions/`. The trigger makes alerts,
as does one of budgets whose limit or thresholds change. A hard budget without room refuses the next
claim. Usage is recorded nevertheless, because the money is spent, unless the budget refuses it
(`0027_budgets_refuse_usage.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Executable,
    ForeignKey,
    FromClause,
    Index,
    Integer,
    Numeric,
    Select,
    String,
    Table,
    Text,
    UniqueConstraint,
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
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, aliased, column_property, declared_attr, mapped_column

from db.agents import Agent
from db.base import (
    CRUD,
    UNLOGGED,
    Base,
    ShortText,
    Timestamp,
    Version,
    any_of,
    check,
    children,
    choice,
    defaulted,
    to_one,
)
from db.errors import BudgetExceeded, Invalid, Path
from db.scopes import Viewer
from db.statements import Statement, value
from db.tasks import TO_DO, Task

if TYPE_CHECKING:
    from db.projects import Project
    from db.sessions import WriteSession

AMOUNT = Numeric(30, 9)

SCOPES = {"agent_id", "task_id", "model_name"}
LIMITS = {"limit_cost", "limit_tokens"}


class BudgetPeriod(StrEnum):
    """For how long a budget is; then it begins anew."""

    HOUR = "HOUR"
    """For each hour."""
    DAY = "DAY"
    """For each day, in UTC."""
    MONTH = "MONTH"
    """For each month, in UTC."""
    EVER = "EVER"
    """Once and for all."""


# The tables below have no model: the API shows their rows as columns of the budget.
periods = Table(
    "budget_periods",
    Base.metadata,
    Column("budget_id", Uuid, ForeignKey("budgets.id", ondelete="CASCADE"), primary_key=True),
    Column("starts_at", Timestamp, primary_key=True),
    Column("spent", AMOUNT, nullable=False),
    check("isfinite(starts_at)", "starts_at_finite", "A time is finite.", "starts_at"),
    info=UNLOGGED,
)
"""What is spent of a budget in each period."""

reservations = Table(
    "budget_reservations",
    Base.metadata,
    Column("budget_id", Uuid, ForeignKey("budgets.id", ondelete="CASCADE"), primary_key=True),
    Column("task_id", Uuid, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    Column("amount", AMOUNT, nullable=False),
    Column("transaction", BigInteger, nullable=False),
    Index(None, "task_id"),
    Index(None, "budget_id", "transaction"),
    info=UNLOGGED,
)
"""What attempts have reserved. A reservation holds as long as its task is being worked on."""

increases = Table(
    "budget_increases",
    Base.metadata,
    Column(
        "interaction_id",
        Uuid,
        ForeignKey("human_interactions.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("budget_id", Uuid, ForeignKey("budgets.id", ondelete="CASCADE"), nullable=False),
    Column("limit_cost", Numeric(18, 9)),
    Column("limit_tokens", BigInteger),
    Index(None, "budget_id"),
    info=UNLOGGED,
)
"""The limits that budgets get when a request is approved. A trigger of the requests sets them."""


def _limit(budget: Any) -> ColumnElement[Decimal]:
    return func.coalesce(budget.limit_cost, budget.limit_tokens, type_=AMOUNT)


class Budget(CRUD):
    """A limit to what is spent for a project, or for an agent, a task or a model of it."""

    __tablename__ = "budgets"
    __table_args__ = (
        check(
            "num_nonnulls(agent_id, task_id, model_name) <= 1",
            "one_scope",
            "A budget is of an agent, a task or a model; of none, it is of the whole project.",
        ),
        check(
            "num_nonnulls(limit_cost, limit_tokens) = 1",
            "one_limit",
            "A budget has a limit in US dollars or in tokens, and only one of them.",
        ),
        check(
            "least(limit_cost, limit_tokens) > 0", "limit_positive", "A limit is greater than 0."
        ),
        check("claim_reserve >= 0", "claim_reserve_natural", "A reserve is 0 or more."),
        check(
            "is_hard OR NOT refuses_usage",
            "only_hard_refuses",
            "Only a hard budget can refuse usage.",
            "refuses_usage",
        ),
        check(
            "0 < ALL (thresholds) AND 1000 >= ALL (thresholds)"
            " AND array_position(thresholds, NULL) IS NULL AND cardinality(thresholds) <= 10",
            "thresholds",
            "Thresholds are percentages from 1 to 1,000, at most ten.",
            "thresholds",
        ),
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        *(Index(None, f"{noun}_id", "created_at", "id") for noun in ("project", "agent", "task")),
        Index(None, "project_id", "updated_at", "id"),
        # For whoever records usage: in most projects, it finds nothing.
        Index("ix_budgets_refusing", "project_id", postgresql_where=text("refuses_usage")),
    )

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    agent_id: Mapped[UUID | None] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"))
    task_id: Mapped[UUID | None] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    model_name: Mapped[ShortText | None] = mapped_column(
        doc="The name of the model that it is for, as usage is recorded."
    )
    period: Mapped[BudgetPeriod] = mapped_column(
        choice(BudgetPeriod), doc="For how long it is; then it begins anew."
    )
    limit_cost: Mapped[Decimal | None] = mapped_column(
        Numeric(18, 9), doc="How much may be spent in a period, in US dollars."
    )
    limit_tokens: Mapped[int | None] = mapped_column(
        BigInteger, doc="How many input and output tokens may be used in a period."
    )
    claim_reserve: Mapped[Decimal] = mapped_column(
        Numeric(18, 9),
        default=Decimal(0),
        server_default=text("0"),
        doc="An estimate of what an attempt uses, in the unit of the limit. A claim reserves it"
        " until the attempt ends.",
    )
    is_hard: Mapped[bool] = defaulted(
        True, doc="Whether no task is handed out without room in it; else it only warns."
    )
    refuses_usage: Mapped[bool] = defaulted(
        False,
        doc="Whether usage that concerns it is refused once its limit is spent; else all usage is"
        " recorded. Only a hard budget can refuse it.",
    )
    thresholds: Mapped[list[int]] = mapped_column(
        ARRAY(Integer),
        default=lambda: [80, 100],
        server_default=text("'{80,100}'::integer[]"),
        doc="The percentages of the limit that make an alert when they are reached, once in each"
        " period.",
    )
    version: Mapped[Version] = mapped_column()

    project: Mapped[Project] = to_one("budgets", "The project that it is part of.")
    agent: Mapped[Agent | None] = to_one("budgets", "The agent that it is for.")
    task: Mapped[Task | None] = to_one(
        "budgets", "The task that it is for, with its subtasks at any depth."
    )
    alerts: Mapped[list[BudgetAlert]] = children("budget", "The thresholds that were reached.")

    @declared_attr
    def period_ends_at(cls) -> Mapped[datetime | None]:
        """When the present period ends."""
        ends = func.budget_period_end(cast(cls.period, String), type_=Timestamp)
        doc = "When the present period ends; null if the budget is for ever."
        return column_property(ends, deferred=True, doc=doc)

    @declared_attr
    def spent(cls) -> Mapped[Decimal]:
        """What is spent in the present period."""
        doc = "What is spent in the present period, in the unit of the limit."
        return column_property(func.budget_spent(cls.id, type_=AMOUNT), deferred=True, doc=doc)

    @declared_attr
    def reserved(cls) -> Mapped[Decimal]:
        """What running attempts have reserved."""
        doc = "What running attempts have reserved, in the unit of the limit."
        return column_property(func.budget_reserved(cls.id, type_=AMOUNT), deferred=True, doc=doc)

    @declared_attr
    def remaining(cls) -> Mapped[Decimal]:
        """What is neither spent nor reserved."""
        used = func.budget_spent(cls.id, type_=AMOUNT) + func.budget_reserved(cls.id, type_=AMOUNT)
        left = cast(func.greatest(_limit(cls) - used, 0), AMOUNT)
        doc = "What is neither spent nor reserved of it, at least 0, in the unit of the limit."
        return column_property(left, deferred=True, doc=doc)

    @declared_attr
    def percent_used(cls) -> Mapped[int]:
        """How much of the limit is spent, in percent."""
        share = func.trunc(func.budget_spent(cls.id, type_=AMOUNT) * 100 / _limit(cls))
        percent = cast(func.least(share, 2_000_000_000), Integer)
        doc = "How much of the limit is spent, in percent, rounded down; it may exceed 100."
        return column_property(percent, deferred=True, doc=doc)

    __mapper_args__ = {"version_id_col": version}


class BudgetAlert(CRUD):
    """A threshold of a budget that was reached, once in each period."""

    __tablename__ = "budget_alerts"
    __table_args__ = (
        UniqueConstraint("budget_id", "period_starts_at", "threshold"),
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "budget_id", "created_at", "id"),
    )

    budget_id: Mapped[UUID] = mapped_column(ForeignKey("budgets.id", ondelete="CASCADE"))
    period_starts_at: Mapped[datetime] = mapped_column(
        doc="When the period began in which it was reached; of a budget for ever, 1970."
    )
    threshold: Mapped[int] = mapped_column(doc="The percentage of the limit that was reached.")
    spent: Mapped[Decimal] = mapped_column(
        AMOUNT, doc="What was spent then, in the unit of the limit."
    )

    budget: Mapped[Budget] = to_one("alerts", "The budget.")


def check_new(values: Mapping[str, Any]) -> None:
    """Raise Invalid unless a new budget has one limit, and at most one thing that it is for."""
    if len(values.keys() & SCOPES) > 1:
        raise Invalid("A budget is of an agent, a task or a model: give one of them, or none.")
    if len(values.keys() & LIMITS) != 1:
        raise Invalid("Give limitCost or limitTokens, and only one of them.")


def check_unit(budget: Budget, values: Mapping[str, Any]) -> None:
    """Raise Invalid if these values of a budget have a limit in another unit than its own."""
    for name in values.keys() & LIMITS:
        if getattr(budget, name) is None:
            raise Invalid("A budget keeps the unit of its limit.", (name,))


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

    `locked` is what the function of this name gives. NULL is no limit.
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
    left = _limit(budget) - func.budget_spent(budget.id, type_=AMOUNT)
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
    """Whether a task is none of these tasks, nor a subtask of one; of NULL, it is."""
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
        number(_limit(budget)),
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
        "limit": _limit(Budget),
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
            func.budget_spent(Budget.id, type_=AMOUNT) >= _limit(Budget),
        )
        .order_by(calls.number, *_BY_SCOPE)
        .limit(1)
    )
