"""Which pages may use the API: those of this server, and those of allowed origins."""

from __future__ import annotations

import logging
import re
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from graph.settings import Mode, Settings

log = logging.getLogger("troupe")

# Where a developer's own servers are. `localhost` is loopback in every browser.
LOOPBACK = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")

PORTS = {"http": 80, "https": 443}

# The log names this many origins, so that a program that makes them up cannot fill the memory.
MOST_LOGGED = 100

# The headers that pages of other origins may send.
ALLOWED_HEADERS = (
    "Authorization",
    "Content-Type",
    "Last-Event-ID",
    "Mcp-Method",
    "Mcp-Name",
    "MCP-Protocol-Version",
    "Troupe-Written",
    "X-GraphQL-Event-Stream-Token",
    "traceparent",
    "tracestate",
    "X-Request-Id",
    "X-Troupe-Explain",
)


class Origins:
    """The origins whose pages may use the API.

    They are those of TROUPE_ALLOWED_ORIGINS. In development without this setting, they are all on
    loopback: a frontend has a server of its own while it is written.
    """

    def __init__(self, settings: Settings) -> None:
        self.allowed = settings.allowed_origins
        self.are_on_loopback = settings.mode is Mode.DEVELOPMENT and not self.allowed
        self._logged: set[str] = set()

    def __bool__(self) -> bool:
        """Whether any other origin is allowed."""
        return bool(self.allowed) or self.are_on_loopback

    def allows(self, origin: str) -> bool:
        """Whether pages of another origin may use the API."""
        if "*" in self.allowed or origin in self.allowed:
            return True
        if not self.are_on_loopback or not LOOPBACK.fullmatch(origin):
            return False
        if origin not in self._logged and len(self._logged) < MOST_LOGGED:
            self._logged.add(origin)
            log.info(
                "pages of %s may use the API, because this is a development server; in production,"
                " set TROUPE_ALLOWED_ORIGINS to the origin of your frontend",
                origin,
            )
        return True

    def allows_handshake(self, origin: str | None, host: str) -> bool:
        """Whether the client is a program, or a page of this server or of an allowed origin."""
        return origin is None or is_own(origin, host) or self.allows(origin)


def is_own(origin: str, host: str) -> bool:
    """Whether a page of this origin is of this server, which the client calls by this host."""
    scheme, _, place = origin.partition("://")
    return bool(place) and host.lower() in (place, f"{place}:{PORTS.get(scheme)}")


class CORS(CORSMiddleware):
    """Tells browsers that pages of the allowed origins may read the answers."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        options: dict[str, Any] = {
            "allow_origins": origins.allowed,
            "allow_methods": ("DELETE", "GET", "POST", "PUT"),
            "allow_headers": ALLOWED_HEADERS,
            "expose_headers": (
                "Retry-After",
                "Server-Timing",
                "Troupe-Written",
                "WWW-Authenticate",
                "X-Request-Id",
            ),
            "max_age": 7200,  # the maximum in browsers
        }
        super().__init__(app, **options)
        self.origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a page of this server without headers for other origins, which it needs not."""
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        if is_own(headers.get("origin", ""), headers.get("host", "")):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether pages of an origin may use the API."""
        return self.origins.allows(origin)
