"""The sweeper: what has run out ends, and sums of usage are merged.

Leases of attempts, requests to people, and messages run out. It looks at their times alone, by the
database's clock, and never at whether a worker seems alive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from db import claims, communications, interaction_answers, usage_totals
from db.connections import reason
from db.rights import Right
from db.scopes import SYSTEM
from db.statistics import totals

if TYPE_CHECKING:
    from db.engine import Database

log = logging.getLogger("troupe")


async def sweep(database: Database) -> int:
    """End the attempts whose leases have run out, and return how many.

    Any number of processes may do this at once. Each attempt is a transaction of its own, and one
    that fails does not stop the others.
    """
    async with database.read() as session:
        expired = (await session.scalars(claims.EXPIRED)).all()
    count = 0
    for attempt_id in expired:
        try:
            async with database.write(SYSTEM, Right.WORK) as writing:
                is_lost = await claims.expire(writing, attempt_id)
        except Exception as error:
            log.warning("the lease of attempt %s does not end: %s", attempt_id, reason(error))
        else:
            count += is_lost
    totals.leases_lost += count
    return count


async def merge(database: Database) -> None:
    """Merge sums of usage, so many in each transaction."""
    merged = usage_totals.MERGED
    while merged == usage_totals.MERGED:
        async with database.write(SYSTEM) as session:
            merged = await usage_totals.merge_totals(session)


WORK: dict[Callable[[Database], Awaitable[object]], str] = {
    sweep: "leases of attempts do not end",
    interaction_answers.expire: "requests to people do not expire",
    communications.expire: "messages do not expire",
    merge: "sums of usage are not merged",
}
"""What is done each time, and what the log says if it fails."""


class Sweeper:
    """The background task that sweeps, in every process."""

    def __init__(self, database: Database, seconds: float) -> None:
        """It sweeps every so many seconds."""
        self._database = database
        self._seconds = seconds
        self._failing: set[object] = set()

    async def run(self) -> None:
        """Sweep until the task is cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            for work, failure in WORK.items():
                try:
                    await work(self._database)
                    self._failing.discard(work)
                except Exception as error:
                    # Logged once, until it works again.
                    if work not in self._failing:
                        log.warning("%s for now: %s", failure, reason(error))
                    self._failing.add(work)
