"""Bounds of time that are kept by one timer for all."""

import asyncio
import gc
import time
import weakref

import pytest

from db.deadlines import SOON, SharedTimer, TimedOut, Timeout


class Waiting:
    """Somebody who waits, with all that they hold."""

    async def until(self, watch: SharedTimer, seconds: float) -> None:
        async with Timeout(watch, time.monotonic() + seconds):
            await asyncio.sleep(60)


async def test_what_takes_too_long_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut):
        await Waiting().until(SharedTimer(), 0.2)
    assert time.monotonic() - began >= 0.2

    # Whoever awaits it goes on, as if nobody had been cancelled.
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_a_time_that_is_over_at_once_is_over_soon() -> None:
    with pytest.raises(TimedOut):
        await Waiting().until(SharedTimer(), -1)


async def test_what_ends_in_time_hears_nothing_of_it() -> None:
    watch = SharedTimer()
    async with Timeout(watch, time.monotonic() + SOON):
        pass
    await asyncio.sleep(4 * SOON)  # it would be cancelled by now
    async with Timeout(watch, time.monotonic() + 60):
        await asyncio.sleep(4 * SOON)


async def test_a_fault_stays_what_it_is() -> None:
    async def ask() -> None:
        async with Timeout(SharedTimer(), time.monotonic()):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise LookupError from None

    with pytest.raises(LookupError):
        await ask()


async def test_who_is_cancelled_by_others_is_cancelled() -> None:
    task = asyncio.create_task(Waiting().until(SharedTimer(), 60))
    await asyncio.sleep(3 * SOON)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_cancelled_by_both_is_cancelled() -> None:
    async def ask() -> None:
        task = asyncio.current_task()
        assert task is not None
        async with Timeout(SharedTimer(), time.monotonic()):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                task.cancel()
                raise

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(ask())


async def test_what_is_over_is_not_kept() -> None:
    watch = SharedTimer()
    bounded = Timeout(watch, time.monotonic() + 60)
    async with bounded:
        pass
    gone = weakref.ref(bounded)
    del bounded
    gc.collect()
    assert gone() is None
