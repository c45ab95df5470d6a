"""Subscriptions of agents to topics, which messages are published to."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from db.agents import Agent
from db.base import CRUD, ShortText, to_one
from db.errors import Invalid

if TYPE_CHECKING:
    from db.sessions import WriteSession


class AgentSubscription(CRUD):
    """The subscription of an agent to a topic of its project."""

    __tablename__ = "agent_subscriptions"
    __table_args__ = (
        UniqueConstraint("agent_id", "topic"),
        Index(None, "topic", "id"),
    )

    agent_id: Mapped[UUID] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"))
    topic: Mapped[ShortText] = mapped_column(
        doc="The topic: a name that the agents of a project agree on."
    )

    agent: Mapped[Agent] = to_one("subscriptions", "The agent that subscribes.")


async def subscribe(session: WriteSession, agent_id: UUID, topic: str) -> AgentSubscription:
    """Let an agent receive what is published to a topic, from now on.

    A second subscription to the same topic changes nothing. Raises NotFound and Denied.
    """
    session.in_own_name(agent_id)
    agent = await session.fetch(Agent, agent_id, at=("agent_id",))
    same = (AgentSubscription.agent_id == agent.id, AgentSubscription.topic == topic)
    found: AgentSubscription | None = await session.scalar(select(AgentSubscription).where(*same))
    return found or await AgentSubscription.create(session, agent_id=agent.id, topic=topic)


async def unsubscribe(session: WriteSession, agent_id: UUID, topic: str) -> UUID:
    """End the subscription of an agent to a topic, and return its id.

    Raises NotFound, Denied, and Invalid if there is none.
    """
    session.in_own_name(agent_id)
    agent = await session.fetch(Agent, agent_id, at=("agent_id",))
    same = (AgentSubscription.agent_id == agent.id, AgentSubscription.topic == topic)
    ended = delete(AgentSubscription).where(*same).returning(AgentSubscription.id)
    id: UUID | None = await session.scalar(ended)
    if id is None:
        raise Invalid("The agent does not subscribe to this topic.", ("topic",))
    return id
