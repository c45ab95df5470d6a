"""Webhooks: the addresses that are sent the events of a project, and what was sent to them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import strawberry
from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from strawberry import Maybe

import db
from db import ActorType, DeliveryStatus, EventAction, Right, WebhookEnd, webhook_queues, webhooks
from db.events.triggers import object_types
from graph.core.computed import computed, computed_type, value
from graph.core.connections import Connection
from graph.core.context import Context
from graph.core.entities import Node, entity, key
from graph.core.fields import collection, connected, one, related
from graph.core.filters import (
    BooleanFilter,
    DateTimeFilter,
    EnumFilter,
    IDFilter,
    StringFilter,
    filters,
    ordering,
    reference,
    through,
)
from graph.core.history import history
from graph.core.inputs import Repeatable, Versioned, changed_values, input_of, new_values
from graph.core.mutations import mutation
from graph.core.payloads import Changed, Deleted
from graph.core.scalars import ID, BigInt, Line, key_uuid

Url = Annotated[str, StringConstraints(max_length=webhooks.LONGEST_URL)]
Key = Annotated[strawberry.ID, AfterValidator(lambda value: str(key_uuid(value)))]
Types = Annotated[list[Line], Field(max_length=100)]
Keys = Annotated[list[Key], Field(max_length=100)]
Actions = Annotated[list[EventAction], Field(max_length=10)]
Actors = Annotated[list[ActorType], Field(max_length=10)]
Secret = Annotated[str, "The secret that messages are signed with. It is returned only once."]


@filters(db.Webhook)
class WebhookFilter:
    id: IDFilter | None
    url: StringFilter | None
    is_active: BooleanFilter | None
    end_reason: EnumFilter[WebhookEnd] | None
    failing_since: DateTimeFilter | None
    created_at: DateTimeFilter | None
    updated_at: DateTimeFilter | None
    project_id: IDFilter | None
    project = through(db.Webhook.project)


WebhookOrder = ordering(db.Webhook, db.Webhook.created_at, db.Webhook.updated_at)


@entity(db.Webhook, where=WebhookFilter, order=WebhookOrder)
class Webhook(Node):
    url: str
    description: str | None
    entity_types: list[str]
    entity_ids: list[strawberry.ID]
    actions: list[EventAction]
    actor_types: list[ActorType]
    actor_ids: list[strawberry.ID]
    is_active: bool
    end_reason: WebhookEnd | None
    failing_since: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime
    project = related(db.Webhook.project)
    deliveries = connected(db.Webhook.deliveries)
    history = history(db.Webhook)


@computed_type
class WebhookAttempt:
    """An attempt to send a delivery."""

    started_at: datetime = value("When it began.")
    milliseconds: int = value("How long it took.")
    response_status: int | None = value("The status of the response; null if there was none.")
    response_body: str | None = value(
        f"The beginning of the response, at most {webhook_queues.MOST_CHARACTERS:,} characters;"
        " null if there was none."
    )
    error: str | None = value("Why there was no response; null if there was one.")


@filters(db.WebhookDelivery)
class WebhookDeliveryFilter:
    id: IDFilter | None
    entity_type: StringFilter | None
    entity_id: IDFilter | None = reference(db.WebhookDelivery.entity_id)
    action: EnumFilter[EventAction] | None
    occurred_at: DateTimeFilter | None
    status: EnumFilter[DeliveryStatus] | None
    next_attempt_at: DateTimeFilter | None
    created_at: DateTimeFilter | None
    updated_at: DateTimeFilter | None
    webhook_id: IDFilter | None
    webhook = through(db.WebhookDelivery.webhook)


WebhookDeliveryOrder = ordering(
    db.WebhookDelivery, db.WebhookDelivery.created_at, db.WebhookDelivery.updated_at
)


@entity(db.WebhookDelivery, where=WebhookDeliveryFilter, order=WebhookDeliveryOrder)
class WebhookDelivery(Node):
    position: BigInt | None
    entity_type: str
    entity_id = key(db.WebhookDelivery.entity_id, db.WebhookDelivery.entity_type, object_types())
    action: EventAction | None
    occurred_at: datetime
    status: DeliveryStatus
    attempt_count: int
    next_attempt_at: datetime | None
    created_at: datetime
    updated_at: datetime
    webhook = related(db.WebhookDelivery.webhook)
    attempts = computed(
        WebhookAttempt,
        webhooks.attempts,
        by=db.WebhookDelivery.id,
        order=("number",),
        most=webhook_queues.MOST_ATTEMPTS,
        description="The attempts to send it, the first one first; of many, the last"
        f" {webhook_queues.MOST_ATTEMPTS}.",
    )


@strawberry.type
class Query:
    webhook: Webhook | None = one(db.Webhook)
    webhooks: Connection[Webhook] = collection(db.Webhook)
    webhook_delivery: WebhookDelivery | None = one(db.WebhookDelivery)
    webhook_deliveries: Connection[WebhookDelivery] = collection(db.WebhookDelivery)


@input_of(db.Webhook)
class CreateWebhookInput(BaseModel):
    """The webhook to create. It is sent what happens from then on."""

    id: ID[db.Webhook] | None = None
    project_id: ID[db.Project]
    url: Url
    description: Line | None = None
    entity_types: Types | None = None
    entity_ids: Keys | None = None
    actions: Actions | None = None
    actor_types: Actors | None = None
    actor_ids: Keys | None = None
    is_active: bool = True


@input_of(db.Webhook)
class UpdateWebhookInput(Versioned):
    """The changes to a webhook. An omitted field stays as it is; null clears it."""

    id: ID[db.Webhook]
    url: Maybe[Url] = None
    description: Maybe[Line | None] = None
    entity_types: Maybe[Types] = None
    entity_ids: Maybe[Keys] = None
    actions: Maybe[Actions] = None
    actor_types: Maybe[Actors] = None
    actor_ids: Maybe[Keys] = None
    is_active: Maybe[bool] = None


@input_of(db.Webhook)
class DeleteWebhookInput(Versioned):
    """The webhook to delete."""

    id: ID[db.Webhook]


@input_of(db.Webhook)
class RotateWebhookSecretInput(BaseModel):
    """The webhook that gets a new secret."""

    id: ID[db.Webhook]


@input_of(db.Webhook)
class SendTestWebhookInput(Repeatable):
    """The webhook to test."""

    id: ID[db.Webhook]


@input_of(db.WebhookDelivery)
class ReplayWebhookDeliveryInput(Repeatable):
    """The delivery to send again."""

    id: ID[db.WebhookDelivery]


@dataclass
class WebhookWithSecret:
    """A webhook, and its new secret."""

    webhook: Changed[db.Webhook]
    secret: Secret


async def _allows_http(context: Context, input: CreateWebhookInput | UpdateWebhookInput) -> bool:
    return context.allows_http


@strawberry.type
class Mutation:
    @mutation(Right.OWN, before=_allows_http)
    async def create_webhook(
        self, session: db.WriteSession, input: CreateWebhookInput, allows_http: bool
    ) -> WebhookWithSecret:
        """Create a webhook, and its secret. Only for owners of the project."""
        values = new_values(input)
        webhooks.check_values(values, allows_http=allows_http)
        id, secret = await webhooks.create(session, values)
        return WebhookWithSecret(Changed(id), secret)

    @mutation(Right.OWN, before=_allows_http)
    async def update_webhook(
        self, session: db.WriteSession, input: UpdateWebhookInput, allows_http: bool
    ) -> Changed[db.Webhook]:
        """Change a webhook, or switch it on or off.

        What it was to be sent when it is switched off is cancelled. When it is switched on, it is
        sent what happens from then on.
        """
        values = changed_values(input)
        webhooks.check_values(values, allows_http=allows_http)
        webhook = await session.fetch(db.Webhook, input.id, version=input.expected_version)
        await webhooks.change(session, webhook, values)
        return Changed(webhook.id)

    @mutation(Right.OWN)
    async def delete_webhook(
        self, session: db.WriteSession, input: DeleteWebhookInput
    ) -> Deleted[db.Webhook]:
        """Delete a webhook with its deliveries. What was not sent is not sent any more."""
        webhook = await session.fetch(db.Webhook, input.id, version=input.expected_version)
        await webhook.delete(session)
        return Deleted(webhook.id)

    @mutation(Right.OWN)
    async def rotate_webhook_secret(
        self, session: db.WriteSession, input: RotateWebhookSecretInput
    ) -> WebhookWithSecret:
        """Give a webhook a new secret. For a day, messages are signed with the old one as well."""
        webhook = await session.fetch(db.Webhook, input.id)
        return WebhookWithSecret(Changed(webhook.id), await webhooks.rotate(session, webhook))

    @mutation(Right.OWN)
    async def send_test_webhook(
        self, session: db.WriteSession, input: SendTestWebhookInput
    ) -> db.WebhookDelivery:
        """Send a webhook a test message, of the type `webhook.test`."""
        webhook = await session.fetch(db.Webhook, input.id)
        return await webhooks.send_test(session, webhook)

    @mutation(Right.OWN)
    async def replay_webhook_delivery(
        self, session: db.WriteSession, input: ReplayWebhookDeliveryInput
    ) -> Changed[db.WebhookDelivery]:
        """Send a delivery again, with the same id, whatever became of it."""
        delivery = await session.fetch(db.WebhookDelivery, input.id)
        await webhooks.replay(session, delivery)
        return Changed(delivery.id)
