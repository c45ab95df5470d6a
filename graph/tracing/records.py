"""What the serving process says of an operation or an attempt to the process that sends spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

Statement = Sequence[Any]
"""A statement that was run: the fields of `db.statistics.Call`."""


class Record(TypedDict):
    """A span that has ended, as a line of JSON."""

    name: str
    kind: str
    """The name of a SpanKind of OpenTelemetry."""
    own: str | None
    """The `traceparent` of the span, if it is known already."""
    parent: str | None
    """That of the span above it. It may be what a client has sent, and not be valid."""
    attributes: Mapping[str, Any]
    error: str | None
    """The code of its first error."""
    ended: int
    """In nanoseconds since 1970."""
    seconds: float
    """How long it took."""
    counter: float
    """When it ended, by `time.perf_counter`, which the statements have their times by."""
    statements: Sequence[Statement]
    """Its statements, each of which gets a span."""
