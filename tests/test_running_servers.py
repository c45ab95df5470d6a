"""Which database a command uses: that of a running server, and never quietly a new one."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

import db
from db import embedded, migrate
from db.embedded.locks import FileLock
from graph import demo
from graph.cli.servers import (
    STARTING_SECONDS,
    RunningServer,
    registered,
    registry,
    running_servers,
)
from tests import processes
from tests.patience import until
from tests.processes import Demo, Ended, Serving, troupe_here

READING = [
    ("users", "list"),
    ("users", "password", "admin"),
    ("projects", "list"),
    ("tasks", "ready"),
    ("tasks", "claim", "--agent", "Ada"),
    ("tasks", "show", "01940000-0000-7000-8000-000000000030"),
    ("inbox",),
    ("approve", "01940000-0000-7000-8000-000000000030", "--yes"),
    ("answer", "01940000-0000-7000-8000-000000000030", "Vienna", "--yes"),
    ("acknowledge", "01940000-0000-7000-8000-000000000030", "--yes"),
    ("usage",),
    ("tokens", "list"),
    ("tokens", "create", "laptop", "--user", "admin"),
    ("tokens", "revoke", "troupe_abcde"),
    ("events", "tail"),
    ("events", "prune"),
    ("psql", "-c", "SELECT 1"),
    ("pg_dump",),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the test's own."""
    with processes.place() as folder:
        yield folder


@pytest.fixture
def default_dir(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default folder of the embedded database, which is not there."""
    monkeypatch.setattr(embedded, "default_data_dir", lambda: folder / "default")
    return folder / "default"


@pytest.fixture
def state(folder: Path, default_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the servers of the test say where they run."""
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    return folder / "state"


def run(state: Path, *arguments: str, **settings: Any) -> Ended:
    """Run a command that has to find its database."""
    return troupe_here(*arguments, state=state, **{"data_dir": "", **settings})


def server(database: str, pid: int = 7, folder: str = "/") -> RunningServer:
    """A server that other commands find as long as this process has it registered."""
    is_url = database.startswith("postgres")
    return RunningServer(
        pid,
        "serve",
        f"http://127.0.0.1:{pid}",
        folder,
        data_dir=None if is_url else database,
        database_url=database if is_url else None,
    )


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_command_that_reads_makes_no_database(
    command: tuple[str, ...],
    state: Path,
    default_dir: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a long password\n" * 2))
    advice = (
        "`troupe serve` creates one, or set TROUPE_DATABASE_URL or TROUPE_DATA_DIR to use another."
    )
    said = run(state, *command).refusal
    assert said == f"There is no database in {default_dir} yet; {advice}"
    said = run(state, *command, data_dir=folder / "typo").refusal
    assert said == f"There is no database in {folder / 'typo'} yet; {advice}"
    assert not default_dir.exists()
    assert not (folder / "typo").exists()


def test_beside_the_demo_its_database_is_used(folder: Path, state: Path, default_dir: Path) -> None:
    with Demo(folder, state=state) as demo:
        demo.ready()
        (found,) = running_servers()
        assert found.pid == demo.pid
        assert (found.command, found.address, found.folder) == ("demo", demo.url, os.getcwd())
        (file,) = registry().iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

        note = f"troupe: Using the database of `troupe demo`, process {demo.pid}, {demo.url}\n"
        shown = run(state, "projects", "list")
        assert (shown.status, shown.err) == (0, note)
        assert "School weather station" in shown.out
        token = run(state, "tokens", "create", "laptop", "--user", "admin")
        assert demo.ask("{ me { username } }", token.out.strip()) == {
            "data": {"me": {"username": "admin"}}
        }
        created = run(state, "users", "create", "ann", "--email", "ann@x")
        assert (created.status, created.err) == (0, note)
        assert not default_dir.exists()
        # Its agents have used the API meanwhile, and the link is still where one sees it.
        assert demo.out.endswith(
            "Operations are not logged; with TROUPE_LOG_OPERATIONS=true they are.\n"
            "Ctrl-C stops it.\n"
        )
        assert " operation " not in demo.err
        assert demo.stop().status == 0
    assert list(registry().iterdir()) == []
    assert run(state, "projects", "list").refusal.startswith("There is no database in ")


READS = [
    ("users", "list"),
    ("projects", "list"),
    ("tasks", "ready", "--project", "School weather station"),
    ("tasks", "show", "01940000-0000-7000-8000-000000000030"),
    ("inbox",),
    ("usage", "--by", "model"),
]


def filled(data_dir: Path) -> None:
    """Fill the database in a data folder with the example data."""

    async def fill(url: str) -> None:
        database = db.Database(url)
        await demo.fill(database)
        await database.dispose()

    with embedded.running(data_dir) as running:
        asyncio.run(fill(running.url))


def test_a_server_is_asked_and_answers_as_its_database_would(
    folder: Path, state: Path, made: tuple[Path, str]
) -> None:
    data_dir = processes.copied(made[0], folder / "data")
    filled(data_dir)
    with Serving(folder, state=state, data_dir=data_dir) as serving:
        serving.ready()
        (found,) = running_servers()
        assert found.token == serving.token
        assert serving.token not in repr(found)
        note = f"troupe: Using the database of `troupe serve`, process {found.pid}, {serving.url}\n"
        for command in READS:
            for options in ((), ("--json",)):
                there = run(state, *command, *options, data_dir=data_dir).printed
                assert run(state, *command, *options) == Ended(0, there, note)

        # Nothing is loaded for it that only a server needs.
        heavy = ("db", "sqlalchemy", "strawberry", "graphql", "asyncpg")
        code = f"""import atexit, sys, graph.cli
atexit.register(lambda: print([name for name in {heavy} if name in sys.modules]))
graph.cli.main()"""
        environment = processes.environment(state=state, data_dir="")
        del environment["TROUPE_PORT"]
        words = [sys.executable, "-c", code, "tokens", "list"]
        done = subprocess.run(words, capture_output=True, encoding="utf-8", env=environment)
        header, *_, loaded = done.stdout.splitlines()
        assert (header.split()[0], loaded, done.stderr) == ("TOKEN", "[]", note)

        # What it refuses is the same sentence.
        for command in (
            ("tasks", "show", "01940000-0000-7000-8000-0000000000ff"),
            ("users", "create", "admin", "--email", "nowhere"),
            ("tokens", "revoke", "troupe_abcde"),
        ):
            said = run(state, *command, data_dir=data_dir).refusal
            assert run(state, *command) == Ended(1, "", f"{note}troupe: {said}\n")

        # When its token is not valid any more, the database itself is used.
        assert run(state, "tokens", "revoke", serving.token).status == 0
        until(lambda: "UNAUTHENTICATED" in serving.send_raw("{ __typename }").text)
        again = run(state, "users", "list")
        assert (again.status, again.err) == (0, note)
        assert "reviewer" in again.out


def test_a_server_that_does_not_answer_is_passed_by(
    folder: Path, state: Path, made: tuple[Path, str]
) -> None:
    data_dir = processes.copied(made[0], folder / "data")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with registered(replace(server(str(data_dir)), address=address, token="troupe_x")):
            done = run(state, "users", "list")
    assert done.err == f"troupe: Using the database of `troupe serve`, process 7, {address}\n"
    assert done.out.startswith("USERNAME")


def test_a_server_that_stops_in_between_is_an_error_and_nothing_is_repeated(
    state: Path, database_url: URL
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(10_000)

        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        url = database_url.set(drivername="postgresql").render_as_string(hide_password=False)
        with (
            ThreadPoolExecutor() as threads,
            registered(replace(server(url), address=address, token="troupe_x")),
        ):
            threads.submit(hang_up)
            said = run(state, "users", "create", "ann", "--email", "ann@x").refusal
    assert said == (
        f"The server (`troupe serve`, process 7, {address}) did not answer: Remote end closed"
        " connection without response. Check whether the command was carried out before you"
        " repeat it."
    )


@pytest.mark.parametrize("end", ["stops", "revokes"])
def test_a_command_that_a_server_has_answered_goes_on_with_no_other_database(
    state: Path, default_dir: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    answer = b'{"data": {"users": {"nodes": [{"id": "1", "username": "admin"}]}}}'
    answers = [b"200 OK", b"401 Unauthorized"] if end == "revokes" else [b"200 OK"]
    listening = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"

    def serve() -> None:
        with listening:
            for each in answers:
                connection, _ = listening.accept()
                if each is answers[-1]:
                    listening.close()  # before the answer, so that the next request finds it closed
                with connection:
                    connection.recv(10_000)
                    head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (each, len(answer))
                    connection.sendall(head + answer)

    monkeypatch.setattr("sys.stdin", io.StringIO("a long password\n"))
    with (
        ThreadPoolExecutor() as threads,
        registered(replace(server(str(default_dir)), address=address, token="troupe_x")),
    ):
        threads.submit(serve)
        said = run(state, "users", "password", "admin")
    which = f"`troupe serve`, process 7, {address}"
    assert said == Ended(
        1,
        "",
        f"troupe: Using the database of {which}\n"
        f"troupe: The server ({which}) stopped meanwhile, or does not accept its token any more;"
        " repeat the command.\n",
    )
    assert not default_dir.exists()


def test_a_server_that_was_killed_is_not_found(
    folder: Path, state: Path, made: tuple[Path, str]
) -> None:
    data_dir = processes.copied(made[0], folder / "data")
    with Serving(folder, state=state, data_dir=data_dir) as serving:
        serving.ready()
        shown = run(state, "users", "list")
        assert shown.err == (
            f"troupe: Using the database of `troupe serve`, process {serving.pid}, {serving.url}\n"
        )
        # What a command is told stays what it uses.
        assert run(state, "users", "list", data_dir=data_dir).clean
        serving.send(signal.SIGKILL)
        serving.ended()
    assert len(list(registry().iterdir())) == 1
    assert run(state, "users", "list").refusal.startswith("There is no database in ")
    assert list(registry().iterdir()) == []


def test_a_server_revokes_at_its_start_the_token_that_a_killed_one_has_left(
    folder: Path, state: Path, made: tuple[Path, str]
) -> None:
    data_dir = processes.copied(made[0], folder / "data")

    tokens = []
    for end in (signal.SIGTERM, signal.SIGKILL):
        with Serving(folder, state=state, data_dir=data_dir) as serving:
            tokens.append(serving.ready().token)
            serving.stop(end)
    stopped, killed = tokens
    with Serving(folder, state=state, data_dir=data_dir) as serving:
        serving.ready()
        refused = serving.ask("{ me { username } }", killed)
        assert refused["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        # Those that stand in no file of a killed server stay valid.
        for token in (serving.token, stopped, made[1]):
            answer = serving.ask("{ me { username } }", token)
            assert answer == {"data": {"me": {"username": "admin"}}}


def test_of_several_servers_that_of_this_folder_is_used(state: Path, database_url: URL) -> None:
    url = database_url.set(drivername="postgresql").render_as_string(hide_password=False)
    others = [server("/srv/one", 1), server("/srv/two", 2)]
    here = server(url, 3, folder=os.getcwd())
    with ExitStack() as stack:
        for each in (*others, here):
            stack.enter_context(registered(each))
        shown = run(state, "users", "list")
        note = "troupe: Using the database of `troupe serve`, process 3, http://127.0.0.1:3\n"
        assert (shown.status, shown.err) == (0, note)
        # Two servers of one database are no reason to ask.
        stack.enter_context(registered(server(url, 4, folder=os.getcwd())))
        assert run(state, "users", "list").status == 0

        stack.enter_context(registered(server("/srv/three", 5, folder=os.getcwd())))
        said = run(state, "users", "list")
        assert (said.status, said.out) == (1, "")
        assert said.err == (
            "troupe: Several servers run; set one of these to use its database:\n"
            "  TROUPE_DATA_DIR=/srv/one  (`troupe serve`, process 1, http://127.0.0.1:1)\n"
            "  TROUPE_DATA_DIR=/srv/two  (`troupe serve`, process 2, http://127.0.0.1:2)\n"
            f"  TROUPE_DATABASE_URL={url}  (`troupe serve`, process 4, http://127.0.0.1:4)\n"
            "  TROUPE_DATA_DIR=/srv/three  (`troupe serve`, process 5, http://127.0.0.1:5).\n"
        )
        assert run(state, "users", "list", database_url=url).clean


def test_a_password_is_not_kept(state: Path) -> None:
    with registered(server("postgresql://ann:***@db.example/troupe")):
        assert run(state, "users", "list").refusal == (
            "The server that runs (`troupe serve`, process 7, http://127.0.0.1:7) uses"
            " postgresql://ann:***@db.example/troupe; set TROUPE_DATABASE_URL, with the password,"
            " to use that database."
        )


def test_a_server_of_a_database_of_ones_own_writes_no_password(
    folder: Path, state: Path, database_url: URL
) -> None:
    url = database_url.set(drivername="postgresql", password="s3cret")
    with Serving(
        folder, state=state, database_url=url.render_as_string(hide_password=False)
    ) as serving:
        serving.ready()
        (file,) = registry().iterdir()
        text = file.read_text(encoding="utf-8")
        assert "s3cret" not in text
        assert ":***@" in text
        assert '"token": null' in text
        assert serving.token not in text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_file_that_cannot_be_read_is_left_out(state: Path, text: str) -> None:
    with registered(server("/srv/one")):
        (file,) = registry().iterdir()
        file.write_text(text, encoding="utf-8")
        assert running_servers() == []


def test_two_servers_with_one_process_id_are_both_found(state: Path) -> None:
    with registered(server("/srv/one")):
        with registered(server("/srv/two")):
            assert {each.data_dir for each in running_servers()} == {"/srv/one", "/srv/two"}
        assert [each.data_dir for each in running_servers()] == ["/srv/one"]
    assert list(registry().iterdir()) == []


def test_a_folder_in_which_others_can_write_is_not_used(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registered(server("/srv/one")):
        assert len(running_servers()) == 1
        for mode in (0o770, 0o707, 0o1777):
            registry().chmod(mode)
            assert running_servers() == []
            with registered(server("/srv/two")):
                assert len(list(registry().iterdir())) == 1
        registry().chmod(0o755)
        assert len(running_servers()) == 1
        with monkeypatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
            assert running_servers() == []
        # A link to a folder of the account could have been made by another one.
        registry().rename(state / "elsewhere")
        registry().symlink_to(state / "elsewhere")
        assert running_servers() == []


def test_two_commands_that_look_at_once_take_no_killed_server_for_one_that_runs(
    state: Path,
) -> None:
    registry().mkdir(parents=True)
    file = registry() / "7.json"
    file.write_text(json.dumps(asdict(server("/srv/one"))), encoding="utf-8")
    looking = FileLock(file)
    assert looking.try_shared()
    assert running_servers() == []
    looking.close()
    assert not file.exists()


def test_the_file_of_a_server_that_was_killed_while_it_started_is_removed(state: Path) -> None:
    registry().mkdir(parents=True)
    killed, starting = registry() / "7.new", registry() / "8.new"
    for file in (killed, starting):
        file.touch()
    old = time.time() - STARTING_SECONDS - 1
    os.utime(killed, (old, old))
    assert running_servers() == []
    assert list(registry().iterdir()) == [starting]


@pytest.mark.parametrize("method", ["write", "try_exclusive"])
def test_a_server_runs_although_its_file_cannot_be_written(
    state: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def fails(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileLock, method, fails)
    with registered(server("/srv/one")):
        assert list(registry().iterdir()) == []
    if method == "try_exclusive":
        monkeypatch.setattr(FileLock, method, lambda _: False)
        with registered(server("/srv/one")):
            assert list(registry().iterdir()) == []


def test_a_server_runs_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/none")
    with registered(server("/srv/one")):
        assert running_servers() == []


def test_the_newer_code_of_a_command_does_not_migrate_the_database_of_a_server(
    state: Path, database_url: URL
) -> None:
    asyncio.run(migrate.downgrade(database_url, "-1"))
    url = database_url.set(drivername="postgresql").render_as_string(hide_password=False)
    with registered(server(url)):
        said = run(state, "users", "list")
        assert said.status == 1
        assert "back it up, then run `troupe migrate`." in said.err
        assert run(state, "migrate").status == 0
        assert run(state, "users", "list").status == 0
