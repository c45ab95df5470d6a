"""Whether traces are wanted; and when this process begins and stops to send them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

from db.settings import SettingsError
from graph import tracing

if TYPE_CHECKING:
    from graph.tracing.process import ExporterProcess

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
EXPORTER = "opentelemetry.exporter.otlp.proto.http"

_process: ExporterProcess | None = None


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
    global _process
    if tracing.active is not None or not is_wanted():
        return
    try:
        from graph.tracing.process import CannotStart, ExporterProcess  # noqa: PLC0415
        from graph.tracing.tracer import Tracer  # noqa: PLC0415

        # Only the other process imports it.
        if find_spec(EXPORTER) is None:
            raise ModuleNotFoundError(name=EXPORTER)
    except ImportError as error:
        raise SettingsError(
            f"The environment asks for traces, and {error.name} is not installed: install"
            " `troupe[otel]`, or unset OTEL_EXPORTER_OTLP_ENDPOINT."
        ) from None
    try:
        process = ExporterProcess()
    except CannotStart as error:
        raise SettingsError(f"Traces cannot be sent with these variables OTEL_…: {error}") from None
    _process, tracing.active = process, Tracer(process.add)


def stop() -> None:
    """Send the last spans, and send no more."""
    global _process
    process, _process, tracing.active = _process, None, None
    if process is not None:
        process.stop()
