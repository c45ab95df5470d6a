"""What a person sees in a browser: GraphiQL where it was built, and a plain page elsewhere."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

HERE = Path(__file__).parents[1]
BUILT, PLAIN = HERE / "graphiql" / "dist", HERE / "plain"

# The pages ask nobody but this server, run nobody's code but ours, and stand in nobody's frame.
# The editor sets styles of its own, and its style sheet carries its pictures and fonts.
POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self';"
    " style-src 'self' 'unsafe-inline'; img-src data:; font-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Files(StaticFiles):
    """The files of a folder, as strict as a browser can be told to be."""

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
    """`/graphql`: a page for a browser that asks for one, and the API for everybody else."""

    def __init__(self, api: ASGIApp) -> None:
        self.api = api
        self.page = Files(_folder(), "no-cache")
        self.page.headers["Vary"] = "Accept"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the one or the other."""
        if scope["method"] in ("GET", "HEAD") and wants_page(Request(scope)):
            response = await self.page.get_response("index.html", scope)
            await response(scope, receive, send)
        else:
            await self.api(scope, receive, send)


def wants_page(request: Request) -> bool:
    """Whether HTML is asked for by name, as browsers do, and no operation is sent along."""
    accepted = request.headers.get("accept", "").lower()
    return "query" not in request.query_params and "text/html" in accepted


def routes() -> list[BaseRoute]:
    """What belongs to the page, which is at `/graphql`."""
    # What was built is named by its contents, so that a name never means anything else.
    cache = "public, max-age=31536000, immutable" if _folder() == BUILT else "no-cache"
    return [
        Route("/", RedirectResponse("/graphql")),
        Mount("/graphiql", Files(_folder() / "assets", cache)),
    ]


def _folder() -> Path:
    return BUILT if (BUILT / "index.html").is_file() else PLAIN
