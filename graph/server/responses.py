"""Responses over HTTP."""

from __future__ import annotations

import orjson
from starlette.types import Send

from graph.execution.responses import Response
from graph.execution.run import WRITTEN
from graph.server.requests import GRAPHQL_RESPONSE, JSON, HTTPError

CONTENT_TYPES = {
    media: (b"content-type", f"{media}; charset=utf-8".encode())
    for media in (JSON, GRAPHQL_RESPONSE)
}


WRITTEN_HEADER = b"troupe-written"
"""The header with the token of the last write."""


class HTTPResponse:
    """A response over HTTP."""

    def __init__(self, response: Response, media: str, status: int | None = None) -> None:
        self.codes, self.limits = response.codes, response.limits
        # With plain JSON, another status than 200 would look like an error of a proxy.
        self.status = status or (200 if media == JSON else response.status)
        # No spaces, as in the JSON of PostgreSQL, which is a fragment of the body.
        self.body = orjson.dumps(response.body)
        self.headers = [
            CONTENT_TYPES[media],
            (b"content-length", b"%d" % len(self.body)),
            (b"vary", b"Accept"),
        ]
        if written := response.body.get("extensions", {}).get(WRITTEN):
            self.headers.append((WRITTEN_HEADER, written.encode()))
        if not response.errors:
            return
        if "UNAUTHENTICATED" in self.codes:
            self.headers.append((b"www-authenticate", b"Bearer"))
        waits = [(error.extensions or {}).get("retryAfter") for error in response.errors]
        if waits := [wait for wait in waits if wait is not None]:
            self.headers.append((b"retry-after", b"%d" % max(waits)))

    @classmethod
    def refusal(cls, error: HTTPError, media: str = JSON) -> HTTPResponse:
        """The response to a request that is refused with this error."""
        refused = cls(Response.refusal(error), media, error.status)
        refused.headers += error.headers
        return refused

    async def __call__(self, send: Send) -> None:
        """Send the response."""
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body})
