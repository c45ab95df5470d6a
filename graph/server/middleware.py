"""Middleware: the id of the request, the headers of every response, and unexpected errors."""

from __future__ import annotations

import logging
import re
import secrets
from itertools import count

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.execution.logs import request_id
from graph.execution.masking import masked

log = logging.getLogger("troupe")

# The form of an id in a client's `X-Request-Id`: it is copied into a header and into the log.
ID = re.compile(rb"[\w.:/+=-]{1,100}")

# The ids that this process creates: a random prefix and a number.
PROCESS = secrets.token_hex(6)
_number = count(0x1000)

# Other sites may not frame or load a response, and nothing may cache it or guess its type. The
# pages set their own headers instead.
HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]

# The messages with headers; the last is the response to a WebSocket handshake that is refused.
STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class ResponseMiddleware:
    """Adds headers to every response, and answers unexpected errors; the outermost middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application; the response to an unexpected error contains only its id."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        id = _id(scope)
        started = False

        async def sent(message: Message) -> None:
            nonlocal started
            kind = message["type"]
            if kind in STARTS:
                started = True
                headers = list(message.get("headers", ()))
                if kind != "websocket.accept":
                    present = dict(headers)
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
            response = JSONResponse({"errors": [masked(error).formatted]}, 500)
            await response(scope, receive, sent)
        finally:
            request_id.reset(previous)


def _id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and ID.fullmatch(value):
            return str(value, "ascii")
    return f"{PROCESS}{next(_number):x}"
