"""Writes that add no edge, in a project with a large graph of tasks and in one without."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import URL

from benchmarks.bulk import EDGES, ROWS, Copied, copied_tasks, copy
from benchmarks.compare import Pace
from benchmarks.contenders import COMPILED, running
from benchmarks.data import TASK, clean, connected, row_id
from benchmarks.progress import say
from benchmarks.queries import WRITES
from benchmarks.scaling import Scaling, made, measure_round

ADDED = tuple(query for query in WRITES if query.name in ("createTask", "updateTask"))
"""The writes that are measured."""

NUMBERS = 10, 20
"""The numbers of the two projects, of which the first has the graph, and of a task of each."""

TIMES = 10
"""How often the tasks of `bulk` are added; each waits also for the task that is changed."""
GRAPH_TASKS, GRAPH_EDGES = TIMES * ROWS, TIMES * (ROWS + len(EDGES))


def in_graph(name: str) -> str:
    """The name of the measurement of a write in the project with the graph."""
    return f"{name} in a graph"


def without_graph(name: str) -> str:
    """The name of the measurement of a write in the other project."""
    return f"{name} without a graph"


async def graphs(url: URL, pace: Pace) -> Scaling:
    """Measure the writes in rounds, over one connection."""
    result = Scaling({})
    async with connected(url) as connection:
        with running(COMPILED, url) as server:
            questions = []
            for query in ADDED:
                large, small = COMPILED.bodies(query, max(NUMBERS))
                questions.append(made(server, in_graph(query.name), [large]))
                questions.append(made(server, without_graph(query.name), [small]))
            for number in range(pace.rounds):
                for _ in range(TIMES):
                    await copy(connection, _graph())
                await measure_round(result, questions, pace)
                await clean(connection)
                say(f"round {number + 1} of {pace.rounds} of writes in a graph")
    return result


def _graph() -> Iterator[Copied]:
    tasks, edges = copied_tasks()
    yield tasks
    yield edges
    first = row_id(TASK, NUMBERS[0])
    yield Copied(edges.table, edges.columns, [(id, first) for id, *_ in tasks.rows])
