"""Summaries of usage: sums of tokens, costs and calls by what they were for, and by time."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

import strawberry
from sqlalchemy import Select

import db
from db import Viewer
from db.parameters import apply
from db.usage_summaries import summary
from graph.core.computed import computed, computed_type, keyed, value
from graph.core.entities import describe_enum
from graph.core.fields import argument
from graph.core.filters import keys
from graph.core.scalars import BigInt
from graph.core.shapes import Option


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


@computed_type
class UsageSummary:
    """The tokens, cost and number of the calls of AI models that have the same keys."""

    time: datetime | None = value(
        "When the hour or the day (in UTC) begins; null unless grouped by one of them."
    )
    project = keyed(db.Project, "The project that they were made for; null unless grouped by it.")
    agent = keyed(
        db.Agent, "The agent that made them; null if there is none, or unless grouped by it."
    )
    model_name: str | None = value(
        "The name of the model, as it was recorded; null unless grouped by it."
    )
    model = keyed(db.AIModel, "The registered model of that name, if any.")
    task = keyed(
        db.Task,
        "The task that they were made for; null if there is none, or unless grouped by it.",
    )
    user = keyed(
        db.User,
        "The user on whose behalf they were made; null if there is none, or unless grouped by it.",
    )
    input_tokens: BigInt = value(
        "The input tokens, those read from a cache or written to one included."
    )
    cached_input_tokens: BigInt = value("The input tokens that were read from a cache.")
    cache_creation_tokens: BigInt = value("The input tokens that were written to a cache.")
    output_tokens: BigInt = value("The output tokens, those of reasoning included.")
    reasoning_tokens: BigInt = value("The output tokens that were reasoning.")
    cost: Decimal = value(
        "The cost in US dollars; calls without a cost count as 0, see `unpricedCalls`."
    )
    calls: BigInt = value("The number of calls.")
    failures: BigInt = value("The number of calls that failed.")
    unpriced_calls: BigInt = value(
        "The number of calls without a cost, because their model is not registered or has no"
        " prices."
    )


def _summary(viewer: Viewer, **given: Any) -> Select[Any]:
    groups = {group.value for group in given.get("group_by") or ()}
    project_id = given.get("project_id")
    project = None if project_id is None else apply(partial(keys, db.Project), project_id)
    roll_up, since, until = bool(given.get("roll_up")), given.get("from"), given.get("to")
    return summary(viewer, groups, roll_up, project, since, until)


@strawberry.type
class Query:
    usage_summary: list[UsageSummary] = computed(
        UsageSummary,
        _summary,
        order=("number",),
        most=1000,
        default_size=100,
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
        ],
        description="The tokens, cost and number of the calls of AI models that you may see, summed"
        " by hours in UTC. Sorted by time, if by DAY or HOUR, and then the most expensive first.",
    )
