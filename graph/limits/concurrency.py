"""How many operations run at once, in this process and for each viewer."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from graph.core.errors import Overloaded

# For more viewers than that it is not remembered who uses connections.
MOST_VIEWERS = 10_000


class Running:
    """The operations that a process runs."""

    def __init__(self, most: int, most_per_viewer: int) -> None:
        self.most = most
        self.most_per_viewer = most_per_viewer
        self._all = 0
        self._of: dict[Hashable, int] = {}

    def one_more(self, viewer: Hashable) -> One:
        """Counts one operation for as long as the block lasts. Raises Overloaded at its start."""
        return One(self, viewer)

    def begin(self, viewer: Hashable) -> None:
        """Count an operation that begins. Raises Overloaded."""
        running = self._of.get(viewer, 0)
        if running >= self.most_per_viewer:
            raise _enough(running, "of yours", "max_running_per_viewer", self.most_per_viewer)
        if self._all >= self.most:
            raise _enough(self._all, "of everybody", "max_running", self.most)
        self._of[viewer] = running + 1
        self._all += 1

    def end(self, viewer: Hashable) -> None:
        """Count it no more."""
        self._all -= 1
        self._of[viewer] -= 1
        if not self._of[viewer]:
            del self._of[viewer]


class One:
    """An operation, which counts as long as the block lasts."""

    __slots__ = ("_running", "_viewer")

    def __init__(self, running: Running, viewer: Hashable) -> None:
        self._running = running
        self._viewer = viewer

    def __enter__(self) -> None:
        self._running.begin(self._viewer)

    def __exit__(self, *_: object) -> None:
        self._running.end(self._viewer)


def _enough(running: int, whose: str, setting: str, most: int) -> Overloaded:
    return Overloaded(
        f"{running} operations {whose} are running, and {most} may at once"
        f" (TROUPE_{setting.upper()}). Try again in a moment.",
        limit=setting,
        allowed=most,
    )


class Turns:
    """How many connections to the database each viewer uses at once, so that nobody has all."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._of: dict[Hashable, asyncio.Semaphore] = {}

    def of(self, viewer: Hashable) -> asyncio.Semaphore:
        """What a viewer's operations wait for."""
        found = self._of.get(viewer)
        if found is None:
            if len(self._of) >= MOST_VIEWERS:
                # Whose goes first is not of importance: they would begin to count anew.
                del self._of[next(iter(self._of))]
            found = self._of[viewer] = asyncio.Semaphore(self.most)
        return found
