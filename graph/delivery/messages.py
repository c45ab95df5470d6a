"""The messages to webhooks, and their signatures (Standard Webhooks)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import orjson

from db.base import snake_case
from db.events.triggers import object_types
from graph.core.scalars import format_moment, global_id


class Delivery(NamedTuple):
    """A delivery that is due, with what is needed of its webhook."""

    id: UUID
    position: int | None
    entity_type: str
    entity_id: str
    action: str | None
    occurred_at: datetime
    attempt_count: int
    project_id: UUID
    url: str
    version: int
    secrets: Sequence[str]

    @property
    def message_id(self) -> str:
        """The id of the delivery in the API: it is the same whenever it is sent again."""
        return global_id("WebhookDelivery", self.id)


def content(delivery: Delivery) -> bytes:
    """The content of the message: which object has changed, but not how.

    The receiver reads the rest from the API, which checks its rights.
    """
    entity_type = delivery.entity_type
    named = object_types().get(entity_type, entity_type)
    happened = "test" if delivery.action is None else delivery.action.lower()
    position = delivery.position
    return orjson.dumps(
        {
            "type": f"{snake_case(entity_type)}.{happened}",
            "timestamp": format_moment(delivery.occurred_at),
            "data": {
                "id": delivery.message_id,
                "position": None if position is None else str(position),
                "entityType": entity_type,
                "entityId": global_id(named, delivery.entity_id),
                "action": delivery.action,
                "projectId": global_id("Project", delivery.project_id),
            },
        }
    )


def signature(secret: str, message_id: str, timestamp: int, content: bytes) -> str:
    """The signature of a message by one secret."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + content
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def headers(delivery: Delivery, timestamp: int, content: bytes) -> dict[str, str]:
    """The headers of a message: its id, when it is sent, and a signature by each secret."""
    message_id = delivery.message_id
    signatures = (signature(secret, message_id, timestamp, content) for secret in delivery.secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
