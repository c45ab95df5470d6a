"""Summaries of usage: sums of the totals, by any of their keys, by the hour or by the day."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Uuid,
    cast,
    func,
    literal_column,
    null,
    select,
)
from sqlalchemy.orm import aliased

from db.base import Timestamp
from db.parameters import bind
from db.projects import Project
from db.scopes import Viewer, scope
from db.tasks import Task
from db.usage_totals import COUNTS, KEYS, MONEY, usage_totals

DAY: Any = literal_column("'day'")
UTC: Any = literal_column("'UTC'")


def summary(
    viewer: Viewer,
    groups: Collection[str],
    roll_up: bool,
    project_id: Any,
    since: Any,
    until: Any,
) -> Select[Any]:
    """The tokens, cost and number of the calls that the viewer may see, summed by some columns.

    The groups are names of `KEYS`, `hour` and `day`; the columns of others are NULL. With
    `roll_up`, a task's row includes its subtasks. Values may be deferred, or None for no condition.
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
    return _numbered(rows, keys)


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


def _numbered(rows: Select[Any], keys: Mapping[str, Any]) -> Select[Any]:
    """The rows by time, and then by cost, with all columns and a number."""
    found = rows.subquery().c
    order = [
        *([found.time] if "time" in keys else []),
        found.cost.desc(),
        found.calls.desc(),
        *(found[name] for name in keys if name != "time"),
    ]
    all_keys: dict[str, Any] = {"time": Timestamp(), **KEYS}
    columns: dict[str, Any] = {
        name: found[name] if name in keys else cast(null(), kind) for name, kind in all_keys.items()
    }
    columns |= {name: found[name] for name in (*COUNTS, "cost")}
    columns["model_id"] = columns["model_name"]
    columns["number"] = func.row_number().over(order_by=order)
    return select(*(each.label(name) for name, each in columns.items())).order_by(*order)
