"""The graph of a project's tasks: levels, and the critical path."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

import db
from db import OnFailure, task_graphs
from db.imports import import_plan
from db.task_graphs import GraphEdge, GraphTask, TaskGraph, TimeTaken
from tests import factories
from tests.conftest import ADMIN, People
from tests.test_dependencies import Naive
from tests.test_imports import REAL_PLAN, real
from tests.world import World, gid, make_world

GRAPH = """query($id: ID!, $most: Int) { taskGraph(projectId: $id, maxSize: $most) {
  levels
  nodes { level task { title } }
  edges { onFailure dependent { title } dependency { title } }
} }"""
PATH = """query($id: ID!, $by: TimeTaken) { criticalPath(projectId: $id, by: $by) {
  totalSeconds path { task { title } }
  tasks { task { title } earliestStart earliestFinish slack }
} }"""


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def test_a_graph_has_levels(world: World) -> None:
    answer = await world.owner.ask(GRAPH, id=gid(world.project))

    assert answer.data["taskGraph"] == {
        "levels": 3,
        "nodes": [
            {"level": 0, "task": {"title": "Free"}},
            {"level": 1, "task": {"title": "Subtask"}},
            {"level": 2, "task": {"title": "Parent"}},
        ],
        "edges": [
            {
                "onFailure": "SKIP",
                "dependent": {"title": "Subtask"},
                "dependency": {"title": "Free"},
            }
        ],
    }
    # The graph, in one snapshot; and the tasks that are shown, of each list.
    assert len(answer.statements) == 4


async def test_a_graph_is_limited_and_paid_for(world: World, limited: People) -> None:
    project = gid(world.project)
    fits = await world.owner.ask(GRAPH, id=project, most=4)
    assert len(fits.data["taskGraph"]["nodes"]) == 3
    for most, message in (
        (3, "The project has more than 3 tasks and dependencies. Raise maxSize, or read `tasks`"),
        (2, "The project has more than 2 tasks and dependencies. Raise maxSize, or read `tasks`"),
        (0, "maxSize must be between 1 and 10000, not 0."),
        (10_001, "maxSize must be between 1 and 10000, not 10001."),
    ):
        answer = await world.owner.ask(GRAPH, id=project, most=most)
        (error,) = answer.errors
        assert error["message"].startswith(message)
        # Programs know by it that there are too many, without reading the message.
        limit = {"limit": "maxSize", "allowed": most} if most in (2, 3) else {}
        assert error["extensions"] == {"code": "BAD_USER_INPUT", **limit}
    assert (await limited.owner.ask(GRAPH, id=project, most=2000)).data
    assert (await limited.owner.ask(GRAPH, id=project, most=10_000)).code == "LIMIT_EXCEEDED"


async def test_graphs_are_for_those_who_see_the_project(world: World) -> None:
    for query, name in ((GRAPH, "taskGraph"), (PATH, "criticalPath")):
        for id in (gid(world.elsewhere), str(db.new_id())):
            assert (await world.owner.ask(query, id=id)).data == {name: None}


async def test_the_critical_path_of_a_project(world: World) -> None:
    """A takes 3 s, B 2 s after it; C takes 4 s by itself; P, the parent of B and C, takes 1 s."""
    async with world.database.write(ADMIN) as session:
        project = await factories.make_project(session, world.people.users["owner"], "Plan")
        begun = factories.minutes(0)
        parent = await factories.make_task(session, project, "P", estimated_seconds=1)
        a = await factories.make_task(
            session,
            project,
            "A",
            estimated_seconds=3,
            status=db.TaskStatus.COMPLETED,
            started_at=begun,
            completed_at=factories.minutes(1),
        )
        below = {"parent_task_id": parent.id}
        b = await factories.make_task(session, project, "B", estimated_seconds=2, **below)
        await factories.make_task(session, project, "C", estimated_seconds=4, **below)
        await factories.make_task(
            session,
            project,
            "never",
            estimated_seconds=1000,
            status=db.TaskStatus.CANCELLED,
            **below,
        )
        await factories.make_dependency(session, b, a)

    estimated = (await world.owner.ask(PATH, id=gid(project))).data["criticalPath"]
    actual = (await world.owner.ask(PATH, id=gid(project), by="ACTUAL")).data["criticalPath"]

    def rows(path: Any) -> dict[str, tuple[str, ...]]:
        return {
            row["task"]["title"]: (row["earliestStart"], row["earliestFinish"], row["slack"])
            for row in path["tasks"]
        }

    def titles(path: Any) -> list[str]:
        return [row["task"]["title"] for row in path["path"]]

    assert estimated["totalSeconds"] == "6"
    assert titles(estimated) == ["A", "B", "P"]
    assert rows(estimated) == {
        "A": ("0", "3", "0"),
        "B": ("3", "5", "0"),
        "C": ("0", "4", "1"),
        "P": ("5", "6", "0"),
        "never": ("0", "0", "5"),
    }
    assert actual["totalSeconds"] == "60"
    assert titles(actual) == ["A", "B", "P"]
    assert rows(actual)["C"] == ("0", "0", "60")


NUMBERS = st.integers(0, 5)


@given(
    st.lists(st.none() | NUMBERS, min_size=6, max_size=6),
    st.sets(st.tuples(NUMBERS, NUMBERS), max_size=8),
    st.lists(st.integers(0, 5), min_size=6, max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_a_schedule_is_what_a_naive_one_is(
    parents: list[int | None], edges: set[tuple[int, int]], seconds: list[int]
) -> None:
    naive = Naive(dict(enumerate(parents)), dict.fromkeys(edges, OnFailure.SKIP))
    assume(not naive.is_circular())
    graph = TaskGraph(
        [
            GraphTask(UUID(int=task), None if above is None else UUID(int=above), seconds[task], 0)
            for task, above in enumerate(parents)
        ],
        [GraphEdge(UUID(int=by), UUID(int=to), OnFailure.SKIP) for by, to in edges],
    )

    levels, schedule = graph.levels(), graph.schedule(TimeTaken.ESTIMATED)

    def longest(task: int, lasts: Mapping[int, int]) -> int:
        return lasts[task] + max((longest(to, lasts) for to in naive.awaited(task)), default=0)

    def end(lasts: Mapping[int, int]) -> int:
        return max(longest(task, lasts) for task in lasts)

    ones = dict.fromkeys(range(6), 1)
    given = dict(enumerate(seconds))
    assert {id.int: level for id, level in levels.items()} == {
        task: longest(task, ones) - 1 for task in ones
    }
    assert schedule.total == end(given)
    for row in schedule.tasks:
        task = row.task_id.int
        assert row.earliest_finish == longest(task, given)
        assert row.earliest_start == row.earliest_finish - given[task]
        # It can last so much longer, and no second more.
        assert end(given | {task: given[task] + row.slack}) == schedule.total
        assert end(given | {task: given[task] + row.slack + 1}) == schedule.total + 1
    path = [row.task_id.int for row in schedule.path]
    assert sum(given[task] for task in path) == schedule.total
    assert all(row.slack == 0 for row in schedule.path)
    assert all(a in naive.awaited(b) for a, b in pairwise(path))

    def chains(task: int) -> list[list[int]]:
        before = naive.awaited(task)
        found = [chain for to in before for chain in chains(to)] or [[]]
        return [[*chain, task] for chain in found]

    # Of the chains that take the same time, it is one with the most tasks.
    assert len(path) == max(
        len(chain)
        for task in given
        for chain in chains(task)
        if sum(given[each] for each in chain) == schedule.total
    )


async def test_without_estimates_the_longest_chain_is_the_critical_path(world: World) -> None:
    async with world.database.write(ADMIN) as session:
        project = await factories.make_project(session, world.people.users["owner"], "Plan")
        tasks = [await factories.make_task(session, project, title) for title in "dcba"]
        _, c, b, a = tasks
        await factories.make_dependency(session, b, a)
        await factories.make_dependency(session, c, b)

    for by in ("ESTIMATED", "ACTUAL"):
        found = (await world.owner.ask(PATH, id=gid(project), by=by)).data["criticalPath"]
        assert [row["task"]["title"] for row in found["path"]] == ["a", "b", "c"]
        assert found["totalSeconds"] == "0"


@real
async def test_the_graph_of_a_real_plan(database: db.Database, people: People) -> None:
    owner = people.users["owner"]
    await import_plan(database, REAL_PLAN, owner=owner.id)
    query = select(db.Task.project_id).group_by(db.Task.project_id).order_by(func.count().desc())
    async with database.read() as session:
        largest = await session.scalar(query.limit(1))
        rows = await task_graphs.read(session, db.Viewer(owner.id), largest, 10_000)
    assert rows is not None
    graph = TaskGraph(*rows)
    parents = {task.id: task.parent_id for task in graph.tasks}
    assert len(graph.tasks) > 500

    levels, schedule = graph.levels(), graph.schedule(TimeTaken.ESTIMATED)

    for edge in graph.edges:
        assert levels[edge.dependent_id] > levels[edge.dependency_id]
    for id, parent in parents.items():
        assert parent is None or levels[id] < levels[parent]
    waiting = {edge.dependent_id for edge in graph.edges} | set(parents.values())
    assert min(levels.values()) == 0
    assert all(levels[id] > 0 for id in waiting if id is not None)
    assert all(row.slack >= 0 for row in schedule.tasks)
    assert len(schedule.path) == len({row.task_id for row in schedule.path})
