"""Serving: sockets, the banner, and uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import sys
import time
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette

from db import Database, User, Viewer, access
from db.settings import SettingsError
from graph.app import create_app
from graph.execution import logs
from graph.server.protocols import READ_TIMEOUT, Connection, WebSocket
from graph.settings import Mode, Settings

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from types import FrameType

    from db.embedded import Server

# How long a connection may be silent between two requests, in seconds: longer than proxies keep
# theirs (mostly 60), because one that sends on what is just being closed tells its client 502.
IDLE_SECONDS = 75

# After how long Python changes to another thread that waits, in seconds; otherwise after 5 ms.
SWITCH_SECONDS = 0.001


def listen(settings: Settings) -> list[socket.socket]:
    """Sockets on the address to serve on, taken before anything else is started."""
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror:
        raise SettingsError(
            f"TROUPE_HOST={settings.host} is no address of this machine; write 127.0.0.1."
        ) from None
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Who reads nothing of its answer is hung up on; connections inherit it. In milliseconds.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * READ_TIMEOUT)
    try:
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        another = settings.port + 1 if 1024 <= settings.port < 65535 else 8000
        raise SettingsError(
            f"Cannot serve on {settings.host}:{settings.port} ({error.strerror});"
            f" set TROUPE_PORT to another port, such as {another}."
        ) from None
    return [listening]


async def _development_token(url: str) -> tuple[User, str] | None:
    """An administrator, and a token of theirs for whoever reads the terminal."""
    database = Database(url)
    try:
        async with database.write(Viewer(is_administrator=True)) as session:
            return await access.development_token(session)
    finally:
        await database.dispose()


def _is_news(record: logging.LogRecord) -> bool:
    """Not what is cancelled at a second Ctrl-C or after the grace, of which uvicorn tells all."""
    return "asyncio.exceptions.CancelledError" not in logging.Formatter().format(record)


class DrainingServer(uvicorn.Server):
    """A server that says for a while that it stops, before it takes no more requests."""

    def __init__(self, app: Starlette, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                timeout_keep_alive=IDLE_SECONDS,
                forwarded_allow_ips=[*settings.trusted_proxies, *settings.mapped_proxies],
                log_config=None,
                log_level=logging.WARNING,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=settings.grace_seconds,
                ws=WebSocket,
                ws_max_size=settings.max_body_bytes,
                # A few compressed bytes could be any number of others.
                ws_per_message_deflate=False,
                ws_ping_interval=20,
                ws_ping_timeout=20,
            )
        )
        self._app = app
        self._drain = settings.drain_seconds
        self._signals = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Be asked to stop."""
        self._signals += 1
        super().handle_exit(sig, frame)

    async def main_loop(self) -> None:
        """Serve until asked to stop, and then until those who look have seen it."""
        await super().main_loop()
        self._app.state.draining = True
        asked = self._signals
        for _ in range(10 * self._drain):
            if self._signals > asked:  # somebody has no patience
                break
            await asyncio.sleep(0.1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, after what is under way has ended or has run out of time.

        uvicorn closes WebSockets before it waits for anything, so what is under way on them ends
        first. What is left of the time is for requests.
        """
        for server in self.servers:
            server.close()
        grace = self.config.timeout_graceful_shutdown or 0
        began = time.monotonic()
        ending = asyncio.create_task(self._app.state.sockets.end(grace))
        while not ending.done() and not self.force_exit:
            await asyncio.wait([ending], timeout=0.1)
        spent = int(time.monotonic() - began)
        self.config.timeout_graceful_shutdown = max(0, grace - spent)
        await super().shutdown(sockets)


def allow_many_connections() -> None:
    """Let this process have as many files open as it may.

    Most systems start processes with 1,024, for the sake of old programs: so many idle connections
    would keep everybody else out.
    """
    if sys.platform == "win32":  # which has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # macOS calls it unlimited, and means fewer
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def freeze() -> None:
    """Have the garbage collector look no more at what is loaded by now, which stays.

    It would do so again and again while it reads a request of many values.
    """
    gc.freeze()
    # It waits with its next full collection until a quarter of what the last one found has come
    # anew, which would be far more than it can visit unnoticed. This one finds next to nothing.
    gc.collect()


def run(settings: Settings, url: str, sockets: list[socket.socket], server: Server | None) -> None:
    """Serve until asked to stop; what is in flight then has some seconds to finish."""
    logs.configure(readable=settings.mode is Mode.DEVELOPMENT)
    logs.operations.disabled = not settings.log_operations
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    host, port = sockets[0].getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    lines = [f"Troupe serves {address}/graphql, health at {address}/livez and {address}/readyz."]
    if server is not None:
        lines.append(f"The database is its own, in {server.data_dir}.")
    if settings.mode is Mode.DEVELOPMENT:
        issued = asyncio.run(_development_token(url))
        if issued is None:
            lines.append("No administrator is active, so there is no token to print.")
        else:
            user, token = issued
            name = user.username
            lines.append(f"A token for the user {name}, new at each start and good for 12 hours:")
            lines.append(f"  {token}")
            if settings.shows_page:
                lines.append("A page to try the API on, which this link opens with the token:")
                lines.append(f"  {address}/graphql#token={token}")
    lines.append("Ctrl-C stops it.")
    print("\n".join(lines), flush=True)
    allow_many_connections()
    app = create_app(settings, url, server)
    freeze()
    # So long a thread that makes plans keeps those waiting who are answered meanwhile.
    sys.setswitchinterval(SWITCH_SECONDS)
    DrainingServer(app, settings).run(sockets=sockets)
