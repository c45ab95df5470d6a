"""Serving: `troupe serve` and `troupe demo`."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from graph.cli.database import prepared
from graph.cli.errors import CommandError
from graph.cli.output import print_note

if TYPE_CHECKING:
    from db import Database, User
    from db.embedded import Server
    from graph.app import Background
    from graph.cli.servers import RunningServer
    from graph.settings import Settings

app = typer.Typer()


@app.command()
def serve() -> None:
    """Serve the API, with the embedded database unless TROUPE_DATABASE_URL is set."""
    from graph.settings import Settings

    _serve("serve", Settings.load())


@app.command()
def demo() -> None:
    """Serve a temporary database with example data, in which agents work; it is then deleted."""
    from graph.demo import fill, work
    from graph.settings import Settings

    settings = Settings.load()
    if not settings.migrates:
        raise CommandError("The demo runs in development only; unset TROUPE_MODE")
    with tempfile.TemporaryDirectory(prefix="troupe-demo-") as folder:
        # For root, PostgreSQL runs as another user, which must be able to enter the folder.
        Path(folder).chmod(0o711)
        temporary = {"database_url": None, "data_dir": Path(folder) / "data"}
        _serve("demo", settings.model_copy(update=temporary), fill, [work])


def _serve(
    command: str,
    settings: Settings,
    fill: Callable[[Database], Awaitable[None]] | None = None,
    background: Iterable[Background] = (),
) -> None:
    from db import Viewer, access
    from graph.cli.servers import registered
    from graph.serve import listen, listen_for_metrics, run
    from graph.settings import Mode

    async def prepare(url: str) -> tuple[User, str] | None:
        async with prepared(url, upgrade=settings.migrates) as database:
            if fill is not None:
                await fill(database)
            if settings.mode is not Mode.DEVELOPMENT:
                return None
            async with database.write(Viewer(is_administrator=True)) as session:
                return await access.development_token(session)

    # Signals also stop the server cleanly before and after uvicorn handles them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as with nohup
            # The same as Ctrl-C, which asyncio and uvicorn handle. An exception raised here could
            # occur in a destructor, where Python ignores it.
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    with (
        suppress(KeyboardInterrupt),
        listen(settings) as listening,
        listen_for_metrics(settings) as metrics,
        settings.database(serving=True, on_wait=print_note) as (url, server),
    ):
        token = asyncio.run(prepare(url))
        with registered(_registration(command, url, listening.getsockname(), server)):
            run(settings, url, listening, server, token, metrics, background)


def _registration(
    command: str, url: str, address: tuple[str, int], server: Server | None
) -> RunningServer:
    """What other commands find of this server."""
    from sqlalchemy import make_url

    from graph.cli.servers import RunningServer, current_folder
    from graph.serve import base_url

    return RunningServer(
        os.getpid(),
        command,
        base_url(address),
        current_folder(),
        None if server is None else str(server.data_dir),
        make_url(url).render_as_string() if server is None else None,
    )
