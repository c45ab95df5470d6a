"""What every answer over HTTP has in common: the request's id, and headers that browsers heed."""

from __future__ import annotations

import logging
import re
import secrets
from itertools import count

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.execution.logs import request_id
from graph.execution.masking import masked

log = logging.getLogger("troupe")

# What a client or a proxy may call a request, so that it can stand in a header and in a line.
ID = re.compile(rb"[\w.:/+=-]{1,100}")

# What the ids begin with that this process gives, and what they go on with.
PROCESS = secrets.token_hex(6)
_number = count(0x1000)

# Nothing here is for other sites to frame, to load, or to guess the type of. An answer is for the
# one who asked, and is kept by nobody. What the page needs beyond that it says itself.
HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


NAMES = frozenset(name for name, _ in HEADERS)


class ResponseMiddleware:
    """Adds the headers that every response has, and masks faults; the outermost layer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the headers; the response to a fault has nothing but its id."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        id = _id(scope)
        # Where a handshake is not followed by a socket, but answered.
        prefix = "websocket." if scope["type"] == "websocket" else ""
        start, started = f"{prefix}http.response.start", False

        async def sent(message: Message) -> None:
            nonlocal started
            kind = message["type"]
            if kind == "websocket.accept":
                started = True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", id.encode())]
            elif kind == start:
                started = True
                headers = list(message.get("headers", ()))
                present = [name for name, _ in headers]
                if NAMES.isdisjoint(present):
                    headers += HEADERS
                else:
                    headers += [header for header in HEADERS if header[0] not in present]
                headers.append((b"x-request-id", id.encode()))
                message["headers"] = headers
            await send(message)

        previous = request_id.set(id)
        try:
            await self.app(scope, receive, sent)
        except Exception as error:
            if started:
                raise
            body = orjson.dumps({"errors": [masked(error).formatted]})
            about = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await sent({"type": start, "status": 500, "headers": about})
            await sent({"type": f"{prefix}http.response.body", "body": body})
        finally:
            request_id.reset(previous)


def _id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and ID.fullmatch(value):
            return str(value, "ascii")
    return f"{PROCESS}{next(_number):x}"
