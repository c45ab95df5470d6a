"""How many operations run at once, in this process and for each viewer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

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
