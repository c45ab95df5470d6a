"""Summaries of usage: sums of the totals, by any of their keys, by the hour or by the day."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    String,
    Uuid,
    cast,
    func,
    literal_column,
    null,
    select,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column

from db.base import Timestamp
from db.parameters import bind
from db.projects import Project
from db.scopes import Viewer, scope
from db.statements import Statement, deferred
from db.tasks import Task
from db.usage_totals import COUNTS, KEYS, MONEY, usage_totals

DAY: Any = literal_column("'day'")
UTC: Any = literal_column("'UTC'")


class Rows(DeclarativeBase):
    """The base of what a statement selects that is no table of the database."""

    type_annotation_map = {datetime: Timestamp, int: BigInteger, Decimal: MONEY}


class UsageSummary(Rows):
    """The tokens, cost and number of the calls of AI models that have the same keys."""

    __tablename__ = "usage_summaries"

    id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[datetime | None] = mapped_column(
        doc="When the hour or the day (in UTC) begins; null unless grouped by one of them."
    )
    project_id: Mapped[UUID | None] = mapped_column(
        doc="The project that they were made for; null unless grouped by it."
    )
    agent_id: Mapped[UUID | None] = mapped_column(
        doc="The agent that made them; null if there is none, or unless grouped by it."
    )
    model_name: Mapped[str | None] = mapped_column(
        String(255), doc="The name of the model, as it was recorded; null unless grouped by it."
    )
    task_id: Mapped[UUID | None] = mapped_column(
        doc="The task that they were made for; null if there is none, or unless grouped by it."
    )
    user_id: Mapped[UUID | None] = mapped_column(
        doc="The user on whose behalf they were made; null if there is none, or unless grouped by"
        " it."
    )
    input_tokens: Mapped[int] = mapped_column(
        doc="The input tokens, those read from a cache or written to one included."
    )
    cached_input_tokens: Mapped[int] = mapped_column(
        doc="The input tokens that were read from a cache."
    )
    cache_creation_tokens: Mapped[int] = mapped_column(
        doc="The input tokens that were written to a cache."
    )
    output_tokens: Mapped[int] = mapped_column(
        doc="The output tokens, those of reasoning included."
    )
    reasoning_tokens: Mapped[int] = mapped_column(doc="The output tokens that were reasoning.")
    cost: Mapped[Decimal] = mapped_column(
        doc="The cost in US dollars; calls without a cost count as 0, see `unpricedCalls`."
    )
    calls: Mapped[int] = mapped_column(doc="The number of calls.")
    failures: Mapped[int] = mapped_column(doc="The number of calls that failed.")
    unpriced_calls: Mapped[int] = mapped_column(
        doc="The number of calls without a cost, because their model is not registered or has no"
        " prices."
    )


def summary(
    viewer: Viewer,
    groups: Collection[str],
    roll_up: bool,
    project_id: Any,
    since: Any,
    until: Any,
    most: Any,
) -> Select[Any]:
    """A statement for rows of `UsageSummary`: what the viewer may see, summed by some columns.

    The groups are names of `KEYS`, `hour` and `day`. With `roll_up`, a task's row includes its
    subtasks. Values may be deferred, or None for no condition.
    """
    total, project = usage_totals.c, aliased(Project)
    visible = select(project.id).where(scope(project, viewer))
    met: list[ColumnElement[bool]] = []
    if project_id is not None:
        visible = visible.where(project.id == bind(project_id, Uuid))
        # For the index: PostgreSQL does not derive it from the other condition.
        met.append(total.project_id == bind(project_id, Uuid))
    met.append(total.project_id.in_(visible))
    if since is not None:
        met.append(total.hour >= bind(since, Timestamp))
    if until is not None:
        met.append(total.hour < bind(until, Timestamp))
    keys: dict[str, Any] = {name: total[name] for name in KEYS if name in groups}
    if "hour" in groups:
        keys["time"] = total.hour
    elif "day" in groups:
        keys["time"] = func.date_trunc(DAY, total.hour, UTC, type_=Timestamp)
    rows = _summed(keys, total).where(*met)
    if roll_up and "task_id" in groups:
        rows = _rolled_up(rows, keys)
    return _numbered(rows, keys, most)


def _summed(keys: Mapping[str, Any], of: Any) -> Select[Any]:
    """A statement for the sums of rows by these columns, of those that have calls."""
    sums: list[Any] = [cast(func.sum(of[name]), BigInteger).label(name) for name in COUNTS]
    sums.append(cast(func.sum(of.cost), MONEY).label("cost"))
    columns = [column.label(name) for name, column in keys.items()]
    return select(*columns, *sums).group_by(*keys.values()).having(func.sum(of.calls) > 0)


def _rolled_up(rows: Select[Any], keys: Mapping[str, Any]) -> Select[Any]:
    """The sums of tasks, added to those of all tasks above them."""
    # Nested, because it is part of a statement that has more of them.
    own = rows.cte(nesting=True)
    task, above = aliased(Task), aliased(Task)
    first = select(own.c.task_id, own.c.task_id.label("above_id")).distinct()
    first = first.join(task, task.id == own.c.task_id)
    lower = first.cte(recursive=True, nesting=True)
    parent = select(lower.c.task_id, above.parent_task_id)
    parent = parent.join(above, above.id == lower.c.above_id)
    tree = lower.union(parent.where(above.parent_task_id.is_not(None)))
    summed = {name: own.c[name] for name in keys} | {"task_id": tree.c.above_id}
    joined = own.outerjoin(tree, tree.c.task_id == own.c.task_id)
    return _summed(summed, own.c).select_from(joined)


def _numbered(rows: Select[Any], keys: Mapping[str, Any], most: Any) -> Select[Any]:
    """The first rows by time, and then by cost, with all columns of a summary and a number."""
    found = rows.subquery().c
    order = [
        *([found.time] if "time" in keys else []),
        found.cost.desc(),
        found.calls.desc(),
        *(found[name] for name in keys if name != "time"),
    ]
    columns = [
        found[column.name] if column.name in found else cast(null(), column.type).label(column.name)
        for column in UsageSummary.__table__.columns
        if column.name != "id"
    ]
    number = func.row_number().over(order_by=order).label("id")
    return select(number, *columns).order_by(*order).limit(bind(most, Integer))


@Statement
def summaries(
    viewer: Viewer, groups: tuple[str, ...], roll_up: bool, given: frozenset[str]
) -> Select[Any]:
    """The same with values that are given when it runs: `most`, and those of these names."""
    values = {
        name: deferred(name) if name in given else None for name in ("project_id", "since", "until")
    }
    rows = summary(viewer, groups, roll_up, **values, most=deferred("most")).subquery()
    found = aliased(UsageSummary, rows, adapt_on_names=True)
    return select(found).order_by(found.id)
