"""`troupe import`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from graph.cli.database import with_database

if TYPE_CHECKING:
    from db import Database
    from db.imports import Report


class _FormatOrFile(TyperGroup):
    """The group of the formats; with a file instead of a format, the format is recognised."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the command `file` before a file or an option."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["file", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_FormatOrFile,
    subcommand_metavar="[COMMAND] FILE [OPTIONS]",
    no_args_is_help=True,
    help="Import a file of another program or an export. Without a command, the format of FILE is"
    " recognised; `troupe import file -h` shows the options.",
)

FILE = typer.Argument(metavar="FILE", help="The file to import.")
FILE_OR_FOLDER = typer.Argument(metavar="FILE", help="The file or folder to import.")
OWNER = typer.Option("admin", metavar="USERNAME", help="The user who owns the projects.")
PLAN = typer.Option(False, "--plan", help="Say what would be done, and change nothing.")
FILE_OR_SESSIONS = typer.Argument(metavar="FILE", help="The file, or a folder of sessions.")
AGENT = typer.Option(
    "assistant", metavar="NAME", help="The agent that the assistant's messages are from."
)
MODEL = typer.Option(None, metavar="MODEL", help="The AI model of the assistant's messages.")


@app.command("file")
def import_file(
    file: Path = FILE_OR_FOLDER,
    project: str | None = typer.Option(
        None,
        metavar="NAME",
        help="The name of the project, or its beginning; by default that in the file.",
    ),
    owner: str = OWNER,
    plan: bool = PLAN,
    agent: str = AGENT,
    model: str | None = MODEL,
) -> None:
    """Import a file or a folder whose format is recognised."""
    from db.exports import import_export
    from db.imports import NotImportable, formats, import_chats, import_plan

    file = formats.located(file)
    format = formats.recognise(file)
    if not isinstance(format, str):
        _import(import_plan, file, owner, project=project, preview=plan, format=format)
    elif format == formats.EXPORT:
        if project is not None:
            raise NotImportable("--project is not for exports: the project keeps its name.")
        _import(import_export, file, owner, preview=plan)
    else:
        options = {"project": project, "agent": agent, "model": model}
        _import(import_chats, file, owner, preview=plan, **options)


@app.command("taskmaster")
def import_taskmaster(
    file: Path = FILE,
    project: str | None = typer.Option(
        None,
        metavar="NAME",
        help="The name that the projects' names begin with; by default the file's folder.",
    ),
    owner: str = OWNER,
    plan: bool = PLAN,
) -> None:
    """Import a plan of Task Master (tasks.json). Each tag becomes a project."""
    from db.imports import import_plan

    _import(import_plan, file, owner, project=project, preview=plan)


@app.command("chats")
def import_chat_file(
    file: Path = FILE_OR_SESSIONS,
    project: str | None = typer.Option(
        None, metavar="NAME", help="The name of the project; by default the name of the file."
    ),
    agent: str = AGENT,
    model: str | None = MODEL,
    owner: str = OWNER,
    plan: bool = PLAN,
) -> None:
    """Import chats of other programs.

    The formats are those of OpenAI and Anthropic, ChatGPT, Claude, Claude Code and ShareGPT.
    """
    from db.imports import import_chats

    options = {"project": project, "agent": agent, "model": model}
    _import(import_chats, file, owner, preview=plan, **options)


def _import(
    importer: Callable[..., Awaitable[Report]], file: Path, owner: str, **options: Any
) -> None:
    from db import User
    from graph.api import API
    from graph.cli.lookups import find_user
    from graph.cli.viewers import first_administrator
    from graph.core.scalars import parse_key

    async def work(database: Database) -> Report:
        api = API(database, await first_administrator(database))
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
