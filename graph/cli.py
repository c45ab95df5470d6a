"""The command `troupe`. Each command works whether or not a server is running."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from db import TokenScope
from db.settings import SettingsError
from graph.settings import Settings

if TYPE_CHECKING:
    from socket import socket as Socket
    from uuid import UUID

    from db import Database, User, WriteSession
    from db.imports import Report

# Commands import what they need when they run: `troupe --help` should not wait for a server.

Result = TypeVar("Result")

app = typer.Typer(
    help="The shared memory and switchboard of a team of AI agents: a GraphQL server over"
    " PostgreSQL.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
imports = typer.Typer(no_args_is_help=True, help="Take in what other programs wrote.")
users = typer.Typer(no_args_is_help=True, help="Manage users.")
tokens = typer.Typer(no_args_is_help=True, help="Manage access tokens.")
app.add_typer(imports, name="import")
app.add_typer(users, name="users")
app.add_typer(tokens, name="tokens")


class CommandError(Exception):
    """A command cannot do what it was asked to; the message says why, and what to do."""


def main() -> None:
    """Run the command line; every error is one sentence on standard error and exit status 1."""
    if sys.getfilesystemencoding() != "utf-8":
        # Names, arguments, files and output are UTF-8 whatever the locale. Python settles that
        # when it starts: it does so by itself for C and POSIX, unless it is told not to.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        print(f"troupe: {_sentence(error)}", file=sys.stderr)
        sys.exit(1)


def _sentence(error: Exception) -> str:
    from db import OutcomeUnknown
    from db.embedded import EmbeddedError
    from db.errors import DomainError, Rejected
    from db.imports import NotImportable
    from db.migrate import NotMigratable

    ours = (CommandError, DomainError, EmbeddedError, NotImportable, NotMigratable, SettingsError)
    if isinstance(error, Rejected):
        return " ".join(fault.message for fault in error.errors)
    if isinstance(error, (*ours, OutcomeUnknown)):
        return str(error).rstrip(".") + "."
    told = _of_the_database(error)
    if told is not None:
        return told
    return (
        f"This should not have happened: {type(error).__name__}: {error}."
        " `python -X dev -m graph …` shows where; please report it."
    )


def _of_the_database(error: Exception) -> str | None:
    from sqlalchemy.exc import DataError, DBAPIError

    from db.connections import is_disk_full, reason

    if is_disk_full(error):
        return "The database has no room left; nothing was stored."
    if isinstance(error, DataError):
        return "A value is too long or of the wrong kind; the database refused it."
    if isinstance(error, DBAPIError | OSError):
        return (
            f"The database refused or went away ({reason(error)})."
            " Check TROUPE_DATABASE_URL, or that nobody stopped the server."
        )
    return None


# The database


def _note(sentence: str) -> None:
    print(f"troupe: {sentence}", file=sys.stderr)


async def _prepare(url: str, *, upgrade: bool) -> None:
    """Bring the database to the code's schema, with its administrator.

    In production only `troupe migrate` does so: a backup comes first.
    """
    from db import Database, Viewer, access, migrate

    await migrate.refuse_unsuitable(url)
    if upgrade:
        await migrate.upgrade(url)
    else:
        await migrate.refuse_unless_at_head(url)
    database = Database(url)
    try:
        async with database.write(Viewer(is_administrator=True)) as session:
            await access.administrator(session)
    finally:
        await database.dispose()


def _with_database(work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Do something with the database, at head and with its administrator."""
    from db import Database

    settings = Settings.load()

    async def run(url: str) -> Result:
        await _prepare(url, upgrade=settings.migrates)
        database = Database(url)
        try:
            return await work(database)
        finally:
            await database.dispose()

    with settings.database(on_wait=_note) as (url, _):
        return asyncio.run(run(url))


def _valid(kind: Any, value: Any, name: str = "value") -> Any:
    """The value, if the API would take it as well."""
    from pydantic import TypeAdapter, ValidationError

    from db.text import require_storable
    from graph.core.validation_messages import words

    try:
        return TypeAdapter(kind).validate_python(require_storable(value))
    except ValidationError as error:
        faults = [(str((*fault["loc"], name)[0]), words(fault)) for fault in error.errors()]
        sentences = [f"The {at.replace('_', ' ')} cannot be used: {said}" for at, said in faults]
        raise CommandError("; ".join(sentences)) from None
    except ValueError as error:
        raise CommandError(f"The {name} cannot be used: {error}") from None


async def _user(session: WriteSession, username: str) -> User:
    from sqlalchemy import select

    from db import User

    username = _valid(str, username, "username")
    user = await session.scalar(select(User).where(User.username == username))
    if user is None:
        raise CommandError(f"There is no user {username!r}; `troupe users create` makes one")
    return user


async def _agent_id(session: WriteSession, agent: str, project: str | None) -> UUID:
    """The agent with an id, or with a name in a project, which has an id or a name."""
    from sqlalchemy import or_, select

    from db import Agent, Project

    agent = _valid(str, agent, "agent")
    if project is None:
        id = _id(Agent, agent)
        if id is None:
            raise CommandError(
                f"{agent!r} is no id of an agent; with --project an agent is found by its name"
            )
        return id
    project = _valid(str, project, "project")
    projects = or_(Project.id == _id(Project, project), Project.name == project)
    known = set(await session.scalars(select(Project.id).where(projects)))
    if not known:
        raise CommandError(f"There is no project {project!r}")
    named = or_(Agent.id == _id(Agent, agent), Agent.name == agent)
    ids = list(await session.scalars(select(Agent.id).where(Agent.project_id.in_(known), named)))
    if not ids:
        raise CommandError(f"There is no agent {agent!r} in the project {project!r}")
    if len(ids) > 1:
        raise CommandError(
            f"There are {len(ids)} agents {agent!r} in projects {project!r}; name it by its id"
        )
    return ids[0]


def _id(model: type, text: str) -> UUID | None:
    """The id that a text is, as the API or the database writes it; none if it is neither."""
    from graph.core.scalars import parse_key

    try:
        id: UUID = parse_key(model, text)
    except ValueError:
        return None
    return id


# Commands


def _version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"troupe {metadata.version('troupe')}")
        raise typer.Exit


@app.callback()
def troupe(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What is asked of `troupe` itself, not of one of its commands."""


@app.command()
def serve() -> None:
    """Serve the API, with the database that comes along unless TROUPE_DATABASE_URL names one."""
    _serve(Settings.load())


@app.command()
def demo() -> None:
    """Serve a throw-away database with examples in it; it is gone when you stop the server."""
    import tempfile

    from graph.demo import fill

    settings = Settings.load()
    if not settings.migrates:
        raise CommandError("A demo is for one's own machine: leave TROUPE_MODE out")
    with tempfile.TemporaryDirectory(prefix="troupe-demo-") as folder:
        # Root's PostgreSQL runs as another user, who has to get through.
        Path(folder).chmod(0o711)
        place = {"database_url": None, "data_dir": Path(folder) / "data"}
        _serve(settings.model_copy(update=place), fill)


def _serve(
    settings: Settings, fill: Callable[[str], Coroutine[Any, Any, None]] | None = None
) -> None:
    from graph.serve import listen, run

    # Whoever asks us to stop gets an orderly end, also before and after uvicorn listens to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _stop)
    sockets: list[Socket] = []
    try:
        sockets = listen(settings)
        with settings.database(serving=True, on_wait=_note) as (url, server):
            asyncio.run(_prepare(url, upgrade=settings.migrates))
            if fill is not None:
                asyncio.run(fill(url))
            run(settings, url, sockets, server)
    except KeyboardInterrupt:
        pass
    finally:
        for socket in sockets:
            socket.close()


def _stop(number: int, frame: Any) -> None:
    # As by Ctrl-C, which asyncio and uvicorn take up in an orderly way. An exception raised here
    # could come out anywhere, inside a destructor too, where it would be lost.
    signal.raise_signal(signal.SIGINT)


@app.command()
def migrate() -> None:
    """Bring the database to the schema of this version."""
    from db import migrate

    settings = Settings.load()
    with settings.database(on_wait=_note) as (url, _):
        asyncio.run(_prepare(url, upgrade=True))
    print(f"The database is at the migration {migrate.head()}.")


@app.command()
def schema() -> None:
    """Print the schema of the API."""
    from graph.schema import printed

    sys.stdout.write(printed())


@app.command()
def settings() -> None:
    """Print every setting, with its default and its meaning."""
    from graph.settings import table

    sys.stdout.write(table())


@app.command()
def diagram() -> None:
    """Print a picture of the domain, as a Mermaid diagram."""
    import db.diagram

    sys.stdout.write(db.diagram.diagram())


PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=PASSED_ON)
def psql(context: typer.Context) -> None:
    """Open psql on the database; further arguments go to psql."""
    _run("psql", context.args, Settings.load())


@app.command("pg_dump", context_settings=PASSED_ON)
def pg_dump(context: typer.Context) -> None:
    """Back the database up by pg_dump, to which the arguments go."""
    _run("pg_dump", context.args, Settings.load())


@app.command("pg_restore", context_settings=PASSED_ON)
def pg_restore(context: typer.Context) -> None:
    """Fill the database, which is to be empty, by pg_restore, to which the arguments go."""
    # Without a database it would print what it has; PostgreSQL's own variables say which.
    _run("pg_restore", ["--dbname=", *context.args], Settings.load())


def _run(name: str, arguments: list[str], settings: Settings) -> None:
    """Run a program of PostgreSQL's on the database, and end as it ends."""
    from sqlalchemy import make_url

    with settings.database(on_wait=_note) as (text, server):
        url = make_url(text)
        program = name if server is None else str(server.bin_dir / name)
        query = {name: str(value) for name, value in url.query.items()}
        environment = os.environ | {
            name: str(value)
            for name, value in {
                "PGHOST": url.host or query.get("host"),
                "PGPORT": url.port or query.get("port"),
                "PGUSER": url.username,
                "PGPASSWORD": url.password,
                "PGDATABASE": url.database,
                "PGSSLMODE": query.get("sslmode"),
            }.items()
            if value is not None
        }
        if name == "psql":  # where Ctrl-C cancels a query
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            status = subprocess.run([program, *arguments], env=environment).returncode
        except FileNotFoundError:
            raise CommandError(
                f"{name} is not installed (Debian and Ubuntu: apt-get install postgresql-client)"
            ) from None
    sys.exit(status)


File = Annotated[Path, typer.Argument(metavar="FILE", help="The file to import.")]
Owner = Annotated[
    str, typer.Option("--owner", metavar="USERNAME", help="Who is to own the projects.")
]


@imports.command("taskmaster")
def import_taskmaster(
    file: File,
    project: Annotated[
        str | None,
        typer.Option(help="What to name the projects after; the file's folder unless given."),
    ] = None,
    owner: Owner = "admin",
) -> None:
    """Import a plan in Task Master's tasks.json format: each tag becomes a project."""
    from db.imports import import_plan

    async def work(database: Database) -> Report:
        id = await _owner(database, owner)
        with _progress(file) as progress:
            return await import_plan(database, file, owner=id, project=project, progress=progress)

    _report(_with_database(work))


@imports.command("chats")
def import_chats(
    file: File,
    project: Annotated[
        str | None, typer.Option(help="The project; named after the file unless given.")
    ] = None,
    agent: Annotated[str, typer.Option(help="The agent that speaks.")] = "assistant",
    model: Annotated[str | None, typer.Option(help="The AI model that speaks.")] = None,
    owner: Owner = "admin",
) -> None:
    """Import chats in OpenAI's message format, as JSON or JSONL, or in tau-bench's runs."""
    from db.imports import import_chats

    async def work(database: Database) -> Report:
        id = await _owner(database, owner)
        with _progress(file) as progress:
            return await import_chats(
                database,
                file,
                owner=id,
                project=project,
                agent=agent,
                model=model,
                progress=progress,
            )

    _report(_with_database(work))


async def _owner(database: Database, username: str) -> Any:
    from db import Viewer

    async with database.write(Viewer(is_administrator=True)) as session:
        return (await _user(session, username)).id


@contextmanager
def _progress(file: Path) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal, where there is one."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(file.name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _report(report: Report) -> None:
    for line in report.lines():
        print(line)


@users.command("create")
def create_user(
    username: Annotated[str, typer.Argument(help="The name to log in with.")],
    email: Annotated[str, typer.Option(help="The address to write to.")],
    name: Annotated[str | None, typer.Option(help="The name to show to people.")] = None,
    administrator: Annotated[
        bool, typer.Option("--administrator", help="Sees and edits everything.")
    ] = False,
) -> None:
    """Create a user."""
    from db import User, UserRole, Viewer, constraints
    from db.users import refuse_taken
    from graph.users import CreateUserInput

    role = UserRole.ADMIN if administrator else UserRole.USER
    _valid(CreateUserInput, {"username": username, "email": email, "display_name": name}, "user")

    async def work(database: Database) -> None:
        async with database.write(Viewer(is_administrator=True)) as session:
            row = {"username": username, "email": email, "display_name": name, "role": role}
            await refuse_taken(session, row)
            await User.create(session, **row)

    with constraints.reported():
        _with_database(work)
    print(f"Created the user {username}. `troupe tokens create NAME --user {username}` lets in.")


@users.command("password")
def set_password(username: Annotated[str, typer.Argument(help="Whose password it is.")]) -> None:
    """Give a user a password, which is asked for and not shown; or read from standard input."""
    from db import Viewer, access, passwords
    from graph.accounts import Password

    if sys.stdin.isatty():
        given: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        given = sys.stdin.readline().rstrip("\n")
    _valid(Password, given, "password")

    async def work(database: Database) -> None:
        hashed = await passwords.hash_password(given)
        async with database.write(Viewer(is_administrator=True)) as session:
            user = await _user(session, username)
            await access.set_password(session, user, hashed)

    _with_database(work)
    print(f"{username} can log in with the new password.")


def _scope(text: str) -> TokenScope:
    try:
        return TokenScope(text.upper())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no scope; write one of {', '.join(TokenScope)}"
        ) from None


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="What the token is for.")],
    user: Annotated[
        str | None, typer.Option(metavar="USERNAME", help="The user whom it identifies.")
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(
            metavar="AGENT",
            help="The agent whom it identifies: its id, or with --project its name.",
        ),
    ] = None,
    project: Annotated[
        str | None, typer.Option(help="The project of the agent: its id or its name.")
    ] = None,
    scope: Annotated[
        list[TokenScope] | None,
        typer.Option(
            parser=_scope,
            metavar="SCOPE",
            help=f"What it is limited to, one of {', '.join(TokenScope)}; may be given several"
            " times. Unless given, it is as good as whom it identifies.",
        ),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(min=1, max=36500, help="How long it is good; for ever unless given."),
    ] = None,
) -> None:
    """Create an access token for a user or an agent and print it, this once."""
    from datetime import UTC, datetime, timedelta

    from db import Viewer, access
    from graph.core.scalars import Line

    if (user is None) == (agent is None):
        raise typer.BadParameter("name one of them", param_hint="'--user' / '--agent'")
    if project is not None and agent is None:
        raise typer.BadParameter("it goes with --agent", param_hint="'--project'")
    _valid(Line, name, "name")
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)

    async def work(database: Database) -> str:
        async with database.write(Viewer(is_administrator=True)) as session:
            _, token = await access.create_token(
                session,
                name,
                user_id=None if user is None else (await _user(session, user)).id,
                agent_id=None if agent is None else await _agent_id(session, agent, project),
                scopes=scope or (),
                expires_at=expires_at,
            )
        return token

    print(_with_database(work))
