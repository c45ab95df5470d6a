"""The partitions of the event log: one for each week, made ahead of time, and dropped when old.

Events of other weeks are in the default partition, so that a write never fails for want of one. The
functions of the database that make and drop them run as the owner of the tables, because the role
of a server may not change tables.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

WEEKS = 5
"""The number of weeks, the present one included, for which there are partitions."""


async def create(connection: Any) -> None:
    """Make the partitions of this week and the next ones that are missing.

    Raises the driver's LockNotAvailableError if the table is in use.
    """
    await connection.execute("SELECT create_event_partitions(now(), $1)", WEEKS)


async def drop(connection: Any, days: int) -> datetime:
    """Drop the events that are older than so many days and have a position.

    A week is dropped when all of it is older. Returns the moment since when all events are kept.
    Raises the driver's LockNotAvailableError if the table is in use.
    """
    kept: datetime = await connection.fetchval(
        "SELECT date_trunc('day', now(), 'UTC') - make_interval(days => $1)", days
    )
    await connection.execute("SELECT drop_events($1)", kept)
    return kept
