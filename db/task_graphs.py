"""The graph of a project's tasks: its levels, and its critical path.

Each task counts twice in the graph of waiting. Its gate opens when its dependencies are done, and
when the gate of its parent opens. The task itself is done after its gate has opened and its
subtasks are done. So what a parent waits for holds its subtasks too, and both passes over the graph
are linear in tasks and edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Executable,
    Integer,
    Uuid,
    case,
    cast,
    extract,
    func,
    literal_column,
    null,
    select,
    union_all,
)
from sqlalchemy.orm import aliased

from db.base import any_of, choice
from db.dependencies import find_cycle
from db.errors import CycleDetected
from db.parameters import request_of_statements
from db.projects import Project
from db.scopes import Viewer, scope
from db.sessions import ReadSession
from db.statements import Statement, Values, value
from db.tasks import OnFailure, Task, TaskDependency, TaskStatus

NEVER_DONE = (TaskStatus.CANCELLED, TaskStatus.SKIPPED)


class TimeTaken(StrEnum):
    """By which time of each task a critical path is computed."""

    ESTIMATED = "ESTIMATED"
    """Its estimate; 0 without one, and if it was cancelled or skipped."""
    ACTUAL = "ACTUAL"
    """The time from its start to its completion; 0 if it is not completed."""


class TooLarge(Exception):
    """A graph has more tasks and dependencies than asked for."""


@dataclass(frozen=True)
class GraphTask:
    """A task of a graph."""

    id: UUID
    parent_id: UUID | None
    estimated: int
    actual: int


@dataclass(frozen=True)
class GraphEdge:
    """A dependency of a graph."""

    dependent_id: UUID
    dependency_id: UUID
    on_failure: OnFailure


@dataclass(frozen=True)
class Scheduled:
    """When a task can begin and end at the earliest, in seconds from the start of the project."""

    task_id: UUID
    earliest_start: int
    earliest_finish: int
    slack: int
    """For how long it can be delayed without delaying the end of the project, in seconds."""


@dataclass(frozen=True)
class Schedule:
    """The critical path of a graph, and the times of all its tasks."""

    total: int
    path: list[Scheduled]
    tasks: list[Scheduled]


class Chain(NamedTuple):
    """The length of a chain of tasks: of two with the same seconds, that of more tasks is longer.

    So a plan without times has a critical path too.
    """

    seconds: int
    tasks: int


NO_CHAIN = Chain(0, 0)

Vertex = tuple[UUID, bool]
"""A task, and whether it is its gate."""


class TaskGraph:
    """The tasks of a project and their dependencies, sorted by what waits for what."""

    def __init__(self, tasks: Sequence[GraphTask], edges: Sequence[GraphEdge]) -> None:
        """Raises CycleDetected, which only rows that were written by hand can cause."""
        self.tasks = tasks
        self.edges = edges
        self._before: dict[Vertex, list[Vertex]] = {}
        known = {task.id for task in tasks}
        for task in tasks:
            self._before[task.id, True] = []
            self._before[task.id, False] = [(task.id, True)]
        for task in tasks:
            if task.parent_id in known:
                self._before[task.id, True].append((task.parent_id, True))
                self._before[task.parent_id, False].append((task.id, False))
        for edge in edges:
            if edge.dependent_id in known and edge.dependency_id in known:
                self._before[edge.dependent_id, True].append((edge.dependency_id, False))
        self._after: dict[Vertex, list[Vertex]] = {vertex: [] for vertex in self._before}
        for vertex, before in self._before.items():
            for each in before:
                self._after[each].append(vertex)
        self._order = self._sorted()

    def _sorted(self) -> list[Vertex]:
        """All vertices, each after those before it."""
        left = {vertex: len(before) for vertex, before in self._before.items()}
        order = [vertex for vertex, number in left.items() if not number]
        for vertex in order:  # it grows meanwhile
            for after in self._after[vertex]:
                left[after] -= 1
                if not left[after]:
                    order.append(after)
        if len(order) < len(left):
            parents = {task.id: task.parent_id for task in self.tasks}
            dependencies: dict[UUID, list[UUID]] = {}
            for edge in self.edges:
                dependencies.setdefault(edge.dependent_id, []).append(edge.dependency_id)
            raise CycleDetected(find_cycle(parents, dependencies) or [])
        return order

    def levels(self) -> dict[UUID, int]:
        """The length of the longest chain of tasks that each task waits for."""
        finish = self._forward(dict.fromkeys((task.id for task in self.tasks), 0))
        return {task.id: finish[task.id, False].tasks - 1 for task in self.tasks}

    def schedule(self, by: TimeTaken) -> Schedule:
        """The critical path by these times (critical path method, Kelley and Walker 1959)."""
        is_estimated = by is TimeTaken.ESTIMATED
        seconds = {task.id: task.estimated if is_estimated else task.actual for task in self.tasks}
        finish = self._forward(seconds)
        total = max(finish.values(), default=NO_CHAIN).seconds
        # The latest finish of each vertex, at which the project still ends in time.
        latest: dict[Vertex, int] = {}
        for vertex in reversed(self._order):
            starts = [latest[after] - _lasts(after, seconds) for after in self._after[vertex]]
            latest[vertex] = min(starts, default=total)
        tasks = {}
        for task in self.tasks:
            vertex, lasts = (task.id, False), seconds[task.id]
            end = finish[vertex].seconds
            tasks[task.id] = Scheduled(task.id, end - lasts, end, latest[vertex] - end)
        path = self._path(finish)
        return Schedule(total, [tasks[id] for id in path], list(tasks.values()))

    def _forward(self, seconds: Mapping[UUID, int]) -> dict[Vertex, Chain]:
        """The longest chain that ends with each vertex; its seconds are the earliest finish."""
        finish: dict[Vertex, Chain] = {}
        for vertex in self._order:
            start = max((finish[before] for before in self._before[vertex]), default=NO_CHAIN)
            is_gate = vertex[1]
            finish[vertex] = (
                start if is_gate else Chain(start.seconds + seconds[vertex[0]], start.tasks + 1)
            )
        return finish

    def _path(self, finish: Mapping[Vertex, Chain]) -> list[UUID]:
        """The tasks of a longest chain, in their order; of several, that of the smallest ids."""
        at = _last(((task.id, False) for task in self.tasks), finish)
        path: list[UUID] = []
        while at is not None:
            if not at[1]:
                path.append(at[0])
            at = _last(self._before[at], finish)
        return path[::-1]


def _lasts(vertex: Vertex, seconds: Mapping[UUID, int]) -> int:
    return 0 if vertex[1] else seconds[vertex[0]]


def _last(vertices: Iterable[Vertex], finish: Mapping[Vertex, Chain]) -> Vertex | None:
    """The vertex of the longest chain; of several, a task rather than a gate, the smallest id."""

    def key(vertex: Vertex) -> tuple[int, int, bool, UUID]:
        chain = finish[vertex]
        return -chain.seconds, -chain.tasks, vertex[1], vertex[0]

    return min(vertices, key=key, default=None)


async def read(
    session: ReadSession, viewer: Viewer, project_id: UUID, most: int
) -> tuple[list[GraphTask], list[GraphEdge]] | None:
    """The tasks and the dependencies of a project that the viewer may see, or None.

    Raises TooLarge if these are more than `most`.
    """
    values = {"project_id": project_id, "limit": most + 1}
    with request_of_statements(Values(viewer, values)):
        rows = (await session.execute(_graph.built(viewer))).all()
    if not rows:
        return None
    (_, *found) = rows
    if len(found) > most:
        raise TooLarge
    tasks = [GraphTask(*row[1:5]) for row in found if row[0] == TASK]
    edges = [GraphEdge(row[1], row[2], row[5]) for row in found if row[0] == EDGE]
    return tasks, edges


PROJECT, TASK, EDGE = range(3)


@Statement
def _graph(viewer: Viewer) -> Executable:
    """A project, its tasks with their times in seconds, and their dependencies, in this order.

    It is one statement, so that the dependencies are those of the tasks.
    """
    project_id, limit = value("project_id", Uuid), value("limit", Integer)
    no_id, no_time, nothing = cast(null(), Uuid), cast(null(), BigInteger), cast(null(), ON_FAILURE)
    project = select(_kind(PROJECT), Project.id, no_id, no_time, no_time, nothing)
    project = project.where(Project.id == project_id, scope(Project, viewer))

    taken = func.greatest(extract("epoch", Task.completed_at - Task.started_at), 0)
    estimated = case((any_of(Task.status, NEVER_DONE), 0), else_=Task.estimated_seconds)
    actual = case((Task.status == TaskStatus.COMPLETED, cast(func.floor(taken), BigInteger)))
    times = (cast(func.coalesce(each, 0), BigInteger) for each in (estimated, actual))
    tasks = select(_kind(TASK), Task.id, Task.parent_task_id, *times, nothing)
    tasks = tasks.where(Task.project_id == project_id, scope(Task, viewer))

    dependent, dependency = aliased(Task), aliased(Task)
    ids = TaskDependency.dependent_id, TaskDependency.dependency_id
    edges = (
        select(_kind(EDGE), *ids, no_time, no_time, TaskDependency.on_failure)
        .join(dependent, dependent.id == ids[0])
        .join(dependency, dependency.id == ids[1])
        .where(
            dependent.project_id == project_id,
            dependency.project_id == project_id,
            scope(dependent, viewer),
        )
    )
    # More than may be are not sorted.
    limited = (each.limit(limit) for each in (tasks, edges))
    return union_all(project, *limited).order_by(literal_column("1, 2, 3"))


ON_FAILURE = choice(OnFailure)


def _kind(kind: int) -> Any:
    return literal_column(str(kind), Integer)
