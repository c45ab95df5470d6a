"""`/mcp` over HTTP: what is checked before the SDK gets a request.

https://modelcontextprotocol.io/specification/2026-07-28/basic/transports/streamable-http
"""

from __future__ import annotations

import asyncio
import contextvars
from functools import partial
from importlib import import_module
from typing import Any

import orjson
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.core.threads import in_thread
from graph.execution.logs import LogEntry
from graph.execution.masking import reported
from graph.execution.pipeline import Pipeline
from graph.execution.responses import Response
from graph.execution.tokens import bearer_token
from graph.mcp.calls import SCOPE_KEY, Caller
from graph.server.disconnects import Disconnect
from graph.server.origins import Origins
from graph.server.requests import (
    Headers,
    HTTPError,
    headers_of,
    parse_object,
    read_json,
    traceparent,
)
from graph.server.state import AppState

INVALID_REQUEST = -32600
INTERNAL_ERROR = -32603

# The methods that execute an operation, which charges the request itself.
OPERATIONS = ("tasks/", "tools/call")


class MCPEndpoint:
    """The Model Context Protocol over HTTP, for clients with an access token."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._start: asyncio.Task[ASGIApp] | None = None
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and log it."""
        with LogEntry("mcp", traceparent(headers_of(scope))) as entry:
            message: dict[str, Any] = {}
            is_begun = False

            async def sent(part: Message) -> None:
                nonlocal is_begun
                if part["type"] == "http.response.start":
                    is_begun = True
                    entry.status = part["status"]
                    part["headers"] = [*part["headers"], (b"server-timing", entry.timing())]
                await send(part)

            try:
                await self._respond(scope, receive, sent, entry, message)
            except ClientDisconnect:
                return
            except Exception as error:
                if is_begun:
                    raise
                await _refuse(error, message.get("id"), entry, sent)

    async def _respond(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        entry: LogEntry,
        message: dict[str, Any],
    ) -> None:
        """Check a request, and pass it on. `message` becomes the message of the request."""
        pipeline, headers, client = self._pipeline, headers_of(scope), scope.get("client")
        state: AppState = scope["app"].state
        _check_origin(headers, state.origins)
        if scope["method"] != "POST":
            raise HTTPError("Use POST.", 405, headers=[(b"allow", b"POST")])
        body = await read_json(headers, receive, pipeline.limits.settings.max_body_bytes)
        message |= parse_object("The body", body)
        token = bearer_token(headers.get(b"authorization", b"").decode("latin-1"))
        with Disconnect(state, receive) as disconnect:
            pipeline.timer.add(disconnect)
            caller = Caller(
                pipeline,
                state.tokens,
                token,
                client[0] if client else None,
                _arguments(message),
                entry,
                disconnect,
            )
            charges = not str(message.get("method")).startswith(OPERATIONS)
            await caller.authenticate(charges=charges)
            server = await self._server()
            await server({**scope, SCOPE_KEY: caller}, _replayed(body), send)

    async def _server(self) -> ASGIApp:
        """The server of the SDK, which is imported and started for the first request."""
        if self._start is None or (self._start.done() and self._start.exception() is not None):
            # In an empty context, because the server outlives this request.
            self._start = asyncio.create_task(self._started(), context=contextvars.Context())
        return await asyncio.shield(self._start)

    async def _started(self) -> ASGIApp:
        module = await in_thread(partial(import_module, "graph.mcp.server"))
        manager = module.ToolServer(self._pipeline).manager
        ready = asyncio.Event()

        async def run() -> None:
            async with manager.run():
                ready.set()
                await asyncio.Event().wait()  # until the application ends

        self._running = asyncio.create_task(run())
        await ready.wait()
        app: ASGIApp = manager.handle_request
        return app


def _check_origin(headers: Headers, origins: Origins) -> None:
    """Refuse pages of other sites, also those that a name server has led here (DNS rebinding)."""
    origin = headers.get(b"origin", b"").decode("latin-1")
    if origin and not origins.allows(origin):
        raise HTTPError("Pages of this origin may not use it (TROUPE_ALLOWED_ORIGINS).", 403)


def _arguments(message: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of a tool; the SDK checks the message."""
    params = message.get("params")
    arguments = params.get("arguments") if isinstance(params, dict) else None
    return arguments if isinstance(arguments, dict) else {}


def _replayed(body: bytes) -> Receive:
    """Receives a body that was read before. `Disconnect` waits for the disconnection."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not parts:
            await asyncio.Event().wait()
        return parts.pop()

    return receive


async def _refuse(error: Exception, id: Any, entry: LogEntry, send: Send) -> None:
    """Answer a request that is refused, by an error of JSON-RPC."""
    refusal = Response.refusal(reported(error))
    status = error.status if isinstance(error, HTTPError) else refusal.status
    headers = list(error.headers) if isinstance(error, HTTPError) else []
    (shown,), (code,) = refusal.errors, refusal.codes
    entry.answer(refusal)
    if code == "UNAUTHENTICATED":
        headers.append((b"www-authenticate", b"Bearer"))
    wait = (shown.extensions or {}).get("retryAfter")
    if wait is not None:
        headers.append((b"retry-after", b"%d" % wait))
    body = orjson.dumps(
        {
            "jsonrpc": "2.0",
            "id": id if isinstance(id, str | int) else None,
            "error": {
                "code": INVALID_REQUEST if status < 500 else INTERNAL_ERROR,
                "message": shown.message,
                "data": shown.extensions,
            },
        }
    )
    headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
