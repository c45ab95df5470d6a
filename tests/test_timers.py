"""Deadlines of operations, and the timer that they share until they are slow."""

import asyncio
import gc
import time
import weakref

import pytest

from graph.core.access import Deadline, DeadlineExceeded, EnforcedDeadline
from graph.core.timers import SharedTimer


def enforced(seconds: int) -> EnforcedDeadline:
    return EnforcedDeadline(Deadline(seconds, SharedTimer()))


async def wait(seconds: int) -> None:
    with enforced(seconds):
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
        with enforced(1):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise LookupError from None

    with pytest.raises(LookupError):
        await ask()
    with pytest.raises(TimeoutError), enforced(60):
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
        with enforced(1):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                task.cancel()
                raise

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(ask())


async def test_what_is_paused_takes_any_time_until_it_is_resumed() -> None:
    with enforced(1) as limit:
        await asyncio.sleep(0.2)  # it has a timer of its own
        limit.pause()
        await asyncio.sleep(1.2)
        with pytest.raises(DeadlineExceeded):
            limit.resume()

    async def resume() -> None:
        with enforced(1) as limit:
            limit.pause()
            limit.resume()
            await asyncio.sleep(60)

    with pytest.raises(DeadlineExceeded):
        await resume()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_what_has_ended_is_not_cancelled_later() -> None:
    limit = enforced(1)
    with limit:
        await asyncio.sleep(0)
    await asyncio.sleep(1.2)


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
