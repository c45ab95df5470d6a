"""The application: routes, and what lives as long as the process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import URL, text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from db import Database, migrate
from graph import pages
from graph.http import Endpoint
from graph.schema import schema
from graph.settings import Mode, Settings


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
        app.state.database = Database(database_url)
        app.state.head = migrate.head()
        yield
        await app.state.database.dispose()

    endpoint = Endpoint(
        schema, introspection=settings.mode is Mode.DEVELOPMENT, planner=settings.planner
    )
    return Starlette(
        routes=[
            *(pages.routes(endpoint) if settings.shows_page else [Route("/graphql", endpoint)]),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ],
        lifespan=lifespan,
    )
