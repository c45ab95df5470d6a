"""Usage: the tokens, time and cost of calls of AI models."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    ForeignKey,
    Index,
    Numeric,
    UniqueConstraint,
    func,
    select,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.ai_models import AIModel
from db.base import CRUD, ShortText, any_of, check, defaulted, insert_many, new_id, to_one
from db.errors import DomainError, Invalid, Rejected

if TYPE_CHECKING:
    from db.agents import Agent
    from db.attempts import TaskAttempt
    from db.conversations import Conversation, Message
    from db.projects import Project
    from db.sessions import WriteSession
    from db.tasks import Task
    from db.users import User

MILLION = 1_000_000
BILLION = 1_000_000_000


class UsageRecord(CRUD):
    """One call of an AI model, with its tokens, time and cost."""

    __tablename__ = "usage_records"
    __table_args__ = (
        UniqueConstraint("project_id", "request_id"),
        check(
            "least(input_tokens, cached_input_tokens, output_tokens, reasoning_tokens) >= 0",
            "tokens_not_negative",
            "Numbers of tokens are 0 or more.",
        ),
        check(
            "cached_input_tokens <= input_tokens",
            "cached_tokens_are_input",
            "Cached input tokens are part of the input tokens, and cannot be more.",
            "cached_input_tokens",
        ),
        check(
            "reasoning_tokens <= output_tokens",
            "reasoning_tokens_are_output",
            "Reasoning tokens are part of the output tokens, and cannot be more.",
            "reasoning_tokens",
        ),
        check("cost >= 0", "cost_not_negative", "A cost is 0 or more.", "cost"),
        check(
            "latency_ms >= 0",
            "latency_ms_not_negative",
            "A latency is 0 milliseconds or more.",
            "latency_ms",
        ),
        Index(None, "occurred_at", "id"),
        *(
            Index(None, f"{noun}_id", "occurred_at", "id")
            for noun in (
                "model",
                "project",
                "agent",
                "task",
                "attempt",
                "conversation",
                "message",
                "user",
            )
        ),
    )

    model_id: Mapped[str] = mapped_column(ForeignKey("ai_models.id", ondelete="RESTRICT"))
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    agent_id: Mapped[UUID | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    task_id: Mapped[UUID | None] = mapped_column(ForeignKey("tasks.id", ondelete="SET NULL"))
    attempt_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("task_attempts.id", ondelete="SET NULL")
    )
    conversation_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("conversations.id", ondelete="SET NULL")
    )
    message_id: Mapped[UUID | None] = mapped_column(ForeignKey("messages.id", ondelete="SET NULL"))
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    input_tokens: Mapped[int] = defaulted(0, doc="The input tokens, cached ones included.")
    cached_input_tokens: Mapped[int] = defaulted(
        0, doc="The input tokens that were read from a cache."
    )
    output_tokens: Mapped[int] = defaulted(0, doc="The output tokens, those of reasoning included.")
    reasoning_tokens: Mapped[int] = defaulted(0, doc="The output tokens that were reasoning.")
    cost: Mapped[Decimal | None] = mapped_column(
        Numeric(18, 9),
        doc="The cost in US dollars; unless supplied, computed from the model's prices at the time."
        " Null if the model has no prices.",
    )
    latency_ms: Mapped[int | None] = mapped_column(doc="How long it took, in milliseconds.")
    success: Mapped[bool] = defaulted(True, doc="Whether the call succeeded.")
    request_id: Mapped[ShortText | None] = mapped_column(
        doc="An id that the client chooses, unique in its project: a repeat is recorded once."
    )
    occurred_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), doc="When the call was made."
    )

    model: Mapped[AIModel] = to_one("usage_records", "The AI model that was called.")
    project: Mapped[Project] = to_one("usage_records", "The project that it was made for.")
    agent: Mapped[Agent | None] = to_one("usage_records", "The agent that made it.")
    task: Mapped[Task | None] = to_one("usage_records", "The task that it was made for.")
    attempt: Mapped[TaskAttempt | None] = to_one(
        "usage_records", "The attempt that it was part of."
    )
    conversation: Mapped[Conversation | None] = to_one(
        "usage_records", "The conversation that it was made for."
    )
    message: Mapped[Message | None] = to_one("usage_records", "The message that it produced.")
    user: Mapped[User | None] = to_one("usage_records", "The user on whose behalf it was made.")


def price(model: AIModel, usage: Mapping[str, Any]) -> Decimal | None:
    """The cost of a call in US dollars; None if a price is missing for tokens that it used.

    Cached tokens are part of the input, and reasoning tokens part of the output, as providers count
    them. Without a price for cached tokens, they cost as much as other input tokens.
    """
    cached_price = model.cached_input_price
    if cached_price is None:
        cached_price = model.input_price
    cached = usage.get("cached_input_tokens", 0)
    used = (
        (usage.get("input_tokens", 0) - cached, model.input_price),
        (cached, cached_price),
        (usage.get("output_tokens", 0), model.output_price),
    )
    prices = (model.input_price, cached_price, model.output_price)
    if prices == (None, None, None) or any(n and price is None for n, price in used):
        return None
    return sum((n * price for n, price in used if price is not None), Decimal()) / MILLION


async def record_usage(
    session: WriteSession,
    project_id: UUID,
    calls: Mapping[tuple[str | int, ...], Mapping[str, Any]],
) -> list[UUID]:
    """Record calls of a project, by their paths in the input, in one statement.

    Returns their ids in the same order. A call with a request id that was recorded before, in this
    input or earlier, is not recorded again, and its id is that of the first. The caller has locked
    the project's row, so that two transactions do not record the same call. Raises Rejected with
    all errors.
    """
    faults: list[DomainError] = []
    try:
        await session.refer_all(UsageRecord, calls, project_id=project_id)
    except Rejected as rejected:
        faults += rejected.errors
    named = {call["request_id"] for call in calls.values() if call.get("request_id") is not None}
    repeated = select(UsageRecord.request_id, UsageRecord.id).where(
        UsageRecord.project_id == project_id, any_of(UsageRecord.request_id, named)
    )
    known: dict[str | None, UUID] = dict(iter(await session.execute(repeated)))
    used = {call["model_id"] for call in calls.values()}
    found = await session.scalars(select(AIModel).where(any_of(AIModel.id, used)))
    models = {model.id: model for model in found}
    ids: list[UUID] = []
    new: dict[tuple[str | int, ...], dict[str, Any]] = {}
    for at, call in calls.items():
        request_id = call.get("request_id")
        if request_id in known:
            ids.append(known[request_id])
            continue
        model = models.get(call["model_id"])
        cost = None if model is None else price(model, call)
        row = {"id": new_id(), "cost": cost, **call, "project_id": project_id}
        if request_id is not None:
            known[request_id] = row["id"]
        ids.append(row["id"])
        new[at] = row
    faults += await session.taken(UsageRecord, {at: row["id"] for at, row in new.items()})
    for part, whole in (("cached_input", "input"), ("reasoning", "output")):
        faults += [
            Invalid(f"These are part of the {whole} tokens, and cannot be more.", (*at, name))
            for at, row in new.items()
            for name in (f"{part}_tokens",)
            if row.get(name, 0) > row.get(f"{whole}_tokens", 0)
        ]
    dear = "This would cost a billion US dollars or more by the prices of its model."
    faults += [
        Invalid(dear, (*at, "cost"))
        for at, row in new.items()
        if row["cost"] is not None and round(row["cost"], 9) >= BILLION
    ]
    if faults:
        raise Rejected(faults)
    await insert_many(session, UsageRecord, list(new.values()))
    return ids
