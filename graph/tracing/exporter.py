"""The program that makes the spans and sends them by OTLP, in a process of its own.

There it delays no operation. Its standard input has a Record for each operation and each attempt.
The sampler, the ids, the resource, the batches and the exporter are those of OpenTelemetry's SDK,
which the standard variables configure. It is started by its path, and imports nothing of Troupe, so
that it starts fast and stays small.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from graph.tracing.records import Record, Statement

# How long sending the last spans may take, in seconds. The SDK waits much longer for a collector
# that does not answer.
LAST_SECONDS = 3

# How much this process yields to those that serve (`nice`).
NICENESS = 10

# A longer text of a statement is cut.
LONGEST_STATEMENT = 2_000

SAMPLED, NOT_SAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
OK, ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
A_SECOND = 1_000_000_000


class Place(NamedTuple):
    """The place of a span in a trace."""

    own: SpanContext
    parent: SpanContext | None

    @property
    def traceparent(self) -> str:
        """The header that makes a span of another program a child of this one."""
        own = self.own
        return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"


class Places:
    """Gives spans their places in traces, as the standard variables of samplers and ids say."""

    def __init__(self) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        self._sampler, self._ids = provider.sampler, provider.id_generator
        self._propagator = TraceContextTextMapPropagator()

    def new_id(self) -> int:
        """The id of a new span."""
        return self._ids.generate_span_id()

    def below(self, traceparent: str | None) -> Place:
        """A new place below the span that a `traceparent` names; if it is not valid, a new trace.

        What is to be there is not known yet.
        """
        above = None if traceparent is None else self._context(traceparent)
        parent = None if above is None else get_current_span(above).get_span_context()
        if parent is None or not parent.is_valid:
            above, parent, trace_id = None, None, self._ids.generate_trace_id()
        else:
            trace_id = parent.trace_id
        sampling = self._sampler.should_sample(above, trace_id, "", SpanKind.SERVER)
        flags = NOT_SAMPLED if sampling.decision is Decision.DROP else SAMPLED
        return Place(SpanContext(trace_id, self.new_id(), False, flags), parent)

    def of(self, record: Record) -> Place:
        """The place of a record, which may be known already."""
        if record["own"] is None:
            return self.below(record["parent"])
        own = get_current_span(self._context(record["own"])).get_span_context()
        own = SpanContext(own.trace_id, own.span_id, False, own.trace_flags)
        parent = None
        if record["parent"] is not None:
            parent = get_current_span(self._context(record["parent"])).get_span_context()
        return Place(own, parent if parent is not None and parent.is_valid else None)

    def _context(self, traceparent: str) -> Any:
        return self._propagator.extract({"traceparent": traceparent})


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
        own, parent = self._places.of(record)
        if not own.trace_flags.sampled:
            return
        for statement in record["statements"]:
            yield self._of_statement(record, own, statement)
        attributes, error = record["attributes"], record["error"]
        if error is not None:
            attributes = {**attributes, "error.type": error}
        kind, ended = SpanKind[record["kind"]], record["ended"]
        times = ended - round(record["seconds"] * A_SECOND), ended
        yield self._span(record["name"], own, parent, kind, attributes, *times, error)

    def _of_statement(
        self, record: Record, parent: SpanContext, statement: Statement
    ) -> ReadableSpan:
        text, rows, began, seconds, sqlstate = statement
        words = text[:LONGEST_STATEMENT]
        name = words.split(None, 1)[0].upper()
        attributes: dict[str, Any] = {
            "db.system.name": "postgresql",
            "db.operation.name": name,
            # All values are parameters, so the text has none.
            "db.query.text": words,
            "db.response.returned_rows": rows,
        }
        if sqlstate is not None:
            attributes["error.type"] = sqlstate or "_OTHER"
            if sqlstate:
                attributes["db.response.status_code"] = sqlstate
        own = SpanContext(parent.trace_id, self._places.new_id(), False, SAMPLED)
        start = record["ended"] - round((record["counter"] - began) * A_SECOND)
        times = start, start + round(seconds * A_SECOND)
        return self._span(name, own, parent, SpanKind.CLIENT, attributes, *times, sqlstate)

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Any,
        began: int,
        ended: int,
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
            start_time=began,
            end_time=ended,
            instrumentation_scope=self._scope,
        )


class OneLine(logging.Formatter):
    """A line for each record of the log, which the serving process logs."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, without a traceback."""
        return " ".join(record.getMessage().split())


def export(lines: Iterable[bytes]) -> None:
    """Send the spans of these records, until there are no more."""
    # Only here, because the serving process imports this module for Places.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    spans = Spans()
    processor = BatchSpanProcessor(OTLPSpanExporter())
    for line in lines:
        for span in spans.of(orjson.loads(line)):
            processor.on_end(span)
    stopping = threading.Thread(target=processor.shutdown, daemon=True)
    stopping.start()
    stopping.join(LAST_SECONDS)


def main() -> None:
    """Send the spans of what the standard input has. It ends with the process that writes it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform != "win32":
        os.nice(NICENESS)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    export(sys.stdin.buffer)


if __name__ == "__main__":
    main()
