"""A claim's time: by the number of tasks that wait, and while old rows cannot be removed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median

from sqlalchemy import URL

from benchmarks.compare import Pace
from benchmarks.contenders import COMPILED, Running, running
from benchmarks.data import connected
from benchmarks.plan import LARGE_PLAN, SMALL_PLAN, Plan, add, restore
from benchmarks.progress import say
from benchmarks.scaling import Scaling
from benchmarks.workers import agents, claim, complete

PAIRS = 100
"""How many tasks are claimed and completed in a turn."""

PLANS = SMALL_PLAN, LARGE_PLAN

PACED = 100
"""How many tasks are claimed and completed in a second while the old transaction is open."""

ALONE, HELD = "alone", "held"
"""The names of the measurements of a claim without the old transaction, and with it."""


def out_of(plan: Plan) -> str:
    """The name of the measurement of a claim out of a plan."""
    return f"claim of {plan.tasks}"


async def waiting(url: URL, pace: Pace, held_seconds: float) -> Scaling:
    """Measure claims over one connection, in rounds; then with an old transaction and without."""
    result = Scaling({})
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(connected(url))
        for plan in PLANS:
            await add(plain, plan)
        server = stack.enter_context(running(COMPILED, url))
        for number in range(pace.rounds + 1):
            for plan in PLANS:
                took = median(await _claims(server, plan, PAIRS))
                if number:  # in the first round, connections are opened and statements planned
                    result.took.setdefault(out_of(plan), []).append(took)
            await restore(plain, *PLANS)
            say(f"round {number} of {pace.rounds} of what the time of a claim depends on")
        for name in (ALONE, HELD):
            result.took[name] = [await _paced(server, url, held_seconds, name == HELD)]
            await restore(plain, LARGE_PLAN)
            say(f"claims for {held_seconds:g} s, {name}")
    return result


async def _claims(server: Running, plan: Plan, number: int) -> list[float]:
    """The times of so many claims, each followed by the completion of the task."""
    took = []
    async with agents(server, plan, 1) as (agent,):
        for _ in range(number):
            began = time.perf_counter()
            attempt = await claim(agent)
            took.append(time.perf_counter() - began)
            await complete(agent, attempt)
    return took


@asynccontextmanager
async def old_transaction(url: URL) -> AsyncIterator[None]:
    """A transaction with a snapshot: what was deleted since cannot be removed until it ends."""
    async with connected(url) as connection, connection.transaction(isolation="repeatable_read"):
        await connection.fetchval("SELECT count(*) FROM projects")
        yield


async def _paced(server: Running, url: URL, seconds: float, is_held: bool) -> float:
    """The median time of a claim in the last quarter of this time, of claims at a steady pace."""
    took: list[float] = []
    async with AsyncExitStack() as stack:
        (agent,) = await stack.enter_async_context(agents(server, LARGE_PLAN, 1))
        if is_held:
            await stack.enter_async_context(old_transaction(url))
        began = time.perf_counter()
        number = 0
        while (now := time.perf_counter()) < began + seconds:
            await asyncio.sleep(began + number / PACED - now)
            number += 1
            at = time.perf_counter()
            attempt = await claim(agent)
            ended = time.perf_counter()
            await complete(agent, attempt)
            if ended > began + seconds * 3 / 4:
                took.append(ended - at)
    return median(took)
