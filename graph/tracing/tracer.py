"""Spans, made and sent in batches by a thread of OpenTelemetry's SDK.

An operation only notes what it has done. The SDK's own spans would take several times as long, in
the operation. The sampler, the resource, the batches and the exporter are those of the SDK, which
the standard variables configure.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from db.telemetry import span_id_of, trace_and_span

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from db.statistics import Call

# A longer text of a statement is cut.
LONGEST_STATEMENT = 2_000

# How many spans a message to the collector has. The thread that makes them holds up operations
# while it encodes a message.
MOST_AT_ONCE = 512

SAMPLED, NOT_SAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
OK, ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
A_SECOND = 1_000_000_000


@dataclass(slots=True)
class Trace:
    """The place of an operation in a trace, while it runs."""

    context: SpanContext
    parent: SpanContext | None
    began: int
    """In nanoseconds since 1970."""
    counter: float
    """The same moment by `time.perf_counter`."""

    @property
    def is_sampled(self) -> bool:
        """Whether its spans are sent."""
        return self.context.trace_flags.sampled

    @property
    def traceparent(self) -> str:
        """The header that makes a span of another program a child of this operation."""
        context = self.context
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def moment(self, counter: float) -> int:
        """A time of `time.perf_counter` in nanoseconds since 1970."""
        return self.began + round((counter - self.counter) * A_SECOND)


@dataclass(slots=True)
class EndedOperation:
    """An operation that has ended, of which spans are to be made."""

    trace: Trace
    name: str
    attributes: dict[str, Any]
    calls: Sequence[Call]
    ended: int
    error: str | None

    @property
    def context(self) -> SpanContext:
        """The context of its span."""
        return self.trace.context


class HashedResource(Resource):
    """A resource that computes its hash once. The encoder needs it for each span."""

    def __init__(self, resource: Resource) -> None:
        """It has the attributes of another one."""
        super().__init__(dict(resource.attributes), resource.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


class Tracer:
    """Makes spans, and has them sent."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        """The exporter is that of OTLP unless given."""
        resource = Resource.create()
        name = str(resource.attributes.get(SERVICE_NAME, ""))
        if not name or name.startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "troupe"}))
        version = metadata.version("troupe")
        self._resource = HashedResource(resource.merge(Resource({SERVICE_VERSION: version})))
        self._scope = InstrumentationScope("troupe", version)
        # Only for what the standard variables say of samplers and ids.
        provider = TracerProvider(resource=self._resource, shutdown_on_exit=False)
        self._sampler, self._ids = provider.sampler, provider.id_generator
        self._processor = BatchSpanProcessor(SpanMaker(self, exporter or OTLPSpanExporter()))

    def shutdown(self) -> None:
        """Send the last spans."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def begin(self, traceparent: str | None) -> Trace:
        """Begin the span of an operation, below the span that a `traceparent` names."""
        parent = None if traceparent is None else _remote(traceparent)
        above: Context | None = None
        if parent is None:
            trace_id = self._ids.generate_trace_id()
        else:
            trace_id, above = parent.trace_id, set_span_in_context(NonRecordingSpan(parent))
        # What the operation is, is not known yet.
        sampling = self._sampler.should_sample(above, trace_id, "", SpanKind.SERVER)
        flags = NOT_SAMPLED if sampling.decision is Decision.DROP else SAMPLED
        context = SpanContext(trace_id, self._ids.generate_span_id(), False, flags)
        return Trace(context, parent, time.time_ns(), time.perf_counter())

    def end(
        self,
        trace: Trace,
        name: str,
        attributes: dict[str, Any],
        calls: Sequence[Call],
        error: str | None = None,
    ) -> None:
        """End the span of an operation. Its statements get spans too.

        `error` is the code of its first error.
        """
        if trace.is_sampled:
            ended = trace.moment(time.perf_counter())
            operation = EndedOperation(trace, name, attributes, calls, ended, error)
            # It asks only for the context.
            self._processor.on_end(operation)  # type: ignore[arg-type]

    def spans_of(self, operation: EndedOperation) -> Iterator[ReadableSpan]:
        """The spans of an operation: those of its statements, and its own."""
        trace, attributes, error = operation.trace, operation.attributes, operation.error
        for call in operation.calls:
            yield self._span_of_call(trace, call)
        if error is not None:
            attributes = attributes | {"error.type": error}
        times = trace.began, operation.ended
        kind = SpanKind.SERVER
        yield self._span(
            operation.name, trace.context, trace.parent, kind, attributes, *times, error
        )

    def _span_of_call(self, trace: Trace, call: Call) -> ReadableSpan:
        context = trace.context
        own = SpanContext(context.trace_id, self._ids.generate_span_id(), False, SAMPLED)
        words = call.statement[:LONGEST_STATEMENT]
        name = words.split(None, 1)[0].upper()
        attributes: dict[str, Any] = {
            "db.system.name": "postgresql",
            "db.operation.name": name,
            # All values are parameters, so the text has none.
            "db.query.text": words,
            "db.response.returned_rows": call.rows,
        }
        if call.sqlstate is not None:
            attributes["error.type"] = call.sqlstate or "_OTHER"
            if call.sqlstate:
                attributes["db.response.status_code"] = call.sqlstate
        began = trace.moment(call.began)
        times = began, began + round(call.seconds * A_SECOND)
        return self._span(name, own, context, SpanKind.CLIENT, attributes, *times, call.sqlstate)

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
        parent = _remote(claim)
        if parent is None or not parent.trace_flags.sampled:
            return
        context = SpanContext(parent.trace_id, int(span_id_of(id), 16), False, SAMPLED)
        times = (_nanoseconds(began), _nanoseconds(ended))
        known = dict(attributes) | ({} if error is None else {"error.type": error})
        span = self._span("attempt", context, parent, SpanKind.INTERNAL, known, *times, error)
        self._processor.on_end(span)

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, Any],
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


class SpanMaker(SpanExporter):
    """An exporter that makes the spans of operations first, in its thread."""

    def __init__(self, tracer: Tracer, exporter: SpanExporter) -> None:
        """`exporter` sends the spans."""
        self._tracer = tracer
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan | EndedOperation]) -> SpanExportResult:
        """Send the spans of these operations, and spans that are made already.

        An operation may have many spans, and collectors limit the size of a message.
        """
        made = self._made(spans)
        while batch := list(islice(made, MOST_AT_ONCE)):
            if self._exporter.export(batch) is not SpanExportResult.SUCCESS:
                return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def _made(self, spans: Sequence[ReadableSpan | EndedOperation]) -> Iterator[ReadableSpan]:
        for each in spans:
            if isinstance(each, EndedOperation):
                yield from self._tracer.spans_of(each)
            else:
                yield each

    def shutdown(self) -> None:
        """Send nothing more."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is there."""
        return self._exporter.force_flush(timeout_millis)


def _remote(traceparent: str) -> SpanContext | None:
    """The span that a `traceparent` names; None if it is not valid."""
    found = trace_and_span(traceparent)
    if found is None:
        return None
    sampled = int(traceparent.split("-")[3], 16) & TraceFlags.SAMPLED
    flags = SAMPLED if sampled else NOT_SAMPLED
    return SpanContext(int(found[0], 16), int(found[1], 16), True, flags)


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000) * 1_000
