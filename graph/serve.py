"""Serving: the socket, the messages at the start, and uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette

from db import User
from db.settings import SettingsError
from graph.app import Background, create_app
from graph.execution import logs
from graph.metrics.joined import JoinedMetrics, listen_on_loopback
from graph.processes import Processes
from graph.server import pages
from graph.server.protocols import READ_TIMEOUT, HTTPProtocol, WebSocketProtocol
from graph.settings import Mode, Settings
from graph.tracing import activation

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from types import FrameType

    from db.embedded import Server

# How long a connection may be idle, in seconds. Longer than in proxies (mostly 60): a proxy that
# sends a request on a connection that is being closed answers its client with 502.
IDLE_SECONDS = 75

# The interval after which Python switches to another thread, in seconds; the default is 5 ms.
SWITCH_SECONDS = 0.001


def listen(settings: Settings) -> socket.socket:
    """Open the socket of the server. This is done first, because the port may be in use."""
    return _listen(settings.host, settings.port, "")


def listen_for_metrics(
    settings: Settings,
) -> contextlib.AbstractContextManager[socket.socket | None]:
    """Open the socket of the metrics, if they have a port of their own."""
    if settings.metrics_port is None:
        return contextlib.nullcontext()
    return _listen(settings.metrics_host, settings.metrics_port, "METRICS_")


def _listen(host: str, port: int, setting: str) -> socket.socket:
    """Open a socket. `setting` is part of the names of the settings with its address."""
    not_here = SettingsError(
        f"TROUPE_{setting}HOST={host} is not an address of this machine; write 127.0.0.1."
    )
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror:
        raise not_here from None
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Closes connections whose client does not read the response. In milliseconds; connections
        # inherit it.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * READ_TIMEOUT)
    try:
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise not_here from None
        another = port + 1 if 1024 <= port < 65535 else 8000
        raise SettingsError(
            f"Cannot listen on {host}:{port} ({error.strerror});"
            f" set TROUPE_{setting}PORT to another port, such as {another}."
        ) from None
    return listening


def base_url(address: Sequence[Any]) -> str:
    """The URL of a server that listens on this address of a socket: host and port."""
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """False for cancelled requests, which uvicorn logs when it is forced to stop."""
    return "asyncio.exceptions.CancelledError" not in logging.Formatter().format(record)


class MetricsServer(uvicorn.Server):
    """The server of the metrics, which another server starts and stops."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=HTTPProtocol,
                lifespan="off",
                ws="none",
                log_config=None,
                log_level=logging.WARNING,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The other server gets the signals."""
        yield


class DrainingServer(uvicorn.Server):
    """A server that keeps accepting requests for a while after the signal to stop."""

    def __init__(
        self, app: Starlette, settings: Settings, metrics: socket.socket | None = None
    ) -> None:
        """`metrics` is the socket of the metrics, if they have a port of their own."""
        super().__init__(
            uvicorn.Config(
                app,
                http=HTTPProtocol,
                timeout_keep_alive=IDLE_SECONDS,
                forwarded_allow_ips=[*settings.trusted_proxies, *settings.mapped_proxies],
                log_config=None,
                log_level=logging.WARNING,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=settings.grace_seconds,
                ws=WebSocketProtocol,
                ws_max_size=settings.max_body_bytes,
                # A small compressed message could decompress to a very large one.
                ws_per_message_deflate=False,
                ws_ping_interval=20,
                ws_ping_timeout=20,
            )
        )
        self._app = app
        self._drain = settings.drain_seconds
        self._signals = 0
        self._metrics_socket = metrics
        self._metrics: tuple[MetricsServer, asyncio.Task[None]] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Count the signals to stop."""
        self._signals += 1
        super().handle_exit(sig, frame)

    async def main_loop(self) -> None:
        """Serve until a signal to stop, and then until the time for draining has passed."""
        if self._metrics_socket is not None:
            server = MetricsServer(self._app.state.metrics.app())
            self._metrics = server, asyncio.create_task(server.serve([self._metrics_socket]))
        await super().main_loop()
        logs.server.info("stopping", extra={"fields": {"draining": self._drain}})
        self._app.state.draining = True
        signals = self._signals
        for _ in range(10 * self._drain):
            if self._signals > signals:  # a second signal skips the rest
                break
            await asyncio.sleep(0.1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, after running operations have ended or the grace period has passed.

        uvicorn closes WebSockets before it waits for requests, and event streams end only if they
        are told to. So operations on both are ended first, and the rest of the grace period is for
        other requests.
        """
        for server in self.servers:
            server.close()
        self._app.state.database.answers.waiters.close()
        grace = self.config.timeout_graceful_shutdown or 0
        began = time.monotonic()
        state = self._app.state
        ending = asyncio.gather(state.sockets.shut_down(grace), state.streams.shut_down(grace))
        while not ending.done() and not self.force_exit:
            await asyncio.wait([ending], timeout=0.1)
        spent = int(time.monotonic() - began)
        self.config.timeout_graceful_shutdown = max(0, grace - spent)
        if self._metrics is not None:
            metrics, serving = self._metrics
            metrics.should_exit = True
            await serving
        await super().shutdown(sockets)


def allow_many_connections() -> None:
    """Raise the limit of open files to its maximum.

    By default it is mostly 1,024, so that a thousand idle connections would block all others.
    """
    if sys.platform == "win32":  # has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # macOS reports no limit, but has one
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def freeze() -> None:
    """Exclude all present objects, which are never freed, from garbage collection.

    Otherwise the collector would visit them repeatedly during a request with many values.
    """
    gc.freeze()
    # The collector starts a full collection when new objects exceed a quarter of those that
    # survived the last one. After this one, that number is small, so full collections stay short.
    gc.collect()
    # A request with resolvers makes thousands of objects, and few of them in reference cycles.
    gc.set_threshold(10_000)


def run(
    settings: Settings,
    url: str,
    listening: socket.socket,
    metrics: socket.socket | None,
    server: Server | None,
    development_token: tuple[User, str] | None,
    background: Iterable[Background] = (),
) -> None:
    """Serve until a signal to stop; then running operations have a grace period.

    `metrics` is the socket of the metrics, if they have a port of their own.
    """
    configure_logs(settings)
    address = base_url(listening.getsockname())
    lines = [f"Troupe serves {address}/graphql, and health checks at {address}/livez and /readyz."]
    if server is not None:
        lines.append(f"The embedded database is in {server.data_dir}.")
    if settings.mode is Mode.DEVELOPMENT:
        if development_token is None:
            lines.append("There is no active administrator, so no token was created.")
        else:
            user, token = development_token
            lines.append(f"An access token for the user {user.username}, valid for 12 hours:")
            lines.append(f"  {token}")
            if pages.serves_console(settings):
                lines += ["The console, with this token:", f"  {address}/#token={token}"]
            elif settings.shows_graphiql:
                lines += ["A page, with this token:", f"  {address}/graphql#token={token}"]
    if metrics is not None:
        lines.insert(1, f"Metrics for Prometheus are at {base_url(metrics.getsockname())}/metrics.")
    if not settings.log_operations:
        lines.append("Operations are not logged; with TROUPE_LOG_OPERATIONS=true they are.")
    lines.append("Ctrl-C stops it.")
    if settings.mode is Mode.DEVELOPMENT:
        print("\n".join(lines), flush=True)
    else:
        logs.server.info(" ".join(lines), extra={"fields": {"version": version("troupe")}})
    if settings.processes > 1:
        run_several(settings, url, listening, metrics)
    else:
        serve(settings, url, listening, server, metrics, background)


def configure_logs(settings: Settings) -> None:
    """Configure the logs of a process that serves."""
    logs.configure(readable=settings.mode is Mode.DEVELOPMENT)
    logs.operations.disabled = not settings.log_operations
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)


def run_several(
    settings: Settings, url: str, listening: socket.socket, metrics: socket.socket | None
) -> None:
    """Serve in several processes; this one supervises them, and joins their metrics."""
    sockets: list[socket.socket] = []
    if metrics is not None:
        sockets = listen_on_loopback(settings.processes)
        app = JoinedMetrics([each.getsockname()[1] for each in sockets]).app()
        # As a daemon, it ends with this process.
        serving = MetricsServer(app).serve([metrics])
        threading.Thread(target=asyncio.run, args=(serving,), daemon=True).start()
    work = partial(serve_as_one, settings, url, sockets)
    Processes(settings.processes, work, listening).run()


def serve_as_one(
    settings: Settings,
    url: str,
    metrics: Sequence[socket.socket],
    listening: socket.socket,
    number: int,
) -> None:
    """Serve as one of several processes. `metrics` are the sockets of the metrics of each one."""
    configure_logs(settings)
    serve(settings, url, listening, None, metrics[number] if metrics else None)


def serve(
    settings: Settings,
    url: str,
    listening: socket.socket,
    server: Server | None,
    metrics: socket.socket | None,
    background: Iterable[Background] = (),
) -> None:
    """Serve in this process."""
    activation.start()
    allow_many_connections()
    app = create_app(settings, url, server, background)
    freeze()
    # A thread that compiles a query delays the other operations by this long.
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        DrainingServer(app, settings, metrics).run(sockets=[listening])
    finally:
        activation.stop()
        logs.server.info("stopped")
