"""Spans of OpenTelemetry: they are made of records, and sent by OTLP.

The resource, the batches and the exporter are those of OpenTelemetry's SDK, which the standard
variables configure.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any

import orjson
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

from graph.tracing.places import SAMPLED, Places

if TYPE_CHECKING:
    from graph.tracing.records import Record, Statement

log = logging.getLogger("troupe")

# How long sending the last spans may take, in seconds. The SDK waits much longer for a collector
# that does not answer.
LAST_SECONDS = 3

# How many spans the SDK keeps by default; it drops more.
QUEUE = 2_048

OK, ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
A_SECOND = 1_000_000_000


class HashedResource(Resource):
    """A resource that computes its hash once. The encoder needs it for each span."""

    def __init__(self, resource: Resource) -> None:
        """It has the attributes of another one."""
        super().__init__(dict(resource.attributes), resource.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


class Spans:
    """Makes the spans of records."""

    def __init__(self) -> None:
        resource = Resource.create()
        name = str(resource.attributes.get(SERVICE_NAME, ""))
        if not name or name.startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "troupe"}))
        version = metadata.version("troupe")
        self._resource = HashedResource(resource.merge(Resource({SERVICE_VERSION: version})))
        self._scope = InstrumentationScope("troupe", version)
        self._places = Places()

    def of(self, record: Record) -> Iterator[ReadableSpan]:
        """The spans of a record, if they are sampled: those of its statements, and its own."""
        known, above = record["traceparent"], record["parent"]
        place = self._places.below(above) if known is None else self._places.known(known, above)
        if not place.context.trace_flags.sampled:
            return
        for statement in record["statements"]:
            yield self._of_statement(record, place.context, statement)
        attributes, error = record["attributes"], record["error"]
        if error is not None:
            attributes = {**attributes, "error.type": error}
        times = record["began"], record["ended"]
        kind = SpanKind[record["kind"]]
        yield self._span(record, record["name"], *place, kind, attributes, *times, error)

    def _of_statement(
        self, record: Record, parent: SpanContext, statement: Statement
    ) -> ReadableSpan:
        text, rows, began, seconds, sqlstate = statement
        name = text.split(None, 1)[0].upper()
        attributes: dict[str, Any] = {
            "db.system.name": "postgresql",
            "db.operation.name": name,
            # All values are parameters, so the text has none.
            "db.query.text": text,
            "db.response.returned_rows": rows,
        }
        if sqlstate is not None:
            attributes["error.type"] = sqlstate or "_OTHER"
            if sqlstate:
                attributes["db.response.status_code"] = sqlstate
        context = SpanContext(parent.trace_id, self._places.new_id(), False, SAMPLED)
        times, kind = (began, began + seconds), SpanKind.CLIENT
        return self._span(record, name, context, parent, kind, attributes, *times, sqlstate)

    def _span(
        self,
        record: Record,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Any,
        began: float,
        ended: float,
        error: str | None,
    ) -> ReadableSpan:
        return ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes,
            kind=kind,
            status=OK if error is None else ERROR,
            start_time=record["clock"] + round(began * A_SECOND),
            end_time=record["clock"] + round(ended * A_SECOND),
            instrumentation_scope=self._scope,
        )


class Sender:
    """Sends the spans of records."""

    def __init__(self) -> None:
        """Raises ValueError if a variable is wrong."""
        self._spans = Spans()
        self._processor = BatchSpanProcessor(OTLPSpanExporter())
        self._most = int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE) or QUEUE)
        self._queued = 0

    def send(self, lines: Iterable[bytes]) -> None:
        """Send the spans of these lines, until there are no more."""
        try:
            for line in lines:
                try:
                    self._add(list(self._spans.of(orjson.loads(line))))
                except Exception as error:
                    log.warning("a trace is lost: %s: %s", type(error).__name__, error)
        finally:
            stopping = threading.Thread(target=self._processor.shutdown, daemon=True)
            stopping.start()
            stopping.join(LAST_SECONDS)
            if stopping.is_alive():
                log.warning("the last traces are lost: the collector has not answered in time")

    def _add(self, spans: list[ReadableSpan]) -> None:
        # No more are read until these are sent; the SDK would drop them.
        if self._queued + len(spans) > self._most:
            self._processor.force_flush()
            self._queued = 0
        for span in spans:
            self._processor.on_end(span)
        self._queued += len(spans)
