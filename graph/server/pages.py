"""The pages for browsers: GraphiQL if it is built, else a plain page."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

HERE = Path(__file__).parents[1]
BUILT, PLAIN = HERE / "graphiql" / "dist", HERE / "plain"

# The pages load only from this server, and no site may frame them. The editor of GraphiQL sets
# inline styles, and its style sheet contains its images and fonts.
POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self';"
    " style-src 'self' 'unsafe-inline'; img-src data:; font-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Files(StaticFiles):
    """The files of a folder, with a strict content security policy."""

    def __init__(self, folder: Path, cache: str) -> None:
        super().__init__(directory=folder)
        self.headers = {
            "Cache-Control": cache,
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Opener-Policy": "same-origin",
        }

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, with the headers."""
        response = await super().get_response(path, scope)
        response.headers.update(self.headers)
        return response


class PageOrAPI:
    """`/graphql`: the page for browsers, and the API for other clients."""

    def __init__(self, api: ASGIApp) -> None:
        self.api = api
        self.page = Files(_folder(), "no-cache")
        self.page.headers["Vary"] = "Accept"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the page or by the API."""
        if scope["method"] in ("GET", "HEAD") and wants_page(Request(scope)):
            response = await self.page.get_response("index.html", scope)
            await response(scope, receive, send)
        else:
            await self.api(scope, receive, send)


def wants_page(request: Request) -> bool:
    """Whether a request without an operation accepts HTML explicitly, as those of browsers do."""
    accepted = request.headers.get("accept", "").lower()
    return "query" not in request.query_params and "text/html" in accepted


def routes() -> list[BaseRoute]:
    """The routes for the files of the page at `/graphql`."""
    # Built files have the hash of their contents in their names, so that they never change.
    cache = "public, max-age=31536000, immutable" if _folder() == BUILT else "no-cache"
    return [
        Route("/", RedirectResponse("/graphql")),
        Mount("/graphiql", Files(_folder() / "assets", cache)),
    ]


def _folder() -> Path:
    return BUILT if (BUILT / "index.html").is_file() else PLAIN
