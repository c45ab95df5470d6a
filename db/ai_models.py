"""AI models that agents use, with their prices."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Index, Numeric, String, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.base import CRUD, Metadata, ShortText, check, defaulted, to_many

if TYPE_CHECKING:
    from db.agents import Agent
    from db.conversations import Message
    from db.usage import UsageRecord


class AIModelStatus(StrEnum):
    """Whether agents may use a model."""

    ACTIVE = "ACTIVE"
    """In regular use."""
    TESTING = "TESTING"
    """Being tested."""
    INACTIVE = "INACTIVE"
    """Temporarily switched off."""
    DEPRECATED = "DEPRECATED"
    """Still in use, but not to be used for anything new."""


class AIModel(CRUD):
    """An AI model that agents can use, with its prices."""

    __tablename__ = "ai_models"
    __table_args__ = (
        check(
            "context_window > 0",
            "context_window_positive",
            "A context window has 1 token or more.",
            "context_window",
        ),
        check(
            "least(input_price, cached_input_price, cache_creation_price, output_price) >= 0",
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
    provider: Mapped[ShortText] = mapped_column(doc="The provider.")
    model_version: Mapped[ShortText | None] = mapped_column(
        doc="The version, as the provider numbers it."
    )
    capabilities: Mapped[Any] = mapped_column(
        JSONB,
        default=dict,
        server_default=text("'{}'::jsonb"),
        doc="What it can do: tools, vision and so on.",
    )
    context_window: Mapped[int | None] = mapped_column(doc="The most tokens of a request.")
    input_price: Mapped[Decimal | None] = mapped_column(
        Numeric(18, 9), doc="Price of a million input tokens, in US dollars."
    )
    cached_input_price: Mapped[Decimal | None] = mapped_column(
        Numeric(18, 9), doc="Price of a million input tokens read from a cache, in US dollars."
    )
    cache_creation_price: Mapped[Decimal | None] = mapped_column(
        Numeric(18, 9), doc="Price of a million input tokens written to a cache, in US dollars."
    )
    output_price: Mapped[Decimal | None] = mapped_column(
        Numeric(18, 9), doc="Price of a million output tokens, in US dollars."
    )
    is_local: Mapped[bool] = defaulted(False, doc="Whether it runs on your own machines.")
    status: Mapped[AIModelStatus] = defaulted(
        AIModelStatus.ACTIVE, index=True, doc="Whether agents may use it."
    )
    model_metadata: Mapped[Metadata]

    agents: Mapped[list[Agent]] = to_many("model", "The agents that use it.")
    messages: Mapped[list[Message]] = to_many("model", "The messages it wrote.")
    usage_records: Mapped[list[UsageRecord]] = to_many("model", "The calls of it.")
