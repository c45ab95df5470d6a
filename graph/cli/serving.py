"""Serving: `troupe serve` and `troupe demo`."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graph.cli.database import prepared
from graph.cli.errors import CommandError
from graph.cli.output import print_note
from graph.cli.values import whole_number

if TYPE_CHECKING:
    from db import Database, User
    from db.embedded import Server
    from graph.app import Background
    from graph.cli.servers import RunningServer
    from graph.settings import Settings

app = typer.Typer()


@app.command()
def serve(
    processes: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(1, 100),
            metavar="N",
            help="How many processes; by default TROUPE_PROCESSES.",
        ),
    ] = None,
) -> None:
    """Serve the API and the console, until Ctrl-C.

    The database is the embedded one unless TROUPE_DATABASE_URL is set.
    """
    from graph.settings import Settings

    settings = Settings.load()
    if processes is not None:
        settings = settings.model_copy(update={"processes": processes})
    _serve("serve", settings)


@app.command()
def demo() -> None:
    """Serve example data, in which agents work, until Ctrl-C.

    Its database is then deleted. Operations are not logged, unless TROUPE_LOG_OPERATIONS=true.
    """
    from graph.demo import fill, work
    from graph.settings import Settings

    settings = Settings.load()
    if not settings.migrates:
        raise CommandError("The demo runs in development only; unset TROUPE_MODE")
    with tempfile.TemporaryDirectory(prefix="troupe-demo-") as folder:
        # For root, PostgreSQL runs as another user, which must be able to enter the folder.
        Path(folder).chmod(0o711)
        data_dir = Path(folder) / "data"
        temporary = {"database_url": None, "data_dir": data_dir, "processes": 1}
        if "log_operations" not in settings.model_fields_set:
            # The operations of its agents would scroll the link to the console away.
            temporary["log_operations"] = False
        print(
            "Agents work on the plan of a weather station for some minutes. The inbox of the"
            " console has what they ask you, and one task waits for your answer.",
            flush=True,
        )
        _serve("demo", settings.model_copy(update=temporary), fill, [work])


def _serve(
    command: str,
    settings: Settings,
    fill: Callable[[Database], Awaitable[None]] | None = None,
    background: Iterable[Background] = (),
) -> None:
    from db import access
    from db.scopes import SYSTEM
    from graph.cli.servers import registered, tokens_of_killed_servers
    from graph.processes import stop_at_signals
    from graph.serve import listen, listen_for_metrics, run
    from graph.settings import Mode

    async def prepare(url: str) -> tuple[User, str] | None:
        direct_url = settings.database_direct_url
        async with prepared(url, upgrade=settings.migrates, direct_url=direct_url) as database:
            if direct_url is None:
                # Raises SharedSession behind a pooler through which events get no positions.
                await (await database.open()).close()
            if fill is not None:
                await fill(database)
            async with database.write(SYSTEM) as session:
                await access.revoke_tokens(session, tokens_of_killed_servers())
                if settings.mode is Mode.DEVELOPMENT:
                    return await access.development_token(session)
                await access.administrator(session)  # made at the first start
                return None

    stop_at_signals()
    with (
        suppress(KeyboardInterrupt),
        listen(settings) as listening,
        listen_for_metrics(settings) as metrics,
        settings.database(serving=True, processes=settings.processes, on_wait=print_note) as (
            url,
            server,
        ),
    ):
        token = asyncio.run(prepare(url))
        registration = _registration(command, url, listening.getsockname(), server, token)
        with registered(registration):
            run(settings, url, listening, metrics, server, token, background)


def _registration(
    command: str,
    url: str,
    address: tuple[str, int],
    server: Server | None,
    token: tuple[User, str] | None,
) -> RunningServer:
    """What other commands find of this server."""
    from db.connections import shown
    from graph.cli.servers import RunningServer, current_folder
    from graph.serve import base_url

    return RunningServer(
        os.getpid(),
        command,
        base_url(address),
        current_folder(),
        None if server is None else str(server.data_dir),
        shown(url) if server is None else None,
        None if server is None or token is None else token[1],
    )
