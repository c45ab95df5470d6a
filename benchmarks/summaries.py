"""Summaries of usage by Troupe, compared with SQL by hand over the records themselves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
from sqlalchemy import URL

from benchmarks.compare import Pace
from benchmarks.contenders import COMPILED, running
from benchmarks.data import MEMBER, connected
from benchmarks.progress import say
from benchmarks.scaling import Scaling, question

FILLED = Path(__file__).with_name("usage.sql")

RECORDS = 1_000_000

SUMS = "sum(input_tokens), sum(output_tokens), sum(cost), count(*)"


@dataclass(frozen=True)
class Summary:
    """A summary that is measured."""

    name: str
    groups: Sequence[str]
    """What it is grouped by, as in the API."""
    keys: str
    """The same in SQL."""

    @property
    def by_hand(self) -> str:
        """The name of the measurement of the SQL by hand."""
        return f"{self.name} by hand"

    @property
    def sql(self) -> str:
        """The SQL by hand, for a user, of whose projects it sums the records."""
        return (
            f"SELECT {self.keys}, {SUMS} FROM usage_records"  # noqa: S608
            " WHERE project_id IN (SELECT project_id FROM project_members WHERE user_id = $1)"
            f" GROUP BY {self.keys} ORDER BY sum(cost) DESC LIMIT 1000"
        )


DAY = "date_trunc('day', occurred_at, 'UTC')"
SUMMARIES = (
    Summary("by day", ["DAY"], DAY),
    Summary("by project", ["PROJECT"], "project_id"),
    Summary("by model and day", ["MODEL", "DAY"], f"model_name, {DAY}"),
    Summary("by task", ["TASK"], "task_id"),
)

READ = "rows read"
"""The name of how many rows `by day` reads, of records and totals, divided by all records."""


async def add_records(connection: asyncpg.Connection, records: int) -> None:
    """Insert so many records of the member's projects, with their totals."""
    await connection.execute(f"SET benchmark.records = {records:d}")
    text = FILLED.read_text(encoding="utf-8")
    await connection.execute(text.replace("$member$", f"'{MEMBER}'"))
    await connection.execute("VACUUM ANALYZE usage_records, usage_totals")


async def summaries(url: URL, pace: Pace) -> Scaling:
    """Measure them in rounds, Troupe by HTTP and the SQL over one connection each."""
    result = Scaling({})
    async with connected(url) as connection:
        await add_records(connection, RECORDS)
        with running(COMPILED, url) as server:
            questions = [
                question(server, one.name, "usageSummary", {"groupBy": list(one.groups)})
                for one in SUMMARIES
            ]
            before = await _rows_read(connection)
            await questions[0].measure(Pace(1, 0.001, 0))
            after = await _rows_read(connection)
            result.took[READ] = [(after - before) / RECORDS]
            for number in range(pace.rounds):
                for one, asked in zip(SUMMARIES, questions, strict=True):
                    result.took.setdefault(one.name, []).append(await asked.measure(pace))
                    took = await _by_hand(connection, one, pace)
                    result.took.setdefault(one.by_hand, []).append(took)
                say(f"round {number + 1} of {pace.rounds} of summaries of usage")
    return result


async def _by_hand(connection: asyncpg.Connection, summary: Summary, pace: Pace) -> float:
    """The median time of the SQL by hand, in seconds."""
    took: list[float] = []
    until = time.perf_counter() + pace.seconds
    while not took or time.perf_counter() < until:
        began = time.perf_counter()
        await connection.fetch(summary.sql, MEMBER)
        took.append(time.perf_counter() - began)
    return median(took)


async def _rows_read(connection: asyncpg.Connection) -> int:
    """How many rows of the records and the totals were read by all connections so far."""
    # Backends report what they have read when they have been idle for a while.
    await connection.execute("SELECT pg_sleep(2)")
    read: Any = await connection.fetchval(
        "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))"
        " FROM pg_stat_user_tables WHERE relname IN ('usage_records', 'usage_totals')"
    )
    return int(read)
