"""`/metrics` for Prometheus: on a port of its own, and for administrators on that of the API."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from graph.core.errors import Forbidden, Unauthenticated
from graph.execution.logs import log_refusal
from graph.execution.masking import reported
from graph.execution.pipeline import Pipeline
from graph.execution.responses import Response as Refusal
from graph.execution.tokens import bearer_token
from graph.limits.cost import COST_OF_REQUEST
from graph.metrics.exposition import PATH, Exposition
from graph.server.middleware import ResponseMiddleware
from graph.server.state import AppState


class Metrics:
    """The metrics of an application, over HTTP."""

    def __init__(self, exposition: Exposition, pipeline: Pipeline, state: AppState) -> None:
        self._exposition = exposition
        self._pipeline = pipeline
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
            await self._check(request)
        except Exception as error:
            refusal = Refusal.refusal(reported(error))
            log_refusal("http", refusal.status, refusal.codes, refusal.limits)
            headers = {"www-authenticate": "Bearer"} if refusal.status == 401 else {}
            wait = (refusal.errors[0].extensions or {}).get("retryAfter")
            if wait is not None:
                headers["retry-after"] = str(wait)
            return JSONResponse(refusal.body, refusal.status, headers)
        return await self.respond(request)

    async def _check(self, request: Request) -> None:
        """Charge the request, and raise an error unless it has the token of an administrator."""
        token = bearer_token(request.headers.get("authorization"))
        address = request.client.host if request.client else None
        pipeline = self._pipeline
        context = await pipeline.context(self._state.tokens, token, address)
        pipeline.limits.rates.charge(context.client, COST_OF_REQUEST)
        if context.refusal is not None or context.is_anonymous:
            raise context.refusal or Unauthenticated()
        if not context.viewer.is_administrator:
            raise Forbidden("Only administrators see metrics here.")
