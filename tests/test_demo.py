"""The demo: its example data, and its workers, who do what the demo shows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any

import pytest

import db
from db import access
from graph import demo
from graph.api import API
from tests import processes
from tests.patience import becomes, until
from tests.processes import Demo
from tests.world import snapshot, stored

# The tables that the example data fills. Tokens are shown only once; attempts are the workers'.
SHOWN = {
    *("agent_tools", "agents", "ai_models", "budget_alerts", "budgets", "communications"),
    *("conversations", "human_interactions", "messages", "project_members", "projects"),
    *("task_dependencies", "tasks", "tools", "usage_records", "users"),
}
PROJECT = "01940000-0000-7000-8000-000000000010"
STATE = """query($id: ID!) {
  project(id: $id) {
    cost
    tasks(first: 50) { nodes {
      id title status attemptCount cost
      attempts { nodes { status number error agent { name } } }
    } }
    agents { nodes { name cost } }
    budgets { nodes { limitCost spent reserved percentUsed alerts { nodes { threshold } } } }
  }
}"""
STATS = """query($id: ID!) { projectStats(projectId: $id) {
  total completed inProgress blockedOnPeople failed ready waiting
} }"""
TASK = """query($title: String!) { tasks(first: 1, where: {title: {eq: $title}}) { nodes {
  status attempts(first: 5) { nodes { status error agent { name } } }
} } }"""
INBOX = "{ pendingInteractions(first: 10) { nodes { __typename } } }"
ASKED = """{ humanInteractions(
  first: 1, where: {blocksTask: {eq: true}, status: {eq: PENDING}}
) { nodes { id contentHash } } }"""
NOW = "UPDATE tasks SET available_at = now() WHERE available_at > now() RETURNING 1"
PARKED = "Order the sensors"
FAILED = "Read the sensors every minute"


async def test_the_examples_fill_the_tables(database: db.Database) -> None:
    await demo.fill(database)

    rows = await snapshot(database)
    assert {name for name, found in rows.items() if found} == SHOWN
    names = "SELECT name FROM projects ORDER BY name"
    assert await stored(database, names) == [
        "Imported chats",
        "Imported plan/housing",
        "Imported plan/master",
        "School weather station",
    ]


async def test_the_user_of_the_demo_has_something_to_answer(database: db.Database) -> None:
    async with working(database) as watcher:

        async def inbox() -> list[str]:
            nodes = (await watcher.ask(INBOX))["nodes"]
            return sorted(node["__typename"] for node in nodes)

        await becomes(watcher.asked)
        assert await inbox() == [
            "ApprovalRequest",
            "ClarificationRequest",
            "FeedbackRequest",
            "Notification",
        ]


async def test_example_data_that_does_not_fit_is_an_error(database: db.Database) -> None:
    await demo.fill(database)

    with pytest.raises(
        RuntimeError, match="large: There is already an AIModel with this id"
    ) as refused:
        await demo.fill(database)

    assert str(refused.value).startswith("the example data does not fit this version: ")


class Watcher:
    """The person who watches the demo."""

    def __init__(self, api: API) -> None:
        self.api = api

    async def ask(self, query: str, **variables: str) -> Any:
        """The only field of an answer."""
        data, errors = await self.api.ask(query, **variables)
        assert errors == []
        (answer,) = data.values()
        return answer

    async def stats(self) -> Any:
        """How many tasks are in which status."""
        return await self.ask(STATS, id=PROJECT)

    async def task(self, title: str) -> Any:
        """A task, with its attempts."""
        (task,) = (await self.ask(TASK, title=title))["nodes"]
        return task | {"attempts": task["attempts"]["nodes"]}

    async def respond(self, approved: bool) -> None:
        """Answer what a task waits for, once it does."""
        (asked,) = await becomes(self.asked)
        answer = {"id": asked["id"], "contentHash": asked["contentHash"], "approved": approved}
        await self.api.change("respondToApproval", **answer)

    async def asked(self) -> Any:
        """What a task waits for, in a list."""
        return (await self.ask(ASKED))["nodes"]

    async def agrees(self) -> Any:
        """The project. All that the demo says of it has to agree."""
        (state, errors), stats = await self.api.ask(STATE, id=PROJECT), await self.stats()
        assert errors == []
        project = state["project"]
        tasks = project["tasks"]["nodes"]
        statuses = Counter(task["status"] for task in tasks)
        assert stats["total"] == len(tasks)
        assert (stats["completed"], stats["inProgress"], stats["blockedOnPeople"]) == (
            statuses["COMPLETED"],
            statuses["IN_PROGRESS"],
            statuses["BLOCKED"],
        )
        assert stats["ready"] + stats["waiting"] == statuses["PENDING"] + statuses["ASSIGNED"]
        for task in tasks:
            attempts = task["attempts"]["nodes"]
            assert [attempt["number"] for attempt in attempts] == [*range(1, len(attempts) + 1)]
            assert task["attemptCount"] == len(attempts)
            done = [attempt["status"] for attempt in attempts].count("SUCCEEDED")
            assert done == (task["status"] == "COMPLETED")
        costs = [Decimal(one["cost"]) for one in tasks + project["agents"]["nodes"]]
        assert sum(costs[len(tasks) :]) == Decimal(project["cost"])
        (budget,) = project["budgets"]["nodes"]
        assert budget["spent"] == project["cost"]
        assert Decimal(budget["reserved"]) == Decimal("0.02") * statuses["IN_PROGRESS"]
        return project


@asynccontextmanager
async def working(database: db.Database) -> AsyncIterator[Watcher]:
    """The demo, whose workers take a hundredth of a second for each step."""
    await demo.fill(database)
    async with database.write(db.Viewer(is_administrator=True)) as session:
        admin = await access.administrator(session)
    assert admin is not None
    workers = asyncio.create_task(demo.work(database, 0.01))
    try:
        yield Watcher(API(database, db.Viewer(admin.id, is_administrator=True)))
    finally:
        workers.cancel()
        with suppress(asyncio.CancelledError):
            await workers


async def test_the_workers_do_what_they_can_and_wait_for_a_person(database: db.Database) -> None:
    async with working(database) as watcher:

        async def failed() -> Any:
            attempts = (await watcher.task(FAILED))["attempts"]
            return attempts if attempts and attempts[0]["status"] == "FAILED" else None

        (attempt,) = await becomes(failed)
        assert attempt["error"]["message"].startswith("2 of 41 tests failed")
        # It is tried again after twenty seconds, which is long for a test.
        assert await stored(database, NOW) == [1]

        async def remaining() -> int:
            stats = await watcher.stats()
            return int(stats["total"] - stats["completed"])

        await becomes(lambda: _is(remaining, 2))
        await watcher.agrees()
        assert await watcher.stats() == {
            "total": 15,
            "completed": 13,
            "inProgress": 0,
            "blockedOnPeople": 1,
            "failed": 0,
            "ready": 0,
            "waiting": 1,
        }
        await watcher.respond(approved=True)
        await becomes(lambda: _is(remaining, 0))
        project = await watcher.agrees()

    attempts = (await watcher.task(FAILED))["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["FAILED", "SUCCEEDED"]
    parked = (await watcher.task(PARKED))["attempts"]
    assert [attempt["agent"]["name"] for attempt in parked] == ["Scout", "Scout"]
    (budget,) = project["budgets"]["nodes"]
    assert 90 <= budget["percentUsed"] < 100
    assert [alert["threshold"] for alert in budget["alerts"]["nodes"]] == [80, 90]


async def _is(counted: Callable[[], Awaitable[int]], wanted: int) -> bool:
    return await counted() == wanted


async def test_what_a_person_rejects_is_not_done(database: db.Database) -> None:
    async with working(database) as watcher:
        await watcher.respond(approved=False)

        async def is_failed() -> bool:
            return bool((await watcher.task(PARKED))["status"] == "FAILED")

        await becomes(is_failed)


async def test_the_workers_stop_while_the_project_is_paused(database: db.Database) -> None:
    async with working(database) as watcher:

        async def running() -> int:
            return int((await watcher.stats())["inProgress"])

        await becomes(running)
        await watcher.api.change("transitionProject", id=PROJECT, to="PAUSED")
        await becomes(lambda: _is(running, 0))
        await watcher.agrees()
        await watcher.api.change("transitionProject", id=PROJECT, to="IN_PROGRESS")
        await becomes(running)


def test_the_command_has_three_agents_work() -> None:
    with processes.place() as folder, Demo(folder).ready() as server:
        query = """{ tasks(where: {status: {eq: IN_PROGRESS}}) {
          nodes { attempts { nodes { status agent { name } } } }
        } }"""

        def workers() -> set[str]:
            nodes = server.ask(query)["data"]["tasks"]["nodes"]
            return {task["attempts"]["nodes"][0]["agent"]["name"] for task in nodes}

        until(lambda: workers() == {"Scout", "Builder", "Checker"})
        assert server.stop().clean
