"""Which edges of an untidy plan have to go so that nothing waits for itself."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from db.dependencies import find_cycle


def closing_circles(
    parents: Sequence[int | None], dependencies: Sequence[tuple[int, int]]
) -> list[int]:
    """The places in `dependencies` of those that would close a circle with the ones before them.

    Tasks are numbers; a dependency is (the task that waits, the task it waits for). The graph is
    that of `find_cycle`, which settles the matter for a plan without a circle. For the others,
    every task has two moments: it begins after the task above it begins and after its dependencies
    end, and it ends after its subtasks end. Each dependency adds one "after" between two moments,
    if no circle comes of it.
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
    moments = _Moments(2 * len(parents), structure, isqrt(len(structure) + len(dependencies)))
    return [
        place
        for place, (dependent, dependency) in enumerate(dependencies)
        if not moments.add(_end(dependency), _begin(dependent))
    ]


def _begin(task: int) -> int:
    return 2 * task


def _end(task: int) -> int:
    return 2 * task + 1


class _Moments:
    """A graph that takes in one edge after the other and stays without circles.

    By M. A. Bender, J. T. Fineman, S. Gilbert and R. E. Tarjan, "A New Approach to Incremental
    Cycle Detection and Related Problems" (2015), section 2: every node has a level, no edge leads
    to a lower one, and few edges lead to each node from its own level. A search for a circle goes
    backwards within a level for `reach` edges at most, and then forwards only through nodes that
    rise. A plan of 100,000 tasks takes seconds; looking for a way back anew for each edge takes
    hours.
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
        """Add an edge unless it closes a circle; whether it was added."""
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

    def _earlier(self, moment: int) -> set[int] | None:
        """What comes before it on its level, itself included; none if it is too much to look at."""
        earlier = {moment}
        pending = [moment]
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

    def _rising(self, moment: int, new: int, earlier: set[int]) -> set[int] | None:
        """What has to rise to the new level with it; none if that leads back to `earlier`."""
        rising = {moment}
        pending = [moment]
        # Breadth first: the circles that people make are short.
        for before in pending:
            for after in self._after[before]:
                if after in earlier:
                    return None
                if self._level[after] < new and after not in rising:
                    rising.add(after)
                    pending.append(after)
        return rising

    def _raise(self, rising: set[int], new: int) -> None:
        for moment in rising:
            self._level[moment] = new
            self._before_on_level[moment] = []
        for moment in rising:
            for after in self._after[moment]:
                if self._level[after] == new:
                    self._before_on_level[after].append(moment)
