"""What takes long: mostly nothing does, so that one timer looks after all of it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from types import TracebackType
from typing import Any, Protocol, Self
from weakref import ref

# What has ended before that, in seconds, is not worth a timer or a task of its own.
SOON = 0.05


class Lasting(Protocol):
    """What may take long."""

    def watch(self) -> None:
        """Be told that it did, unless it is over."""


class Watch:
    """Tells what takes long, by one timer for all that has begun."""

    def __init__(self) -> None:
        # Weakly: what is over, and all that it has read, need not wait for it.
        self._begun: deque[tuple[float, ref[Lasting]]] = deque()

    def begun(self, lasting: Lasting) -> None:
        """Have something told once it has taken as long as that, or at most twice as long."""
        now = time.monotonic()
        if not self._begun:
            self._look_later()
        self._begun.append((now, ref(lasting)))

    def _look_later(self) -> None:
        asyncio.get_running_loop().call_later(SOON, self._look)

    def _look(self) -> None:
        early = time.monotonic() - SOON
        while self._begun and self._begun[0][0] <= early:
            lasting = self._begun.popleft()[1]()
            if lasting is not None:
                lasting.watch()
        if self._begun:
            self._look_later()


class TookTooLong(Exception):
    """Something was cancelled, because it took longer than it may."""


class Bounded:
    """Cancels what is waited for in the block when its time is over, and raises TookTooLong.

    It is `asyncio.timeout` for times that are hardly ever used up.
    """

    _timer: asyncio.TimerHandle | None = None
    _is_cancelled = False

    def __init__(self, watch: Watch, moment: float) -> None:
        """Until a moment, as `time.monotonic` tells it."""
        self._watch = watch
        self._moment = moment

    def __enter__(self) -> Self:
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._watch.begun(self)
        return self

    def watch(self) -> None:
        """It has taken some time already: have the rest measured."""
        if self._task is not None:
            left = self._moment - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, left), self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._is_cancelled = True
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        if self._is_cancelled and task is not None:
            is_of_others = task.uncancel() > 0
            if isinstance(error, asyncio.CancelledError) and not is_of_others:
                raise TookTooLong from None
