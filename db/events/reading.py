"""Reading the event log by position, for whoever follows it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select

from db.events import Event, event_positions
from db.sessions import ReadSession

PAGE = 500
"""The largest number of events that are read at once."""


async def last_position(session: ReadSession) -> int:
    """The position of the newest event that has one; 0 if none ever had."""
    found: int = (await session.scalar(select(event_positions.c.last_position))) or 0
    return found


async def events_after(
    session: ReadSession, position: int, project_id: UUID | None = None
) -> Sequence[Event]:
    """The next events after a position, without a scope, at most a page of them."""
    statement = select(Event).where(Event.position > position)
    if project_id is not None:
        statement = statement.where(Event.project_id == project_id)
    found = await session.scalars(statement.order_by(Event.position).limit(PAGE))
    return found.all()
