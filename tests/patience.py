"""Waiting for what has to happen, for as long as a busy machine may take."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

# Seconds, for whatever takes one second at most by itself.
PATIENCE = 40.0


def until(condition: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Wait for a condition to be true, and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.03)
    return found


@overload
async def becomes(condition: Callable[[], Awaitable[T]]) -> T: ...


@overload
async def becomes(condition: Callable[[], T]) -> T: ...


async def becomes(condition: Callable[[], Any]) -> Any:
    """Wait for a condition to be true, while other tasks go on, and return what it returned."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.005)
