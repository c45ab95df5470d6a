"""The event log: a row for each change of a row, written by triggers in the same transaction.

`triggers.py` generates the triggers from the models, `positions.py` numbers what is committed, and
`partitions.py` creates and drops the partitions.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    Index,
    SmallInteger,
    String,
    Table,
    Text,
    TextClause,
    Uuid,
    case,
    func,
    text,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, column_property, mapped_column

from db.base import UNLOGGED, Base, check, choice

ORPHAN = UUID(int=0)
"""The `project_id` of an event, within its transaction, while that of its parent is not known.

Its `owner_id` is the key of the parent: the row that the event's row was part of.
"""


class EventAction(StrEnum):
    """What happened to a row."""

    CREATED = "CREATED"
    """It was created."""
    UPDATED = "UPDATED"
    """Some of its columns were changed."""
    DELETED = "DELETED"
    """It was deleted."""


class ActorType(StrEnum):
    """What kind of actor made a change."""

    USER = "USER"
    """A user."""
    AGENT = "AGENT"
    """An agent."""


ACTOR = "troupe.actor"
"""The setting of a transaction that names its actor: `user:<id>:<id of the token>`, or `agent:…`.

It is unset for a transaction of nobody, such as one in psql.
"""


def _part_of_actor(number: int) -> TextClause:
    """A part of the actor as the default of a column, written as PostgreSQL prints it."""
    setting = f"current_setting('{ACTOR}'::text, true)"
    part = f"NULLIF(split_part({setting}, ':'::text, {number}), ''::text)"
    return text(f"upper({part})" if number == 1 else f"({part})::uuid")


class Event(Base):
    """A change of an object: who changed what, and when."""

    __tablename__ = "events"
    __table_args__ = (
        # Only events with a position are read, so an insert does not write these indexes.
        Index(None, "position", postgresql_where=text("position IS NOT NULL")),
        Index(None, "project_id", "position", postgresql_where=text("position IS NOT NULL")),
        Index(None, "entity_id", "position", postgresql_where=text("position IS NOT NULL")),
        Index("ix_events_unnumbered", "id", postgresql_where=text("position IS NULL")),
        # What the triggers look up in a cascade.
        Index(
            "ix_events_orphans", "owner_id", postgresql_where=text(f"project_id = '{ORPHAN}'::uuid")
        ),
        Index(
            "ix_events_deleted",
            "entity_id",
            postgresql_where=text("position IS NULL AND action = 'DELETED'"),
        ),
        {"postgresql_partition_by": "RANGE (created_at)", "info": UNLOGGED},
    )

    id: Mapped[int] = mapped_column(
        BigInteger,
        Identity(always=True),
        primary_key=True,
        doc="The order of insertion.",
    )
    # Part of the key of the table, because it is partitioned by this column.
    created_at: Mapped[datetime] = mapped_column(
        server_default=func.now(),
        primary_key=True,
        doc="When it happened: when its transaction began, or, if it got its position more than a"
        " day later, when it got that.",
    )
    position: Mapped[int | None] = mapped_column(
        BigInteger,
        doc="The position in the log. Later changes have higher positions, without gaps.",
    )
    project_id: Mapped[UUID | None] = mapped_column(
        doc="The id of the project that the object belongs to, even if the project is deleted."
    )
    owner_id: Mapped[UUID | None] = mapped_column(
        doc="The user whose the object is, if it belongs to no project."
    )
    entity_type: Mapped[str] = mapped_column(
        String(100), doc="The type of the object, such as `Task`."
    )
    entity_id: Mapped[str] = mapped_column(
        Text, doc="The id of the object; of an association, the first part of its key."
    )
    action: Mapped[EventAction] = mapped_column(choice(EventAction), doc="What happened to it.")
    actor_type: Mapped[ActorType | None] = mapped_column(
        choice(ActorType),
        server_default=_part_of_actor(1),
        doc="What kind of actor made the change; null if it was made in the database itself.",
    )
    actor_id: Mapped[UUID | None] = mapped_column(
        server_default=_part_of_actor(2), doc="The id of the user or agent who made the change."
    )
    token_id: Mapped[UUID | None] = mapped_column(
        server_default=_part_of_actor(3),
        doc="The id of the access token that the change was made with.",
    )
    before: Mapped[Any | None] = mapped_column(
        JSONB(none_as_null=True),
        doc="The values before the change, by column: all that were set of a deleted object, those"
        " that differ of a changed one. Null for a created one.",
    )
    after: Mapped[Any | None] = mapped_column(
        JSONB(none_as_null=True),
        doc="The values after the change, by column: all that were set of a created object, those"
        " that differ of a changed one. Null for a deleted one.",
    )

    user_id: Mapped[UUID | None] = column_property(
        type_coerce(case((actor_type == ActorType.USER, actor_id)), Uuid),
        doc="The id of the user who made the change.",
    )
    agent_id: Mapped[UUID | None] = column_property(
        type_coerce(case((actor_type == ActorType.AGENT, actor_id)), Uuid),
        doc="The id of the agent that made the change.",
    )

    # Events are read by position, and those without one are not read.
    __mapper_args__ = {"primary_key": [position]}


event_positions = Table(
    "event_positions",
    Base.metadata,
    Column("id", SmallInteger, primary_key=True, server_default=text("1"), autoincrement=False),
    Column("last_position", BigInteger, nullable=False, server_default=text("0")),
    Column("dropped_position", BigInteger, nullable=False, server_default=text("0")),
    check("id = 1", "single_row", "There is one last position."),
    info=UNLOGGED,
)
"""The one row with the last position that was given, and the last one that was dropped."""
