"""Notes what there is to trace. Another process makes the spans of it, and sends them.

That process also finds the place of an operation in a trace, unless a claim tells it to a worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

from db.statistics import MOST_COLLECTED
from db.telemetry import span_id_of, trace_and_span
from graph.tracing.places import Places
from graph.tracing.records import LONGEST_STATEMENT

if TYPE_CHECKING:
    from db.statistics import Call
    from graph.tracing.records import Record

# The length of the parts of a `traceparent` that are used.
TRACEPARENT = 55


class Trace:
    """The place of an operation in a trace, while it runs."""

    __slots__ = ("_places", "known", "parent")

    def __init__(self, places: Places, parent: str | None) -> None:
        self._places = places
        self.known: str | None = None
        """Its `traceparent`, if somebody has asked for it."""
        self.parent = parent
        """The `traceparent` of the span above it."""

    @property
    def traceparent(self) -> str:
        """The header that makes a span of another program a child of this operation."""
        if self.known is None:
            self.known = self._places.below(self.parent).traceparent
        return self.known


class Tracer:
    """Makes records of operations and attempts."""

    def __init__(self, send: Callable[[Record], None]) -> None:
        """`send` passes a record on, and never raises."""
        self._send = send
        self._places = Places()

    def begin(self, traceparent: str | None) -> Trace:
        """Begin the span of an operation, below the one that a client names, if that is valid."""
        if traceparent is not None:
            is_valid = trace_and_span(traceparent) is not None
            traceparent = traceparent[:TRACEPARENT] if is_valid else None
        return Trace(self._places, traceparent)

    def end(
        self,
        trace: Trace,
        name: str,
        attributes: Mapping[str, Any],
        calls: Sequence[Call],
        began: float,
        error: str | None = None,
    ) -> None:
        """End the span of an operation, which began at this time (`time.perf_counter`).

        Its statements get spans too, at most MOST_COLLECTED of them, also where all are collected
        to be explained. `error` is the code of its first error.
        """
        ended = time.perf_counter()
        few = islice(calls, MOST_COLLECTED)
        self._send(
            {
                "name": name,
                "kind": "SERVER",
                "traceparent": trace.known,
                "parent": trace.parent,
                "attributes": attributes,
                "error": error,
                "clock": time.time_ns() - round(ended * 1_000_000_000),
                "began": began,
                "ended": ended,
                "statements": [(call[0][:LONGEST_STATEMENT], *call[1:]) for call in few],
            }
        )

    def attempt(
        self,
        id: UUID,
        claim: str,
        began: datetime,
        ended: datetime,
        attributes: Mapping[str, Any],
        error: str | None = None,
    ) -> None:
        """Add the span of an attempt, from its claim to its end.

        `claim` is the `traceparent` of the operation that has claimed the task.
        """
        found = trace_and_span(claim)
        if found is None:
            return
        self._send(
            {
                "name": "attempt",
                "kind": "INTERNAL",
                # It is sampled if its claim is.
                "traceparent": f"00-{found[0]}-{span_id_of(id)}-{claim.split('-')[3]}",
                "parent": claim,
                "attributes": attributes,
                "error": error,
                "clock": 0,
                "began": began.timestamp(),
                "ended": ended.timestamp(),
                "statements": (),
            }
        )
