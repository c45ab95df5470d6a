"""The dependencies of an imported plan that have to be left out so that it has no cycle."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from db.dependencies import find_cycle


def cycle_closing_edges(
    parents: Sequence[int | None], dependencies: Sequence[tuple[int, int]]
) -> list[int]:
    """The indexes in `dependencies` of those that would close a cycle with the ones before them.

    Tasks are numbers; a dependency is (the task that waits, the task it waits for). The graph is
    that of `find_cycle`, which is enough for a plan without a cycle. For other plans, every task
    has two nodes, its begin and its end: it begins after its parent begins and after its
    dependencies end, and it ends after its subtasks end. Each dependency adds one edge between two
    nodes, unless that closes a cycle.
    """
    awaited: dict[int, list[int]] = {}
    for dependent, dependency in dependencies:
        awaited.setdefault(dependent, []).append(dependency)
    if find_cycle(dict(enumerate(parents)), awaited) is None:
        return []

    structure = []
    for task, parent in enumerate(parents):
        structure.append((_begin(task), _end(task)))
        if parent is not None:
            structure += [(_begin(parent), _begin(task)), (_end(task), _end(parent))]
    graph = _AcyclicGraph(2 * len(parents), structure, isqrt(len(structure) + len(dependencies)))
    return [
        place
        for place, (dependent, dependency) in enumerate(dependencies)
        if not graph.add(_end(dependency), _begin(dependent))
    ]


def _begin(task: int) -> int:
    return 2 * task


def _end(task: int) -> int:
    return 2 * task + 1


class _AcyclicGraph:
    """A graph without cycles, to which edges are added one by one.

    By M. A. Bender, J. T. Fineman, S. Gilbert and R. E. Tarjan, "A New Approach to Incremental
    Cycle Detection and Related Problems" (2015), section 2: every node has a level, no edge leads
    to a lower one, and few edges lead to each node from its own level. A search for a cycle goes
    backwards within a level for `reach` edges at most, and then forwards only through nodes whose
    level is raised. A plan of 100,000 tasks takes seconds; a full search for each edge takes hours.
    """

    def __init__(self, size: int, edges: Sequence[tuple[int, int]], reach: int) -> None:
        self._reach = reach
        self._level = [1] * size
        self._after: list[list[int]] = [[] for _ in range(size)]
        self._before_on_level: list[list[int]] = [[] for _ in range(size)]
        for first, second in edges:
            self._link(first, second)

    def _link(self, first: int, second: int) -> None:
        self._after[first].append(second)
        if self._level[first] == self._level[second]:
            self._before_on_level[second].append(first)

    def add(self, first: int, second: int) -> bool:
        """Add an edge unless it closes a cycle. Returns whether it was added."""
        level = self._level
        if level[first] >= level[second]:
            earlier = self._earlier(first)
            if earlier is None:
                earlier, new = {first}, level[first] + 1
            else:
                new = level[first]
            if second in earlier:
                return False
            if level[second] < new:
                rising = self._rising(second, new, earlier)
                if rising is None:
                    return False
                self._raise(rising, new)
        self._link(first, second)
        return True

    def _earlier(self, node: int) -> set[int] | None:
        """The nodes before it on its level, itself included; None after `reach` edges."""
        earlier = {node}
        pending = [node]
        looked_at = 0
        for later in pending:
            for before in self._before_on_level[later]:
                looked_at += 1
                if looked_at > self._reach:
                    return None
                if before not in earlier:
                    earlier.add(before)
                    pending.append(before)
        return earlier

    def _rising(self, node: int, new: int, earlier: set[int]) -> set[int] | None:
        """The nodes to raise to the new level with it; None if one of them is in `earlier`."""
        rising = {node}
        pending = [node]
        # Breadth first, because cycles in real plans are short.
        for before in pending:
            for after in self._after[before]:
                if after in earlier:
                    return None
                if self._level[after] < new and after not in rising:
                    rising.add(after)
                    pending.append(after)
        return rising

    def _raise(self, rising: set[int], new: int) -> None:
        for node in rising:
            self._level[node] = new
            self._before_on_level[node] = []
        for node in rising:
            for after in self._after[node]:
                if self._level[after] == new:
                    self._before_on_level[after].append(node)
