"""The log: lines of JSON in production, readable ones in development, and no secret in either.

What was done (the operations) goes to the standard output, what went wrong to the standard error.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import orjson

from db import statistics
from db.statistics import Statistics
from graph.execution.documents import hash_of
from graph.execution.run import GraphQLRequest, Run

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is answered just now, which stands in every line about it."""

# One record for each operation.
operations = logging.getLogger("troupe.operations")

CLIENT_LEFT = 499  # nobody gets to see it; the log has it, as nginx's has

# An access token; and what PostgreSQL adds to an error, which is the values of a row.
TOKEN = re.compile(r"troupe_[\w-]{20,}")
HASH = re.compile("[0-9a-fA-F]{64}")
DETAIL = re.compile(r"^DETAIL:.*$", re.MULTILINE)


def _safe(text: str) -> str:
    return DETAIL.sub("DETAIL: …", TOKEN.sub("troupe_…", text))


class _Lines(logging.Formatter):
    def _fields(self, record: logging.LogRecord) -> dict[str, object]:
        """What a line says besides its message: the request, and what the caller gave along."""
        given: dict[str, object] = getattr(record, "fields", {})
        return {"request": request_id.get()} | given


class JSONLines(_Lines):
    """One JSON object for each record, for programs that collect them."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields(record),
        }
        if record.exc_info:
            line["exception"] = _safe(self.formatException(record.exc_info))
        line["message"] = _safe(str(line["message"]))
        return orjson.dumps(line, default=str).decode()


class ReadableLines(_Lines):
    """A line for people, with what they would ask for behind it."""

    default_time_format = "%H:%M:%S"
    default_msec_format = None

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, and below it the traceback, if there is one."""
        fields = self._fields(record).items()
        shown = [f"{name}={value}" for name, value in fields if value not in (None, [])]
        words = (self.formatTime(record), record.levelname, record.getMessage(), *shown)
        line = " ".join(words)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return _safe(line)


def configure(*, readable: bool) -> None:
    """Send the log of this process where it belongs."""
    form = ReadableLines() if readable else JSONLines()
    wrong, done = logging.StreamHandler(sys.stderr), logging.StreamHandler(sys.stdout)
    for handler in (wrong, done):
        handler.setFormatter(form)
    logging.basicConfig(level=logging.INFO, handlers=[wrong], force=True)
    operations.handlers = [done]
    operations.propagate = False


class LogEntry:
    """The line of the log about one operation, which never has its text or its variables.

    It counts what the database does inside the block, and is written at its end.
    """

    request: GraphQLRequest | None = None
    run: Run | None = None

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self.status = CLIENT_LEFT
        self.codes: list[str] = []
        self.work = Statistics()
        self._started = time.perf_counter()

    def __enter__(self) -> Self:
        self._counting: Token[Statistics | None] = statistics.current.set(self.work)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        statistics.current.reset(self._counting)
        self._write()

    def explain(self) -> None:
        """Note the statements, for whoever asks to have the answer explained and may know them."""
        self.work.texts = []

    def explained(self) -> dict[str, Any]:
        """How the operation was read. The statements never hold values."""
        run = self.run
        node = run and run.node
        return {
            "operation": node.operation.value if node else None,
            "planned": run is not None and run.is_planned,
            "cost": run.cost if run else None,
            "statements": self.work.texts or [],
        }

    def timing(self) -> bytes:
        """How long it took so far, in milliseconds, for the header Server-Timing."""
        times = self.run.times if self.run else {}
        parse, plan = 1000 * times.get("parse", 0), 1000 * times.get("plan", 0)
        db, total = 1000 * self.work.seconds, 1000 * (time.perf_counter() - self._started)
        line = b"parse;dur=%.2f, plan;dur=%.2f, db;dur=%.2f, total;dur=%.2f"
        return line % (parse, plan, db, total)

    def _hash(self) -> str | None:
        if self.request is None:
            return None
        if self.request.query is not None:
            is_read = self.run is not None and self.run.kind is not None
            return self.run.document.hash if self.run and is_read else hash_of(self.request.query)
        persisted = (self.request.extensions or {}).get("persistedQuery")
        named = persisted.get("sha256Hash") if isinstance(persisted, dict) else None
        # Anything else could hold a secret, or look like a line of the log.
        return named if isinstance(named, str) and HASH.fullmatch(named) else None

    def _write(self) -> None:
        if not operations.isEnabledFor(logging.INFO):
            return
        run = self.run
        node = run and run.node
        fields = {
            "transport": self.transport,
            "kind": node.operation.value if node else None,
            "operation": node.name.value if node and node.name else None,
            "hash": self._hash(),
            "viewer": run and run.context.viewer.name,
            "status": self.status,
            "codes": self.codes,
            "milliseconds": round((time.perf_counter() - self._started) * 1000, 1),
            "statements": self.work.statements,
            "rows": self.work.rows,
        }
        operations.info("operation", extra={"fields": fields})
