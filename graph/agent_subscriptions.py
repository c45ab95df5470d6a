"""Subscriptions of agents to topics."""

from __future__ import annotations

from datetime import datetime

import strawberry

import db
from db import Right, agent_subscriptions
from graph.core.connections import Connection
from graph.core.entities import Node, entity
from graph.core.fields import collection, one, related
from graph.core.filters import (
    DateTimeFilter,
    IDFilter,
    StringFilter,
    filters,
    ordering,
    through,
)
from graph.core.inputs import Repeatable, input_of
from graph.core.mutations import mutation
from graph.core.payloads import Deleted
from graph.core.scalars import ID, Line


@filters(db.AgentSubscription)
class AgentSubscriptionFilter:
    id: IDFilter | None
    topic: StringFilter | None
    created_at: DateTimeFilter | None
    agent_id: IDFilter | None
    agent = through(db.AgentSubscription.agent)


AgentSubscriptionOrder = ordering(db.AgentSubscription, db.AgentSubscription.topic)


@entity(db.AgentSubscription, where=AgentSubscriptionFilter, order=AgentSubscriptionOrder)
class AgentSubscription(Node):
    topic: str
    created_at: datetime
    agent = related(db.AgentSubscription.agent)


@strawberry.type
class Query:
    agent_subscription: AgentSubscription | None = one(db.AgentSubscription)
    agent_subscriptions: Connection[AgentSubscription] = collection(db.AgentSubscription)


class SubscriptionValues(Repeatable):
    """The fields that the inputs share."""

    agent_id: ID[db.Agent]
    topic: Line


@input_of(db.AgentSubscription)
class SubscribeAgentInput(SubscriptionValues):
    """The topic to subscribe to."""


@input_of(db.AgentSubscription)
class UnsubscribeAgentInput(SubscriptionValues):
    """The topic to subscribe to no longer."""


@strawberry.type
class Mutation:
    @mutation(Right.WORK)
    async def subscribe_agent(
        self, session: db.WriteSession, input: SubscribeAgentInput
    ) -> db.AgentSubscription:
        """Let an agent receive what is published to a topic of its project, from now on."""
        return await agent_subscriptions.subscribe(session, input.agent_id, input.topic)

    @mutation(Right.WORK)
    async def unsubscribe_agent(
        self, session: db.WriteSession, input: UnsubscribeAgentInput
    ) -> Deleted[db.AgentSubscription]:
        """End the subscription of an agent to a topic. What it was sent already stays."""
        return Deleted(await agent_subscriptions.unsubscribe(session, input.agent_id, input.topic))
