"""Limits of concurrency: the operations of a process, and the work of each client."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable

from graph.core.errors import Overloaded

MOST_CLIENTS = 10_000


class ClientCounts(Counter[Hashable]):
    """How many of something each client has. Those who have none take no memory."""

    def add(self, client: Hashable) -> None:
        """Count one more of a client."""
        self[client] += 1

    def remove(self, client: Hashable) -> None:
        """Count one less of a client."""
        self[client] -= 1
        if not self[client]:
            del self[client]


class RunningOperations:
    """The number of running operations, or of waiting ones, in the process and for each client."""

    def __init__(self, most: int, most_per_client: int, state: str = "running") -> None:
        """`state` is part of the names of the settings with these limits."""
        self.most = most
        self.most_per_client = most_per_client
        self._state = state
        self._total = 0
        self._by_client = ClientCounts()

    def __len__(self) -> int:
        return self._total

    def begin(self, client: Hashable) -> None:
        """Count an operation of a client. Raises Overloaded if too many are running."""
        running = self._by_client[client]
        if running >= self.most_per_client:
            setting = f"max_{self._state}_per_viewer"
            raise self._too_many(running, "of yours", setting, self.most_per_client)
        if self._total >= self.most:
            setting = f"max_{self._state}"
            raise self._too_many(self._total, "of everybody", setting, self.most)
        self._by_client.add(client)
        self._total += 1

    def end(self, client: Hashable) -> None:
        """Stop counting an operation of a client."""
        self._total -= 1
        self._by_client.remove(client)

    def _too_many(self, found: int, whose: str, setting: str, most: int) -> Overloaded:
        return Overloaded(
            f"{found} operations {whose} are {self._state}, and {most} may at once"
            f" (TROUPE_{setting.upper()}). Try again in a moment.",
            limit=setting,
            allowed=most,
        )


class ClientSemaphores(dict[Hashable, asyncio.Semaphore]):
    """A semaphore with the same value for each client, created at its first use."""

    def __init__(self, value: int) -> None:
        super().__init__()
        self.value = value

    def __missing__(self, client: Hashable) -> asyncio.Semaphore:
        if len(self) >= MOST_CLIENTS:
            del self[next(iter(self))]  # the oldest, which then starts again with a new semaphore
        semaphore = self[client] = asyncio.Semaphore(self.value)
        return semaphore
