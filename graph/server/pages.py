"""The pages for browsers: the console, and GraphiQL; without their builds, a plain page."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from graph.settings import Settings

HERE = Path(__file__).parents[1]
BUILT, PLAIN, CONSOLE = HERE / "graphiql" / "dist", HERE / "plain", HERE / "console" / "dist"

# The pages load only from this server, and no site may frame them. The editor of GraphiQL sets
# inline styles, and its style sheet contains its images and fonts.
POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self';"
    " style-src 'self' 'unsafe-inline'; img-src data:; font-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# The console does without all of that, and never turns text into HTML or code.
CONSOLE_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)

# Built files have the hash of their contents in their names, so that they never change.
FOREVER = "public, max-age=31536000, immutable"


def headers(cache: str, policy: str) -> dict[str, str]:
    """The headers of a page and of its files."""
    return {
        "Cache-Control": cache,
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
    }


def accepts_gzip(request_headers: Headers) -> bool:
    """Whether gzip, or else `*`, is among the accepted encodings with a weight above 0."""
    weights: dict[str, str] = {}
    for each in ",".join(request_headers.getlist("accept-encoding")).lower().split(","):
        coding, _, weight = each.replace(" ", "").partition(";q=")
        weights[coding] = weight
    weight = weights.get("gzip", weights.get("*", "0"))
    return not re.fullmatch(r"0(\.0*)?", weight)


class Files(StaticFiles):
    """The files of a folder, with a strict content security policy.

    Those that the build compressed too, as `NAME.gz`, are sent so to those who accept it.
    """

    def __init__(self, folder: Path, cache: str, policy: str = POLICY) -> None:
        super().__init__(directory=folder)
        self.headers = {**headers(cache, policy), "Vary": "Accept-Encoding"}
        self.compressed = {path.stem for path in folder.glob("*.gz")}

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, with the headers."""
        if path.endswith(".gz"):
            raise HTTPException(404)
        is_compressed = path in self.compressed and accepts_gzip(Headers(scope=scope))
        response = await super().get_response(f"{path}.gz" if is_compressed else path, scope)
        response.headers.update(self.headers)
        if is_compressed:
            response.headers["Content-Encoding"] = "gzip"
        return response


class Page(Files):
    """The page at `/graphql`."""

    def __init__(self) -> None:
        super().__init__(_folder(), "no-cache")
        self.headers["Vary"] = "Accept"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the page."""
        response = await self.get_response("index.html", scope)
        await response(scope, receive, send)

    def is_requested(self, scope: Scope) -> bool:
        """Whether a request has no operation and accepts HTML explicitly, as those of browsers."""
        if scope["method"] not in ("GET", "HEAD"):
            return False
        request = Request(scope)
        accepted = request.headers.get("accept", "").lower()
        return "query" not in request.query_params and "text/html" in accepted


def routes(settings: Settings) -> list[BaseRoute]:
    """The routes for the console at `/`, and for the files of GraphiQL, which is at `/graphql`."""
    found: list[BaseRoute] = []
    if serves_console(settings):
        found += [
            Route("/", _console(has_graphiql=settings.shows_graphiql)),
            Mount("/console", Files(CONSOLE / "assets", FOREVER, CONSOLE_POLICY)),
        ]
    elif settings.shows_graphiql:
        found.append(Route("/", RedirectResponse("/graphql")))
    if settings.shows_graphiql:
        cache = FOREVER if _folder() == BUILT else "no-cache"
        found.append(Mount("/graphiql", Files(_folder() / "assets", cache)))
    return found


def serves_console(settings: Settings) -> bool:
    """Whether the console is wanted, and built."""
    return settings.console and _is_built(CONSOLE)


def _console(*, has_graphiql: bool) -> Callable[[Request], Awaitable[Response]]:
    """The page at `/`, which says whether it can lead to GraphiQL."""
    text = (CONSOLE / "index.html").read_text(encoding="utf-8")
    page = text if has_graphiql else text.replace(" data-graphiql", "", 1)

    async def respond(_: Request) -> Response:
        return HTMLResponse(page, headers=headers("no-cache", CONSOLE_POLICY))

    return respond


def _folder() -> Path:
    return BUILT if _is_built(BUILT) else PLAIN


def _is_built(folder: Path) -> bool:
    return (folder / "index.html").is_file()
