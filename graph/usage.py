"""Usage: the tokens, time and cost of each call of an AI model."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import strawberry
from pydantic import AfterValidator, BaseModel, Field

import db
from db import Right, telemetry, usage
from graph.core.connections import Connection
from graph.core.entities import Node, entity
from graph.core.fields import collection, one, related
from graph.core.filters import (
    BooleanFilter,
    DateTimeFilter,
    IDFilter,
    IntFilter,
    StringFilter,
    filters,
    ordering,
    through,
)
from graph.core.inputs import Repeatable, input_of, new_values
from graph.core.mutations import at_most, mutation
from graph.core.payloads import Changed
from graph.core.scalars import ID, Line, Metadata, Price

Count = Annotated[int, Field(ge=0, le=telemetry.MOST_TOKENS)]


def _ids(traceparent: str) -> Any:
    found = telemetry.trace_and_span(traceparent)
    if found is None:
        raise ValueError(
            "this is no traceparent, such as"
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        )
    return found


# Its value is the pair of ids.
Traceparent = Annotated[str, AfterValidator(_ids)]


@filters(db.UsageRecord)
class UsageRecordFilter:
    id: IDFilter | None
    model_name: StringFilter | None
    trace_id: StringFilter | None
    input_tokens: IntFilter | None
    output_tokens: IntFilter | None
    latency_ms: IntFilter | None
    success: BooleanFilter | None
    request_id: StringFilter | None
    occurred_at: DateTimeFilter | None
    created_at: DateTimeFilter | None
    model_id: IDFilter | None
    project_id: IDFilter | None
    agent_id: IDFilter | None
    task_id: IDFilter | None
    attempt_id: IDFilter | None
    conversation_id: IDFilter | None
    message_id: IDFilter | None
    user_id: IDFilter | None
    model = through(db.UsageRecord.model)
    project = through(db.UsageRecord.project)
    agent = through(db.UsageRecord.agent)
    task = through(db.UsageRecord.task)


UsageRecordOrder = ordering(db.UsageRecord, db.UsageRecord.occurred_at)


@entity(db.UsageRecord, where=UsageRecordFilter, order=UsageRecordOrder)
class UsageRecord(Node):
    model_name: str
    input_tokens: int
    cached_input_tokens: int
    cache_creation_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost: Decimal | None
    latency_ms: int | None
    success: bool
    request_id: str | None
    trace_id: str | None
    span_id: str | None
    occurred_at: datetime
    created_at: datetime
    model = related(db.UsageRecord.model)
    project = related(db.UsageRecord.project)
    agent = related(db.UsageRecord.agent)
    task = related(db.UsageRecord.task)
    attempt = related(db.UsageRecord.attempt)
    conversation = related(db.UsageRecord.conversation)
    message = related(db.UsageRecord.message)
    user = related(db.UsageRecord.user)


@strawberry.type
class Query:
    usage_record: UsageRecord | None = one(db.UsageRecord)
    usage_records: Connection[UsageRecord] = collection(db.UsageRecord)


@input_of(db.UsageRecord)
class UsageInput(BaseModel):
    """A call of an AI model. It needs `modelId`, `modelName` or an attribute with the name.

    Without a number of tokens, it has 0 of them; it succeeded unless said otherwise. With an
    `attemptId`, it is made for the task of the attempt, and by its agent, unless others are given.
    """

    id: ID[db.UsageRecord] | None = None
    model_id: ID[db.AIModel] | None = None
    model_name: Line | None = None
    input_tokens: Count | None = None
    cached_input_tokens: Count | None = None
    cache_creation_tokens: Count | None = None
    output_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    cost: Price | None = None
    latency_ms: Count | None = None
    success: bool | None = None
    request_id: Line | None = None
    occurred_at: datetime | None = None
    agent_id: ID[db.Agent] | None = None
    task_id: ID[db.Task] | None = None
    attempt_id: ID[db.TaskAttempt] | None = None
    conversation_id: ID[db.Conversation] | None = None
    message_id: ID[db.Message] | None = None
    user_id: ID[db.User] | None = None
    attributes: Metadata | None = Field(
        default=None,
        description="The attributes of the call's span by the semantic conventions of OpenTelemetry"
        " for generative AI: `gen_ai.request.model`, `gen_ai.usage.input_tokens`,"
        " `gen_ai.usage.output_tokens`, `gen_ai.usage.cache_read.input_tokens`,"
        " `gen_ai.usage.cache_creation.input_tokens`, `gen_ai.usage.reasoning.output_tokens`,"
        " `gen_ai.response.id` (the `requestId`) and `error.type` (no `success`). A field that is"
        " given too counts instead; other attributes are ignored.",
    )
    traceparent: Traceparent | None = Field(
        default=None,
        description="The trace and the span of the call, as in the header of W3C Trace Context:"
        " `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.",
    )


@input_of(db.UsageRecord)
class RecordUsageInput(Repeatable):
    """The calls of AI models to record."""

    project_id: ID[db.Project] | None = Field(
        default=None,
        description="The project that they are made for. Without it, the project of the first"
        " attempt or task that they name; all have to be of one project.",
    )
    records: Annotated[list[UsageInput], Field(min_length=1, max_length=1000)] = Field(
        description="The calls, at most 1,000."
    )


@input_of(db.UsageRecord)
class RepriceUsageInput(Repeatable):
    """The calls to price by the present prices of their models."""

    project_id: ID[db.Project]
    since: datetime | None = Field(
        default=None, description="Only calls that were made at this time or later."
    )
    until: datetime | None = Field(
        default=None, description="Only calls that were made before this time."
    )
    model_name: Line | None = Field(
        default=None, description="Only calls of the model that was recorded under this name."
    )
    reprice_all: bool = Field(
        default=False,
        description="Also calls that have a cost, even one that was supplied, if the prices make"
        " another one.",
    )


def _values(call: UsageInput) -> dict[str, Any]:
    """The values of a call, for `db.usage`."""
    values = new_values(call)
    if call.attributes is not None:
        values["attributes"] = call.attributes
    if call.traceparent is not None:
        values |= dict(zip(("trace_id", "span_id"), call.traceparent, strict=True))
    return values


@strawberry.type
class Mutation:
    @mutation(Right.WORK, reports_all=True)
    async def record_usage(
        self, session: db.WriteSession, input: RecordUsageInput
    ) -> list[Changed[db.UsageRecord]]:
        """Record calls of AI models: all or, on an error, none. Repeated calls count once."""
        calls: dict[tuple[str | int, ...], dict[str, Any]] = {
            ("records", index): _values(call) for index, call in enumerate(input.records)
        }
        ids = await usage.record_usage(session, input.project_id, calls)
        return [Changed(id) for id in ids]

    @mutation(Right.EDIT, most=at_most(usage.MOST_REPRICED))
    async def reprice_usage(
        self, session: db.WriteSession, input: RepriceUsageInput
    ) -> list[Changed[db.UsageRecord]]:
        """Set the model and the cost of calls whose model was not registered or had no prices.

        At most 1,000 are changed at once, the oldest first: call it again until there are none.
        """
        ids = await usage.reprice_usage(
            session,
            input.project_id,
            are_all=input.reprice_all,
            since=input.since,
            until=input.until,
            model_name=input.model_name,
        )
        return [Changed(id) for id in ids]
