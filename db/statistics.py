"""Statistics of statements: their number, their rows and their time."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, event


@dataclass(slots=True)
class Statistics:
    """The statements that PostgreSQL ran for one operation."""

    statements: int = 0
    rows: int = 0
    seconds: float = 0.0
    """The sum over the statements, of which some may run at once. It includes the wait for a
    connection only for statements of `Database.json`."""
    texts: list[str] | None = None
    """The SQL of the statements, if it is to be collected."""

    def add(self, statement: str, rows: int, seconds: float) -> None:
        """Count a statement."""
        self.statements += 1
        self.rows += max(rows, 0)
        self.seconds += seconds
        if self.texts is not None:
            self.texts.append(statement)


current: ContextVar[Statistics | None] = ContextVar("statistics", default=None)
"""The statistics to which statements of this task are added, if any."""


def add(statement: str, rows: int, began: float) -> None:
    """Count a statement that began at this time (`time.perf_counter`) and has just ended."""
    statistics = current.get()
    if statistics is not None:
        statistics.add(statement, rows, time.perf_counter() - began)


def collect(engine: Engine) -> None:
    """Count the statements of an engine."""
    event.listen(engine, "before_cursor_execute", _begin)
    event.listen(engine, "after_cursor_execute", _end)


def _begin(connection: Any, cursor: Any, statement: str, *_: object) -> None:
    connection.info["began"] = statement, time.perf_counter()


def _end(connection: Any, cursor: Any, *_: object) -> None:
    statement, began = connection.info["began"]
    add(statement, cursor.rowcount, began)
