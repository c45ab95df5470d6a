"""Deadlines of operations, and the timer that they share until they are slow."""

import asyncio
import gc
import time
import weakref

import pytest

from graph.core.access import Deadline, DeadlineExceeded, EnforcedDeadline
from graph.server.timers import SharedTimer


async def wait(seconds: int) -> None:
    with EnforcedDeadline(Deadline(seconds)):
        await asyncio.sleep(60)


async def test_what_takes_too_long_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await wait(1)
    assert time.monotonic() - began >= 1

    # Whoever awaits it goes on, as if nobody had been cancelled.
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_a_time_that_is_over_at_once_is_over_soon() -> None:
    with pytest.raises(DeadlineExceeded):
        await wait(-1)


async def test_a_fault_stays_what_it_is() -> None:
    async def ask() -> None:
        with EnforcedDeadline(Deadline(1)):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise LookupError from None

    with pytest.raises(LookupError):
        await ask()
    with pytest.raises(TimeoutError), EnforcedDeadline(Deadline(60)):
        raise TimeoutError


async def test_who_is_cancelled_by_others_is_cancelled() -> None:
    task = asyncio.create_task(wait(60))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_cancelled_by_both_is_cancelled() -> None:
    async def ask() -> None:
        task = asyncio.current_task()
        assert task is not None
        with EnforcedDeadline(Deadline(1)):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                task.cancel()
                raise

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(ask())


class Noting:
    """Something that becomes slow."""

    def __init__(self) -> None:
        self.slow = asyncio.Event()

    def on_slow(self) -> None:
        self.slow.set()


async def test_what_is_slow_is_told_and_what_is_over_is_not_kept() -> None:
    timer = SharedTimer()
    slow, over = Noting(), Noting()
    timer.add(slow)
    timer.add(over)
    gone, was_told = weakref.ref(over), over.slow
    del over
    gc.collect()
    assert gone() is None

    await asyncio.wait_for(slow.slow.wait(), 60)
    assert not was_told.is_set()
