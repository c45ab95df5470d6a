"""How many operations run at once, in this process and for each viewer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from graph.errors import Overloaded


class Running:
    """The operations that a process runs."""

    def __init__(self, most: int, most_per_viewer: int) -> None:
        self.most = most
        self.most_per_viewer = most_per_viewer
        self._of: Counter[Hashable] = Counter()

    @contextmanager
    def one_more(self, viewer: Hashable) -> Iterator[None]:
        """Count one operation for as long as the block lasts. Raises Overloaded."""
        for running, most, setting, whose in (
            (self._of[viewer], self.most_per_viewer, "max_running_per_viewer", "of yours"),
            (self._of.total(), self.most, "max_running", "of everybody"),
        ):
            if running >= most:
                raise Overloaded(
                    f"{running} operations {whose} are running, and {most} may at once"
                    f" (TROUPE_{setting.upper()}). Try again in a moment.",
                    limit=setting,
                    allowed=most,
                )
        self._of[viewer] += 1
        try:
            yield
        finally:
            self._of[viewer] -= 1
            if not self._of[viewer]:
                del self._of[viewer]


class Turns:
    """How many connections to the database each viewer uses at once, so that nobody has all."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._of: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, viewer: Hashable) -> asyncio.Semaphore:
        """What a viewer's operations wait for."""
        found = self._of.get(viewer)
        if found is None:
            found = self._of[viewer] = asyncio.Semaphore(self.most)
        return found
