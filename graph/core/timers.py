"""One timer for many short operations, of which few become slow."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol
from weakref import ref

# What ends within this time, in seconds, is not slow.
SOON = 0.05


class Slow(Protocol):
    """Something that a SharedTimer watches."""

    def on_slow(self) -> None:
        """Called if it still exists after SOON, or at most twice as long."""


class SharedTimer:
    """One timer of the event loop for everything that has begun in the last moments."""

    def __init__(self) -> None:
        # Weak references: what is over, and all that it has read, can be freed at once.
        self._begun: deque[tuple[float, ref[Slow]]] = deque()

    def add(self, begun: Slow) -> None:
        """Call `on_slow` of something that begins now, unless it is freed before."""
        if not self._begun:
            self._schedule()
        self._begun.append((time.monotonic(), ref(begun)))

    def _schedule(self) -> None:
        asyncio.get_running_loop().call_later(SOON, self._check)

    def _check(self) -> None:
        early = time.monotonic() - SOON
        while self._begun and self._begun[0][0] <= early:
            slow = self._begun.popleft()[1]()
            if slow is not None:
                slow.on_slow()
        if self._begun:
            self._schedule()
