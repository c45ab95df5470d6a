"""Idempotency keys: what is sent again with the same key is done once.

The key is stored by the transaction that does what was asked for. A second one with the same key
violates the primary key, or waits for the first and then does, and is rolled back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import (
    CTE,
    Column,
    Executable,
    Index,
    Interval,
    Select,
    String,
    Table,
    Text,
    cast,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from db.base import Base, Timestamp, check
from db.scopes import Viewer
from db.statements import Statement, value

MOST_DELETED = 1_000
"""How many keys one statement deletes, so that none takes long."""

CONSTRAINT = "pk_idempotency_keys"

ChangedKeys = Mapping[str, Sequence[Any]]
"""The keys of the rows that were changed, by the name of their table."""


# A table without a model: nobody reads it through the API.
table = Table(
    "idempotency_keys",
    Base.metadata,
    Column("actor", String(255), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request_hash", String(64), nullable=False),
    Column("outcome", JSONB, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Index(None, "expires_at"),
    check("isfinite(expires_at)", "expires_at_finite", "A time is finite.", "expires_at"),
)
kept = table.c


class KeyTaken(Exception):
    """Another transaction has stored the key; nothing was done."""


@dataclass(frozen=True)
class Key:
    """The key of one request: whose it is, the key itself, and the hash of what was asked for."""

    actor: str
    key: str
    request_hash: str
    seconds: int
    """How long it is kept, in seconds."""

    def values(self, outcome: ChangedKeys) -> dict[str, Any]:
        """The values for the statements that store the key."""
        return {
            "key_actor": self.actor,
            "key_text": self.key,
            "key_request_hash": self.request_hash,
            "key_outcome": orjson.dumps(outcome, default=str).decode(),
            "key_lifetime": timedelta(seconds=self.seconds),
        }


def _row() -> Select[Any]:
    return select(
        value("key_actor", kept.actor.type),
        value("key_text", kept.key.type),
        value("key_request_hash", kept.request_hash.type),
        cast(value("key_outcome", Text), JSONB),
        func.now() + value("key_lifetime", Interval),
    )


_NAMES = ["actor", "key", "request_hash", "outcome", "expires_at"]


@Statement
def stored(viewer: Viewer) -> Executable:
    """Stores a key. Violates the primary key if it is stored already."""
    return insert(table).from_select(_NAMES, _row())


def storing(written: CTE) -> CTE:
    """Stores a key, in a statement that writes, if it has written rows."""
    row = _row().where(exists(select(1).select_from(written)))
    # PostgreSQL executes an INSERT in a CTE even if nothing reads it.
    return insert(table).from_select(_NAMES, row).returning(kept.key).cte("kept")


@Statement
def found(viewer: Viewer) -> Executable:
    """The hash and the outcome of a key that has not expired."""
    return select(kept.request_hash, kept.outcome).where(
        kept.actor == value("key_actor", String),
        kept.key == value("key_text", String),
        kept.expires_at > func.now(),
    )


@Statement
def delete_key_if_expired(viewer: Viewer) -> Executable:
    """Deletes a key that has expired."""
    return delete(table).where(
        kept.actor == value("key_actor", String),
        kept.key == value("key_text", String),
        kept.expires_at <= func.now(),
    )


@Statement
def delete_expired(viewer: Viewer) -> Executable:
    """Deletes keys that have expired, at most MOST_DELETED at once, and returns them."""
    old = (
        select(kept.actor, kept.key)
        .where(kept.expires_at <= func.now())
        .limit(literal_column(str(MOST_DELETED)))
    )
    locked = old.with_for_update(skip_locked=True).cte("locked")
    gone = delete(table).where(kept.actor == locked.c.actor, kept.key == locked.c.key)
    return gone.returning(kept.key)
