"""Summaries of usage: sums of tokens, costs and calls by what they were for, and by time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

import strawberry
from sqlalchemy import select
from sqlalchemy.orm import aliased

import db
from db.parameters import apply
from db.usage_summaries import UsageSummary as Summary
from db.usage_summaries import summaries, summary
from graph.core.arguments import Option
from graph.core.context import Context
from graph.core.declarations import StatementBuilder
from graph.core.entities import describe_enum, entity, lazy
from graph.core.errors import BadInput
from graph.core.fields import EntityField, Referred, argument, referred
from graph.core.filters import keys
from graph.core.json_text import Json
from graph.core.scalars import BigInt
from graph.core.selections import Selected

DEFAULT_ROWS, MOST_ROWS = 100, 1_000


class UsageGroup(Option):
    """What usage is summed by."""

    PROJECT = "project_id"
    """By project."""
    AGENT = "agent_id"
    """By the agent that made the calls."""
    MODEL = "model_name"
    """By the name of the model, as it was recorded."""
    TASK = "task_id"
    """By the task that the calls were made for."""
    USER = "user_id"
    """By the user on whose behalf the calls were made."""
    DAY = "day"
    """By the day, in UTC."""
    HOUR = "hour"
    """By the hour; with DAY, too."""


describe_enum(UsageGroup)


@entity(Summary)
class UsageSummary:
    time: datetime | None
    project = referred(Summary.project_id, db.Project)
    agent = referred(Summary.agent_id, db.Agent)
    model_name: str | None
    model = Referred(
        Summary.model_name, db.AIModel, description="The registered model of that name, if any."
    )
    task = referred(Summary.task_id, db.Task)
    user = referred(Summary.user_id, db.User)
    input_tokens: BigInt
    cached_input_tokens: BigInt
    cache_creation_tokens: BigInt
    output_tokens: BigInt
    reasoning_tokens: BigInt
    cost: Decimal
    calls: BigInt
    failures: BigInt
    unpriced_calls: BigInt


class Summaries(EntityField):
    """The rows of a summary, as a list."""

    @property
    def annotation(self) -> Any:
        return list[lazy(self.model)]  # type: ignore[misc]

    def max_rows(self, selected: Selected) -> int:
        most = selected.arguments.get("first")
        return DEFAULT_ROWS if most is None else min(max(most, 0), MOST_ROWS)

    def loader_key(self, selected: Selected) -> Any:
        return self, repr(selected.arguments)

    async def load(self, context: Context, selected: Selected, source: Any) -> Any:
        groups, roll_up, values = _conditions(context.operation.converted(selected))
        given = frozenset(name for name, value in values.items() if value is not None)
        rows = await context.loaders.read(summaries, groups, roll_up, given, **values)
        return [row for (row,) in rows]

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        groups, roll_up, values = _conditions(builder.operation.converted(selected))
        builder.sizes.append(values["most"])
        rows = summary(builder.viewer, groups, roll_up, **values).subquery()
        each: Any = aliased(Summary, rows, adapt_on_names=True)
        json = self.target.sql(builder, selected, each)
        return builder.array(json, select().select_from(each).order_by(each.id))


# The type of a field is that of its value.
_summaries: Any = Summaries


def _conditions(arguments: Mapping[str, Any]) -> tuple[tuple[str, ...], bool, dict[str, Any]]:
    """The columns to sum by, whether to roll up, and the values, which may be deferred."""
    groups = {group.value for group in arguments.get("group_by") or ()}
    project_id, most = arguments.get("project_id"), arguments.get("first")
    values = {
        "project_id": None if project_id is None else apply(partial(keys, db.Project), project_id),
        "since": arguments.get("from"),
        "until": arguments.get("to"),
        "most": DEFAULT_ROWS if most is None else apply(_size, most),
    }
    return tuple(sorted(groups)), bool(arguments.get("roll_up")), values


def _size(size: int) -> int:
    if not 0 <= size <= MOST_ROWS:
        raise BadInput(f"first must be between 0 and {MOST_ROWS:,}, not {size}.")
    return size


@strawberry.type
class Query:
    usage_summary: list[UsageSummary] = _summaries(
        Summary,
        arguments=[
            argument("project_id", strawberry.ID | None, "Only calls for this project."),
            argument(
                "group_by",
                list[UsageGroup] | None,
                "What to sum by; the rows have a sum for each combination. Without it, there is one"
                " row with the sum of all, or none if there are no calls.",
            ),
            argument("from", datetime | None, "Only hours that begin at this time or later."),
            argument("to", datetime | None, "Only hours that begin before this time."),
            argument(
                "roll_up",
                bool | None,
                "By TASK, whether the row of a task includes its subtasks, at any depth. Then the"
                " rows of a task and of its subtasks overlap.",
            ),
            argument(
                "first",
                int | None,
                f"How many rows: at most {MOST_ROWS:,}; {DEFAULT_ROWS} unless said otherwise.",
            ),
        ],
        description="The tokens, cost and number of the calls of AI models that you may see, summed"
        " by hours in UTC. Sorted by time, if by DAY or HOUR, and then the most expensive first.",
        metadata={"most": MOST_ROWS},
    )
