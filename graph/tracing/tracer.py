"""Notes what there is to trace, and has another process make and send the spans of it.

An operation only notes what it has done. Its place in a trace is found out in the other process,
except if a claim hands it to a worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from db.telemetry import span_id_of, trace_and_span
from graph.tracing.exporter import Places

if TYPE_CHECKING:
    from db.statistics import Call
    from graph.tracing.records import Record


class Trace:
    """The place of an operation in a trace, while it runs."""

    __slots__ = ("_places", "own", "parent")

    def __init__(self, places: Places, parent: str | None) -> None:
        self._places = places
        self.own: str | None = None
        """Its `traceparent`, if somebody has asked for it."""
        self.parent = parent
        """What the client has sent as `traceparent`."""

    @property
    def traceparent(self) -> str:
        """The header that makes a span of another program a child of this operation."""
        if self.own is None:
            self.own = self._places.below(self.parent).traceparent
        return self.own


class Tracer:
    """Makes records of operations and attempts."""

    def __init__(self, send: Callable[[Record], None]) -> None:
        """`send` passes a record on."""
        self._send = send
        self._places = Places()

    def begin(self, traceparent: str | None) -> Trace:
        """Begin the span of an operation, below the span that a `traceparent` names."""
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

        Its statements get spans too. `error` is the code of its first error.
        """
        counter = time.perf_counter()
        self._send(
            {
                "name": name,
                "kind": "SERVER",
                "own": trace.own,
                "parent": trace.parent,
                "attributes": attributes,
                "error": error,
                "ended": time.time_ns(),
                "seconds": counter - began,
                "counter": counter,
                "statements": calls,
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
                "own": f"00-{found[0]}-{span_id_of(id)}-{claim.split('-')[3]}",
                "parent": claim,
                "attributes": attributes,
                "error": error,
                "ended": round(ended.timestamp() * 1_000_000) * 1_000,
                "seconds": (ended - began).total_seconds(),
                "counter": 0.0,
                "statements": (),
            }
        )
