"""The places of spans in traces, as the standard variables of samplers and ids say."""

from __future__ import annotations

from typing import Any, NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SAMPLED, NOT_SAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)


class Place(NamedTuple):
    """The place of a span in a trace."""

    context: SpanContext
    parent: SpanContext | None

    @property
    def traceparent(self) -> str:
        """The header that makes a span of another program a child of this one."""
        context = self.context
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


class Places:
    """Gives spans their places."""

    def __init__(self) -> None:
        provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
        self._sampler, self._ids = provider.sampler, provider.id_generator
        self._propagator = TraceContextTextMapPropagator()

    def new_id(self) -> int:
        """The id of a new span."""
        return self._ids.generate_span_id()

    def below(self, traceparent: str | None) -> Place:
        """A new place below the span that a `traceparent` names, or in a new trace.

        Whether it is sampled does not depend on the name of the span, which is not known yet.
        """
        above = parent = None
        if traceparent is None:
            trace_id = self._ids.generate_trace_id()
        else:
            above = self._context(traceparent)
            parent = get_current_span(above).get_span_context()
            trace_id = parent.trace_id
        sampling = self._sampler.should_sample(above, trace_id, "", SpanKind.SERVER)
        flags = NOT_SAMPLED if sampling.decision is Decision.DROP else SAMPLED
        return Place(SpanContext(trace_id, self.new_id(), False, flags), parent)

    def known(self, traceparent: str, parent: str | None) -> Place:
        """The place of a span whose `traceparent` is known already."""
        found = self._named(traceparent)
        context = SpanContext(found.trace_id, found.span_id, False, found.trace_flags)
        return Place(context, None if parent is None else self._named(parent))

    def _named(self, traceparent: str) -> SpanContext:
        """The span that a `traceparent` names."""
        return get_current_span(self._context(traceparent)).get_span_context()

    def _context(self, traceparent: str) -> Any:
        return self._propagator.extract({"traceparent": traceparent})
