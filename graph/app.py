"""The application: routes, and what lives as long as the process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import URL, text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.websockets import WebSocket

from db import Database, migrate
from graph import pages
from graph.context import Context
from graph.guard import Guard
from graph.http import Endpoint
from graph.schema import schema
from graph.settings import Mode, Settings

# An operation's time ends its statements. PostgreSQL's own limit, some seconds later, is for those
# of a process that cannot end them any more.
STATEMENT_GRACE = 10


class Guarded(Endpoint):
    """The endpoint, with what guards the process."""

    async def get_context(
        self, request: Request | WebSocket, response: Response | WebSocket
    ) -> Context:
        """The context, with the process's guard and the client's address."""
        context = await super().get_context(request, response)
        context.guard = request.app.state.guard
        context.address = request.client.host if request.client else None
        return context


async def livez(request: Request) -> Response:
    """Whether the process answers."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Whether operations can be answered: the database is there, and at the schema of this code."""
    database: Database = request.app.state.database
    try:
        async with database.read() as session:
            revision = await session.scalar(text("SELECT version_num FROM alembic_version"))
    except Exception:
        return JSONResponse({"status": "unavailable", "reason": "database"}, 503)
    if revision != request.app.state.head:
        return JSONResponse({"status": "unavailable", "reason": "migrations"}, 503)
    return JSONResponse({"status": "ok"})


def create_app(settings: Settings, database_url: URL | str) -> Starlette:
    """The ASGI application over a database that is at the head of the migrations."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.database = Database(
            database_url, statement_seconds=settings.max_seconds + STATEMENT_GRACE
        )
        app.state.head = migrate.head()
        yield
        await app.state.database.dispose()

    endpoint = Guarded(
        schema, introspection=settings.mode is Mode.DEVELOPMENT, planner=settings.planner
    )
    app = Starlette(
        routes=[
            *(pages.routes(endpoint) if settings.shows_page else [Route("/graphql", endpoint)]),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ],
        lifespan=lifespan,
    )
    app.state.guard = Guard(settings)
    return app
