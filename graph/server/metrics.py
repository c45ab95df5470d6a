"""`/metrics` for Prometheus: on a port of its own, and for administrators on that of the API."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from graph.core.errors import Forbidden, Unauthenticated
from graph.execution.masking import reported
from graph.execution.responses import Response as Refusal
from graph.execution.tokens import bearer_token
from graph.metrics.exposition import Exposition
from graph.server.middleware import ResponseMiddleware
from graph.server.state import AppState

PATH = "/metrics"


class Metrics:
    """The metrics of an application, over HTTP."""

    def __init__(self, exposition: Exposition, state: AppState) -> None:
        self._exposition = exposition
        self._state = state

    def app(self) -> Starlette:
        """The application on a port of its own, which needs no token."""
        app = Starlette(
            routes=[Route(PATH, self.respond)], middleware=[Middleware(ResponseMiddleware)]
        )
        app.router.redirect_slashes = False
        return app

    async def respond(self, request: Request) -> Response:
        """The metrics."""
        accept = request.headers.get("accept", "")
        content_type, text = await self._exposition.text(self._state.database, accept)
        return Response(text, headers={"content-type": content_type})

    async def respond_to_administrator(self, request: Request) -> Response:
        """The metrics, or a refusal for others than administrators."""
        try:
            await self._check(bearer_token(request.headers.get("authorization")))
        except Exception as error:
            refusal = Refusal.refusal(reported(error))
            headers = {"www-authenticate": "Bearer"} if refusal.status == 401 else None
            return JSONResponse(refusal.body, refusal.status, headers)
        return await self.respond(request)

    async def _check(self, token: str | None) -> None:
        """Raises RequestError unless it is the token of an administrator."""
        if token is None:
            raise Unauthenticated
        if not (await self._state.tokens.viewer(token)).is_administrator:
            raise Forbidden("Only administrators see metrics here.")
