"""Budgets: how much may be spent for a project, an agent, a task with its subtasks, or a model.

A trigger of `usage_totals` counts what is spent, in the transaction of the usage records. The
functions `lock_budgets` and `reserve_budgets` count what is reserved, in that of the claim. They
are in `0015_budgets.py` and `0017_leases.py` of `migrations/versions/`. The trigger makes alerts,
as does one of budgets whose limit or thresholds change. `db/budget_room.py` has what budgets let
agents do.
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
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    cast,
    func,
    select,
    text,
)
from sqlalchemy.orm import Mapped, column_property, declared_attr, mapped_column

from db import dependencies
from db.agents import Agent
from db.base import (
    CRUD,
    UNLOGGED,
    Base,
    ShortText,
    Timestamp,
    Version,
    check,
    children,
    choice,
    defaulted,
    to_one,
)
from db.errors import Invalid
from db.scopes import scope
from db.tasks import Task

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


def limit_of(budget: Any) -> ColumnElement[Decimal]:
    """The limit of a budget, in US dollars or in tokens."""
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
        left = cast(func.greatest(limit_of(cls) - used, 0), AMOUNT)
        doc = "What is neither spent nor reserved of it, at least 0, in the unit of the limit."
        return column_property(left, deferred=True, doc=doc)

    @declared_attr
    def percent_used(cls) -> Mapped[int]:
        """How much of the limit is spent, in percent."""
        share = func.trunc(func.budget_spent(cls.id, type_=AMOUNT) * 100 / limit_of(cls))
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


async def create(session: WriteSession, values: Mapping[str, Any]) -> UUID:
    """Add a budget, and return its id.

    It has one limit, and is for one thing at most. Raises NotFound, Denied, Invalid, and Rejected
    with all errors.
    """
    if len(values.keys() & SCOPES) > 1:
        raise Invalid("A budget is of an agent, a task or a model: give one of them, or none.")
    if len(values.keys() & LIMITS) != 1:
        raise Invalid("Give limitCost or limitTokens, and only one of them.")
    return await session.insert(Budget, values)


async def change(
    session: WriteSession, id: UUID, values: Mapping[str, Any], *, version: int | None = None
) -> None:
    """Change a budget. Raises NotFound, Denied, Conflict and Invalid."""
    budget = await _to_change(session, id, version)
    check_unit(budget, values)
    await budget.update(session, **values)


async def delete(session: WriteSession, id: UUID, *, version: int | None = None) -> None:
    """Delete a budget with its alerts. Raises NotFound, Denied and Conflict."""
    budget = await _to_change(session, id, version)
    await budget.delete(session)


def check_unit(budget: Budget, values: Mapping[str, Any]) -> None:
    """Raise Invalid if these values of a budget have a limit in another unit than its own."""
    for name in values.keys() & LIMITS:
        if getattr(budget, name) is None:
            raise Invalid("A budget keeps the unit of its limit.", (name,))


async def _to_change(session: WriteSession, id: UUID, version: int | None) -> Budget:
    """A budget that is to be changed or deleted, locked until the transaction ends.

    No usage of its project is counted meanwhile: whoever counts it locks what was spent first, and
    then the budget for its alerts, and a deletion locks them the other way round. The project is
    locked before, as by all who delete what a budget is for. Raises NotFound, Denied and Conflict.
    """
    await dependencies.lock(session, id, Budget)
    keys = func.hashtext("budgets"), func.hashtext(cast(Budget.project_id, Text))
    mine = Budget.id == id, scope(Budget, session.viewer, session.right)
    await session.execute(select(func.pg_advisory_xact_lock(*keys)).where(*mine))
    return await session.fetch(Budget, id, version=version)
