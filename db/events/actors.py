"""The actor of a transaction, which its events name."""

from __future__ import annotations

from db.events import ACTOR
from db.scopes import Viewer

SET_ACTOR = f"SELECT set_config('{ACTOR}', $1, true)"
"""Sets the actor of a transaction."""


def actor_of(viewer: Viewer) -> str | None:
    """The actor as the triggers read it; None for nobody, such as a command of `troupe`."""
    if viewer.name is None:
        return None
    return f"{viewer.name}:{viewer.token_id or ''}"
