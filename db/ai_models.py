"""AI models: what agents think with, and what it costs."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Index, Numeric, String, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.base import CRUD, Metadata, ShortText, check, choice, to_many

if TYPE_CHECKING:
    from db.agents import Agent
    from db.conversations import Message
    from db.usage import UsageRecord


class AIModelStatus(StrEnum):
    """Whether a model is offered to agents."""

    ACTIVE = "ACTIVE"
    """In regular use."""
    TESTING = "TESTING"
    """Being tried out."""
    INACTIVE = "INACTIVE"
    """Switched off for now."""
    DEPRECATED = "DEPRECATED"
    """Not to be used for anything new."""


class AIModel(CRUD):
    """A language model that agents can run on, with its prices."""

    __tablename__ = "ai_models"
    __table_args__ = (
        check(
            "context_window > 0",
            "context_window_positive",
            "A context window has 1 token or more.",
            "context_window",
        ),
        check(
            "least(input_price, cached_input_price, output_price) >= 0",
            "prices_not_negative",
            "Prices are 0 or more.",
        ),
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "provider", "id"),
    )

    id: Mapped[str] = mapped_column(  # type: ignore[assignment]
        String(100),
        primary_key=True,
        doc="The id of the row, unique everywhere: its name, or that name as a global id.",
    )
    provider: Mapped[ShortText] = mapped_column(doc="Who offers it.")
    model_version: Mapped[ShortText | None] = mapped_column(doc="The provider's version of it.")
    capabilities: Mapped[Any] = mapped_column(
        JSONB,
        default=dict,
        server_default=text("'{}'::jsonb"),
        doc="What it can do: tools, vision and so on.",
    )
    context_window: Mapped[int | None] = mapped_column(
        doc="How many tokens it can take in at once."
    )
    input_price: Mapped[Decimal | None] = mapped_column(
        Numeric(18, 9), doc="Price of a million input tokens, in US dollars."
    )
    cached_input_price: Mapped[Decimal | None] = mapped_column(
        Numeric(18, 9), doc="Price of a million input tokens read from a cache, in US dollars."
    )
    output_price: Mapped[Decimal | None] = mapped_column(
        Numeric(18, 9), doc="Price of a million output tokens, in US dollars."
    )
    is_local: Mapped[bool] = mapped_column(
        default=False, server_default=text("false"), doc="Runs on machines of one's own."
    )
    status: Mapped[AIModelStatus] = mapped_column(
        choice(AIModelStatus),
        default=AIModelStatus.ACTIVE,
        server_default=AIModelStatus.ACTIVE,
        index=True,
        doc="Whether it is offered to agents.",
    )
    model_metadata: Mapped[Metadata] = mapped_column(doc="Whatever else clients keep with it.")

    agents: Mapped[list[Agent]] = to_many("model", "The agents that run on it.")
    messages: Mapped[list[Message]] = to_many("model", "The messages it wrote.")
    usage_records: Mapped[list[UsageRecord]] = to_many("model", "The calls that were made of it.")
