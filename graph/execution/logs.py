"""The log: lines of JSON in production, readable ones in development, and no secret in either.

What was done (the operations) goes to the standard output, what went wrong to the standard error.
"""

from __future__ import annotations

import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

import orjson

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is answered just now, which stands in every line about it."""

# One record for each operation.
operations = logging.getLogger("troupe.operations")

# An access token; and what PostgreSQL adds to an error, which is the values of a row.
TOKEN = re.compile(r"troupe_[\w-]{20,}")
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
