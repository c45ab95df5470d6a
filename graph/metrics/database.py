"""What the metrics say of the database: one statement, whose result is kept for some seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from db import Database
from db.connections import reason

log = logging.getLogger("troupe")

MOST_COUNTED = 10_000
"""The largest number of rows that are counted of one kind, and of projects whose usage is."""

# How long the result is kept, in seconds: several servers may scrape.
KEPT_SECONDS = 5.0

# How long the sums of usage are kept, in seconds: they take longer to read.
KEPT_USAGE_SECONDS = 60.0

# How long the statements may take, in seconds.
TIMEOUT = 3.0

STATE = f"""
    WITH ready AS MATERIALIZED (
      SELECT t.available_at FROM tasks t JOIN projects p ON p.id = t.project_id
      WHERE t.status IN ('PENDING', 'ASSIGNED') AND t.unmet_dependency_count = 0
        AND t.available_at <= now() AND p.status = 'IN_PROGRESS'
      LIMIT {MOST_COUNTED}
    ), leases AS MATERIALIZED (
      SELECT expires_at > now() AS is_valid FROM task_leases LIMIT {MOST_COUNTED}
    ), due AS MATERIALIZED (
      SELECT next_attempt_at FROM webhook_deliveries WHERE next_attempt_at <= now()
      LIMIT {MOST_COUNTED}
    )
    SELECT
      (SELECT count(*) FROM ready) AS ready,
      (SELECT count(*) FROM leases WHERE is_valid) AS running,
      (SELECT count(*) FROM leases WHERE NOT is_valid) AS stuck,
      (SELECT count(*) FROM (
        SELECT FROM tasks WHERE blocked_reason = 'HUMAN_INPUT' LIMIT {MOST_COUNTED}
      ) t) AS in_review,
      (SELECT extract(epoch FROM now() - min(available_at))::float8 FROM ready) AS oldest,
      (SELECT last_position FROM event_positions) AS position,
      (SELECT extract(epoch FROM now() - created_at)::float8 FROM events
        WHERE position IS NULL ORDER BY id LIMIT 1) AS unnumbered,
      (SELECT extract(epoch FROM now() - created_at)::float8 FROM events
        WHERE position > $1 ORDER BY position LIMIT 1) AS unread,
      (SELECT count(*) FROM due) AS due,
      (SELECT extract(epoch FROM now() - min(next_attempt_at))::float8 FROM due) AS oldest_due,
      (SELECT count(*) FROM webhooks WHERE is_active AND failing_since IS NOT NULL) AS failing
"""

# Hours are read by project, because there is an index for that.
USAGE = f"""
    SELECT t.model_name, sum(t.cost)::text AS cost, sum(t.calls)::bigint AS calls,
      sum(t.failures)::bigint AS failures, sum(t.input_tokens)::bigint AS input,
      sum(t.output_tokens)::bigint AS output
    FROM (SELECT id FROM projects ORDER BY id DESC LIMIT {MOST_COUNTED}) p
    JOIN usage_totals t ON t.project_id = p.id AND t.hour = date_trunc('hour', now(), 'UTC')
    GROUP BY t.model_name ORDER BY sum(t.cost) DESC, t.model_name LIMIT 50
"""


class Kept:
    """The result of reading something, for some seconds. Those who ask at once read it once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._value: Any = None
        self._until = 0.0
        self._reading = asyncio.Lock()

    async def get(self, read: Callable[[], Any]) -> Any:
        """The result; None if it could not be read."""
        async with self._reading:
            if time.monotonic() >= self._until:
                try:
                    async with asyncio.timeout(TIMEOUT):
                        self._value = await read()
                except Exception as error:
                    log.warning("metrics of the database cannot be read: %s", reason(error))
                    self._value = None
                self._until = time.monotonic() + self._seconds
            return self._value


class DatabaseMetrics:
    """What a process reads of its database for the metrics."""

    def __init__(self) -> None:
        self._state = Kept(KEPT_SECONDS)
        self._usage = Kept(KEPT_USAGE_SECONDS)

    async def state(self, database: Database) -> Any:
        """The row of STATE; None if it cannot be read."""
        place = database.follower.place
        after = 2**62 if place is None else place.position

        async def read() -> Any:
            (row,) = await database.fetch(STATE, [after], by_key=True)
            return row

        return await self._state.get(read)

    async def usage(self, database: Database) -> Any:
        """The rows of USAGE; None if they cannot be read."""

        async def read() -> Any:
            return await database.fetch(USAGE, [], by_key=True)

        return await self._usage.get(read)
