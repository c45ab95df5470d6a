"""`troupe usage`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from graph.cli.database import with_api
from graph.cli.lists import AsJSON, OfProject, OnBehalfOf
from graph.cli.output import money, print_json, print_note, print_table
from graph.cli.values import one_of, whole_number

if TYPE_CHECKING:
    from graph.clients import Client

app = typer.Typer()

MOST = 1000


class Group(StrEnum):
    """What usage is summed by, as in the API's `UsageGroup`."""

    PROJECT = "project"
    AGENT = "agent"
    MODEL = "model"
    TASK = "task"
    USER = "user"
    DAY = "day"
    HOUR = "hour"


NUMBERS = {
    "CALLS": "calls",
    "FAILURES": "failures",
    "INPUT": "inputTokens",
    "CACHED": "cachedInputTokens",
    "OUTPUT": "outputTokens",
}
# What is selected of each group, beside the numbers.
KEYS = {
    Group.PROJECT: "project { id name }",
    Group.AGENT: "agent { id name }",
    Group.MODEL: "modelName",
    Group.TASK: "task { id title }",
    Group.USER: "user { id username }",
    Group.DAY: "time",
    Group.HOUR: "time",
}
SUMMARY = """query($groupBy: [UsageGroup!], $projectId: ID, $from: DateTime, $first: Int) {
  usageSummary(groupBy: $groupBy, projectId: $projectId, from: $from, first: $first) {
    %s calls failures inputTokens cachedInputTokens cacheCreationTokens outputTokens
    reasoningTokens cost unpricedCalls
  }
}"""


@app.command()
def usage(
    by: list[Group] | None = typer.Option(
        None,
        parser=one_of(Group),
        autocompletion=lambda: [*Group],
        metavar="GROUP",
        help=f"What to sum by: {', '.join(Group)}. Repeat it for several. By default, by project.",
    ),
    project: OfProject = None,
    days: int | None = typer.Option(
        None,
        parser=whole_number(1, 36500),
        metavar="N",
        help="Only the last days; by default, all usage.",
    ),
    first: int = typer.Option(
        100, parser=whole_number(1, MOST), metavar="N", help="How many rows at most."
    ),
    user: OnBehalfOf = None,
    as_json: AsJSON = False,
) -> None:
    """Show the tokens, calls and cost (in US dollars) of AI models."""
    groups = list(dict.fromkeys(by or [Group.PROJECT]))
    since = None if days is None else (datetime.now(UTC) - timedelta(days=days)).isoformat()

    async def work(api: Client) -> list[Any]:
        from graph.cli.lookups import find_project

        keys = " ".join(dict.fromkeys(KEYS[group] for group in groups))
        answer = await api.read(
            SUMMARY % keys,
            groupBy=[group.name for group in groups],
            projectId=None if project is None else await find_project(api, project),
            **{"from": since},
            first=first,
        )
        return list(answer["usageSummary"])

    found = with_api(work, user=user)
    if as_json:
        print_json(found)
        return
    shown = [group for group in groups if not (group is Group.DAY and Group.HOUR in groups)]
    columns = [*(group.name for group in shown), *NUMBERS, "COST"]
    rows = [
        [
            *(_key(each, group) for group in shown),
            *map(each.get, NUMBERS.values()),
            money(each["cost"]),
        ]
        for each in found
    ]
    print_table(columns, rows, numbers=(*NUMBERS, "COST"))
    if unpriced := sum(int(each["unpricedCalls"]) for each in found):
        calls = "1 call has" if unpriced == 1 else f"{unpriced} calls have"
        print_note(
            f"{calls} no price yet and count as 0. `createAiModel` or `updateAiModel` of the API"
            " sets the prices of a model, and then `repriceUsage` the costs."
        )


def _key(row: Any, group: Group) -> object:
    if group is Group.DAY:
        return row["time"][:10]
    if group is Group.HOUR:
        return f"{row['time'][:10]} {row['time'][11:16]}Z"
    if group is Group.MODEL:
        return row["modelName"]
    named = row[group] or {}
    return named.get("name") or named.get("title") or named.get("username")
