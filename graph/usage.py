"""Usage: the tokens, time and cost of each call of an AI model."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import strawberry
from pydantic import BaseModel, Field

import db
from db import Right, usage
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
from graph.core.mutations import mutation
from graph.core.payloads import Changed
from graph.core.scalars import ID, Line, Price

Count = Annotated[int, Field(ge=0, le=2_000_000_000)]


@filters(db.UsageRecord)
class UsageRecordFilter:
    id: IDFilter | None
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
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost: Decimal | None
    latency_ms: int | None
    success: bool
    request_id: str | None
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
    """A call of an AI model."""

    id: ID[db.UsageRecord] | None = None
    model_id: ID[db.AIModel]
    input_tokens: Count = 0
    cached_input_tokens: Count = 0
    output_tokens: Count = 0
    reasoning_tokens: Count = 0
    cost: Price | None = None
    latency_ms: Count | None = None
    success: bool = True
    request_id: Line | None = None
    occurred_at: datetime | None = None
    agent_id: ID[db.Agent] | None = None
    task_id: ID[db.Task] | None = None
    attempt_id: ID[db.TaskAttempt] | None = None
    conversation_id: ID[db.Conversation] | None = None
    message_id: ID[db.Message] | None = None
    user_id: ID[db.User] | None = None


@input_of(db.UsageRecord)
class RecordUsageInput(Repeatable):
    """The calls of AI models to record."""

    project_id: ID[db.Project]
    records: Annotated[list[UsageInput], Field(min_length=1, max_length=1000)] = Field(
        description="The calls, at most 1,000."
    )


@strawberry.type
class Mutation:
    @mutation(Right.WORK)
    async def record_usage(
        self, session: db.WriteSession, input: RecordUsageInput
    ) -> list[Changed[db.UsageRecord]]:
        """Record calls of AI models: all or, on an error, none. Repeated calls count once."""
        calls: dict[tuple[str | int, ...], dict[str, Any]] = {
            ("records", index): new_values(call) for index, call in enumerate(input.records)
        }
        for path, call in calls.items():
            call["agent_id"] = session.in_own_name(call.get("agent_id"), (*path, "agent_id"))
        ids = await usage.record_usage(session, input.project_id, calls)
        return [Changed(id) for id in ids]
