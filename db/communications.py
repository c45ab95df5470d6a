"""Communications: messages from agent to agent.

A receiver has a lease on a message. Until it acknowledges the message or the lease ends, no other
process of the agent gets it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Executable,
    ForeignKey,
    Index,
    Integer,
    Uuid,
    and_,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from db.agent_subscriptions import AgentSubscription
from db.agents import Agent, AgentStatus
from db.base import (
    CRUD,
    Metadata,
    Priority,
    ShortText,
    any_of,
    check,
    constant,
    defaulted,
    new_id,
    to_many,
    to_one,
)
from db.errors import Denied, DomainError, IllegalTransition, Invalid, NotFound, Rejected
from db.expiry import expire_all, expiring
from db.projects import Project
from db.rights import Right
from db.scopes import Viewer, acts_for, scope
from db.statements import Statement, value
from db.transitions import Transitions
from db.writes import insert_many, set_actor

if TYPE_CHECKING:
    from db.engine import Database
    from db.sessions import WriteSession
    from db.tasks import Task

LEASE_SECONDS = 60
"""How long a receiver has for a message unless it asks for another time, in seconds."""

MOST_RECEIVED = 100
"""How many messages can be received at once."""

MOST_RECEIVERS = 1_000
"""The largest number of agents that one message is sent to."""


class CommunicationStatus(StrEnum):
    """The status of a communication."""

    SENT = "SENT"
    """Sent, not received yet."""
    DELIVERED = "DELIVERED"
    """Received. Unless it is acknowledged, it is given again when its lease ends."""
    ACKNOWLEDGED = "ACKNOWLEDGED"
    """Received and acknowledged."""
    EXPIRED = "EXPIRED"
    """Not received, or not acknowledged in time, before `expiresAt`."""
    FAILED = "FAILED"
    """It could not be delivered, because its receiver is TERMINATED."""


class Communication(CRUD):
    """A message from one agent to another of the same project."""

    __tablename__ = "communications"
    __table_args__ = (
        check("priority BETWEEN 1 AND 5", "priority_range", "A priority is 1 to 5.", "priority"),
        Index(None, "sent_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "priority", "id"),
        Index(None, "project_id", "sent_at", "id"),
        Index(None, "project_id", "priority", "id"),
        Index(None, "from_agent_id", "sent_at", "id"),
        Index(None, "to_agent_id", "sent_at", "id"),
        Index(None, "task_id", "sent_at", "id"),
        Index(None, "reply_to_id", "sent_at", "id"),
        # What an agent has not acknowledged, in the order in which it receives it.
        Index(
            "ix_communications_unacknowledged",
            "to_agent_id",
            text("priority DESC"),
            "sent_at",
            "id",
            postgresql_where=text("status IN ('SENT', 'DELIVERED')"),
        ),
        Index(
            "ix_communications_expiring",
            "expires_at",
            postgresql_where=text("status IN ('SENT', 'DELIVERED') AND expires_at IS NOT NULL"),
        ),
    )

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    from_agent_id: Mapped[UUID] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"))
    to_agent_id: Mapped[UUID] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"))
    type: Mapped[ShortText] = mapped_column(
        doc="The kind of message, which the agents define, such as `REQUEST`."
    )
    content: Mapped[Any] = mapped_column(JSONB, doc="The content of the message.")
    priority: Mapped[Priority]
    status: Mapped[CommunicationStatus] = defaulted(
        CommunicationStatus.SENT, index=True, doc="Its status."
    )
    topic: Mapped[ShortText | None] = mapped_column(
        doc="The topic that it was published to, if it was."
    )
    correlation_id: Mapped[ShortText | None] = mapped_column(
        index=True, doc="An id that all messages of one exchange share."
    )
    reply_to_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("communications.id", ondelete="SET NULL")
    )
    task_id: Mapped[UUID | None] = mapped_column(ForeignKey("tasks.id", ondelete="SET NULL"))
    sent_at: Mapped[datetime] = mapped_column(server_default=func.now(), doc="When it was sent.")
    delivered_at: Mapped[datetime | None] = mapped_column(doc="When it was received.")
    lease_expires_at: Mapped[datetime | None] = mapped_column(
        doc="When it is given to a receiver again unless it is acknowledged before."
    )
    acknowledged_at: Mapped[datetime | None] = mapped_column(doc="When it was acknowledged.")
    expires_at: Mapped[datetime | None] = mapped_column(
        doc="When it expires if it has not been received."
    )
    communication_metadata: Mapped[Metadata]

    project: Mapped[Project] = to_one("communications", "The project of both agents.")
    from_agent: Mapped[Agent] = to_one(
        "sent_communications", "The agent that sent it.", foreign_keys=[from_agent_id]
    )
    to_agent: Mapped[Agent] = to_one(
        "received_communications", "The agent that it is for.", foreign_keys=[to_agent_id]
    )
    task: Mapped[Task | None] = to_one("communications", "The task that it is about.")
    reply_to: Mapped[Communication | None] = to_one(
        "replies", "The message that it answers.", remote_side="Communication.id"
    )
    replies: Mapped[list[Communication]] = to_many("reply_to", "The answers to it.")

    transitions = Transitions(
        "communication",
        {
            CommunicationStatus.SENT: {
                CommunicationStatus.DELIVERED,
                CommunicationStatus.EXPIRED,
                CommunicationStatus.FAILED,
            },
            CommunicationStatus.DELIVERED: {
                CommunicationStatus.ACKNOWLEDGED,
                CommunicationStatus.EXPIRED,
                CommunicationStatus.FAILED,
            },
            CommunicationStatus.ACKNOWLEDGED: set(),
            CommunicationStatus.EXPIRED: set(),
            CommunicationStatus.FAILED: set(),
        },
    )


def is_unacknowledged(row: Any) -> ColumnElement[bool]:
    """The condition that its receiver has neither acknowledged a message nor missed it."""
    in_time = or_(row.expires_at.is_(None), row.expires_at > func.now())
    return and_(row.status.in_(_OPEN), in_time)


_OPEN = constant(CommunicationStatus.SENT), constant(CommunicationStatus.DELIVERED)


def _is_free(row: Any) -> ColumnElement[bool]:
    """The condition that nobody has a lease on a message."""
    return or_(
        row.status == CommunicationStatus.SENT,
        and_(row.status == CommunicationStatus.DELIVERED, row.lease_expires_at <= func.now()),
    )


@Statement
def _received(viewer: Viewer) -> Executable:
    """Give the messages of an agent that nobody has a lease on, the most urgent first."""
    row: Any = Communication
    wanted = (
        select(row.id)
        .where(
            row.to_agent_id == value("agent_id", Uuid),
            is_unacknowledged(row),
            _is_free(row),
            scope(row, viewer, Right.WORK),
        )
        .order_by(row.priority.desc(), row.sent_at, row.id)
        .limit(value("limit", Integer))
        .with_for_update(key_share=True, skip_locked=True)
        .cte("wanted")
    )
    seconds = value("seconds", Integer)
    given = (
        update(row)
        .where(row.id == wanted.c.id)
        .values(
            status=CommunicationStatus.DELIVERED,
            delivered_at=func.coalesce(row.delivered_at, func.now()),
            lease_expires_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds),
        )
        .returning(row.id, row.priority, row.sent_at)
        .cte("given")
        .c
    )
    found = select(given.id, set_actor())
    return found.order_by(given.priority.desc(), given.sent_at, given.id)


async def receive(
    session: WriteSession, agent_id: UUID | None, limit: int, seconds: int
) -> list[UUID]:
    """Give an agent its next messages, each to one receiver; return their ids.

    The receiver has to acknowledge them within so many seconds, or they are given again. The agent
    is the viewer, unless a person names one. Raises NotFound, Denied and Invalid.
    """
    agent_id = session.acting_agent(agent_id)
    values: dict[str, Any] = {"agent_id": agent_id, "limit": limit, "seconds": seconds}
    # Which messages these are is not known before, so a key takes a transaction.
    if session.key is None:
        found = await session.alone(_received, model=None, outcome={}, **values)
    else:
        found = await session.run(_received, **values)
    if not found:
        await session.fetch(Agent, agent_id, at=("agent_id",), lock=False)
    return [row[0] for row in found]


@Statement
def _acknowledged(viewer: Viewer) -> Executable:
    """Acknowledge messages that were received.

    They are locked in one order, because several may be acknowledged twice at once.
    """
    row = Communication
    received = (
        select(row.id)
        .where(
            row.id == func.any(value("ids", ARRAY(Uuid))),
            row.status == CommunicationStatus.DELIVERED,
            scope(row, viewer, Right.WORK),
            acts_for(viewer, row.to_agent_id),
        )
        .order_by(row.id)
        .with_for_update(key_share=True, of=row)
        .cte("received")
    )
    changed = update(row).where(row.id == received.c.id)
    changed = changed.values(
        status=CommunicationStatus.ACKNOWLEDGED,
        acknowledged_at=func.now(),
        lease_expires_at=None,
    )
    return changed.returning(row.id, set_actor())


async def acknowledge(session: WriteSession, ids: Sequence[UUID]) -> list[UUID]:
    """Acknowledge messages that were received, and return their ids.

    Those that were acknowledged before stay as they are. Raises Rejected with all errors, and
    Denied.
    """
    done = {row[0] for row in await session.run(_acknowledged, ids=list(ids))}
    if not done.issuperset(ids):
        await _check_acknowledged(session, ids, done)
    return list(ids)


async def _check_acknowledged(
    session: WriteSession, ids: Sequence[UUID], done: Collection[UUID]
) -> None:
    row = Communication
    statement = select(row.id, row.status, scope(row, session.viewer, Right.WORK), row.to_agent_id)
    statement = statement.where(any_of(row.id, ids), scope(row, session.viewer))
    seen = {each.id: each for each in await session.execute(statement)}
    errors: list[DomainError] = []
    for place, id in enumerate(ids):
        at = ("ids", place)
        if id in done:
            continue
        if id not in seen:
            errors.append(NotFound(Communication, id, at))
            continue
        _, status, may_work, to_agent_id = seen[id]
        if not may_work or not session.viewer.acts_for(to_agent_id):
            raise Denied("Only its receiver acknowledges a message.", at)
        if status is not CommunicationStatus.ACKNOWLEDGED:
            try:
                row.transitions.check(status, CommunicationStatus.ACKNOWLEDGED, at)
            except IllegalTransition as error:
                errors.append(error)
    if errors:
        raise Rejected(errors)


async def send(session: WriteSession, values: Mapping[str, Any]) -> UUID:
    """Send a message from an agent to another one of its project; return its id.

    Raises NotFound, Denied, and Rejected with all errors.
    """
    session.in_own_name(values["from_agent_id"], ("from_agent_id",))
    return await session.insert(Communication, values, below="from_agent")


async def reply(session: WriteSession, id: UUID, values: Mapping[str, Any]) -> UUID:
    """Answer a message in the name of the agent that it was sent to; return the id of the answer.

    It has the task and the correlation id of the message, which is its own id if it has none.
    Raises NotFound, Denied, and Rejected with all errors.
    """
    message = await session.fetch(Communication, id, at=("reply_to_id",), lock=False)
    session.in_own_name(message.to_agent_id, ("reply_to_id",))
    known = {
        "from_agent_id": message.to_agent_id,
        "to_agent_id": message.from_agent_id,
        "reply_to_id": id,
        "task_id": message.task_id,
        "correlation_id": message.correlation_id or str(message.id),
    }
    return await session.insert(Communication, {**known, **values}, below="from_agent")


async def broadcast(
    session: WriteSession, from_agent_id: UUID, values: Mapping[str, Any], topic: str | None = None
) -> list[UUID]:
    """Send a message to each other active agent of the sender's project, and return their ids.

    With a topic, only to those that subscribe to it. Raises NotFound, Denied, Invalid, and Rejected
    with all errors.
    """
    session.in_own_name(from_agent_id, ("from_agent_id",))
    sender = await session.fetch(Agent, from_agent_id, at=("from_agent_id",), lock=False)
    await session.refer(Communication, values, project_id=sender.project_id)
    # First, as by whoever deletes the project, and then its agents.
    project = select(Project.id).where(Project.id == sender.project_id)
    await session.execute(project.with_for_update(read=True, key_share=True))
    receivers = select(Agent.id).where(
        Agent.project_id == sender.project_id,
        Agent.id != sender.id,
        Agent.is_active,
        Agent.status != AgentStatus.TERMINATED,
    )
    if topic is not None:
        subscribed = select(AgentSubscription.agent_id).where(AgentSubscription.topic == topic)
        receivers = receivers.where(Agent.id.in_(subscribed))
    receivers = receivers.order_by(Agent.id).limit(MOST_RECEIVERS + 1)
    found = (await session.scalars(receivers.with_for_update(read=True, key_share=True))).all()
    if len(found) > MOST_RECEIVERS:
        raise Invalid(f"This would be sent to more than {MOST_RECEIVERS:,} agents.")
    same = {**values, "project_id": sender.project_id, "from_agent_id": sender.id, "topic": topic}
    rows = [{**same, "id": new_id(), "to_agent_id": agent_id} for agent_id in found]
    if rows:
        await insert_many(session, Communication, rows)
    return [row["id"] for row in rows]


async def fail(session: AsyncSession, agent_id: UUID) -> None:
    """Fail the messages that an agent has not acknowledged, because it is TERMINATED.

    The agent is locked FOR UPDATE. A trigger of the database (`0028_failed_communications.py` of
    `migrations/versions/`) waits for this lock, and fails what is sent to the agent later.
    """
    row = Communication
    waiting = select(row.id).where(row.to_agent_id == agent_id, row.status.in_(_OPEN))
    found = waiting.order_by(row.id).with_for_update(key_share=True).cte("found")
    failed = update(row).where(row.id == found.c.id)
    await session.execute(
        failed.values(status=CommunicationStatus.FAILED, lease_expires_at=None),
        execution_options={"synchronize_session": False},
    )


@Statement
def _expired(viewer: Viewer) -> Executable:
    """Expire messages that nobody has a lease on."""
    row: Any = Communication
    due = row.status.in_(_OPEN), row.expires_at <= func.now(), _is_free(row)
    return expiring(row, CommunicationStatus.EXPIRED, *due)


async def expire(database: Database) -> int:
    """Expire messages that were not received in time; return how many."""
    return await expire_all(database, _expired)
