"""The state of the application, which all requests share: Starlette's `app.state`."""

from __future__ import annotations

from typing import Any

from db import Database
from graph.execution.tokens import Tokens
from graph.server.origins import Origins


class AppState:
    """The state of an application; its lifespan sets the database and the tokens."""

    database: Database
    tokens: Tokens
    head: str | None
    """The migration of this version."""
    draining = False
    """Whether the process is shutting down."""

    origins: Origins

    sockets: Any
    """The open WebSockets (`graph.server.sockets.Sockets`)."""

    metrics: Any
    """The metrics (`graph.server.metrics.Metrics`)."""

    streams: Any
    """The open event streams (`graph.server.sse.EventStreams`)."""
