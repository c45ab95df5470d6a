"""`troupe import`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from graph.cli.database import with_database

if TYPE_CHECKING:
    from db import Database
    from db.imports import Report

app = typer.Typer(no_args_is_help=True, help="Import files of other programs.")

FILE = typer.Argument(metavar="FILE", help="The file to import.")
OWNER = typer.Option("admin", metavar="USERNAME", help="The user who owns the projects.")


@app.command("taskmaster")
def import_taskmaster(
    file: Path = FILE,
    project: str | None = typer.Option(
        None, help="The name that the projects' names begin with; by default the file's folder."
    ),
    owner: str = OWNER,
) -> None:
    """Import a plan in Task Master's tasks.json format: each tag becomes a project."""
    from db.imports import import_plan

    _import(import_plan, file, owner, project=project)


@app.command("chats")
def import_chat_file(
    file: Path = FILE,
    project: str | None = typer.Option(
        None, help="The name of the project; by default the name of the file."
    ),
    agent: str = typer.Option(
        "assistant", help="The agent that the assistant's messages are from."
    ),
    model: str | None = typer.Option(None, help="The AI model of the assistant's messages."),
    owner: str = OWNER,
) -> None:
    """Import chats in OpenAI's message format, as JSON or JSONL, or results of tau-bench."""
    from db.imports import import_chats

    _import(import_chats, file, owner, project=project, agent=agent, model=model)


def _import(
    importer: Callable[..., Awaitable[Report]], file: Path, owner: str, **options: str | None
) -> None:
    from db import User
    from graph.api import API
    from graph.cli.lookups import find_user, viewer_of
    from graph.core.scalars import parse_key

    async def work(database: Database) -> Report:
        api = API(database, await viewer_of(database))
        owner_id = parse_key(User, (await find_user(api, owner))["id"])
        with _progress(file) as progress:
            return await importer(database, file, owner=owner_id, progress=progress, **options)

    for line in with_database(work, creates=True).lines():
        print(line)


@contextmanager
def _progress(file: Path) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, if standard error is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(file.name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
