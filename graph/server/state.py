"""What lives as long as the process, and is shared by all that it answers."""

from __future__ import annotations

from db import Database
from db.deadlines import SharedTimer
from graph.execution.tokens import Tokens
from graph.limits.guard import Guard
from graph.server.sockets import Sockets
from graph.settings import Settings


class State:
    """The state of an application; it has a database once that has begun to live."""

    database: Database
    tokens: Tokens
    head: str | None
    """The revision of the schema that this code is for."""
    draining = False
    """Whether the process is being stopped."""

    def __init__(self, settings: Settings) -> None:
        self.guard = Guard(settings)
        self.timer = SharedTimer()
        self.sockets = Sockets(settings, self)
