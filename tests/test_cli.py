"""The command line: every command, with and without a server, and what it says when it refuses."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import URL, select, text

import db
from db import embedded, migrate
from db.diagram import diagram
from db.embedded import binaries
from graph import cli
from graph.core.scalars import global_id
from graph.schema import printed
from graph.settings import Mode, Settings, mistyped
from tests import factories, processes
from tests.patience import until
from tests.processes import CODE, Elsewhere, Ended, Process, sql, troupe, troupe_here
from tests.world import snapshot

SHOWN = "; the console shows the agents of each project."
EXAMPLES = CODE / "examples"
PLAN, CHATS = EXAMPLES / "plan.json", EXAMPLES / "chats.json"
AT_HEAD = f"The database is at the migration {migrate.head()}.\n"

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux has many loopback addresses")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the test's own."""
    with processes.place() as folder:
        yield folder


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A data folder with a database in it."""
    with processes.place() as folder:
        processes.prepare(folder / "made")
        yield folder / "made"


@pytest.fixture
def data_dir(made: Path, folder: Path) -> Path:
    """A data folder of the test's own with a database in it."""
    return processes.copied(made, folder / "data")


@pytest.fixture
def url(database_url: URL) -> str:
    """The database of the test, as one would write it into TROUPE_DATABASE_URL."""
    return database_url.set(drivername="postgresql").render_as_string(hide_password=False)


Run = Callable[..., Ended]


@pytest.fixture(params=["nothing runs", "a server runs", "a database of one's own"])
def run(request: pytest.FixtureRequest, folder: Path) -> Iterator[Run]:
    """Runs commands: as processes, without a server and beside one; or here, on a URL."""
    data_dir = folder / "new"
    with ExitStack() as stack:
        if request.param == "nothing runs":
            # The first ones make the database, and do not get into each other's way.
            with ThreadPoolExecutor() as threads:
                command = partial(troupe, "migrate", fork=False, data_dir=data_dir)
                both = [threads.submit(command) for _ in range(2)]
            assert [one.result().out for one in both] == [AT_HEAD, AT_HEAD]
        elif request.param == "a server runs":
            data_dir = request.getfixturevalue("data_dir")
            stack.enter_context(embedded.running(data_dir, serving=True))
        else:
            url = request.getfixturevalue("url")
            # Its psql is whichever is installed.
            path = f"{binaries.installed().bin_dir}{os.pathsep}{os.environ['PATH']}"
            stack.enter_context(pytest.MonkeyPatch.context()).setenv("PATH", path)

        def run(*arguments: str | Path) -> Ended:
            if request.param != "a database of one's own":
                return troupe(*arguments, data_dir=data_dir)
            # psql writes to the terminal itself.
            start = troupe if arguments[0] == "psql" else troupe_here
            return start(*arguments, database_url=url)

        yield run


def test_every_command_works_whatever_runs(run: Run, tmp_path: Path) -> None:
    assert run("migrate").printed == AT_HEAD

    command = ("users", "create", "ann", "--email", "ann@example.org", "--name", "Ann")
    created = run(*command, "--administrator").printed
    assert created == (
        "Created the user ann. `troupe tokens create NAME --user ann` creates an access token.\n"
    )

    token = run("tokens", "create", "laptop", "--user", "ANN", "--days", "7").printed
    assert re.fullmatch(r"troupe_[\w-]{43}\n", token)

    plan = run("import", "taskmaster", PLAN, "--owner", "Ann", "--project", "Station").printed
    assert plan.startswith("Added 2 projects, 19 tasks and 17 dependencies.\nLeft out:\n")

    again = run("import", PLAN, "--owner", "Ann", "--project", "Station", "--plan").printed
    assert again.startswith("Nothing would be added: 2 projects, 19 tasks and 17 dependencies are")
    chats = run("import", CHATS, "--agent", "Ada", "--model", "gpt-4o").printed
    assert chats.startswith("Added 4 conversations and 16 messages.\n")

    exported = run("export", "chats", tmp_path / "chats.export").printed
    counted = r"Exported 0 tasks, 4 conversations, 16 messages, 0 records of usage, \d+ events\.\n"
    assert re.fullmatch(counted, exported)
    there = run("import", tmp_path / "chats.export").printed
    assert there == (
        "Nothing was added: 1 project, 0 tasks, 0 dependencies, 4 conversations and 16 messages"
        " are already there.\n"
    )

    hashed = hashlib.sha256(token.strip().encode()).hexdigest()
    query = f"""
        SELECT username, role, display_name, days FROM users JOIN LATERAL (
            SELECT round(extract(epoch FROM expires_at - now()) / 86400) AS days
            FROM access_tokens WHERE user_id = users.id AND token_hash = '{hashed}'
        ) tokens ON true;
        SELECT username, count(*) FROM projects JOIN users ON users.id = owner_id GROUP BY 1
        ORDER BY 1;
        SELECT count(*) FROM messages;
    """
    found = run("psql", "--", "-Atc", query).printed
    assert found.splitlines() == ["ann|ADMIN|Ann|7", "admin|1", "ann|2", "16"]


@pytest.mark.usefixtures("locale")
def test_names_files_and_output_are_utf8_whatever_the_locale(folder: Path, data_dir: Path) -> None:
    file = folder / "Gespräche 談話.json"
    said = [{"role": "user", "content": "“Grüße”, … 你好"}]
    file.write_text(json.dumps([{"messages": said}], ensure_ascii=False), encoding="utf-8")
    data_dir = data_dir.rename(folder / "Bücher")
    run = partial(troupe, fork=False, data_dir=data_dir)
    added = run("import", "chats", file, "--agent", "Zoë").printed
    assert added == "Added 1 conversation and 1 message.\n"
    query = """
        SELECT projects.name, agents.name, messages.content FROM messages
        CROSS JOIN projects CROSS JOIN agents
    """
    assert run("settings", "port").printed == (
        "TROUPE_PORT=0 (environment)\n  The port to listen on; 0 means any free port.\n"
    )
    # The first command has started the database; the others need not start it again.
    with embedded.running(data_dir, serving=True):
        found = run("psql", "-Atc", query).printed
        assert found == "Gespräche 談話|Zoë|“Grüße”, … 你好\n"
        assert run("users", "create", "ann", "--email", "ann@x", "--name", "Änn").status == 0
        refused = run("import", "chats", folder / "Ü.json").refusal
        assert refused == f"There is no file {folder / 'Ü.json'}."


def test_a_folder_may_have_a_name_that_is_no_text(data_dir: Path, folder: Path) -> None:
    data_dir = data_dir.rename(folder / os.fsdecode(b"data-\xff"))
    assert troupe("migrate", data_dir=data_dir).printed == AT_HEAD


def test_the_command_that_started_the_database_waits_for_the_others(data_dir: Path) -> None:
    another = "SELECT count(*) > 1 FROM pg_stat_activity WHERE application_name = 'psql'"
    until_there_is_another = f"""
        DO $$ BEGIN
            WHILE NOT ({another}) LOOP
                PERFORM pg_sleep(0.05);
                PERFORM pg_stat_clear_snapshot();
            END LOOP;
        END $$
    """
    with ThreadPoolExecutor() as threads:
        first = threads.submit(troupe, "psql", "-c", until_there_is_another, data_dir=data_dir)
        until((data_dir / "postgres-socket" / ".s.PGSQL.5432").exists)
        second = troupe("psql", "-Atc", "SELECT 'slept', pg_sleep(1.5)", data_dir=data_dir)
        assert second.printed == "slept|\n"
        done = first.result()
    assert (done.status, done.out) == (0, "DO\n")
    assert done.err == "troupe: Waiting for the other commands that use this database\n"
    assert processes.processes_of(data_dir) == []


# Tokens


async def test_a_token_is_made_for_an_agent_and_limited_to_scopes(
    database: db.Database, url: str, admin: db.User
) -> None:
    async with database.write(db.Viewer(is_administrator=True)) as session:
        project, other = [await factories.make_project(session, admin) for _ in range(2)]
        ada = await factories.make_agent(session, project, "Ada")
        await factories.make_agent(session, other, "Ada")
        await other.update(session, name="Caf\u00e9")
        named = await factories.make_agent(session, other, "\u00c9va")

    async def made(*arguments: str) -> tuple[Any, ...]:
        command = ("tokens", "create", "worker", *arguments)
        printed = (await asyncio.to_thread(troupe_here, *command, database_url=url)).printed
        hashed = hashlib.sha256(printed.strip().encode()).hexdigest()
        columns = (db.AccessToken.agent_id, db.AccessToken.user_id, db.AccessToken.scopes)
        async with database.read() as session:
            token = select(*columns).where(db.AccessToken.token_hash == hashed)
            return tuple((await session.execute(token)).one())

    for id in (str(ada.id), global_id("Agent", ada.id)):
        assert await made("--agent", id, "--scope", "WORK") == (ada.id, None, ["WORK"])
    for home in (str(project.id), global_id("Project", project.id)):
        assert await made("--agent", "Ada", "--project", home) == (ada.id, None, [])
    eva = ("--agent", "E\u0301va", "--project", "Cafe\u0301")
    assert await made(*eva) == (named.id, None, [])
    scopes = ("--scope", "read", "--scope", "WRITE", "--scope", "READ")
    assert await made("--user", "admin", *scopes) == (None, admin.id, ["READ", "WRITE"])


async def test_an_ambiguous_name_of_an_agent_is_refused(
    database: db.Database, url: str, admin: db.User
) -> None:
    async with database.write(db.Viewer(is_administrator=True)) as session:
        for _ in range(2):
            project = await factories.make_project(session, admin)
            await project.update(session, name="Twin")
            await factories.make_agent(session, project, "Ada")
    before = await snapshot(database)
    for agent, home, says in (
        (
            "Ada",
            "Twin",
            "There are 2 projects 'Twin'; use the id: `troupe projects list` shows them all.",
        ),
        ("Eve", project.id, f"There is no agent 'Eve' in the project '{project.id}'{SHOWN}"),
        ("Ada", None, "There are 2 agents 'Ada'; add --project, or use the id."),
        ("Eve", None, f"There is no agent 'Eve'{SHOWN}"),
        ("Ada", "None", "There is no project 'None'; `troupe projects list` shows them all."),
    ):
        place = () if home is None else ("--project", str(home))
        command = ("tokens", "create", "worker", "--agent", agent, *place)
        done = await asyncio.to_thread(troupe_here, *command, database_url=url)
        assert done.refusal == says
    assert await snapshot(database) == before


# Alembic, as everybody types it


Alembic = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def alembic(folder: Path) -> Alembic:
    """Runs `alembic …` in a copy of what it reads, which it may add migrations to."""
    place = folder / "code"
    place.mkdir()
    shutil.copy(CODE / "alembic.ini", place)
    shutil.copy(CODE / "pyproject.toml", place)
    shutil.copytree(CODE / "migrations", place / "migrations")
    (place / "db").symlink_to(CODE / "db")

    def run(*arguments: str, **given: object) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("alembic")), *arguments]
        environment = {**processes.environment(**given), "PYTHONPATH": str(place)}
        options: Any = {"capture_output": True, "encoding": "utf-8", "timeout": 60}
        return subprocess.run(command, cwd=place, env=environment, **options)

    return run


@pytest.mark.usefixtures("locale")
def test_alembic_starts_the_database_that_troupe_would_use(alembic: Alembic, folder: Path) -> None:
    run = partial(alembic, data_dir=folder / "new")
    for arguments in (("upgrade", "head"), ("downgrade", "-1"), ("upgrade", "+1")):
        done = run(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert run("current").stdout == f"{migrate.head()} (head)\n"
    assert processes.processes_of(folder / "new") == []


def test_alembic_uses_a_database_that_runs_already(alembic: Alembic, data_dir: Path) -> None:
    with embedded.running(data_dir, serving=True):
        sql(data_dir, "DROP INDEX ix_users_username_id")
        done = alembic("revision", "--autogenerate", "-m", "names of users", data_dir=data_dir)
        assert done.returncode == 0, done
        number = f"{int(migrate.head() or 0) + 1:04d}"
        drafted = data_dir.parent / "code" / "migrations" / "versions"
        text = (drafted / f"{number}_names_of_users.py").read_text(encoding="utf-8")
        assert f"revision = {number!r}\ndown_revision = {migrate.head()!r}" in text
        assert "op.create_index(op.f('ix_users_username_id'), 'users'," in text
        assert alembic("current", data_dir=data_dir).stdout == f"{migrate.head()}\n"


def test_alembic_uses_a_database_of_ones_own(alembic: Alembic, url: str) -> None:
    assert alembic("current", database_url=url).stdout == f"{migrate.head()} (head)\n"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"database_url": "mysql://h/d"}, "TROUPE_DATABASE_URL cannot be used: mysql is not "),
        ({"database_url": "postgresql://a:s3cret@127.0.0.1:9/d"}, "PostgreSQL cannot be reached "),
        ({"data_dir": "/dev/null/none"}, "The embedded PostgreSQL cannot be used: Not a directory"),
    ],
)
def test_alembic_says_in_a_sentence_what_is_wrong(
    alembic: Alembic, given: dict[str, str], says: str
) -> None:
    done = alembic("upgrade", "head", **given)
    assert done.returncode == 255
    assert "s3cret" not in done.stdout + done.stderr
    (said,) = (done.stdout + done.stderr).splitlines()
    assert said.startswith(f"FAILED: {says}")


# The database's own client


def test_psql_says_itself_how_it_ended(data_dir: Path) -> None:
    with embedded.running(data_dir):
        answered = troupe("psql", "-Atc", "SELECT 1", data_dir=data_dir)
        assert answered.printed == "1\n"
        failed = troupe("psql", "-c", "SELECT nothing", data_dir=data_dir)
        assert failed.status == 1
        assert failed.err.startswith('ERROR:  column "nothing" does not exist')


def test_without_psql_a_sentence_says_how_to_get_it(url: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert troupe_here("psql", database_url=url).refusal == (
        "psql is not installed (Debian and Ubuntu: apt-get install postgresql-client)."
    )


# The schema


def test_the_schema_is_printed_without_a_database() -> None:
    done = troupe("schema", fork=False)
    assert done.printed == printed()
    assert done.printed == (CODE / "schema.graphql").read_text(encoding="utf-8")


def test_the_diagram_is_printed_without_a_database() -> None:
    assert troupe_here("diagram").printed == diagram()


# Settings


def test_settings_say_where_they_come_from() -> None:
    url = "postgresql://ann:s3cret@db.example/troupe"
    given: dict[str, Any] = {
        "port": 8080,
        "trusted_proxies": "10.0.0.5,10.0.0.6",
        "database_url": url,
    }
    header, *rows = troupe_here("settings", **given).printed.splitlines()
    assert header.split() == ["SETTING", "VALUE", "FROM"]
    found = {row.split()[0]: row.split()[1:] for row in rows}
    assert list(found) == [f"TROUPE_{name.upper()}" for name in Settings.model_fields]
    assert found["TROUPE_PORT"] == ["8080", "environment"]
    assert found["TROUPE_HOST"] == ["127.0.0.1", "default"]
    assert found["TROUPE_COMPILER"] == ["true", "default"]
    assert found["TROUPE_GRAPHIQL"] == ["unset", "default"]
    assert found["TROUPE_TRUSTED_PROXIES"] == ["10.0.0.5,10.0.0.6", "environment"]
    assert found["TROUPE_DATABASE_URL"] == [
        "postgresql://ann:***@db.example/troupe",
        "environment",
    ]
    shown = troupe_here("settings", "--json", **given).printed
    assert "s3cret" not in shown
    (port,) = (each for each in json.loads(shown) if each["name"] == "TROUPE_PORT")
    assert port == {
        "name": "TROUPE_PORT",
        "value": 8080,
        "source": "environment",
        "default": 8000,
        "meaning": "The port to listen on; 0 means any free port.",
    }


def test_a_setting_is_shown_with_its_meaning() -> None:
    assert troupe_here("settings", "max-depth", "TROUPE_PORT", port=8080).printed == (
        "TROUPE_MAX_DEPTH=20 (default)\n  Maximum depth of nested fields.\n"
        "TROUPE_PORT=8080 (environment)\n  The port to listen on; 0 means any free port.\n"
    )
    said = "TROUPE_PORTT is not a setting; `troupe settings` prints them all."
    assert troupe_here("settings", "portt").refusal == said


MISTYPED = "TROUPE_MAX_DEPHT is not a setting; did you mean TROUPE_MAX_DEPTH?\n"


@pytest.mark.parametrize("command", [("settings",), ("diagram",), ("users", "list"), ("serve",)])
def test_a_mistyped_setting_is_named_by_every_command(command: tuple[str, ...]) -> None:
    done = troupe_here(*command, max_depht=3)
    assert done.err.startswith(f"troupe: {MISTYPED}")
    if command == ("settings",):  # which shows what is set, also in production
        return
    said = troupe_here(*command, max_depht=3, prot=1, mode="production")
    assert (said.status, said.out) == (1, "")
    assert said.err == (
        f"troupe: {MISTYPED}TROUPE_PROT is not a setting; did you mean TROUPE_PORT?\n"
    )


def test_the_settings_are_shown_although_one_is_mistyped_in_production() -> None:
    ended = troupe_here("settings", "max-depth", max_depht=3, mode="production")
    assert (ended.status, ended.err) == (0, f"troupe: {MISTYPED}")
    assert ended.out.startswith("TROUPE_MAX_DEPTH=20 (default)\n")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PORTT", "PORT"),
        ("HOSTS", "HOST"),
        ("DB_URL", "DATABASE_URL"),
        ("DATADIR", "DATA_DIR"),
        ("MAX_DEPT", "MAX_DEPTH"),
        ("INTROSPECT", "INTROSPECTION"),
        ("ALLOW_ORIGINS", "ALLOWED_ORIGINS"),
        # Those of the workers in the examples, and of Kubernetes for a service.
        *(("TOKEN", None), ("URL", None), ("PROJECT", None)),
        *(("SERVICE_HOST", None), ("SERVICE_PORT", None), ("SERVICE_PORT_HTTP", None)),
        *(("PORT_8000_TCP", None), ("PORT_8000_TCP_PROTO", None), ("PORT_8000_TCP_ADDR", None)),
        *(("PORT_8000_TCP_PORT", None), ("SERVICE_PORT_METRICS", None)),
        # For a service that is named troupe-metrics.
        *(("METRICS_SERVICE_HOST", None), ("METRICS_SERVICE_PORT", None)),
        ("METRICS_PORT_9400_TCP", None),
    ],
)
def test_what_resembles_a_setting_is_named(name: str, meant: str | None) -> None:
    says = [f"TROUPE_{name} is not a setting; did you mean TROUPE_{meant}?"]
    assert mistyped([f"TROUPE_{name}", "TROUPE_PORT", "troupe_host", "PORTT"]) == (
        [] if meant is None else says
    )


# Help


def test_help_loads_neither_the_database_nor_the_schema() -> None:
    heavy = ("db", "sqlalchemy", "strawberry", "graphql", "pydantic", "rich", "asyncpg")
    code = f"import sys, graph.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    pending: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(cli.app))]
    while pending:
        path, command = pending.pop()
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            pending.append(((*path, name), child))


EVERY = dict(sorted(commands()))


def test_these_are_the_commands() -> None:
    assert {
        " ".join(path) for path, command in EVERY.items() if not hasattr(command, "commands")
    } == {
        "acknowledge",
        "answer",
        "approve",
        "demo",
        "diagram",
        "doctor",
        "events prune",
        "events tail",
        "export",
        "import chats",
        "import file",
        "import taskmaster",
        "inbox",
        "migrate",
        "pg_dump",
        "pg_restore",
        "projects list",
        "psql",
        "schema",
        "serve",
        "settings",
        "tasks claim",
        "tasks ready",
        "tasks show",
        "tokens create",
        "tokens list",
        "tokens revoke",
        "usage",
        "users create",
        "users list",
        "users password",
    }


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_help_explains_a_command_and_every_option_of_it(path: tuple[str, ...]) -> None:
    command = EVERY[path]
    assert command.help
    assert command.help.strip().endswith(".")
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert parameter.help.strip().endswith("."), parameter.name
    shown = troupe_here(*path, "--help").printed
    assert troupe_here(*path, "-h").printed == shown
    words = " ".join(shown.split())
    assert " ".join(inspect.cleandoc(command.help).split()) in words
    for parameter in command.params:
        assert " ".join(parameter.help.split()) in words
    for name, parameter in ((each.name, each) for each in command.params):
        assert getattr(parameter, "is_flag", False) or (parameter.metavar or "").isupper(), name
    assert "..." not in shown.partition("\nCommands:")[2]  # no sentence is cut


def test_the_script_is_installed_and_shows_its_help() -> None:
    script = Path(sys.executable).with_name("troupe")
    done = subprocess.run([script], capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 2
    assert "Usage: troupe [OPTIONS] COMMAND" in done.stdout + done.stderr


def test_the_version_is_printed_without_a_database() -> None:
    assert troupe_here("--version").printed == f"troupe {metadata.version('troupe')}\n"


def test_a_shell_completes_what_is_typed(folder: Path) -> None:
    environment = {**processes.environment(), "HOME": str(folder), "SHELL": "/bin/bash"}
    environment.pop("PYTHONWARNDEFAULTENCODING", None)  # Typer writes its files without one
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def in_bash(commands: str) -> str:
        command = ["bash", "--norc", "-c", commands]
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    # The shell is found among the parents of the process: it must not become the process itself.
    shown = in_bash("troupe --show-completion; true")
    assert "bash completion installed" in in_bash("troupe --install-completion; true")
    (installed,) = (folder / ".bash_completions").iterdir()
    assert installed.read_text(encoding="utf-8") == shown.rstrip("\n")
    press_tab = "COMP_WORDS=({}) COMP_CWORD={}; _troupe_completion troupe; echo ${{COMPREPLY[@]}}"
    for words, completed in (("troupe use", "users"), ("troupe users ", "list create password")):
        tab = press_tab.format(words, words.count(" "))
        assert in_bash(f"source ~/.bashrc; {tab}") == f"{completed}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nonsense",), "No such command 'nonsense'."),
        (("migrate", "--now"), "No such option: --now"),
        (("users", "create", "ann"), "Missing option '--email'"),
        (("users", "create"), "Missing argument"),
        (
            ("tokens", "create", "laptop"),
            "Invalid value for '--user' / '--agent': give one",
        ),
        (
            ("tokens", "create", "laptop", "--user", "admin", "--agent", "x"),
            "Invalid value for '--user' / '--agent': give one of them",
        ),
        (("tokens", "create", "laptop", "--user", "admin", "--project", "x"), "'--project'"),
        (
            ("tokens", "create", "laptop", "--user", "admin", "--scope", "ALL"),
            "'--scope': write one of read, work, write, administer",
        ),
        (
            ("tokens", "create", "laptop", "--user", "admin", "--days", "0"),
            "'--days': write a whole number from 1 to 36500",
        ),
        (
            ("tokens", "create", "laptop", "--user", "admin", "--days", "soon"),
            "'--days': write a whole number from 1 to 36500",
        ),
        (("tokens", "list", "--first", "0"), "'--first': write a whole number of 1 or more"),
        (("events", "tail", "--after", "-1"), "'--after': write a whole number of 0 or more"),
        (("usage", "--by", "moon"), "'--by': write one of project, agent, model, task, user, day,"),
        (("tasks", "claim", "--agent", "x", "--lease", "1.5"), "'--lease': write a whole number"),
        (("serve", "--processes", "101"), "'--processes': write a whole number from 1 to 100"),
        (("import", "chats"), "Missing argument 'FILE'"),
    ],
)
def test_a_wrong_command_line_is_answered_with_its_usage(
    arguments: tuple[str, ...], says: str
) -> None:
    done = troupe_here(*arguments)
    assert (done.status, done.out) == (2, "")
    first, *_, last = done.err.splitlines()
    assert first.startswith("Usage: ")
    assert last.startswith("Error: ")
    assert says in last


# Refusals


NUL = "contains a NUL character (\\u0000), which cannot be stored."
PATTERN = "The username cannot be used: this must have 1 to 64 letters"
NOBODY = "There is no user 'nobody'; `troupe users create` creates one."


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("users", "create", "Admin", "--email", "a@b"),
            "There is already a User with this username.",
        ),
        (("users", "create", "a", "--email", "ADMIN@LocalHost"), "already a User with this email."),
        (
            ("users", "create", "admin", "--email", "admin@localhost"),
            "There is already a User with this username. There is already a User with this email.",
        ),
        (("users", "create", "x" * 300, "--email", "a@b"), PATTERN),
        (("users", "create", "", "--email", "a@b"), PATTERN),
        (("users", "create", "two words", "--email", "a@b"), PATTERN),
        (("users", "create", "a\0", "--email", "a@b"), NUL),
        (("users", "create", "a\udcff", "--email", "a@b"), "half of a surrogate pair"),
        (("users", "create", "a", "--email", "nowhere"), "The email cannot be used"),
        (("users", "create", "a", "--email", "a\0@b"), NUL),
        (
            ("users", "create", "a", "--email", "a@b", "--name", "x" * 300),
            "The display name cannot be used: this may have 255 characters at most.",
        ),
        (("tokens", "create", "laptop", "--user", "nobody"), NOBODY),
        (("tokens", "create", "laptop", "--user", "no\0body"), NUL),
        (("tokens", "create", "laptop", "--agent", "no\0body"), NUL),
        (("tokens", "create", "laptop", "--agent", "Ada"), f"There is no agent 'Ada'{SHOWN}"),
        (
            ("tokens", "create", "laptop", "--agent", "00000000-0000-7000-8000-000000000000"),
            f"There is no agent '00000000-0000-7000-8000-000000000000'{SHOWN}",
        ),
        (("tokens", "create", "", "--user", "admin"), "this must not be empty"),
        (
            ("tokens", "create", "x" * 300, "--user", "admin"),
            "this may have 255 characters at most",
        ),
        (("tokens", "create", "lap\0top", "--user", "admin"), NUL),
        (("import", "taskmaster", "/nowhere.json"), "There is no file /nowhere.json."),
        (("import", "taskmaster", str(EXAMPLES)), f"{EXAMPLES} is a directory, not a file."),
        (("import", "taskmaster", str(CHATS)), f"{CHATS} is not a plan"),
        (("import", "taskmaster", str(PLAN), "--owner", "nobody"), NOBODY),
        (("import", "taskmaster", str(PLAN), "--project", "x\0"), NUL),
        (("import", "chats", "/nowhere.json"), "There is no file /nowhere.json."),
        (("import", "/nowhere.json"), "There is no file /nowhere.json."),
        (("import", str(EXAMPLES)), f"{EXAMPLES} has no plan in it that is known here."),
        (("import", "chats", str(PLAN)), 'conversation 1: it has neither "messages" nor "traj"'),
        (("import", "chats", str(CHATS), "--owner", "nobody"), NOBODY),
        (("import", "chats", str(CHATS), "--project", "x" * 300), "255 are the most"),
        (("import", "chats", str(CHATS), "--agent", ""), "The agent needs a name."),
        (("import", "chats", str(CHATS), "--model", ""), "The model needs a name."),
    ],
)
@pytest.mark.usefixtures("admin")
async def test_what_cannot_be_done_is_refused_with_a_sentence_and_changes_nothing(
    database: db.Database, url: str, arguments: tuple[str, ...], says: str
) -> None:
    before = await snapshot(database)
    done = await asyncio.to_thread(troupe_here, *arguments, database_url=url)
    assert says in done.refusal
    assert await snapshot(database) == before


def test_a_refusal_looks_the_same_from_outside(url: str) -> None:
    command = ("tokens", "create", "laptop", "--user", "nobody")
    said = troupe(*command, fork=False, database_url=url).refusal
    assert said == NOBODY


def test_an_import_shows_how_far_it_is_where_somebody_looks(url: str) -> None:
    done = troupe_here("import", "chats", CHATS, database_url=url, terminal=True)
    assert done.status == 0
    assert "chats.json" in done.err
    assert "100%" in done.err


def test_an_import_can_be_interrupted_and_leaves_nothing_behind(
    folder: Path, data_dir: Path
) -> None:
    with embedded.running(data_dir):
        with (
            processes.locked(data_dir, "messages"),
            Process(folder, "import", "chats", CHATS, data_dir=data_dir) as importing,
        ):
            until(lambda: processes.waits(data_dir))
            assert importing.stop(signal.SIGINT) == Ended(130, "", "")
        assert sql(data_dir, "SELECT count(*) FROM conversations") == "0"


# Databases of one's own


@pytest.fixture(scope="module")
def elsewhere(made: Path) -> Iterator[Elsewhere]:
    """A server with a password, and an empty database on it."""
    with processes.place() as folder:
        elsewhere = Elsewhere(processes.copied(made, folder / "data"))
        with elsewhere.running():
            elsewhere.make_database()
            yield elsewhere


COMMANDS = [
    ("migrate",),
    ("users", "create", "bob", "--email", "bob@example.org"),
    ("tokens", "create", "laptop", "--user", "admin"),
    ("import", "taskmaster", str(PLAN)),
    ("import", "chats", str(CHATS)),
]


@linux
def test_a_url_of_the_usual_form_with_a_password_is_understood(elsewhere: Elsewhere) -> None:
    for url in (elsewhere.url(), f"{elsewhere.url()}?sslmode=prefer"):
        assert troupe_here("migrate", database_url=url).printed == AT_HEAD
    postgres = elsewhere.url().replace("postgresql:", "postgres:")
    assert troupe_here("migrate", database_url=postgres).printed == AT_HEAD


@linux
@pytest.mark.parametrize(
    ("different", "says"),
    [
        ({"password": "s3cret-but-wrong"}, 'password authentication failed for user "ann"'),
        ({"username": "bob"}, 'password authentication failed for user "bob"'),
        ({"database": "nothing"}, 'database "nothing" does not exist'),
        ({"port": 9}, "Connect call failed"),
        ({"host": "no host"}, "not known"),
        ({"query": {"sslmode": "require"}}, "SSL"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_server_that_cannot_be_used_is_named_without_its_password(
    elsewhere: Elsewhere, different: dict[str, Any], says: str
) -> None:
    url = elsewhere.url(**different)
    shown = re.sub(":[^:/]*@", ":***@", url)
    for command in (("migrate",), ("tokens", "create", "laptop", "--user", "admin")):
        said = troupe_here(*command, database_url=url).refusal
        assert said.startswith(f"PostgreSQL cannot be reached at {shown} (")
        assert says in said
        assert said.endswith("Check TROUPE_DATABASE_URL and that the server is running.")
        assert Elsewhere.PASSWORD not in said


def test_a_server_that_is_too_old_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "OLDEST_SERVER", 99)
    for command in COMMANDS:
        said = troupe_here(*command, database_url=url).refusal
        assert re.search(r" is PostgreSQL \d\d; Troupe needs 99 or later\.$", said)


@pytest.mark.usefixtures("admin")
def test_in_production_only_migrate_changes_the_schema(url: str, database_url: URL) -> None:
    asyncio.run(migrate.downgrade(database_url, "base"))
    for command in COMMANDS[1:]:
        said = troupe_here(*command, database_url=url, mode="production").refusal
        assert said == (
            f"The database is at the migration none, and this version of Troupe needs"
            f" {migrate.head()}: back it up, then run `troupe migrate`."
        )
    for command in COMMANDS:
        assert troupe_here(*command, database_url=url, mode="production").printed


@pytest.mark.usefixtures("admin")
async def test_a_database_that_newer_code_migrated_is_left_alone(
    database: db.Database, url: str
) -> None:
    async with database.write(db.Viewer()) as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = await snapshot(database)
    for command, mode in itertools.product(COMMANDS, Mode):
        done = await asyncio.to_thread(troupe_here, *command, database_url=url, mode=mode)
        assert done.refusal == (
            "The database is at the migration 9999, which this version of Troupe does not know: a"
            " newer version was used on it. Use that version, or another database."
        )
    assert await snapshot(database) == before


def test_settings_that_cannot_be_used_are_all_named_by_every_command() -> None:
    for command in (*COMMANDS, ("serve",), ("psql",)):
        done = troupe_here(*command, port="x", mode="y", database_url="mysql://ann:s3cret@h/d")
        assert (done.status, done.out) == (1, "")
        assert "s3cret" not in done.err
        assert re.fullmatch(r"troupe: (TROUPE_\w+\S* cannot be used: .*\.\n){3}", done.err), (
            done.err
        )


def test_a_data_folder_that_cannot_be_made_is_named() -> None:
    said = troupe("migrate", data_dir="/dev/null/none").refusal
    assert said.startswith("The embedded PostgreSQL cannot be used: Not a directory: /dev/null")
