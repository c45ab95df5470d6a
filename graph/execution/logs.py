"""The log: lines of JSON in production, readable lines in development, and no secrets in either.

Operations, requests that are refused, and the start and the stop of the server go to the standard
output, other records to the standard error. What is logged of an operation is counted for the
metrics, and traced, here as well.
"""

from __future__ import annotations

import logging
import math
import re
import sys
import time
from collections.abc import Sequence
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

import orjson

from db import statistics, telemetry
from db.statistics import Statistics
from graph import tracing
from graph.execution.documents import hash_of
from graph.execution.run import GraphQLRequest, Run
from graph.metrics.operations import operations as counted

if TYPE_CHECKING:
    from graph.tracing.tracer import Trace

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the current request, which every line about it contains."""

# One record for each operation.
operations = logging.getLogger("troupe.operations")

OPERATION = "GraphQL Operation"
"""The name of the span of an operation whose kind is not known."""

# The start and the stop of the server.
server = logging.getLogger("troupe.server")

CLIENT_DISCONNECTED = 499  # only in the log, as in nginx

# An access token; and the detail of an error from PostgreSQL, which contains values of a row.
TOKEN = re.compile(r"troupe_[\w-]{20,}")
HASH = re.compile("[0-9a-fA-F]{64}")
DETAIL = re.compile(r"^DETAIL:.*$", re.MULTILINE)


def _safe(text: str) -> str:
    return DETAIL.sub("DETAIL: …", TOKEN.sub("troupe_…", text))


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """The fields of a line besides its message: the id of the request, and the caller's."""
    return {"request": request_id.get(), **getattr(record, "fields", {})}


class JSONLines(logging.Formatter):
    """One JSON object for each record, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
            "message": _safe(record.getMessage()),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = _safe(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str).decode()


class ReadableLines(logging.Formatter):
    """A readable line, with the fields at its end."""

    default_time_format = "%H:%M:%S"
    default_msec_format = None

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, and below it the traceback, if there is one."""
        fields = _fields(record).items()
        shown = [f"{name}={value}" for name, value in fields if value not in (None, [])]
        line = " ".join([self.formatTime(record), record.levelname, record.getMessage(), *shown])
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return _safe(line)


def configure(*, readable: bool) -> None:
    """Configure the log of this process."""
    formatter = ReadableLines() if readable else JSONLines()
    errors, output = logging.StreamHandler(sys.stderr), logging.StreamHandler(sys.stdout)
    for handler in (errors, output):
        handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[errors], force=True)
    for logger in (operations, server):
        logger.handlers = [output]
        logger.propagate = False
    # What Python warns of is a record like all others.
    logging.captureWarnings(capture=True)


def log_refusal(
    transport: str, status: int, codes: Sequence[str], limits: Sequence[str] = ()
) -> None:
    """Log and count a request that is refused before there is an operation."""
    counted.refuse(transport, codes[0], limits)
    if operations.isEnabledFor(logging.INFO):
        fields = {"transport": transport, "status": status, "codes": list(codes)}
        operations.info("refused", extra={"fields": fields})


class Answer(Protocol):
    """What an operation was answered with."""

    @property
    def status(self) -> int:
        """The status."""

    @property
    def codes(self) -> list[str]:
        """The codes of the errors."""

    @property
    def limits(self) -> list[str]:
        """The settings of the limits that have refused it."""


class LogEntry:
    """The line of the log about one operation, without its text and its variables.

    It counts the work of the database inside the block. At the end of the block it is written, and
    the operation is counted and traced. If there is no operation, because the request was refused
    before, it is the line of a refusal; of a client that has left before, there is none.
    """

    request: GraphQLRequest | None = None
    run: Run | None = None
    _trace: Trace | None = None
    _tracing: Token[telemetry.Traced | None] | None = None
    _first_explained = 0

    def __init__(self, transport: str, traceparent: str | None = None) -> None:
        """`traceparent` is the header of this name, if the client has sent one."""
        self.transport = transport
        self.status = CLIENT_DISCONNECTED
        self.codes: list[str] = []
        self.limits: list[str] = []
        self.database = Statistics()
        self._started = time.perf_counter()
        if tracing.active is not None:
            self._trace = tracing.active.begin(traceparent)

    def __enter__(self) -> Self:
        self._counting: Token[Statistics | None] = statistics.current.set(self.database)
        if self._trace is not None:
            self._tracing = telemetry.operation.set(self._trace)
            self.database.calls = []
        return self

    def __exit__(self, *_: object) -> None:
        statistics.current.reset(self._counting)
        if self._tracing is not None:
            telemetry.operation.reset(self._tracing)
        self._write()

    def answer(self, answer: Answer) -> None:
        """Say what the operation was answered with."""
        self.status, self.codes, self.limits = answer.status, answer.codes, answer.limits

    def explain(self) -> None:
        """Record all statements from now on, for a response that explains them."""
        self.database.most_calls = math.inf
        calls = self.database.calls = self.database.calls or []
        self._first_explained = len(calls)

    def explanation(self) -> dict[str, Any]:
        """How the operation was read. The statements contain no values."""
        run = self.run
        node = run and run.node
        return {
            "operation": node.operation.value if node else None,
            "compiled": run is not None and run.is_compiled,
            "cost": run.cost if run else None,
            "statements": [
                call.statement
                for call in (self.database.calls or ())[self._first_explained :]
                if call.sqlstate is None
            ],
        }

    def timing(self) -> bytes:
        """The durations of its steps so far, in milliseconds, for the header Server-Timing."""
        run, total = self.run, time.perf_counter() - self._started
        steps = (run.parse_seconds, run.compile_seconds) if run is not None else (0.0, 0.0)
        times = [1000 * seconds for seconds in (*steps, self.database.seconds, total)]
        return b"parse;dur=%.2f, compile;dur=%.2f, db;dur=%.2f, total;dur=%.2f" % (*times,)

    def _hash(self) -> str | None:
        if self.request is None:
            return None
        if self.request.query is not None:
            is_read = self.run is not None and self.run.kind is not None
            return self.run.document.hash if self.run and is_read else hash_of(self.request.query)
        persisted = (self.request.extensions or {}).get("persistedQuery")
        named = persisted.get("sha256Hash") if isinstance(persisted, dict) else None
        # Any other text could contain a secret, or line breaks.
        return named if isinstance(named, str) and HASH.fullmatch(named) else None

    def _write(self) -> None:
        run = self.run
        if run is None:
            if self.codes:
                log_refusal(self.transport, self.status, self.codes, self.limits)
            return
        node = run.node
        kind = node.operation.value if node else None
        name = node.name.value if node and node.name else None
        seconds = time.perf_counter() - self._started
        code = self.codes[0] if self.codes else None
        if self.status == CLIENT_DISCONNECTED:
            code = "CLIENT_DISCONNECTED"
        is_known = node is not None and not run.context.is_anonymous
        counted.add(
            kind or "unknown", name or "", code or "ok", seconds, self.limits, is_known=is_known
        )
        if self._trace is not None and tracing.active is not None:
            attributes = {"troupe.transport": self.transport}
            if kind is not None:
                attributes["graphql.operation.type"] = kind
            if name is not None:
                attributes["graphql.operation.name"] = name
            calls = self.database.calls or ()
            tracing.active.end(
                self._trace, kind or OPERATION, attributes, calls, self._started, code
            )
        if not operations.isEnabledFor(logging.INFO):
            return
        fields = {
            "transport": self.transport,
            "kind": kind,
            "operation": name,
            "hash": self._hash(),
            "viewer": run.context.viewer.name,
            "status": self.status,
            "codes": self.codes,
            "milliseconds": round(seconds * 1000, 1),
            "statements": self.database.statements,
            "rows": self.database.rows,
        }
        operations.info("operation", extra={"fields": fields})
