"""The ASGI application: its routes, middleware and state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from db import Database, migrate
from db.connections import reason
from db.embedded import Server
from db.events.positions import Numbering
from db.sweeper import Sweeper
from graph.delivery.sender import Sender
from graph.delivery.worker import Worker
from graph.execution.pipeline import Pipeline
from graph.execution.subscriptions import Subscriptions
from graph.execution.tokens import Tokens
from graph.limits.limits import Limits
from graph.mcp.endpoint import MCPEndpoint
from graph.metrics.exposition import PATH, Exposition, Sources
from graph.schema import schema
from graph.server import pages
from graph.server.endpoint import Endpoint
from graph.server.metrics import Metrics
from graph.server.middleware import ResponseMiddleware
from graph.server.origins import CORS, Origins
from graph.server.sockets import Sockets
from graph.server.sse import EventStreams
from graph.server.state import AppState
from graph.settings import Settings
from graph.tracing.attempts import trace_attempts

log = logging.getLogger("troupe")

# The timeout of the database in the readiness probe, in seconds.
PROBE_SECONDS = 5

# How long background work may take to end, in seconds, before it is cancelled once more.
CANCELLED_WITHIN = 5.0

# PostgreSQL cancels statements this much later than the timeout of operations, in seconds, because
# the process cancels them itself at the timeout.
STATEMENT_GRACE = 10


async def livez(request: Request) -> Response:
    """The liveness probe: the process responds."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """The readiness probe: the server is not stopping, and the database can be used.

    The database responds, is at the migration of this version, and accepts writes.
    """
    unready = await _unready(request.app.state)
    if unready is None:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "unavailable", "reason": unready}, 503)


async def _unready(state: AppState) -> str | None:
    if state.draining:
        return "draining"
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            revision, takes_writes = await state.database.readiness()
            await state.database.check_disk_space()
    except Exception as error:
        log.warning("the database cannot be used: %s", reason(error))
        return state.database.outage or "database"
    if revision != state.head:
        return "migrations"
    return None if takes_writes else "read-only"


class GraphQLRoute:
    """The innermost middleware: `/graphql` over HTTP, without the router, which is slower."""

    def __init__(self, router: ASGIApp, api: ASGIApp, page: pages.Page | None) -> None:
        self.router = router
        self.api = api
        self.page = page

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Call the API, the page, or the router for other paths."""
        app = self.router
        if scope["type"] == "http" and scope["path"] == "/graphql":
            app = self.page if self.page and self.page.is_requested(scope) else self.api
        return app(scope, receive, send)


Background = Callable[[Database], Coroutine[Any, Any, None]]
"""What runs beside the application, on its database, until that stops."""


def create_app(
    settings: Settings,
    database_url: URL | str,
    server: Server | None = None,
    background: Iterable[Background] = (),
) -> Starlette:
    """The ASGI application over a migrated database. `server` is set if it is embedded."""
    state = AppState()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        state.database = Database(
            database_url,
            statement_seconds=settings.max_seconds + STATEMENT_GRACE,
            result_bytes=settings.max_answer_bytes,
            key_seconds=settings.idempotency_hours * 3600,
            server=server,
            replica_url=settings.database_replica_url,
            direct_url=settings.database_direct_url,
        )
        state.tokens = Tokens(state.database)
        state.head = migrate.head()
        sender = Sender(settings.webhook_private_networks, allows_http=settings.allows_http)
        tasks = [
            asyncio.create_task(Numbering(state.database, settings.event_days).run()),
            asyncio.create_task(Sweeper(state.database, settings.lease_sweep_seconds).run()),
            asyncio.create_task(Worker(state.database, sender).run()),
            asyncio.create_task(trace_attempts(state.database)),
            *(asyncio.create_task(run(state.database)) for run in background),
        ]
        yield
        # SQLAlchemy or the driver may swallow a cancellation that comes together with a timeout.
        while running := [task for task in tasks if not task.done()]:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=CANCELLED_WITHIN)
        await asyncio.gather(*tasks, return_exceptions=True)
        await state.database.dispose()

    pipeline = Pipeline(schema, Limits(settings))
    subscriptions = Subscriptions(pipeline)
    state.origins = origins = Origins(settings)
    state.sockets = sockets = Sockets(pipeline, subscriptions, state)
    state.streams = streams = EventStreams(pipeline, subscriptions, state)
    api, mcp = Endpoint(pipeline, streams), MCPEndpoint(pipeline)
    page = pages.Page() if settings.shows_graphiql else None
    sources = Sources(
        pipeline.limits.running,
        pipeline.limits.waiting,
        pipeline.caches(),
        sockets,
        streams,
        subscriptions,
    )
    state.metrics = metrics = Metrics(Exposition(sources), pipeline, state)
    layers = [Middleware(ResponseMiddleware)]
    if origins:
        layers.append(Middleware(CORS, origins=origins))
    layers.append(Middleware(GraphQLRoute, api=api, page=page))
    app = Starlette(
        routes=[
            *pages.routes(settings),
            WebSocketRoute("/graphql", sockets),
            *(Route(path, mcp) for path in ("/mcp", "/mcp/")),
            Route("/livez", livez),
            Route("/readyz", readyz),
            *([Route(PATH, metrics.respond_to_administrator)] if settings.shows_metrics else []),
        ],
        middleware=layers,
        lifespan=lifespan,
    )
    # A redirect would go to the host in the client's Host header.
    app.router.redirect_slashes = False
    app.state = state  # type: ignore[assignment]
    # Without Starlette's outermost middleware: `ResponseMiddleware` handles exceptions.
    stack = app.build_middleware_stack()
    assert isinstance(stack, ServerErrorMiddleware)
    app.middleware_stack = stack.app
    return app
