"""The application: routes, and what lives as long as the process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from db import Database, migrate
from db.connections import reason
from db.embedded import Server
from graph.execution.operations import Operations
from graph.execution.tokens import Tokens
from graph.limits.limits import Limits
from graph.schema import schema
from graph.server import pages
from graph.server.endpoint import Endpoint
from graph.server.middleware import ResponseMiddleware
from graph.server.sockets import SocketEndpoint, Sockets
from graph.server.state import AppState
from graph.settings import Settings

log = logging.getLogger("troupe")

# How long the database may take to answer a probe, in seconds.
PROBE = 5

# An operation's time ends its statements. PostgreSQL's own limit, some seconds later, is for those
# of a process that cannot end them any more.
STATEMENT_GRACE = 10


async def livez(request: Request) -> Response:
    """Whether the process answers."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Whether operations can be answered here, and new ones should be sent.

    The database is there, at the schema of this code, and takes writes, and the server is not being
    stopped.
    """
    state: AppState = request.app.state
    if state.draining:
        return JSONResponse({"status": "unavailable", "reason": "draining"}, 503)
    try:
        async with asyncio.timeout(PROBE):
            revision, takes_writes = await state.database.readiness()
            await state.database.check_disk_space()
    except Exception as error:
        log.warning("the database cannot be used: %s", reason(error))
        why = state.database.outage or "database"
        return JSONResponse({"status": "unavailable", "reason": why}, 503)
    if revision != state.head:
        return JSONResponse({"status": "unavailable", "reason": "migrations"}, 503)
    if not takes_writes:
        return JSONResponse({"status": "unavailable", "reason": "read-only"}, 503)
    return JSONResponse({"status": "ok"})


class Application(Starlette):
    """Starlette, without what does nothing here, and with a state of our own."""

    state: Any

    def build_middleware_stack(self) -> ASGIApp:
        """The layers without Starlette's own for faults, which `ResponseMiddleware` masks."""
        stack = super().build_middleware_stack()
        assert isinstance(stack, ServerErrorMiddleware)
        return stack.app


class GraphQLRoute:
    """The innermost layer: leads to the API in one step, and to all else by the router."""

    def __init__(self, router: ASGIApp, api: ASGIApp) -> None:
        self.router = router
        self.api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        is_api = scope["type"] == "http" and scope["path"] == "/graphql"
        await (self.api if is_api else self.router)(scope, receive, send)


def create_app(
    settings: Settings, database_url: URL | str, server: Server | None = None
) -> Starlette:
    """The ASGI application over a database that is at the head of the migrations.

    The database is on a server of this process's own, or elsewhere.
    """

    state = AppState()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        state.database = Database(
            database_url,
            statement_seconds=settings.max_seconds + STATEMENT_GRACE,
            result_bytes=settings.max_answer_bytes,
            server=server,
        )
        state.tokens = Tokens(state.database)
        state.head = migrate.head()
        yield
        await state.database.dispose()

    operations = Operations(schema, Limits(settings))
    api: ASGIApp = Endpoint(operations, max_body_bytes=settings.max_body_bytes)
    if settings.shows_page:
        api = pages.PageOrAPI(api)
    layers = [Middleware(ResponseMiddleware)]
    if settings.allowed_origins:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.allowed_origins,
                allow_methods=("GET", "POST"),
                allow_headers=("Authorization", "Content-Type", "X-Request-Id", "X-Troupe-Explain"),
                expose_headers=("Retry-After", "Server-Timing", "X-Request-Id"),
                max_age=7200,  # no browser remembers it for longer
            )
        )
    layers.append(Middleware(GraphQLRoute, api=api))
    app = Application(
        routes=[
            *(pages.routes() if settings.shows_page else []),
            WebSocketRoute("/graphql", SocketEndpoint(operations, settings.allowed_origins)),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ],
        middleware=layers,
        lifespan=lifespan,
    )
    # A redirect would go to whatever host the client names.
    app.router.redirect_slashes = False
    app.state = state
    app.state.sockets = Sockets(settings, state)
    return app
