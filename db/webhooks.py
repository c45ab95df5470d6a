"""Webhooks: the addresses that are sent the events of a project, and what was sent to them."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    Select,
    String,
    Text,
    UniqueConstraint,
    cast,
    column,
    func,
    literal_column,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, aliased, mapped_column

from db import requests, webhook_queues
from db.base import (
    CRUD,
    UNLOGGED,
    ShortText,
    Timestamp,
    Version,
    all_of,
    check,
    children,
    choice,
    choices,
    defaulted,
    to_one,
)
from db.errors import Invalid, Rejected
from db.events import ActorType, EventAction
from db.events.triggers import logged_tables
from db.interactions import Notification, NotificationLevel
from db.members import MemberRole, ProjectMember
from db.projects import Project
from db.scopes import Viewer, scope
from db.sessions import WriteSession
from db.users import User

LONGEST_URL = 2_000

MOST_WEBHOOKS = 20
"""The largest number of webhooks of a project: each event is matched with all of them."""

OLD_SECRET = timedelta(hours=24)
"""How long the secret that was replaced is still signed with."""

PRIVILEGED_PORTS = {80, 443}
"""The ports below 1024 that a webhook may have; the others belong to other protocols."""


class WebhookEnd(StrEnum):
    """Why the server has switched a webhook off."""

    GONE = "GONE"
    """Its address answered 410 Gone: it wants no more."""
    FAILING = "FAILING"
    """Every attempt has failed for a day."""


class DeliveryStatus(StrEnum):
    """The status of a delivery."""

    PENDING = "PENDING"
    """It is to be sent, or sent again."""
    SUCCEEDED = "SUCCEEDED"
    """The address answered with a status from 200 to 299."""
    FAILED = "FAILED"
    """All attempts have failed, and there is no further one."""
    CANCELLED = "CANCELLED"
    """The webhook was switched off before it was sent."""


class Webhook(CRUD):
    """An address that is sent the events of a project, signed with a secret."""

    __tablename__ = "webhooks"
    __table_args__ = (
        all_of("actions", EventAction),
        all_of("actor_types", ActorType),
        check(
            "NOT (is_active AND end_reason IS NOT NULL)",
            "ended",
            "An active webhook has not been switched off.",
        ),
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "project_id", "created_at", "id"),
    )

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    url: Mapped[str] = mapped_column(
        String(LONGEST_URL), doc="The address that events are posted to."
    )
    description: Mapped[ShortText | None] = mapped_column(doc="What it is for, in one line.")
    entity_types: Mapped[list[str]] = mapped_column(
        ARRAY(Text),
        default=list,
        server_default=text("'{}'::text[]"),
        doc="The types of objects whose events it gets, such as `Task`; empty for all types.",
    )
    entity_ids: Mapped[list[str]] = mapped_column(
        ARRAY(Text),
        default=list,
        server_default=text("'{}'::text[]"),
        doc="The ids of the objects whose events it gets, returned as bare UUIDs; empty for all.",
    )
    actions: Mapped[list[EventAction]] = mapped_column(
        choices(EventAction),
        default=list,
        server_default=text("'{}'::character varying[]"),
        doc="The actions whose events it gets; empty for all actions.",
    )
    actor_types: Mapped[list[ActorType]] = mapped_column(
        choices(ActorType),
        default=list,
        server_default=text("'{}'::character varying[]"),
        doc="Whose events it gets: of users, of agents; empty for all, those of the server itself"
        " included.",
    )
    actor_ids: Mapped[list[str]] = mapped_column(
        ARRAY(Text),
        default=list,
        server_default=text("'{}'::text[]"),
        doc="The ids of the users and agents whose events it gets, returned as bare UUIDs; empty"
        " for all.",
    )
    is_active: Mapped[bool] = defaulted(
        True, doc="Whether it is sent events. What happens while it is not is never sent."
    )
    end_reason: Mapped[WebhookEnd | None] = mapped_column(
        choice(WebhookEnd), doc="Why the server has switched it off; null if it has not."
    )
    failing_since: Mapped[datetime | None] = mapped_column(
        info=UNLOGGED,
        doc="Since when every attempt has failed; null if the last one succeeded. After a day, it"
        " is switched off.",
    )
    version: Mapped[Version] = mapped_column()

    # The columns below appear neither in the API nor in the event log.
    secret: Mapped[ShortText]
    old_secret: Mapped[ShortText | None]
    old_secret_until: Mapped[datetime | None] = mapped_column(info=UNLOGGED)

    project: Mapped[Project] = to_one("webhooks", "The project whose events it is sent.")
    deliveries: Mapped[list[WebhookDelivery]] = children("webhook", "What it was sent.")

    __mapper_args__ = {"version_id_col": version}


class WebhookDelivery(CRUD):
    """A message to a webhook, about one event. Finished ones are kept for 30 days."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        check(
            "(status = 'PENDING') = (next_attempt_at IS NOT NULL)",
            "pending",
            "A delivery has a next attempt as long as it is pending, and only then.",
        ),
        check(
            "jsonb_typeof(attempts) = 'array'",
            "attempts_list",
            "The attempts are a list.",
            "attempts",
        ),
        # One message for each event, whichever process makes it.
        UniqueConstraint("webhook_id", "position"),
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "webhook_id", "created_at", "id"),
        Index(
            "ix_webhook_deliveries_pending",
            "webhook_id",
            text("position NULLS FIRST"),  # test messages
            postgresql_where=text("next_attempt_at IS NOT NULL"),
        ),
        Index(
            "ix_webhook_deliveries_due",
            "webhook_id",
            "next_attempt_at",
            postgresql_where=text("next_attempt_at IS NOT NULL"),
        ),
        # An event for each delivery would be delivered in turn.
        {"info": UNLOGGED},
    )

    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    position: Mapped[int | None] = mapped_column(
        BigInteger, doc="The position of the event in the log; null for a test message."
    )
    entity_type: Mapped[ShortText] = mapped_column(doc="The type of the object.")
    entity_id: Mapped[str] = mapped_column(Text, doc="The id of the object.")
    action: Mapped[EventAction | None] = mapped_column(
        choice(EventAction), doc="What happened to it; null for a test message."
    )
    occurred_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), doc="When it happened."
    )
    status: Mapped[DeliveryStatus] = defaulted(DeliveryStatus.PENDING, doc="Its status.")
    attempt_count: Mapped[int] = defaulted(
        0, doc="How often it was sent, since it was replayed if it was."
    )
    attempts: Mapped[Any] = mapped_column(JSONB, default=list, server_default=text("'[]'::jsonb"))
    next_attempt_at: Mapped[datetime | None] = mapped_column(
        doc="When it is sent next; null if it is not pending."
    )

    webhook: Mapped[Webhook] = to_one("deliveries", "The webhook.")


def attempts(viewer: Viewer, delivery_id: Any) -> Select[Any]:
    """The attempts to send a delivery, the first one first."""
    delivery = aliased(WebhookDelivery)
    items = func.jsonb_array_elements(delivery.attempts)
    item = column("item", JSONB)
    each = items.table_valued(item, with_ordinality="number").render_derived(name="attempt")

    def part(name: str) -> Any:
        return each.c.item[literal_column(f"'{name}'")].astext

    return (
        select(
            cast(each.c.number, Integer).label("number"),
            cast(part("at"), Timestamp).label("started_at"),
            cast(part("milliseconds"), Integer).label("milliseconds"),
            cast(part("status"), Integer).label("response_status"),
            part("body").label("response_body"),
            part("error").label("error"),
        )
        .join_from(delivery, each, true())
        .where(delivery.id == delivery_id, scope(delivery, viewer, by_key=True))
    )


def new_secret() -> str:
    """A new secret, in the form of Standard Webhooks."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def check_values(values: Mapping[str, Any], *, allows_http: bool) -> None:
    """Raise Rejected with all that is wrong with these values of a webhook."""
    errors = []
    if "url" in values and (problem := url_problem(values["url"], allows_http=allows_http)):
        errors.append(Invalid(problem, ("url",)))
    known = sorted(logged_tables().values())
    for place, name in enumerate(values.get("entity_types", ())):
        if name not in known:
            message = f"There are no events of {name!r}, only of {', '.join(known)}."
            errors.append(Invalid(message, ("entity_types", place)))
    if errors:
        raise Rejected(errors)


def url_problem(url: str, *, allows_http: bool) -> str | None:
    """Why events cannot be posted to this address, as a sentence; None if they can.

    Where it leads is checked whenever a connection is opened.
    """
    if not all("!" <= letter <= "~" for letter in url) or "\\" in url:
        return "An address has ASCII characters only, and no spaces: encode the others."
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        return "This is no address; write https://example.org/path."
    if parts.scheme not in ("https", "http") or not host:
        return "This is no address; write https://example.org/path."
    if parts.scheme == "http" and not allows_http:
        return "The address must begin with https://, so that nobody else reads what is sent."
    if "@" in parts.netloc:
        return "An address has no user name and password; messages are signed instead."
    if "#" in url:
        return "An address has no fragment (#), because it would not be sent."
    if port is not None and port not in PRIVILEGED_PORTS and not 1024 <= port <= 65535:
        return "The port must be 80, 443, or 1024 to 65535."
    return None


async def create(session: WriteSession, values: Mapping[str, Any]) -> tuple[UUID, str]:
    """Add a webhook, which is sent what happens from now on; return its id and its secret.

    Raises what `WriteSession.insert` raises, and Invalid if the project has MOST_WEBHOOKS.
    """
    secret = new_secret()
    # The project is locked, so that no two webhooks are the last one.
    project = await session.fetch(Project, values["project_id"], at=("project_id",))
    count = select(func.count()).where(Webhook.project_id == project.id)
    if (await session.scalar(count) or 0) >= MOST_WEBHOOKS:
        raise Invalid(f"A project has at most {MOST_WEBHOOKS} webhooks.", ("project_id",))
    id = await session.insert(Webhook, values, known={"secret": secret})
    await session.run(webhook_queues.begun, webhook=id)
    return id, secret


async def change(session: WriteSession, webhook: Webhook, values: Mapping[str, Any]) -> None:
    """Change a webhook. One that becomes active is sent what happens from then on.

    What is pending is sent to a new address, which has not failed so far.
    """
    is_active = values.get("is_active", webhook.is_active)
    if is_active is not webhook.is_active:
        # Also of one that was not active: a process may have made them at the same time.
        await _cancel_pending(session, webhook)
    if is_active and not webhook.is_active:
        await session.run(webhook_queues.begun, webhook=webhook.id)
        values = {**values, "end_reason": None, "failing_since": None}
    if values.get("url", webhook.url) != webhook.url:
        values = {**values, "failing_since": None}
    await webhook.update(session, **values)


async def _cancel_pending(session: AsyncSession, webhook: Webhook) -> None:
    pending = update(WebhookDelivery).where(
        WebhookDelivery.webhook_id == webhook.id, WebhookDelivery.next_attempt_at.is_not(None)
    )
    cancelled = {"status": DeliveryStatus.CANCELLED, "next_attempt_at": None}
    await session.execute(
        pending.values(cancelled), execution_options={"synchronize_session": False}
    )


async def rotate(session: AsyncSession, webhook: Webhook) -> str:
    """Give a webhook a new secret, which is returned.

    Messages are signed with both for a day, so that the receiver has time to change it.
    """
    secret = new_secret()
    until = func.now() + OLD_SECRET
    await webhook.update(session, secret=secret, old_secret=webhook.secret, old_secret_until=until)
    return secret


async def send_test(session: AsyncSession, webhook: Webhook) -> WebhookDelivery:
    """Add a delivery of a test message. Raises Invalid if the webhook is not active."""
    _refuse_inactive(webhook)
    return await WebhookDelivery.create(
        session,
        webhook_id=webhook.id,
        entity_type=Webhook.__name__,
        entity_id=str(webhook.id),
        next_attempt_at=func.now(),
    )


async def replay(session: WriteSession, delivery: WebhookDelivery) -> None:
    """Send a delivery again, with the same id. Raises Invalid if the webhook is not active."""
    webhook = await session.get_one(Webhook, delivery.webhook_id)
    _refuse_inactive(webhook)
    await delivery.update(
        session, status=DeliveryStatus.PENDING, attempt_count=0, next_attempt_at=func.now()
    )


def _refuse_inactive(webhook: Webhook) -> None:
    if not webhook.is_active:
        raise Invalid("The webhook is not active. Activate it by updateWebhook first.")


END_REASONS = {
    WebhookEnd.GONE: "Its address answered 410 Gone: it wants no more events.",
    WebhookEnd.FAILING: "Every attempt to send it an event has failed for a day.",
}


async def switch_off(session: WriteSession, webhook_id: UUID, url: str, reason: WebhookEnd) -> None:
    """Switch a webhook off, because of this address, and tell the project's owners.

    One that has another address by now, or is not active any more, stays as it is.
    """
    webhook = await session.get(Webhook, webhook_id, with_for_update={"key_share": True})
    if webhook is None or not webhook.is_active or webhook.url != url:
        return
    await change(session, webhook, {"is_active": False, "end_reason": reason})
    # Without the address, which may contain a secret: all members see a notification.
    about = f" ({webhook.description})" if webhook.description else ""
    notification = {
        "project_id": webhook.project_id,
        "title": "A webhook was switched off",
        "content": {
            "webhookId": str(webhook.id),
            "reason": reason.value,
            "text": f"The webhook{about} was switched off. {END_REASONS[reason]} updateWebhook"
            " activates it again. What happened meanwhile is not sent: read `events` after the last"
            " position that you have.",
        },
        "level": NotificationLevel.ERROR,
        "requires_acknowledgement": True,
    }
    owners = (
        select(ProjectMember.user_id)
        .join(User, User.id == ProjectMember.user_id)
        .where(
            ProjectMember.project_id == webhook.project_id,
            ProjectMember.role == MemberRole.OWNER,
            User.is_active,
        )
    )
    found = await session.scalars(owners.order_by(ProjectMember.user_id))
    # Without an owner, whoever sees it.
    for owner_id in found.all() or (None,):
        await requests.add(session, Notification, notification | {"assignee_id": owner_id})
