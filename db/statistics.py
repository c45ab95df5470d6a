"""Statistics of statements: of each operation, and of the process."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

# The bounds of the classes that durations are counted in, in seconds.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)

# How many statements of one operation are collected by default. A subscription may run any number.
MOST_COLLECTED = 200


class Durations:
    """How many durations there were up to each bound, and their sum."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        """For each of BOUNDS, the number since the one before; at last those beyond all."""
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds


class Call(NamedTuple):
    """A statement that was run."""

    statement: str
    rows: int
    began: float
    """When it began, by `time.perf_counter`."""
    seconds: float
    sqlstate: str | None = None
    """The code of the error; None if there was none. An error without a code has an empty one."""


@dataclass(slots=True)
class Statistics:
    """The statements that PostgreSQL ran for one operation."""

    statements: int = 0
    rows: int = 0
    seconds: float = 0.0
    """The sum over the statements, of which some may run at once. It includes the wait for a
    connection only for statements of `Database.json`."""
    calls: list[Call] | None = None
    """The first statements, and those that failed, if they are to be collected."""
    most_calls: float = MOST_COLLECTED
    """How many are collected at most."""

    def collect(self, call: Call) -> None:
        """Collect a statement, if that is wanted."""
        if self.calls is not None and len(self.calls) < self.most_calls:
            self.calls.append(call)


@dataclass(slots=True)
class Totals:
    """What this process has done since it was started."""

    durations: Durations = field(default_factory=Durations)
    """Of the statements without an error."""
    rows: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """The number of statements with an error, by its code."""
    leases_lost: int = 0
    """How many attempts it has ended because their leases had run out."""
    deliveries: Counter[str] = field(default_factory=Counter)
    """How many messages it has sent to webhooks, by the outcome."""


totals = Totals()

current: ContextVar[Statistics | None] = ContextVar("statistics", default=None)
"""The statistics to which statements of this task are added, if any."""


def add(statement: str, rows: int, began: float) -> None:
    """Count a statement that began at this time (`time.perf_counter`) and has just ended."""
    seconds = time.perf_counter() - began
    rows = max(rows, 0)
    totals.durations.add(seconds)
    totals.rows += rows
    statistics = current.get()
    if statistics is not None:
        statistics.statements += 1
        statistics.rows += rows
        statistics.seconds += seconds
        if statistics.calls is not None:
            statistics.collect(Call(statement, rows, began, seconds))


def add_failure(statement: str, began: float, error: BaseException | None) -> None:
    """Count a statement that has ended in an error."""
    code = getattr(error, "sqlstate", None) or ""
    totals.failures[code] += 1
    statistics = current.get()
    if statistics is not None:
        statistics.collect(Call(statement, 0, began, time.perf_counter() - began, code))


def observe(engine: Engine) -> None:
    """Count the statements of an engine."""
    event.listen(engine, "before_cursor_execute", _begin)
    event.listen(engine, "after_cursor_execute", _end)
    event.listen(engine, "handle_error", _fail)


def _begin(connection: Any, cursor: Any, statement: str, *_: object) -> None:
    connection.info["began"] = statement, time.perf_counter()


def _end(connection: Any, cursor: Any, *_: object) -> None:
    statement, began = connection.info["began"]
    add(statement, cursor.rowcount, began)


def _fail(context: ExceptionContext) -> None:
    if context.connection is not None and context.statement is not None:
        _, began = context.connection.info.get("began", (None, time.perf_counter()))
        add_failure(context.statement, began, context.original_exception)
