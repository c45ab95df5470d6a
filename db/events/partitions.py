"""The partitions of the event log: one for each week, made ahead of time, and dropped when old.

Events of other weeks are in the default partition, so that a write never fails for want of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

WEEK = timedelta(weeks=1)

AHEAD = 4
"""The number of weeks, besides the present one, for which there are partitions."""

DEFAULT = "events_default"
NAME = re.compile(r"events_(\d{4})_(\d\d)_(\d\d)")

# A partition is made or dropped when no statement uses the table. Writes wait meanwhile, so it
# waits no longer than this, and tries again later.
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '200ms'"

PARTITIONS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events'::regclass"


def monday(day: date) -> date:
    """The first day of a week."""
    return day - timedelta(days=day.weekday())


def name_of(week: date) -> str:
    """The name of the partition of a week, given by its Monday."""
    return f"events_{week:%Y_%m_%d}"


def week_of(name: str) -> date | None:
    """The Monday of the week of a partition; None for other tables."""
    found = NAME.fullmatch(name)
    return None if found is None else date(*map(int, found.groups()))


def moment(day: date) -> datetime:
    """The moment when a day begins, in UTC."""
    return datetime.combine(day, time(), UTC)


def creating(week: date) -> Iterator[str]:
    """The statements that make the partition of a week, given by its Monday.

    ATTACH, unlike CREATE … PARTITION OF, does not wait for transactions that write events.
    """
    name, start, end = name_of(week), moment(week).isoformat(), moment(week + WEEK).isoformat()
    yield f"CREATE TABLE {name} (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
    # The server may not have run when the week began.
    yield (
        f"WITH moved AS (DELETE FROM {DEFAULT} WHERE created_at >= '{start}'"
        f" AND created_at < '{end}' RETURNING *)"
        f" INSERT INTO {name} SELECT * FROM moved"
    )
    yield f"ALTER TABLE events ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')"


async def create(connection: Any) -> None:
    """Make the partitions of this week and the next ones that are missing."""
    known = {row[0] for row in await connection.fetch(PARTITIONS)}
    this = monday(await _today(connection))
    for week in (this + WEEK * number for number in range(AHEAD + 1)):
        if name_of(week) not in known:
            async with connection.transaction():
                await connection.execute(LOCK_TIMEOUT)
                for statement in creating(week):
                    await connection.execute(statement)


async def drop(connection: Any, days: int) -> datetime:
    """Drop the events that are older than so many days and have a position.

    A week is dropped when all of it is older. Returns the moment since when all events are kept.
    """
    kept = moment(await _today(connection) - timedelta(days=days))
    for name in [row[0] for row in await connection.fetch(PARTITIONS)]:
        week = week_of(name)
        if week is not None and moment(week + WEEK) <= kept:
            async with connection.transaction():
                await connection.execute(LOCK_TIMEOUT)
                await connection.execute(f"LOCK TABLE {name}")
                unnumbered = f"SELECT EXISTS (SELECT FROM {name} WHERE position IS NULL)"
                if not await connection.fetchval(unnumbered):
                    await connection.execute(f"DROP TABLE {name}")
    old = f"DELETE FROM {DEFAULT} WHERE position IS NOT NULL AND created_at < $1"
    await connection.execute(old, kept)
    return kept


async def _today(connection: Any) -> date:
    today: date = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    return today
