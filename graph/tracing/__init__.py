"""Traces for OpenTelemetry: a span for each operation, each SQL statement and each attempt.

There is none for a field, because a span takes longer than most fields do. The packages of
OpenTelemetry are imported only if the environment says where to send traces.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from db.settings import SettingsError

if TYPE_CHECKING:
    from graph.tracing.tracer import Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"

# How long sending the last spans may take when the process stops, in seconds.
STOP_SECONDS = 3

active: Tracer | None = None
"""The tracer of this process; None if no traces are sent."""


def is_wanted() -> bool:
    """Whether the standard variables of OpenTelemetry say that traces are to be sent.

    Raises SettingsError for what is not supported.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter not in ("", "otlp", "none"):
        raise SettingsError(
            f"OTEL_TRACES_EXPORTER={exporter} cannot be used: Troupe sends traces by OTLP; write"
            " otlp, or none."
        )
    if exporter == "none" or not (exporter or any(map(os.environ.get, ENDPOINTS))):
        return False
    protocol = next(filter(None, map(os.environ.get, PROTOCOLS)), PROTOCOL)
    if protocol != PROTOCOL:
        raise SettingsError(
            f"{PROTOCOLS[1]}={protocol} cannot be used: Troupe speaks OTLP over {PROTOCOL}, which"
            " collectors receive on port 4318."
        )
    return True


def start() -> None:
    """Begin to send traces, if they are wanted. Raises SettingsError."""
    global active
    if active is not None or not is_wanted():
        return
    try:
        from graph.tracing.tracer import Tracer  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError(
            f"The environment asks for traces, and {error.name} is not installed: install"
            " `troupe[otel]`, or unset OTEL_EXPORTER_OTLP_ENDPOINT."
        ) from None
    active = Tracer()


def stop() -> None:
    """Send the last spans, and send no more."""
    global active
    tracer, active = active, None
    if tracer is not None:
        # It waits much longer for a collector that does not answer.
        stopping = threading.Thread(target=tracer.shutdown, daemon=True)
        stopping.start()
        stopping.join(STOP_SECONDS)
