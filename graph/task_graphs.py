"""The graph of a project's tasks: what waits for what, its levels, and its critical path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar
from uuid import UUID

import strawberry

import db
from db import OnFailure, task_graphs
from db.errors import CycleDetected
from db.task_graphs import TaskGraph, TimeTaken
from graph.core.computed import computed_type, keyed, value
from graph.core.context import Info
from graph.core.entities import describe_enum
from graph.core.errors import BadInput
from graph.core.filters import keys
from graph.core.scalars import BigInt
from graph.core.threads import in_thread

describe_enum(TimeTaken)

Result = TypeVar("Result")

# The graph costs `maxSize` times what is selected of it, so each list counts as one object.
PAID = {"most": 1}

DEFAULT_SIZE = 1000
MAX_SIZE = 10_000


@computed_type
class TaskGraphNode:
    """A task of a graph."""

    task = keyed(db.Task, "The task; null if it was deleted meanwhile.")
    level: int = value(
        "The length of the longest chain of tasks that it waits for; 0 if it waits for none. It"
        " also waits for its subtasks, and for what its parent waits for."
    )


@computed_type
class TaskGraphEdge:
    """A dependency of a graph."""

    dependent = keyed(db.Task, "The task that waits.")
    dependency = keyed(db.Task, "The task it waits for.")
    on_failure: OnFailure = value("What happens to the dependent task when the other fails.")


@strawberry.type(name="TaskGraph", description="The tasks of a project and their dependencies.")
class ShownGraph:
    nodes: list[TaskGraphNode] = strawberry.field(description="The tasks, by level.", metadata=PAID)
    edges: list[TaskGraphEdge] = strawberry.field(
        description="The dependencies. That a task waits for its subtasks is not among them.",
        metadata=PAID,
    )
    levels: int = strawberry.field(description="How many levels there are.")


@computed_type
class ScheduledTask:
    """A task of a critical path, with times in seconds from the start of the project."""

    task = keyed(db.Task, "The task; null if it was deleted meanwhile.")
    earliest_start: BigInt = value("When it can begin at the earliest.")
    earliest_finish: BigInt = value("When it can end at the earliest.")
    slack: BigInt = value("For how long it can be delayed without delaying the end.")


@strawberry.type(description="How long a project takes at least, and the tasks that decide it.")
class CriticalPath:
    total_seconds: BigInt = strawberry.field(
        description="How long the project takes if every task begins as soon as it can."
    )
    path: list[ScheduledTask] = strawberry.field(
        description="The longest chain of tasks, each waiting for the one before it; of those that"
        " take the same time, one with the most tasks. Its slack is 0.",
        metadata=PAID,
    )
    tasks: list[ScheduledTask] = strawberry.field(
        description="All tasks, with their slack.", metadata=PAID
    )


@dataclass
class Node:
    """The value of a TaskGraphNode."""

    task_id: UUID
    level: int


ProjectId = Annotated[strawberry.ID, strawberry.argument(description="The id of the project.")]
Size = Annotated[
    int | None,
    strawberry.argument(
        description="An error if there are more tasks and dependencies than this:"
        f" {DEFAULT_SIZE:,} unless said otherwise, at most {MAX_SIZE:,}. It determines the cost."
    ),
]
By = Annotated[
    TimeTaken | None,
    strawberry.argument(description="By which time of each task: ESTIMATED unless said otherwise."),
]


async def _read(
    info: Info, project_id: str, size: int | None, compute: Callable[[TaskGraph], Result]
) -> Result | None:
    """What is computed of the graph of a project, in a thread; None without a project."""
    most = DEFAULT_SIZE if size in (None, strawberry.UNSET) else size
    if not 1 <= most <= MAX_SIZE:
        raise BadInput(f"maxSize must be between 1 and {MAX_SIZE}, not {most}.")
    key = keys(db.Project, project_id)
    try:
        async with info.context.read() as session:
            rows = await task_graphs.read(session, info.context.viewer, key, most)
        if rows is None:
            return None
        return await in_thread(lambda: compute(TaskGraph(*rows)))
    except task_graphs.TooLarge:
        more = f"The project has more than {most} tasks and dependencies."
        advice = "Raise maxSize, or read `tasks` page by page."
        raise BadInput(f"{more} {advice}", limit="maxSize", allowed=most) from None
    except CycleDetected as error:
        raise BadInput(error.message) from None


def _shown(graph: TaskGraph) -> ShownGraph:
    levels = graph.levels()
    nodes: list[Any] = sorted(
        (Node(id, level) for id, level in levels.items()),
        key=lambda node: (node.level, node.task_id),
    )
    edges: list[Any] = list(graph.edges)
    return ShownGraph(nodes=nodes, edges=edges, levels=max(levels.values(), default=-1) + 1)


def _critical(by: TimeTaken, graph: TaskGraph) -> CriticalPath:
    schedule: Any = graph.schedule(by)
    return CriticalPath(total_seconds=schedule.total, path=schedule.path, tasks=schedule.tasks)


async def _task_graph(
    info: Info, project_id: ProjectId, max_size: Size = strawberry.UNSET
) -> ShownGraph | None:
    return await _read(info, project_id, max_size, _shown)


async def _critical_path(
    info: Info,
    project_id: ProjectId,
    by: By = strawberry.UNSET,
    max_size: Size = strawberry.UNSET,
) -> CriticalPath | None:
    by = by or TimeTaken.ESTIMATED  # also if it is UNSET
    return await _read(info, project_id, max_size, partial(_critical, by))


def _size(arguments: Mapping[str, Any]) -> int:
    return min(max(arguments.get("maxSize") or DEFAULT_SIZE, 1), MAX_SIZE)


@strawberry.type
class Query:
    task_graph: ShownGraph | None = strawberry.field(
        resolver=_task_graph,
        description="The tasks of a project with their levels, and their dependencies; null if you"
        " may not see the project.",
        metadata={"most": _size},
    )
    critical_path: CriticalPath | None = strawberry.field(
        resolver=_critical_path,
        description="The critical path of a project; null if you may not see the project.",
        metadata={"most": _size},
    )
