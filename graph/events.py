"""The event log: who changed what, and when."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

import db
from db import ActorType, EventAction
from db.events.topics import Topic
from db.events.triggers import object_types
from graph.core.connections import Connection
from graph.core.entities import entity, key
from graph.core.fields import collection, referred
from graph.core.filters import (
    DateTimeFilter,
    EnumFilter,
    IDFilter,
    StringFilter,
    filters,
    reference,
)
from graph.core.scalars import BigInt
from graph.core.updates import Update, followed, update_type


@filters(db.Event)
class EventFilter:
    project_id: IDFilter | None = reference(db.Event.project_id, db.Project)
    entity_type: StringFilter | None
    entity_id: IDFilter | None = reference(db.Event.entity_id)
    action: EnumFilter[EventAction] | None
    actor_type: EnumFilter[ActorType] | None
    actor_id: IDFilter | None = reference(db.Event.actor_id)
    created_at: DateTimeFilter | None


@entity(db.Event, where=EventFilter)
class Event:
    position: BigInt
    created_at: datetime
    action: EventAction
    entity_type: str
    entity_id = key(db.Event.entity_id, db.Event.entity_type, object_types())
    project_id = key(db.Event.project_id, "Project")
    project = referred(db.Event.project_id, db.Project)
    actor_type: ActorType | None
    actor_id = key(db.Event.actor_id, db.Event.actor_type, {"USER": "User", "AGENT": "Agent"})
    user = referred(db.Event.user_id, db.User)
    agent = referred(db.Event.agent_id, db.Agent)
    token_id = key(db.Event.token_id, "AccessToken")
    before: JSON | None
    after: JSON | None


@strawberry.type
class Query:
    events: Connection[Event] = collection(
        db.Event,
        description="The changes of objects, the oldest first. `after` the cursor of the last one"
        " that you have, you get those that you miss, each once.",
    )


@update_type
class EventUpdate(Update):
    """An event; the first message has only the cursor."""


@strawberry.type
class Subscription:
    events: EventUpdate = followed(
        EventUpdate,
        lambda id: [Topic(project_id=id)],
        subject=db.Project,
        argument_name="project_id",
        otherwise="; by default, all that you may see",
        is_filtered=True,
        description="The changes of objects that you may see, of a project if you name one.",
    )
