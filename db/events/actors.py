"""The actor of a transaction, which its events name."""

from __future__ import annotations

from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.events import ACTOR
from db.scopes import Viewer


def actor_of(viewer: Viewer) -> str | None:
    """The actor as the triggers read it; None for nobody, such as a command of `troupe`."""
    if viewer.name is None:
        return None
    return f"{viewer.name}:{viewer.token_id or ''}"


SET_ACTOR = select(func.set_config(ACTOR, bindparam("actor"), True))


async def set_actor(session: AsyncSession, viewer: Viewer) -> None:
    """Set the actor of the session's transaction."""
    actor = actor_of(viewer)
    if actor is not None:
        await session.execute(SET_ACTOR, {"actor": actor})
