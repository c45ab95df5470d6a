"""The command `troupe`. Each command works whether or not a server is running."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import orjson
import typer
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import make_url, or_, select
from sqlalchemy.exc import DataError, DBAPIError

import db.diagram
import db.migrate
from db import (
    Agent,
    Database,
    Project,
    TokenScope,
    User,
    UserRole,
    Viewer,
    WriteSession,
    access,
    constraints,
    passwords,
)
from db.connections import is_disk_full, reason
from db.embedded import EmbeddedError
from db.errors import DomainError, Rejected
from db.events import Event, partitions
from db.events.positions import Numbering, number_all
from db.events.reading import events_after, last_position
from db.imports import NotImportable, Report, import_chats, import_plan
from db.settings import SettingsError
from db.text import require_storable
from db.users import refuse_taken
from graph.settings import Mode, Settings, table

if TYPE_CHECKING:
    from graph.app import Background

# The server and the schema take long to import, so only the commands that need them import them.

Result = TypeVar("Result")

ADMINISTRATOR = Viewer(is_administrator=True)

app = typer.Typer(
    help="A GraphQL server over PostgreSQL, for the shared data of a team of AI agents.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
imports = typer.Typer(no_args_is_help=True, help="Import files of other programs.")
users = typer.Typer(no_args_is_help=True, help="Manage users.")
tokens = typer.Typer(no_args_is_help=True, help="Manage access tokens.")
events = typer.Typer(no_args_is_help=True, help="Follow the event log, or drop old events.")
app.add_typer(imports, name="import")
app.add_typer(users, name="users")
app.add_typer(tokens, name="tokens")
app.add_typer(events, name="events")


class CommandError(Exception):
    """A command cannot be carried out; the message says why, and what to do."""


EXPECTED_ERRORS = (
    CommandError,
    DomainError,
    EmbeddedError,
    NotImportable,
    db.migrate.NotMigratable,
    db.OutcomeUnknown,
    SettingsError,
)


def main() -> None:
    """Run the command line. An error is a message on standard error, and exit status 1."""
    if sys.getfilesystemencoding() != "utf-8":
        # Arguments, files and output are UTF-8 in every locale. Python can enable its UTF-8 mode
        # only when it starts.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        print(f"troupe: {error_message(error)}", file=sys.stderr)
        sys.exit(1)


def error_message(error: Exception) -> str:
    """The message for an error: sentences for the user, without a traceback."""
    if isinstance(error, Rejected):
        return " ".join(each.message for each in error.errors)
    if isinstance(error, EXPECTED_ERRORS):
        return str(error).rstrip(".") + "."
    if is_disk_full(error):
        return "The disk of the database is full; nothing was stored. Free some space and retry."
    if isinstance(error, DataError):
        return "The database rejected a value: it is too long or has the wrong type."
    if isinstance(error, DBAPIError | OSError):
        return (
            f"The database cannot be used ({reason(error)})."
            " Check TROUPE_DATABASE_URL and that the server is running."
        )
    return (
        f"Unexpected error: {type(error).__name__}: {error}. Please report it with the traceback,"
        " which `python -X dev -m graph …` prints."
    )


# The database


def _print_note(message: str) -> None:
    print(f"troupe: {message}", file=sys.stderr)


@asynccontextmanager
async def _prepared(url: str, *, upgrade: bool) -> AsyncIterator[Database]:
    """The database at the migration of this version, with its first administrator.

    In production, only `troupe migrate` upgrades it, so that it can be backed up first.
    """
    await db.migrate.refuse_unsuitable(url)
    if upgrade:
        await db.migrate.upgrade(url)
    else:
        await db.migrate.refuse_unless_at_head(url)
    database = Database(url)
    try:
        async with database.write(ADMINISTRATOR) as session:
            await access.administrator(session)
        yield database
    finally:
        await database.dispose()


def _with_database(
    work: Callable[[Database], Awaitable[Result]], *, upgrade: bool | None = None
) -> Result:
    """Run `work` on the database of the settings."""
    settings = Settings.load()

    async def run(url: str) -> Result:
        async with _prepared(url, upgrade=upgrade or settings.migrates) as database:
            return await work(database)

    with settings.database(on_wait=_print_note) as (url, _):
        return asyncio.run(run(url))


def _in_transaction(work: Callable[[WriteSession], Awaitable[Result]]) -> Result:
    """Run `work` in one transaction, as an administrator."""

    async def run(database: Database) -> Result:
        with constraints.reported():
            async with database.write(ADMINISTRATOR) as session:
                return await work(session)

    return _with_database(run)


def _valid(kind: Any, value: Any, name: str = "value") -> Any:
    """The validated value. Raises CommandError if the API would reject it."""
    from graph.core.validation_messages import words

    try:
        return TypeAdapter(kind).validate_python(require_storable(value))
    except ValidationError as error:
        problems = [(str((*each["loc"], name)[0]), words(each)) for each in error.errors()]
        messages = [f"The {at.replace('_', ' ')} cannot be used: {what}" for at, what in problems]
        raise CommandError("; ".join(messages)) from None
    except ValueError as error:
        raise CommandError(f"The {name} cannot be used: {error}") from None


async def _user(session: WriteSession, username: str) -> User:
    username = _valid(str, username, "username")
    user = await session.scalar(select(User).where(User.username == username))
    if user is None:
        raise CommandError(f"There is no user {username!r}; `troupe users create` creates one")
    return user


async def _agent_id(session: WriteSession, agent: str, project: str | None) -> UUID:
    """The id of an agent, by its id, or by its id or name in a project with this id or name."""
    agent = _valid(str, agent, "agent")
    id = _id(Agent, agent)
    if project is None:
        if id is not None:
            return id
        raise CommandError(f"{agent!r} is not the id of an agent; to use its name, add --project")
    project = _valid(str, project, "project")
    projects = or_(Project.id == _id(Project, project), Project.name == project)
    project_ids = set(await session.scalars(select(Project.id).where(projects)))
    if not project_ids:
        raise CommandError(f"There is no project {project!r}")
    agents = or_(Agent.id == id, Agent.name == agent), Agent.project_id.in_(project_ids)
    ids = list(await session.scalars(select(Agent.id).where(*agents)))
    if not ids:
        raise CommandError(f"There is no agent {agent!r} in the project {project!r}")
    if len(ids) > 1:
        raise CommandError(
            f"There are {len(ids)} agents {agent!r} in projects {project!r}; use the agent's id"
        )
    return ids[0]


def _id(model: type, text: str) -> UUID | None:
    """The UUID in an id of this model, global or bare; None if it is no such id."""
    from graph.core.scalars import parse_key

    try:
        return UUID(str(parse_key(model, text)))
    except ValueError:
        return None


# Commands


def _version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"troupe {metadata.version('troupe')}")
        raise typer.Exit


@app.callback()
def troupe(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """The options of `troupe` itself."""


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
        async with _prepared(url, upgrade=settings.migrates) as database:
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
        settings.database(serving=True, on_wait=_print_note) as (url, server),
    ):
        run(settings, url, listening, server, asyncio.run(prepare(url)), background)


@app.command()
def doctor(
    as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
) -> None:
    """Check the settings, the versions and the database, and say what to do; 1 if a check fails."""
    from graph import doctor

    raise typer.Exit(doctor.run(as_json=as_json))


@app.command()
def migrate() -> None:
    """Apply all migrations to the database."""

    async def revision(database: Database) -> str | None:
        return (await database.readiness())[0]

    print(f"The database is at the migration {_with_database(revision, upgrade=True)}.")


@app.command()
def schema() -> None:
    """Print the schema of the API."""
    from graph.schema import printed

    sys.stdout.write(printed())


@app.command()
def settings() -> None:
    """Print all settings with their defaults and meanings."""
    sys.stdout.write(table())


@app.command()
def diagram() -> None:
    """Print the entities and their relationships as a Mermaid diagram."""
    sys.stdout.write(db.diagram.diagram())


def run_program(context: typer.Context) -> None:
    """Run the program of PostgreSQL that has the command's name, and exit with its status."""
    name, arguments = context.command.name or "", context.args
    if name == "pg_restore":
        # Without --dbname, it would print the backup. PGDATABASE names the database.
        arguments = ["--dbname=", *arguments]
    with Settings.load().database(on_wait=_print_note) as (database_url, server):
        url = make_url(database_url)
        program = name if server is None else str(server.bin_dir / name)
        parts = {key: url.query.get(key) for key in ("host", "port", "sslmode")}
        parts |= url.translate_connect_args(username="user")
        variables = {f"PG{key.upper()}": str(value) for key, value in parts.items() if value}
        if name == "psql":  # in which Ctrl-C cancels a query
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            status = subprocess.run([program, *arguments], env=os.environ | variables).returncode
        except FileNotFoundError:
            raise CommandError(
                f"{name} is not installed (Debian and Ubuntu: apt-get install postgresql-client)"
            ) from None
    sys.exit(status)


for name, purpose in (
    ("psql", "Run psql on the database"),
    ("pg_dump", "Back up the database with pg_dump"),
    ("pg_restore", "Restore a backup into an empty database"),
):
    app.command(
        name,
        help=f"{purpose}, with further arguments for {name}.",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(run_program)


FILE = typer.Argument(metavar="FILE", help="The file to import.")
OWNER = typer.Option("admin", metavar="USERNAME", help="The user who owns the projects.")


@imports.command("taskmaster")
def import_taskmaster(
    file: Path = FILE,
    project: str | None = typer.Option(
        None, help="The name that the projects' names begin with; by default the file's folder."
    ),
    owner: str = OWNER,
) -> None:
    """Import a plan in Task Master's tasks.json format: each tag becomes a project."""
    _import(import_plan, file, owner, project=project)


@imports.command("chats")
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
    _import(import_chats, file, owner, project=project, agent=agent, model=model)


def _import(
    importer: Callable[..., Awaitable[Report]], file: Path, owner: str, **options: str | None
) -> None:
    async def work(database: Database) -> Report:
        async with database.write(ADMINISTRATOR) as session:
            owner_id = (await _user(session, owner)).id
        with _progress(file) as progress:
            return await importer(database, file, owner=owner_id, progress=progress, **options)

    for line in _with_database(work).lines():
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


@users.command("create")
def create_user(
    username: str = typer.Argument(help="The name to log in with."),
    email: str = typer.Option(help="The email address."),
    name: str | None = typer.Option(None, help="The display name."),
    administrator: bool = typer.Option(
        False, "--administrator", help="Make the user an administrator."
    ),
) -> None:
    """Create a user."""
    from graph.users import CreateUserInput

    row = {
        "username": username,
        "email": email,
        "display_name": name,
        "role": UserRole.ADMIN if administrator else UserRole.USER,
    }
    _valid(CreateUserInput, row, "user")

    async def work(session: WriteSession) -> None:
        await refuse_taken(session, row)
        await User.create(session, **row)

    _in_transaction(work)
    print(
        f"Created the user {username}."
        f" `troupe tokens create NAME --user {username}` creates an access token."
    )


@users.command("password")
def set_password(username: str = typer.Argument(help="The name of the user.")) -> None:
    """Set the password of a user, from a hidden prompt or from standard input."""
    from graph.accounts import Password

    if sys.stdin.isatty():
        password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    _valid(Password, password, "password")
    hashed = asyncio.run(passwords.hash_password(password))

    async def work(session: WriteSession) -> None:
        await access.set_password(session, await _user(session, username), hashed)

    _in_transaction(work)
    print(f"{username} can log in with the new password.")


@tokens.command("create")
def create_token(
    name: str = typer.Argument(help="The name of the token."),
    user: str | None = typer.Option(None, metavar="USERNAME", help="The user of the token."),
    agent: str | None = typer.Option(
        None, metavar="AGENT", help="The agent of the token: its id, or with --project its name."
    ),
    project: str | None = typer.Option(None, help="The project of the agent: its id or its name."),
    scope: list[TokenScope] | None = typer.Option(
        None,
        case_sensitive=False,
        metavar="SCOPE",
        help=f"A scope to limit the token to: {', '.join(TokenScope)}. Repeat it for several"
        " scopes. By default the token is not limited.",
    ),
    days: int | None = typer.Option(
        None, min=1, max=36500, help="The days until it expires; by default never."
    ),
) -> None:
    """Create an access token for a user or an agent, and print it. It is not shown again."""
    from graph.core.scalars import Line

    if (user is None) == (agent is None):
        raise typer.BadParameter("give exactly one of them", param_hint="'--user' / '--agent'")
    if project is not None and agent is None:
        raise typer.BadParameter("it can only be used with --agent", param_hint="'--project'")
    _valid(Line, name, "name")
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)

    async def work(session: WriteSession) -> str:
        _, token = await access.create_token(
            session,
            name,
            user_id=None if user is None else (await _user(session, user)).id,
            agent_id=None if agent is None else await _agent_id(session, agent, project),
            scopes=scope or (),
            expires_at=expires_at,
        )
        return token

    print(_in_transaction(work))


@events.command("tail")
def tail_events(
    project: str | None = typer.Option(
        None, help="Only events of this project: its id or its name."
    ),
    after: int | None = typer.Option(
        None, min=0, help="Begin after this position; by default with new events."
    ),
    as_json: bool = typer.Option(
        False, "--json", help="Print each event as JSON, with its values."
    ),
) -> None:
    """Print events as they happen, in the order of their positions, until Ctrl-C."""

    async def work(database: Database) -> None:
        async with database.write(ADMINISTRATOR) as session:
            project_id = None if project is None else await _project_id(session, project)
        async with database.read() as session:
            position = await last_position(session) if after is None else after
        # If no server runs, this process gives the positions.
        numbering = asyncio.create_task(Numbering(database, Settings.load().event_days).run())
        try:
            while True:
                async with database.read() as session:
                    found = await events_after(session, position, project_id)
                for event in found:
                    print(_event_as_json(event) if as_json else _event_as_text(event), flush=True)
                    position = event.position or position
                if not found:
                    await asyncio.sleep(TAIL_SECONDS)
        finally:
            numbering.cancel()
            await asyncio.wait([numbering])

    _with_database(work)


# How often `troupe events tail` looks for new events, in seconds.
TAIL_SECONDS = 0.25


async def _project_id(session: WriteSession, project: str) -> UUID:
    """The id of a project, by its id or its name. A deleted project still has its id."""
    project = _valid(str, project, "project")
    id = _id(Project, project)
    if id is not None:
        return id
    ids = list(await session.scalars(select(Project.id).where(Project.name == project)))
    if len(ids) != 1:
        number = "no project" if not ids else f"{len(ids)} projects"
        raise CommandError(f"There is {number} {project!r}; use the id")
    return ids[0]


def _event_as_json(event: Event) -> str:
    columns = (column.key for column in Event.__table__.columns)
    values = {name: getattr(event, name) for name in columns if name not in ("id", "owner_id")}
    values |= {side: values[side] and values[side].fragment for side in ("before", "after")}
    return orjson.dumps(values, default=str).decode()


def _event_as_text(event: Event) -> str:
    actor = "-" if event.actor_type is None else f"{event.actor_type.lower()}:{event.actor_id}"
    sides = (side for side in (event.before, event.after) if side is not None)
    columns = {column for side in sides for column in orjson.loads(side.text)}
    what = f"{event.action} {event.entity_type} {event.entity_id}"
    moment = f"{event.created_at:%Y-%m-%dT%H:%M:%SZ}"
    return f"{event.position} {moment} {what} by {actor}: {' '.join(sorted(columns))}"


@events.command("prune")
def prune_events(
    days: int | None = typer.Option(
        None, min=1, help="How many days to keep; by default TROUPE_EVENT_DAYS."
    ),
) -> None:
    """Drop old events, by weeks. A server does so by itself every hour."""

    async def work(database: Database) -> str:
        await number_all(database)
        connection = await database.open()
        try:
            kept = await partitions.drop(connection, days or Settings.load().event_days)
        finally:
            await connection.close()
        return f"Events since {kept:%Y-%m-%d} are kept, and those of the same week."

    print(_with_database(work))
