"""Sums of usage by hour and by project, agent, model, task and user.

A trigger of `usage_records` (`migrations/versions/0016_writes.py`) adds the difference that each
statement makes as new rows, in the same transaction: nothing that writes records can go around it,
and writers do not wait for each other, as they would for one row with the sum of an hour. So a sum
is that of several rows. `merge_totals` makes one of them in the background.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Identity,
    Index,
    Numeric,
    String,
    Table,
    Uuid,
    cast,
    func,
    select,
    text,
)
from sqlalchemy.orm import MappedSQLExpression, column_property

from db.base import UNLOGGED, Base, Timestamp, check

if TYPE_CHECKING:
    from db.sessions import ReadSession

MERGED = 10_000
"""How many rows are merged in one transaction."""

KEYS: dict[str, Any] = {
    "project_id": Uuid,
    "agent_id": Uuid,
    "model_name": String(255),
    "task_id": Uuid,
    "user_id": Uuid,
}
"""What calls are summed by besides the hour, with the types of the columns."""

COUNTS = (
    "input_tokens",
    "cached_input_tokens",
    "cache_creation_tokens",
    "output_tokens",
    "reasoning_tokens",
    "calls",
    "failures",
    "unpriced_calls",
)
"""The numbers that are summed besides the cost."""

MONEY = Numeric(30, 9)

# A table without a model: the API shows sums of its rows. It has no foreign keys. When an object is
# deleted, the trigger of the records subtracts what was its own.
usage_totals = Table(
    "usage_totals",
    Base.metadata,
    # The key begins with it, so that new rows are found by an index that every row needs.
    Column("is_merged", Boolean, primary_key=True, server_default=text("false")),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("hour", Timestamp, nullable=False),
    *(
        Column(name, kind, nullable=name not in ("project_id", "model_name"))
        for name, kind in KEYS.items()
    ),
    *(Column(name, BigInteger, nullable=False) for name in COUNTS),
    Column("cost", MONEY, nullable=False),
    check("isfinite(hour)", "hour_finite", "A time is finite.", "hour"),
    # Merged rows are unique.
    Index(
        "uq_usage_totals_merged",
        "project_id",
        "hour",
        "agent_id",
        "model_name",
        "task_id",
        "user_id",
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=text("is_merged"),
    ),
    Index(None, "project_id", "hour"),
    Index(None, "agent_id", postgresql_where=text("agent_id IS NOT NULL")),
    Index(None, "task_id", postgresql_where=text("task_id IS NOT NULL")),
    info=UNLOGGED,
)


async def merge_totals(session: ReadSession) -> int:
    """Merge new rows into those with the sums; return how many were merged, at most MERGED.

    It does nothing while another process does the same. Sums of calls that were all deleted are
    deleted.
    """
    merged: int = await session.scalar(select(func.merge_usage_totals(MERGED)))
    return merged


def cost_of(column: str, key: Any, doc: str) -> MappedSQLExpression[Decimal]:
    """The attribute with the cost of all calls that have this key in a column of the totals."""
    totals = usage_totals.alias()
    cost = cast(func.coalesce(func.sum(totals.c.cost), 0), MONEY)
    found = select(cost).where(totals.c[column] == key).correlate_except(totals)
    return _attribute(found.scalar_subquery(), doc)


def tree_cost_of(task_id: Any, doc: str) -> MappedSQLExpression[Decimal]:
    """The attribute with the cost of all calls for a task and its subtasks, at any depth."""
    return _attribute(func.task_tree_cost(task_id, type_=MONEY), doc)


def _attribute(cost: ColumnElement[Decimal], doc: str) -> MappedSQLExpression[Decimal]:
    # Deferred: a row that is read to be changed needs no cost.
    return column_property(cost, deferred=True, doc=doc)
