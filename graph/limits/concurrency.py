"""How many operations run at once, in this process and for each client."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from graph.core.errors import Overloaded

# For more clients than that it is not remembered what they use.
MOST_CLIENTS = 10_000


class RunningOperations:
    """The number of operations that a process runs, and of those of each client."""

    def __init__(self, most: int, most_per_client: int) -> None:
        self.most = most
        self.most_per_client = most_per_client
        self._all = 0
        self._of: dict[Hashable, int] = {}

    def counted(self, client: Hashable) -> _Counted:
        """Counts one operation for as long as the block lasts. Raises Overloaded at its start."""
        return _Counted(self, client)

    def begin(self, client: Hashable) -> None:
        """Count an operation that begins. Raises Overloaded."""
        running = self._of.get(client, 0)
        if running >= self.most_per_client:
            raise _too_many(running, "of yours", "max_running_per_viewer", self.most_per_client)
        if self._all >= self.most:
            raise _too_many(self._all, "of everybody", "max_running", self.most)
        self._of[client] = running + 1
        self._all += 1

    def end(self, client: Hashable) -> None:
        """Stop counting an operation, because it has ended."""
        self._all -= 1
        self._of[client] -= 1
        if not self._of[client]:
            del self._of[client]


class _Counted:
    """An operation that is counted inside the block."""

    __slots__ = ("_client", "_running")

    def __init__(self, running: RunningOperations, client: Hashable) -> None:
        self._running = running
        self._client = client

    def __enter__(self) -> None:
        self._running.begin(self._client)

    def __exit__(self, *_: object) -> None:
        self._running.end(self._client)


def _too_many(running: int, whose: str, setting: str, most: int) -> Overloaded:
    return Overloaded(
        f"{running} operations {whose} are running, and {most} may at once"
        f" (TROUPE_{setting.upper()}). Try again in a moment.",
        limit=setting,
        allowed=most,
    )


class Semaphores:
    """A semaphore for each client, so that no client uses up what all share."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._of: dict[Hashable, asyncio.Semaphore] = {}

    def of(self, client: Hashable) -> asyncio.Semaphore:
        """The semaphore of a client."""
        found = self._of.get(client)
        if found is None:
            if len(self._of) >= MOST_CLIENTS:
                # Which one goes first does not matter: its client begins to count anew.
                del self._of[next(iter(self._of))]
            found = self._of[client] = asyncio.Semaphore(self.most)
        return found
