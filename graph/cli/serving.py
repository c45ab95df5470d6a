"""Serving: `troupe serve` and `troupe demo`."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from db import Database, User, access
from graph.cli.database import ADMINISTRATOR, prepared, print_note
from graph.cli.errors import CommandError
from graph.settings import Mode, Settings

if TYPE_CHECKING:
    from graph.app import Background

app = typer.Typer()


@app.command()
def serve() -> None:
    """Serve the API, with the embedded database unless TROUPE_DATABASE_URL is set."""
    _serve(Settings.load())


@app.command()
def demo() -> None:
    """Serve a temporary database with example data, in which agents work; it is then deleted."""
    from graph.demo import fill, work

    settings = Settings.load()
    if not settings.migrates:
        raise CommandError("The demo runs in development only; unset TROUPE_MODE")
    with tempfile.TemporaryDirectory(prefix="troupe-demo-") as folder:
        # For root, PostgreSQL runs as another user, which must be able to enter the folder.
        Path(folder).chmod(0o711)
        temporary = {"database_url": None, "data_dir": Path(folder) / "data"}
        _serve(settings.model_copy(update=temporary), fill, [work])


def _serve(
    settings: Settings,
    fill: Callable[[Database], Awaitable[None]] | None = None,
    background: Iterable[Background] = (),
) -> None:
    from graph.serve import listen, run

    async def prepare(url: str) -> tuple[User, str] | None:
        async with prepared(url, upgrade=settings.migrates) as database:
            if fill is not None:
                await fill(database)
            if settings.mode is not Mode.DEVELOPMENT:
                return None
            async with database.write(ADMINISTRATOR) as session:
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
        settings.database(serving=True, on_wait=print_note) as (url, server),
    ):
        run(settings, url, listening, server, asyncio.run(prepare(url)), background)
