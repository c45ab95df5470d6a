"""The comparison: all contenders return the same values, then each is under load in turn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import asyncpg
import httpx
from sqlalchemy import URL

from benchmarks.contenders import CONTENDERS, Contender, Missing, Running, running
from benchmarks.data import Size, clean, connected
from benchmarks.load import Address, Measured, Request, load, numbered
from benchmarks.place import count_statements
from benchmarks.processes import memory, processor
from benchmarks.progress import say
from benchmarks.queries import Query, values


class Different(Exception):
    """Two contenders do not return the same values, so that their times cannot be compared."""


@dataclass(frozen=True)
class Pace:
    """The number of rounds and their duration in seconds."""

    rounds: int
    seconds: float
    warm_up: float


@dataclass(frozen=True)
class Shape:
    """The size of the answer to a query."""

    values: int
    bytes: int
    """Of Troupe's answer, or of another contender's if Troupe is not compared."""


@dataclass(frozen=True)
class Work:
    """The processor time of a request, in seconds. Other load on the machine affects it less."""

    server: float
    database: float


@dataclass
class Result:
    """The measurements."""

    contenders: list[Contender]
    missing: list[str]
    """Why other contenders are missing."""
    shapes: dict[str, Shape]
    """By query."""
    rounds: dict[tuple[str, str], list[Measured]]
    """By contender and query."""
    statements: dict[tuple[str, str], float]
    """SQL statements for a request, by contender and query."""
    work: dict[tuple[str, str], list[Work]]
    """By contender and query, for each round."""
    memory: dict[str, float]

    def typical(self, contender: str, query: str) -> Measured:
        """The medians of the rounds."""
        rounds = self.rounds[contender, query]
        return Measured(
            median(one.per_second for one in rounds),
            median(one.p50 for one in rounds),
            median(one.p99 for one in rounds),
            sum(one.answered for one in rounds),
            sum(one.refused for one in rounds),
        )

    def typical_work(self, contender: str, query: str) -> Work:
        """The medians of the rounds."""
        rounds = self.work[contender, query]
        return Work(median(one.server for one in rounds), median(one.database for one in rounds))

    def ratio(self, contender: str, query: str, base: str) -> float | None:
        """The requests per second divided by those of another: the median of the rounds' ratios.

        The turns of a round are close together in time, so that other load affects both.
        """
        ours, theirs = self.rounds.get((contender, query)), self.rounds.get((base, query))
        if ours is None or theirs is None:
            return None
        pairs = zip(ours, theirs, strict=True)
        return median(a.per_second / b.per_second if b.per_second else math.nan for a, b in pairs)


async def compare(
    urls: Mapping[str, URL],
    size: Size,
    queries: Sequence[Query],
    pace: Pace,
    postmaster: int,
) -> Result:
    """Compare those contenders that can be started, each on its database, by name.

    `postmaster` is PostgreSQL's main process, the parent of its backends.
    """
    result = Result([], [], {}, {}, {}, {}, {})
    async with AsyncExitStack() as stack:
        started: list[Running] = []
        # For each contender, to its database, besides its own.
        connections: dict[str, asyncpg.Connection] = {}
        for name, url in urls.items():
            try:
                started.append(stack.enter_context(running(CONTENDERS[name], url)))
            except Missing as missing:
                result.missing.append(str(missing))
                say(f"Without {name}: {missing}")
                continue
            # It stays open: the processor time of one that ends would be that of a turn.
            connections[name] = await stack.enter_async_context(connected(url))
        result.contenders = [one.contender for one in started]
        for query in queries:
            result.shapes[query.name] = same_values(started, query, size)
            for one in started:
                key = (one.contender.name, query.name)
                connection = connections[one.contender.name]
                result.statements[key] = await _statements(connection, one, query, size)
        for query in queries:
            for one in started:
                seconds = await warm_up(*one.asked(query, size.projects))
                if query.writes:
                    await clean(connections[one.contender.name])
                say(f"warmed up in {seconds} s: {query.name}, {one.contender.name}")
        for number in range(pace.rounds):
            for query in queries:
                for one in started:
                    key = (one.contender.name, query.name)
                    measured, work = await _turn(one, query, size, pace, postmaster)
                    if query.writes:
                        await clean(connections[one.contender.name])
                    result.rounds.setdefault(key, []).append(measured)
                    result.work.setdefault(key, []).append(work)
                    say(
                        f"round {number + 1} of {pace.rounds}, {query.name}, {one.contender.name}:"
                        f" {measured.per_second:.0f} requests/s"
                    )
        result.memory = {one.contender.name: memory(one.pid) for one in started}
    return result


FASTER = 1.05
"""A server still warms up while a second of load brings a rate that is higher by this factor,"""
STEADY = 3
"""until so many seconds in a row have not."""
LONGEST = 20
"""The longest warm-up, in seconds."""


async def warm_up(address: Address, requests: Sequence[Request]) -> int:
    """Put a server under load until its rate rises no more; return the number of seconds."""
    best, steady, seconds = 0.0, 0, 0
    while steady < STEADY and seconds < LONGEST:
        rate = (await load(address, requests, seconds=1, warm_up=0)).per_second
        steady = 0 if rate > best * FASTER else steady + 1
        best = max(best, rate)
        seconds += 1
    return seconds


async def _turn(
    one: Running, query: Query, size: Size, pace: Pace, postmaster: int
) -> tuple[Measured, Work]:
    """Put one contender under load with one query."""
    address, requests = one.asked(query, size.projects)
    server, database = processor(one.pid), processor(postmaster)
    measured = await load(address, requests, seconds=pace.seconds, warm_up=pace.warm_up)
    used = (processor(one.pid) - server, processor(postmaster) - database)
    return measured, Work(*(seconds / max(1, measured.answered) for seconds in used))


def same_values(started: Sequence[Running], query: Query, size: Size) -> Shape:
    """Check that all return the same values for every request. Raises Different.

    The writes of all have the same number.
    """
    shape = Shape(0, 0)
    expected: list[Any] | None = None
    with httpx.Client(timeout=60, trust_env=False) as client:
        for one in started:
            bodies = one.contender.bodies(query, size.projects)
            answers = [_sent(client, one, query, body) for body in bodies]
            one.lengths[query.name] = [len(answer.content) for answer in answers]
            found = [query.result(answer.json()) for answer in answers]
            if expected is None:
                expected = found
            if found != expected:
                raise Different(
                    f"{one.contender.name} returns other values for {query.name} than"
                    f" {started[0].contender.name}."
                )
            if not shape.bytes or one.contender.name == "troupe":
                shape = Shape(values(found[0]), len(answers[0].content))
    return shape


def _sent(client: httpx.Client, one: Running, query: Query, body: bytes) -> httpx.Response:
    response = client.post(one.url(query), content=body, headers=one.contender.headers)
    return response.raise_for_status()


COUNTED = 10
"""The number of requests, one after another, for which statements are counted."""


async def _statements(
    connection: asyncpg.Connection, one: Running, query: Query, size: Size
) -> float:
    """The number of statements that PostgreSQL gets for a request, including BEGIN and the like.

    Those that it runs itself, to check foreign keys and in triggers, are not counted.
    """
    await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    await count_statements(connection, "top")
    await connection.execute("SELECT pg_stat_statements_reset()")
    with httpx.Client(timeout=60, trust_env=False) as client:
        body = one.contender.bodies(query, size.projects)[0]
        for _ in range(COUNTED):
            _sent(client, one, query, numbered(body))
    counted: int = await connection.fetchval(
        "SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements WHERE query !~ $1",
        "pg_stat_statements|pg_reload_conf",
    )
    await count_statements(connection, "none")
    return counted / COUNTED
