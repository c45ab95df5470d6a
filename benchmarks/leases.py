"""The processor time of heartbeats for many live leases."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from statistics import median

from sqlalchemy import URL

from benchmarks.compare import Pace
from benchmarks.contenders import COMPILED, running
from benchmarks.data import connected
from benchmarks.plan import LARGE_PLAN, WORKERS, add, restore
from benchmarks.processes import processor
from benchmarks.progress import say
from benchmarks.workers import Connection, agents, claim_many, document

LEASES = 10_000
BATCH = 50
"""How many leases a heartbeat prolongs."""
EVERY = 10
"""Each lease has a heartbeat every so many seconds."""

HEARTBEAT = document("heartbeat")


@dataclass(frozen=True)
class Share:
    """The processor time in a second, in seconds."""

    server: float
    database: float

    @property
    def both(self) -> float:
        """The sum of both."""
        return self.server + self.database


async def heartbeats(url: URL, pace: Pace, postmaster: int) -> Share:
    """Measure the heartbeats of a plan's leases, at their pace, in as many periods as rounds."""
    shares = []
    async with connected(url) as connection:
        await add(connection, LARGE_PLAN)
        with running(COMPILED, url) as server:
            async with agents(server, LARGE_PLAN, WORKERS) as all_agents:
                batches = await _claimed(all_agents)
                await connection.execute("VACUUM ANALYZE")
                for number in range(pace.rounds + 1):
                    before = processor(server.pid), processor(postmaster)
                    await _period(batches)
                    server_time = processor(server.pid) - before[0]
                    database_time = processor(postmaster) - before[1]
                    if number:  # in the first one, connections are opened and statements planned
                        shares.append(Share(server_time / EVERY, database_time / EVERY))
                    say(f"period {number} of {pace.rounds} of heartbeats")
        await restore(connection, LARGE_PLAN)
    return Share(median(one.server for one in shares), median(one.database for one in shares))


async def _claimed(all_agents: list[Connection]) -> list[tuple[Connection, list[str]]]:
    """Claim tasks for as many leases, in batches, each with the connection of its agent."""
    in_turn = itertools.islice(itertools.cycle(all_agents), LEASES // BATCH)
    return [(agent, await claim_many(agent, BATCH, 86_400)) for agent in in_turn]


async def _period(batches: list[tuple[Connection, list[str]]]) -> None:
    """Send a heartbeat for each batch, spread evenly over the period."""
    began = time.perf_counter()
    for number, (agent, attempts) in enumerate(batches):
        await asyncio.sleep(max(0, began + number * EVERY / len(batches) - time.perf_counter()))
        found = await agent.ask(HEARTBEAT, attempts=[{"attemptId": id} for id in attempts])
        assert not any(each["leaseLost"] for each in found["attempts"])
    await asyncio.sleep(max(0, began + EVERY - time.perf_counter()))
