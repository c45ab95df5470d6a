"""Traces for OpenTelemetry: a span for each operation, each SQL statement and each attempt.

There is none for a field, because a span takes longer than most fields do. The packages of
OpenTelemetry are imported only if the environment says where to send traces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graph.tracing.tracer import Tracer

active: Tracer | None = None
"""The tracer of this process; None if no traces are sent."""
