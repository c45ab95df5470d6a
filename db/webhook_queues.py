"""What is to be sent to webhooks: deliveries are made from the event log, and claimed to be sent.

Any number of processes may call all of this at once. The queue of a webhook has its place in the
log, which moves in the transaction that makes the deliveries: each event is found once. One process
at a time has the lease of a queue, and sends its deliveries one after the other. If the process
ends, another one gets the lease when it runs out; what was sent but not recorded is sent again.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Executable,
    Float,
    ForeignKey,
    Integer,
    String,
    Table,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from db.base import UNLOGGED, Base, Timestamp, check
from db.parameters import DeferredParameter
from db.scopes import Viewer
from db.statements import Statement, deferred

PAGE = 500
"""The largest number of events of a project that are read at once."""

MOST_ATTEMPTS = 20
"""The largest number of attempts that are kept of a delivery: the last ones."""

MOST_CHARACTERS = 1_000
"""The largest number of characters that are kept of a response."""

FAILING_HOURS = 24
"""After how many hours without a success a webhook is switched off."""

KEPT_DAYS = 30
"""How many days deliveries are kept."""

MOST_DELETED = 1_000
"""The largest number of deliveries that are deleted at once."""

# The columns of the webhook itself would be compared by the event log with each change.
queues = Table(
    "webhook_queues",
    Base.metadata,
    Column("webhook_id", Uuid, ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("lease_id", Uuid),
    Column("lease_expires_at", Timestamp),
    check("isfinite(lease_expires_at)", "lease_expires_at_finite", "A time is finite."),
    info=UNLOGGED,
)
"""Of each webhook, up to which position deliveries were made, and which process sends them."""

Kind = TypeEngine[Any] | type[TypeEngine[Any]]


def _statement(sql: str, **kinds: Kind) -> Statement:
    """A statement with parameters of these names and types."""

    def build(viewer: Viewer) -> Executable:
        return text(sql).bindparams(
            *(
                DeferredParameter(name, type_=kind, callable_=deferred(name))
                for name, kind in kinds.items()
            )
        )

    return Statement(build)


begun = _statement(
    """
    INSERT INTO webhook_queues (webhook_id, position)
    SELECT :webhook, coalesce(max(last_position), 0) FROM event_positions
    ON CONFLICT (webhook_id) DO UPDATE SET position = excluded.position
    """,
    webhook=Uuid,
)
"""Begins the queue of a webhook, or begins it anew, at the end of the log."""

waiting = _statement(
    """
    SELECT w.project_id,
      extract(epoch FROM greatest(d.due, q.lease_expires_at) - now())::float8
    FROM webhook_queues q JOIN webhooks w ON w.id = q.webhook_id
    CROSS JOIN LATERAL (
      SELECT min(next_attempt_at) AS due FROM webhook_deliveries
      WHERE webhook_id = q.webhook_id AND next_attempt_at IS NOT NULL
    ) d
    WHERE w.is_active
    """
)
"""The project of each active webhook, and the seconds until its next delivery; NULL for none."""


def _collected(condition: str, **kinds: Kind) -> Statement:
    # An owner of a project sees all of its events (`_event` in db/rules.py), and only owners have
    # webhooks, so no further rule is needed here. Deliveries are listed in the order of their
    # creation, which is to be that of the events.
    return _statement(
        f"""
        WITH queue AS MATERIALIZED (
          SELECT q.webhook_id, q.position, w.project_id, w.entity_types, w.entity_ids, w.actions,
            w.actor_types, w.actor_ids
          FROM webhook_queues q JOIN webhooks w ON w.id = q.webhook_id
          WHERE w.is_active AND {condition} AND EXISTS (
            SELECT FROM events e WHERE e.project_id = w.project_id AND e.position > q.position
          )
          ORDER BY q.webhook_id LIMIT 100 FOR UPDATE OF q SKIP LOCKED
        ), page AS MATERIALIZED (
          SELECT q.webhook_id, e.*
          FROM queue q CROSS JOIN LATERAL (
            SELECT position, entity_type, entity_id, action, actor_type, actor_id, created_at
            FROM events e
            WHERE e.project_id = q.project_id AND e.position > q.position
            ORDER BY e.position LIMIT {PAGE}
          ) e
        ), made AS (
          INSERT INTO webhook_deliveries
            (webhook_id, position, entity_type, entity_id, action, occurred_at, created_at,
              next_attempt_at)
          SELECT p.webhook_id, p.position, p.entity_type, p.entity_id, p.action, p.created_at,
            now() + (p.position - q.position) * interval '1 microsecond', now()
          FROM page p JOIN queue q ON q.webhook_id = p.webhook_id
          WHERE (q.entity_types = '{{}}' OR p.entity_type = ANY (q.entity_types))
            AND (q.entity_ids = '{{}}' OR p.entity_id = ANY (q.entity_ids))
            AND (q.actions = '{{}}' OR p.action = ANY (q.actions))
            AND (q.actor_types = '{{}}' OR p.actor_type = ANY (q.actor_types))
            AND (q.actor_ids = '{{}}' OR p.actor_id::text = ANY (q.actor_ids))
        )
        UPDATE webhook_queues q SET position = reached.position
        FROM (
          SELECT webhook_id, max(position) AS position, count(*) = {PAGE} AS is_full
          FROM page GROUP BY webhook_id
        ) reached
        WHERE q.webhook_id = reached.webhook_id
        RETURNING q.webhook_id, reached.is_full
        """,
        **kinds,
    )


collected = _collected("true")
"""Makes deliveries of the next events. Returns the webhooks, and whether there may be more."""

collected_of = _collected("w.project_id = ANY (:projects)", projects=ARRAY(Uuid))
"""The same for the webhooks of some projects."""


def _claimed(condition: str, **kinds: Kind) -> Statement:
    return _statement(
        f"""
        WITH due AS MATERIALIZED (
          SELECT q.webhook_id
          FROM webhook_queues q JOIN webhooks w ON w.id = q.webhook_id
          WHERE w.is_active AND {condition}
            AND (q.lease_expires_at IS NULL OR q.lease_expires_at <= now())
            AND EXISTS (
              SELECT FROM webhook_deliveries d
              WHERE d.webhook_id = q.webhook_id AND d.next_attempt_at <= now()
            )
          ORDER BY q.lease_expires_at NULLS FIRST LIMIT :most FOR UPDATE OF q SKIP LOCKED
        )
        UPDATE webhook_queues q
        SET lease_id = gen_random_uuid(), lease_expires_at = now() + make_interval(secs => :seconds)
        FROM due WHERE q.webhook_id = due.webhook_id
        RETURNING q.webhook_id, q.lease_id
        """,
        most=Integer,
        seconds=Integer,
        **kinds,
    )


claimed = _claimed("true")
"""Gives leases of queues with deliveries that are due; those that were served longest ago first."""

claimed_of = _claimed("q.webhook_id = ANY (:webhooks)", webhooks=ARRAY(Uuid))
"""The same of some webhooks."""

due = _statement(
    """
    SELECT d.id, d.position, d.entity_type, d.entity_id, d.action, d.occurred_at, d.attempt_count,
      w.project_id, w.url, w.version, array_remove(ARRAY[
        w.secret, CASE WHEN w.old_secret_until > now() THEN w.old_secret END
      ], NULL) AS secrets
    FROM webhook_deliveries d
    JOIN webhooks w ON w.id = d.webhook_id
    JOIN webhook_queues q ON q.webhook_id = d.webhook_id
    WHERE d.webhook_id = :webhook AND d.next_attempt_at <= now() AND q.lease_id = :lease
      AND w.is_active
    ORDER BY d.position NULLS FIRST LIMIT 20
    """,
    webhook=Uuid,
    lease=Uuid,
)
"""The next deliveries of a queue, for who has its lease: test messages, then events in order."""

recorded = _statement(
    f"""
    WITH held AS (
      UPDATE webhook_queues q SET lease_expires_at = now() + make_interval(secs => :seconds)
      FROM webhooks w
      WHERE q.webhook_id = :webhook AND q.lease_id = :lease AND w.id = q.webhook_id
      RETURNING q.webhook_id, :status = 'FAILED' AND w.url <> :url AS has_moved
    ), done AS (
      UPDATE webhook_deliveries SET
        status = CASE WHEN has_moved THEN 'PENDING' ELSE :status END,
        attempt_count = attempt_count + 1,
        next_attempt_at = now() + make_interval(secs => CASE WHEN has_moved THEN 0 ELSE :delay END),
        attempts = CASE
          WHEN jsonb_array_length(attempts) < {MOST_ATTEMPTS} THEN attempts ELSE attempts - 0
        END || :attempt,
        updated_at = now()
      FROM held
      WHERE id = :delivery AND next_attempt_at IS NOT NULL
    ), noted AS (
      UPDATE webhooks SET failing_since = CASE WHEN NOT :succeeded THEN now() END
      WHERE id = :webhook AND url = :url AND (failing_since IS NULL) <> :succeeded
        AND EXISTS (SELECT FROM held)
    )
    SELECT w.is_active, w.version,
      coalesce(w.failing_since <= now() - interval '{FAILING_HOURS} hours', false)
    FROM webhooks w JOIN held ON held.webhook_id = w.id
    """,
    webhook=Uuid,
    lease=Uuid,
    delivery=Uuid,
    url=String,
    seconds=Integer,
    status=String,
    delay=Float,
    attempt=JSONB,
    succeeded=Boolean,
)
"""Records an attempt to post a delivery to an address, and extends the lease.

If the webhook has another address by now, the attempt neither is the last one nor says anything
about the webhook.

Returns whether the webhook is active, its version, and whether it had failed for so long that it is
to be switched off; nothing if another process has the lease, or if the webhook was deleted.
"""

released = _statement(
    """
    UPDATE webhook_queues
    SET lease_id = NULL, lease_expires_at = now() + make_interval(secs => :seconds)
    WHERE webhook_id = :webhook AND lease_id = :lease
    """,
    webhook=Uuid,
    lease=Uuid,
    seconds=Integer,
)
"""Gives a lease back; nobody gets it again for so many seconds."""

deleted_old = _statement(
    f"""
    DELETE FROM webhook_deliveries WHERE id IN (
      SELECT id FROM webhook_deliveries
      WHERE created_at < now() - interval '{KEPT_DAYS} days' AND next_attempt_at IS NULL
      ORDER BY created_at, id LIMIT {MOST_DELETED} FOR UPDATE SKIP LOCKED
    )
    RETURNING id
    """
)
"""Deletes old deliveries that are finished, at most MOST_DELETED at once, and returns them."""
