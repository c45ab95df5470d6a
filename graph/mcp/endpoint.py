"""`/mcp` over HTTP: what is checked before the SDK gets a request.

https://modelcontextprotocol.io/specification/2026-07-28/basic/transports/streamable-http
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

import orjson
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.core.errors import BadRequest
from graph.core.threads import in_thread
from graph.execution.logs import log_refusal
from graph.execution.masking import reported
from graph.execution.pipeline import Pipeline
from graph.execution.responses import Response
from graph.execution.tokens import bearer_token
from graph.mcp.calls import SCOPE_KEY, TRANSPORT, Caller
from graph.server.disconnects import Disconnect
from graph.server.origins import Origins
from graph.server.requests import (
    Headers,
    HTTPError,
    NotJSON,
    headers_of,
    parse_object,
    read_json,
    traceparent,
)
from graph.server.state import AppState

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020

VERSION_HEADER = "mcp-protocol-version"
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
"""Where a message names its version: since 2026-07-28 in `_meta`, and the same in the header."""

# The methods that execute an operation, which charges the request itself.
OPERATIONS = {"tasks/cancel", "tasks/get", "tasks/update", "tools/call"}


class HeaderMismatch(HTTPError):
    """A header is missing, or says something else than the message."""


CODES: dict[type, int] = {HeaderMismatch: HEADER_MISMATCH, NotJSON: PARSE_ERROR}
"""The codes of errors that have one of their own."""


class Exchange:
    """A request, as far as it is known."""

    id: Any = None
    caller: Caller | None = None

    def log_refusal(self, status: int, codes: list[str], limits: Sequence[str] = ()) -> None:
        """Log and count that it is refused, unless an operation has run, which is logged itself."""
        if self.caller is None or not self.caller.has_run:
            log_refusal(TRANSPORT, status, codes, limits)


class MCPEndpoint:
    """The Model Context Protocol over HTTP, for clients with an access token."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._start: asyncio.Task[ASGIApp] | None = None
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. An operation is logged where it runs, all other refusals here."""
        exchange = Exchange()
        try:
            response = await self._respond(scope, receive, exchange)
        except ClientDisconnect:
            return
        except Exception as error:
            response = _refused(error, exchange)
        for part in response:
            await send(part)

    async def _respond(self, scope: Scope, receive: Receive, exchange: Exchange) -> list[Message]:
        """Check a request, and pass it on. The response is kept until it is charged."""
        pipeline, headers, client = self._pipeline, headers_of(scope), scope.get("client")
        state: AppState = scope["app"].state
        _check_origin(headers, state.origins)
        if scope["method"] != "POST":
            raise HTTPError("Use POST.", 405, headers=[(b"allow", b"POST")])
        body = await read_json(headers, receive, pipeline.limits.settings.max_body_bytes)
        message = parse_object("The body", body)
        exchange.id, params = message.get("id"), _object(message.get("params"))
        meta = _object(params.get("_meta"))
        _check_version(headers, meta)
        named = meta.get("traceparent")
        token = bearer_token(headers.get(b"authorization", b"").decode("latin-1"))
        with Disconnect(state, receive) as disconnect:
            pipeline.timer.add(disconnect)
            caller = exchange.caller = Caller(
                pipeline,
                state.tokens,
                token,
                client[0] if client else None,
                _object(params.get("arguments")),
                named if isinstance(named, str) else traceparent(headers),
                disconnect,
            )
            await caller.authenticate(charges=message.get("method") not in OPERATIONS)
            server = await self._server()
            response: list[Message] = []

            async def keep(part: Message) -> None:
                response.append(part)

            await server({**scope, SCOPE_KEY: caller}, _replayed(body), keep)
            if not caller.is_charged:
                caller.charge()
        status = response[0]["status"] if response else 200
        if status == 406:  # the SDK does not say why
            raise HTTPError("Send the header `Accept: application/json, text/event-stream`.", 406)
        if status >= 400:
            exchange.log_refusal(status, [BadRequest.code])
        return response

    async def _server(self) -> ASGIApp:
        """The server of the SDK, which is imported and started for the first request.

        It is started again if it could not be started, or has ended by an error.
        """
        if self._start is None or (self._start.done() and not self._is_running()):
            # In an empty context, because the server outlives this request.
            self._start = asyncio.create_task(self._started(), context=contextvars.Context())
        return await asyncio.shield(self._start)

    def _is_running(self) -> bool:
        return self._running is not None and not self._running.done()

    async def _started(self) -> ASGIApp:
        module = await in_thread(partial(import_module, "graph.mcp.server"))
        manager = module.ToolServer(self._pipeline).manager
        ready = asyncio.Event()

        async def run() -> None:
            try:
                async with manager.run():
                    ready.set()
                    await asyncio.Event().wait()  # until the application ends
            finally:
                ready.set()

        self._running = asyncio.create_task(run())
        await ready.wait()
        app: ASGIApp = manager.handle_request
        return app


def _check_origin(headers: Headers, origins: Origins) -> None:
    """Refuse pages of other sites, also those that a name server has led here (DNS rebinding).

    A page of this server itself is refused too, unless its origin is allowed. A page of DNS
    rebinding names its own host in `Origin` and in `Host`, so `Origins.allows_handshake` would take
    it for such a page. No page of this server uses `/mcp`.
    """
    origin = headers.get(b"origin", b"").decode("latin-1")
    if origin and not origins.allows(origin):
        raise HTTPError("Pages of this origin may not use it (TROUPE_ALLOWED_ORIGINS).", 403)


def _check_version(headers: Headers, meta: dict[str, Any]) -> None:
    """Refuse a message of a version that has headers, without the same version in the header.

    The SDK takes the version from the header alone, and serves such a message by the rules of an
    older one, which checks no headers. A proxy that decides by them would be deceived.
    """
    version = meta.get(VERSION_KEY)
    if (
        version is not None
        and headers.get(VERSION_HEADER.encode(), b"").decode("latin-1") != version
    ):
        raise HeaderMismatch(
            f"The header {VERSION_HEADER} does not match protocolVersion in _meta of the message."
        )


def _object(value: Any) -> dict[str, Any]:
    """A part of a message that is an object; the SDK checks the message."""
    return value if isinstance(value, dict) else {}


def _replayed(body: bytes) -> Receive:
    """Receives a body that was read before. `Disconnect` waits for the disconnection."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not parts:
            await asyncio.Event().wait()
        return parts.pop()

    return receive


def _refused(error: Exception, exchange: Exchange) -> list[Message]:
    """The response to a request that is refused: an error of JSON-RPC."""
    refusal = Response.refusal(reported(error))
    status = error.status if isinstance(error, HTTPError) else refusal.status
    headers = list(error.headers) if isinstance(error, HTTPError) else []
    (shown,), (code,) = refusal.errors, refusal.codes
    exchange.log_refusal(status, [code], refusal.limits)
    if code == "UNAUTHENTICATED":
        headers.append((b"www-authenticate", b"Bearer"))
    wait = (shown.extensions or {}).get("retryAfter")
    if wait is not None:
        headers.append((b"retry-after", b"%d" % wait))
    number = INVALID_REQUEST if status < 500 else INTERNAL_ERROR
    number = CODES.get(type(error), number)
    body = orjson.dumps(
        {
            "jsonrpc": "2.0",
            "id": exchange.id if isinstance(exchange.id, str | int) else None,
            "error": {
                "code": number,
                "message": shown.message,
                "data": shown.extensions,
            },
        }
    )
    headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return [
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": body},
    ]
