"""AI models: the models that agents use."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated

import strawberry
from pydantic import Field
from strawberry import Maybe
from strawberry.scalars import JSON

import db
from db import AIModelStatus, Right
from graph.core.connections import Connection
from graph.core.entities import Node, column, entity
from graph.core.fields import collection, connected, one
from graph.core.filters import (
    BooleanFilter,
    DateTimeFilter,
    EnumFilter,
    IDFilter,
    IntFilter,
    StringFilter,
    contains,
    filters,
    ordering,
)
from graph.core.history import history
from graph.core.inputs import Repeatable, changed_values, input_of, new_values
from graph.core.mutations import mutation
from graph.core.payloads import Deleted
from graph.core.scalars import ID, Line, Metadata, Price, matching

NAME = "The provider's name of the model, such as `gpt-4o`."
Name = Annotated[
    str, matching(r"[!-~]{1,100}", "this must have 1 to 100 visible characters of ASCII, no spaces")
]


@filters(db.AIModel)
class AIModelFilter:
    id: IDFilter | None
    provider: StringFilter | None
    status: EnumFilter[AIModelStatus] | None
    context_window: IntFilter | None
    is_local: BooleanFilter | None
    created_at: DateTimeFilter | None
    updated_at: DateTimeFilter | None
    metadata_contains: JSON | None = contains(db.AIModel.model_metadata)


AIModelOrder = ordering(
    db.AIModel, db.AIModel.created_at, db.AIModel.updated_at, db.AIModel.provider
)


@entity(db.AIModel, where=AIModelFilter, order=AIModelOrder)
class AIModel(Node):
    name: str = column(db.AIModel.id, NAME)
    provider: str
    model_version: str | None
    capabilities: JSON
    context_window: int | None
    input_price: Decimal | None
    cached_input_price: Decimal | None
    cache_creation_price: Decimal | None
    output_price: Decimal | None
    is_local: bool
    status: AIModelStatus
    metadata: JSON = column(db.AIModel.model_metadata)
    created_at: datetime
    updated_at: datetime
    agents = connected(db.AIModel.agents)
    messages = connected(db.AIModel.messages)
    usage_records = connected(db.AIModel.usage_records)
    history = history(db.AIModel)


@strawberry.type
class Query:
    ai_model: AIModel | None = one(db.AIModel)
    ai_models: Connection[AIModel] = collection(db.AIModel)


@input_of(db.AIModel)
class CreateAiModelInput(Repeatable):
    """The AI model to create."""

    id: Name = Field(description=f"{NAME} Inputs accept it in place of the id.")
    provider: Line
    model_version: Line | None = None
    capabilities: Metadata | None = None
    context_window: Annotated[int, Field(gt=0)] | None = None
    input_price: Price | None = None
    cached_input_price: Price | None = None
    cache_creation_price: Price | None = None
    output_price: Price | None = None
    is_local: bool = False
    status: AIModelStatus = AIModelStatus.ACTIVE
    metadata: Metadata | None = None


@input_of(db.AIModel)
class UpdateAiModelInput(Repeatable):
    """The changes to an AI model. An omitted field stays as it is; null clears it."""

    id: ID[db.AIModel]
    provider: Maybe[Line] = None
    model_version: Maybe[Line | None] = None
    capabilities: Maybe[Metadata] = None
    context_window: Maybe[Annotated[int, Field(gt=0)] | None] = None
    input_price: Maybe[Price | None] = None
    cached_input_price: Maybe[Price | None] = None
    cache_creation_price: Maybe[Price | None] = None
    output_price: Maybe[Price | None] = None
    is_local: Maybe[bool] = None
    status: Maybe[AIModelStatus] = None
    metadata: Maybe[Metadata] = None


@input_of(db.AIModel)
class DeleteAiModelInput(Repeatable):
    """The AI model to delete."""

    id: ID[db.AIModel]


@strawberry.type
class Mutation:
    @mutation(Right.ADMINISTER)
    async def create_ai_model(
        self, session: db.WriteSession, input: CreateAiModelInput
    ) -> db.AIModel:
        """Create an AI model. Only for administrators."""
        return await db.AIModel.create(session, **new_values(input))

    @mutation(Right.ADMINISTER)
    async def update_ai_model(
        self, session: db.WriteSession, input: UpdateAiModelInput
    ) -> db.AIModel:
        """Change an AI model. Only for administrators."""
        model = await session.fetch(db.AIModel, input.id)
        return await model.update(session, **changed_values(input))

    @mutation(Right.ADMINISTER)
    async def delete_ai_model(
        self, session: db.WriteSession, input: DeleteAiModelInput
    ) -> Deleted[db.AIModel]:
        """Delete an AI model; objects that refer to it stay. Only for administrators.

        A model with usage records cannot be deleted. Set its status to DEPRECATED instead.
        """
        model = await session.fetch(db.AIModel, input.id)
        await model.delete(session)
        return Deleted(model.id)
