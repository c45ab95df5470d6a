"""What lives as long as the application, and is shared by all requests: Starlette's `app.state`."""

from __future__ import annotations

from db import Database
from db.deadlines import SharedTimer
from graph.execution.tokens import Tokens


class AppState:
    """The state of an application; it has a database once its lifespan has begun."""

    database: Database
    tokens: Tokens
    head: str | None
    """The revision of the schema that this code is for."""
    draining = False
    """Whether the process is being stopped."""

    def __init__(self) -> None:
        self.timer = SharedTimer()
