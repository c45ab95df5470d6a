"""What the serving process says of an operation or an attempt to the process that sends spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

LONGEST_STATEMENT = 2_000
"""The length of the text of a statement. A longer one is cut."""

Statement = Sequence[Any]
"""A statement that was run: the fields of `db.statistics.Call`."""


class Record(TypedDict):
    """A span that has ended, as a line of JSON."""

    name: str
    kind: str
    """The name of a SpanKind of OpenTelemetry."""
    traceparent: str | None
    """That of the span itself, if it is known already."""
    parent: str | None
    """The `traceparent` of the span above it."""
    attributes: Mapping[str, Any]
    error: str | None
    """The code of its first error."""
    clock: int
    """The moment at which the clock of all its times was 0, in nanoseconds since 1970."""
    began: float
    """In seconds, like all times."""
    ended: float
    statements: Sequence[Statement]
    """Its statements, each of which gets a span."""
