"""Names of OpenTelemetry: the attributes of a span of a GenAI call, and `traceparent`.

The traces of Troupe itself are made in `graph/tracing/`. Here is what rules of the domain say for
them: which operation has claimed an attempt, and which attempts have ended.

The attributes are those of the semantic conventions for generative AI. Instrumentations still write
some of them under earlier names, which are understood too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Protocol
from uuid import UUID

from db.errors import Invalid, Path

# The columns of a usage record, each with the names of its attribute: the first that is set counts.
TEXTS = {
    "model_name": ("gen_ai.request.model", "gen_ai.response.model"),
    "request_id": ("gen_ai.response.id",),
}
NUMBERS = {
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "cached_input_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
    ),
    "cache_creation_tokens": (
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
    ),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "reasoning_tokens": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
    ),
}
ERROR = "error.type"

MOST_TOKENS = 2_000_000_000
MOST_CHARACTERS = 255

# https://www.w3.org/TR/trace-context/#traceparent-header: version, trace id, span id, flags. Later
# versions may have more parts.
TRACEPARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})"
    r"-(?P<span>(?!0{16})[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-.*)?",
    re.ASCII,
)


class Traced(Protocol):
    """An operation that is traced."""

    @property
    def traceparent(self) -> str:
        """The header that makes a span of another program a child of this operation."""


operation: ContextVar[Traced | None] = ContextVar("operation", default=None)
"""The current operation; None if this process sends no traces."""

ended_attempts: list[UUID] | None = None
"""The attempts that have ended; None if nobody traces them."""

MOST_ENDED = 10_000
"""How many of them are kept at most."""


def traceparent() -> str | None:
    """The `traceparent` of the current operation; None if this process sends no traces."""
    current = operation.get()
    return None if current is None else current.traceparent


def note_end(attempt_id: UUID) -> None:
    """Note that an attempt ends, if somebody traces it."""
    if ended_attempts is not None and len(ended_attempts) < MOST_ENDED:
        ended_attempts.append(attempt_id)


def span_id_of(attempt_id: UUID) -> str:
    """The id of the span of an attempt: the last half of its own id, which is random."""
    return attempt_id.hex[16:]


def usage_values(attributes: Mapping[str, Any], at: Path = ()) -> dict[str, Any]:
    """The values of a usage record that the attributes of a span have; others are ignored.

    `at` is their path in the input. Raises Invalid.
    """
    values: dict[str, Any] = {}
    for column, names in (*TEXTS.items(), *NUMBERS.items()):
        for name in names:
            if attributes.get(name) is not None:
                values[column] = attributes[name]
                problem = _problem(attributes[name], column in TEXTS)
                if problem:
                    raise Invalid(f"{name} {problem}", at)
                break
    if attributes.get(ERROR) is not None:
        values["success"] = False
    return values


def _problem(value: Any, is_text: bool) -> str | None:
    """What is wrong with the value of an attribute, if anything."""
    if is_text and (not isinstance(value, str) or not 0 < len(value) <= MOST_CHARACTERS):
        return f"must be a text of 1 to {MOST_CHARACTERS} characters."
    # A truth value is an int to Python.
    if not is_text and (type(value) is not int or not 0 <= value <= MOST_TOKENS):
        return f"must be a whole number from 0 to {MOST_TOKENS:,}."
    return None


def trace_and_span(traceparent: str) -> tuple[str, str] | None:
    """The ids of the trace and of the span in a `traceparent`; None if it is not valid."""
    found = TRACEPARENT.fullmatch(traceparent)
    if found is None or (found["version"] == "00" and found["more"]):
        return None
    return found["trace"], found["span"]
