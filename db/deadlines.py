"""Timeouts for many short operations, with one shared timer until an operation is slow."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from types import TracebackType
from typing import Protocol
from weakref import ref

# What ends within this time, in seconds, gets no timer or task of its own.
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


class TimedOut(Exception):
    """The block of a Timeout was cancelled, because its time was over."""


class Timeout:
    """`asyncio.timeout`, without a timer of its own until the block has taken SOON.

    It cancels what the block waits for at a moment of `time.monotonic`, and raises TimedOut.
    """

    _is_over = False

    def __init__(self, timer: SharedTimer, moment: float) -> None:
        self._timer = timer
        self._moment = moment
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._timer.add(self)

    def on_slow(self) -> None:
        """Start a timer for the rest of the time."""
        if not self._is_over:
            left = self._moment - time.monotonic()
            self._timeout.reschedule(asyncio.get_running_loop().time() + left)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise TimedOut from None
