"""`troupe serve`: real processes that are asked, stopped, and killed in every order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, select

import db
from db import migrate
from db.embedded import clusters
from tests import processes
from tests.patience import PATIENCE, until
from tests.processes import CLUSTER, Elsewhere, Load, Serving, code, sql, troupe_here

ME = "{ me { username role } }"
ADMIN = {"data": {"me": {"username": "admin", "role": "ADMIN"}}}
PROJECTS = "{ projects { totalCount } }"

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux has many loopback addresses")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the test's own."""
    with processes.place() as folder:
        yield folder


@pytest.fixture
def data_dir(made: tuple[Path, str], folder: Path) -> Path:
    """A data folder of the test's own with a database in it."""
    return processes.copied(made[0], folder / "data")


@pytest.fixture(scope="module")
def served(made: tuple[Path, str]) -> Iterator[Serving]:
    """A server for the tests that leave it as it is, and for the one that kills its database."""
    with processes.place() as folder:
        data_dir = processes.copied(made[0], folder / "data")
        with Serving(folder, data_dir=data_dir) as server:
            yield server.ready()
            assert server.stop().status == 0
            assert server.is_clean()


# Starting


def test_the_first_start_makes_everything_and_the_second_one_is_quick_and_keeps_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir = folder / "new" / "data"
    with Serving(folder, fork=False, data_dir=data_dir) as first:
        first.ready()
        assert f"\nThe embedded database is in {data_dir}.\n" in first.out
        old = first.token
        assert first.ask(ME) == ADMIN
        assert first.get("/livez").json() == {"status": "ok"}
        assert first.get("/readyz").json() == {"status": "ok"}
        users = "SELECT username, role, coalesce(password_hash, 'none') FROM users"
        assert sql(data_dir, users) == "admin|ADMIN|none"
        assert sql(data_dir, "SELECT version_num FROM alembic_version") == migrate.head()
        left = "SELECT extract(epoch FROM expires_at - now()) / 3600 FROM access_tokens"
        assert 11.9 < float(sql(data_dir, left)) < 12
        mutation = 'mutation { createProject(input: {name: "Kept"}) { project { name } } }'
        assert "errors" not in first.ask(mutation)
        assert first.stop(signal.SIGINT).clean
        assert first.is_clean()

    with Serving(folder, fork=False, data_dir=data_dir) as second:
        second.ready()
        took = time.monotonic() - second.began
        with capsys.disabled():
            print(f"\nThe second start was ready after {took:.1f} s.")  # noqa: T201
        assert second.token != old
        for token in (old, second.token):
            assert second.ask(ME, token) == ADMIN
        assert second.ask(PROJECTS) == {"data": {"projects": {"totalCount": 1}}}
        assert second.stop(signal.SIGTERM).clean
        assert second.is_clean()


@pytest.mark.usefixtures("locale")
def test_it_starts_whatever_the_locale(folder: Path, data_dir: Path) -> None:
    data_dir = data_dir.rename(folder / "Bücher")
    with Serving(folder, fork=False, data_dir=data_dir) as server:
        server.ready()
        assert f"\nThe embedded database is in {data_dir}.\n" in server.out
        assert server.ask('{ __type(name: "Größe …") { name } me { username } }') == {
            "data": {"__type": None, "me": {"username": "admin"}}
        }
        assert server.stop().clean


def test_a_second_server_on_the_same_data_is_refused(served: Serving, folder: Path) -> None:
    said = Serving(folder, data_dir=served.data_dir).refusal()
    assert said == (
        f"A troupe server (process {served.pid}) already runs on {served.data_dir}; stop it"
        " first, or set TROUPE_DATA_DIR to another folder."
    )
    assert served.ask(ME) == ADMIN


def test_a_port_that_is_taken_is_refused_before_anything_is_started(
    served: Serving, folder: Path
) -> None:
    port = served.url.rpartition(":")[2]
    said = Serving(folder, data_dir=folder / "data", port=port).refusal()
    assert said.startswith(f"Cannot listen on 127.0.0.1:{port} (")
    assert "set TROUPE_PORT to another port" in said
    assert not (folder / "data").exists()


# Stopping


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("initdb works", signal.SIGTERM),
        ("PostgreSQL starts", signal.SIGINT),
        ("PostgreSQL is ready", signal.SIGTERM),
        ("tables are made", signal.SIGHUP),
    ],
)
def test_it_can_be_stopped_while_it_is_still_starting(
    folder: Path, moment: str, number: signal.Signals
) -> None:
    data_dir = folder / "data"
    cluster, socket_dir = data_dir / CLUSTER, data_dir / "postgres-socket"
    has_come = {
        "initdb works": lambda: any(data_dir.glob(f".{CLUSTER}.*/PG_VERSION")),
        "PostgreSQL starts": (cluster / "postmaster.pid").exists,
        "PostgreSQL is ready": lambda: clusters.is_ready(cluster, socket_dir),
        "tables are made": lambda: (
            clusters.is_ready(cluster, socket_dir)
            and sql(data_dir, "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'CREATE'") > "1"
        ),
    }
    with Serving(folder, data_dir=data_dir) as server:
        until(has_come[moment])
        assert server.stop(number).clean
        assert server.is_clean()
    assert not any(data_dir.glob(f".{CLUSTER}.*"))
    # What was begun is whole or not there.
    migrated = processes.stored(data_dir, "SELECT to_regclass('users') IS NOT NULL")
    assert migrated in "tf"
    if migrated == "t":
        assert processes.stored(data_dir, "SELECT version_num FROM alembic_version")


def test_what_is_in_flight_is_answered_before_it_stops(folder: Path, data_dir: Path) -> None:
    with (
        Serving(folder, data_dir=data_dir, nohup=True) as server,
        ThreadPoolExecutor() as threads,
    ):
        server.ready()
        server.send(signal.SIGHUP)  # started by nohup, it lives on
        with processes.locked(data_dir, "projects") as unlock:
            asked = threads.submit(server.ask, PROJECTS)
            until(lambda: processes.waits(data_dir))
            server.send(signal.SIGTERM)
            until(lambda: refuses(server))
            assert not asked.done()
            unlock()
            assert asked.result() == {"data": {"projects": {"totalCount": 0}}}
        assert server.ended().clean
        assert server.is_clean()


def refuses(server: Serving) -> bool:
    """Whether a server takes no more connections."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_while_it_drains_it_answers_but_is_not_ready(folder: Path, data_dir: Path) -> None:
    with Serving(folder, data_dir=data_dir, drain_seconds=2) as server:
        server.ready()
        asked = time.monotonic()
        server.send(signal.SIGTERM)
        readiness = until(lambda: not_ready(server))
        assert readiness == (503, {"status": "unavailable", "reason": "draining"})
        assert server.get("/livez").status_code == 200
        assert server.ask(ME) == ADMIN
        assert server.ended().clean
        assert time.monotonic() - asked > 2
        assert server.is_clean()


def not_ready(server: Serving) -> tuple[int, Any] | None:
    """What a server's readiness answers, once it is not ready."""
    response = server.get("/readyz")
    return None if response.status_code == 200 else (response.status_code, response.json())


def test_a_second_signal_shortens_the_draining(folder: Path, data_dir: Path) -> None:
    with Serving(folder, data_dir=data_dir, drain_seconds=600) as server:
        server.ready()
        server.send(signal.SIGTERM)
        until(lambda: not_ready(server))
        assert server.stop(signal.SIGTERM).clean
        assert server.is_clean()


def test_what_cannot_end_in_the_grace_period_is_told_so_and_changes_nothing(
    folder: Path, data_dir: Path
) -> None:
    create = 'mutation { createProject(input: {name: "Late"}) { project { id } } }'
    with (
        Serving(folder, data_dir=data_dir, grace_seconds=1) as server,
        ThreadPoolExecutor() as threads,
    ):
        server.ready()
        with processes.locked(data_dir, "projects"):
            asked = [threads.submit(server.send_raw, query) for query in (PROJECTS, create)]
            until(lambda: sql(data_dir, WAITING) == "2")
            server.send(signal.SIGTERM)
            told = []
            for answer in asked:
                response = answer.result()
                assert response.status_code == 503
                assert code(response.json()) == "UNAVAILABLE"
                told.append(response.json()["errors"][0]["extensions"])
                wait = told[-1].get("retryAfter")
                assert response.headers.get("retry-after") == (wait and str(wait))
            # Of several changes some would be done.
            assert told[0] == {"code": "UNAVAILABLE", "retryAfter": 1}
            # Who does not know what was done should look first.
            assert told[1] == {"code": "UNAVAILABLE", "outcome": "UNKNOWN"}
            # The lock is still held: what waited for it was stopped, not answered late.
            assert server.ended().status == 0
        assert server.is_clean()
    assert processes.stored(data_dir, "SELECT count(*) FROM projects") == "0"


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


def test_a_second_interrupt_ends_what_is_in_flight(folder: Path, data_dir: Path) -> None:
    with (
        Serving(folder, data_dir=data_dir, grace_seconds=600) as server,
        ThreadPoolExecutor() as threads,
    ):
        server.ready()
        with processes.locked(data_dir, "projects"):
            asked = threads.submit(server.ask, PROJECTS)
            until(lambda: processes.waits(data_dir))
            server.send(signal.SIGINT)
            until(lambda: refuses(server))
            # Left to itself, it would wait for much longer than this test does.
            assert server.stop(signal.SIGINT).status == 0
            assert asked.exception() is not None
        assert server.is_clean()


# Killing


@pytest.mark.parametrize(
    "order",
    [("server",), ("database", "server"), ("server", "database")],
    ids=["the server", "the database, then the server", "the server, then the database"],
)
def test_killing_leaves_nothing_running_and_loses_no_committed_row(
    folder: Path, data_dir: Path, made: tuple[Path, str], order: tuple[str, ...]
) -> None:
    with Serving(folder, data_dir=data_dir) as server:
        server.ready()
        with Load(server) as load:
            load.more(20)
            postmaster = server.postmaster
            for which in order:
                if which == "server":
                    server.send(signal.SIGKILL)
                else:
                    end(postmaster)
            server.kill()
        until(lambda: processes.processes_of(data_dir) == [], 10)
    if len(order) > 1:
        names = processes.stored(data_dir, "SELECT name FROM projects").splitlines()
        assert load.acknowledged <= set(names)
        return
    with Serving(folder, data_dir=data_dir) as server:
        server.ready()
        names = sql(data_dir, "SELECT name FROM projects").splitlines()
        assert load.acknowledged <= set(names)
        assert server.ask(PROJECTS, made[1]) == {"data": {"projects": {"totalCount": len(names)}}}
        assert server.stop().status == 0


def end(pid: int) -> None:
    """End a process as `kill -9` does, unless it ended before."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_a_database_that_is_killed_comes_back_under_the_server(
    served: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    probes: set[tuple[str, int]] = set()
    with Load(served) as load:
        load.more(20)
        old, began = served.postmaster, time.monotonic()
        os.kill(old, signal.SIGKILL)
        before = len(load.acknowledged)
        while len(load.acknowledged) < before + 20:
            probes |= {(path, served.get(path).status_code) for path in ("/livez", "/readyz")}
            assert time.monotonic() - began < PATIENCE
        with capsys.disabled():
            took = time.monotonic() - began
            print(f"\nIt answered again after {took:.1f} s; {dict(load.refused)}")  # noqa: T201
    assert served.postmaster != old
    assert load.broken == []
    assert load.refused.keys() <= {"UNAVAILABLE", "OVERLOADED"}
    assert probes <= {("/livez", 200), ("/readyz", 200), ("/readyz", 503)}
    names = sql(served.data_dir, "SELECT name FROM projects").splitlines()
    assert load.acknowledged <= set(names)
    assert f"PostgreSQL (pid {old}) ended by signal 9; starting it again" in served.err
    assert "fault" not in served.err


def test_a_database_that_is_killed_again_and_again_comes_back(folder: Path, data_dir: Path) -> None:
    with Serving(folder, data_dir=data_dir) as server:
        server.ready()
        reasons = set()
        for _ in range(5):
            old = server.postmaster
            os.kill(old, signal.SIGKILL)
            for file in data_dir.glob(f"{CLUSTER}/postmaster.pid"):
                # As a full disk leaves it.
                file.write_text("", encoding="utf-8")
            status, told = until(lambda: not_ready(server)) or (0, {})
            assert status == 503
            while status == 503:
                reasons.add(told["reason"])
                time.sleep(0.01)
                status, told = not_ready(server) or (200, {})
            assert server.ask(ME) == ADMIN
        assert reasons <= {"restarting", "database"}
        assert "restarting" in reasons
        assert "ended by signal 9; starting it again\n" in server.err
        assert "ended by signal 9; starting it again in 4 seconds\n" in server.err
        assert server.stop().status == 0


@contextlib.contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """A disk of its own, where the tests may have one."""
    place.mkdir(mode=0o755)
    mount: list[str | Path] = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        f"size={megabytes}m,mode=755",
        "tmpfs",
        place,
    ]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount).returncode:
        pytest.skip("no disk can be mounted")
    try:
        yield place
    finally:
        until(lambda: subprocess.run(["umount", place]).returncode == 0)


def test_a_full_disk_is_told_and_got_over(folder: Path, made: tuple[Path, str]) -> None:
    store = """mutation($text: JSON!) {
      createProject(input: {name: "Large", description: $text}) { project { name } }
    }"""
    full = "The database has no room left. Try again later."
    no_room = (503, {"status": "unavailable", "reason": "no room left"})

    def ask(server: Serving) -> Any:
        return server.ask(store, text=secrets.token_hex(100_000))

    def refused(server: Serving) -> Any:
        """The error that says so; PostgreSQL may stop and start before and after it."""
        (error,) = ask(server).get("errors", [{"message": ""}])
        assert error["message"] in ("", full) or error["extensions"]["code"] == "UNAVAILABLE"
        return error if error["message"] == full else None

    with small_disk(folder / "disk", 256) as disk:
        data_dir = processes.copied(made[0], disk / "data")
        with Serving(folder, data_dir=data_dir) as server:
            server.ready()
            for ends in (False, True):
                rubbish = disk / "rubbish"
                with contextlib.suppress(OSError), rubbish.open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(2**20) if file.tell() < 2**27 else bytes(4096))
                if ends:
                    os.kill(server.postmaster, signal.SIGKILL)
                error = until(lambda: refused(server))
                assert error["extensions"] == {"code": "UNAVAILABLE", "retryAfter": 60}
                until(lambda: not_ready(server) == no_room)
                assert server.get("/livez").status_code == 200
                if ends:
                    until(lambda: "; the disk is full; starting it again" in server.err)
                else:
                    until(lambda: server.ask(ME) == ADMIN)
                rubbish.unlink()
                until(lambda: server.get("/readyz").status_code == 200)
                assert ask(server) == {"data": {"createProject": {"project": {"name": "Large"}}}}
            assert "; the disk is full; starting it again" in server.err
            assert "fault" not in server.err
            assert server.stop().status == 0


# A database of one's own


@linux
def test_a_database_of_ones_own_may_go_away_and_come_back(folder: Path, data_dir: Path) -> None:
    elsewhere = Elsewhere(data_dir)
    with elsewhere.running():
        elsewhere.make_database()
        server = Serving(folder, database_url=elsewhere.url())
        server.ready()
    with server:
        assert code(server.ask(ME)) == "UNAVAILABLE"
        readiness = server.get("/readyz")
        assert readiness.status_code == 503
        assert readiness.json() == {"status": "unavailable", "reason": "database"}
        assert server.get("/livez").status_code == 200
        with elsewhere.running():
            assert server.ask(ME) == ADMIN
            assert server.get("/readyz").status_code == 200
            assert "The embedded database" not in server.out
            assert server.stop().status == 0
            # It is not ours to stop.
            assert sql(data_dir, "SELECT 1") == "1"
        assert Elsewhere.PASSWORD not in server.out + server.err


async def usernames(url: str) -> list[str]:
    """The names of all users in a database."""
    database = db.Database(url)
    async with database.read() as session:
        found = list(await session.scalars(select(db.User.username)))
    await database.dispose()
    return found


def test_in_production_a_database_is_migrated_by_hand_and_strangers_learn_nothing(
    folder: Path, database_url: URL
) -> None:
    url = database_url.set(drivername="postgresql").render_as_string(hide_password=False)
    settings: dict[str, Any] = {"database_url": url, "mode": "production"}
    asyncio.run(migrate.downgrade(database_url, "base"))
    said = Serving(folder, **settings).refusal()
    assert said == (
        f"The database is at the migration none, and this version of Troupe needs {migrate.head()}:"
        " back it up, then run `troupe migrate`."
    )
    migrated = troupe_here("migrate", **settings).printed
    assert migrated == f"The database is at the migration {migrate.head()}.\n"
    with Serving(folder, **settings) as server:
        server.ready()
        assert asyncio.run(usernames(url)) == ["admin"]
        assert "troupe_" not in server.out
        assert "token" not in server.out
        anonymous: dict[str, str] = {}
        assert server.ask_with(anonymous, "{ __typename }") == {"data": {"__typename": "Query"}}
        for query in (
            "{ __schema { queryType { name } } }",
            '{ __type(name: "User") { name } }',
            ME,
        ):
            assert code(server.ask_with(anonymous, query)) == "UNAUTHENTICATED"
        token = troupe_here(
            "tokens", "create", "ops", "--user", "admin", **settings
        ).printed.strip()
        assert server.ask(ME, token) == ADMIN
        assert "errors" not in server.ask("{ __schema { queryType { name } } }", token)
        assert server.stop().clean


# The life of a token


@pytest.fixture
def ann(served: Serving) -> Iterator[str]:
    """The id of a user `ann`."""
    given = '{username: "ann", email: "ann@example.org"}'
    mutation = f"mutation {{ createUser(input: {given}) {{ user {{ id }} }} }}"
    id = served.ask(mutation)["data"]["createUser"]["user"]["id"]
    yield id
    sql(served.data_dir, "DELETE FROM users WHERE username = 'ann'")


def token_of(served: Serving, username: str) -> str:
    """A token that `troupe tokens create` prints while the server runs."""
    command = ("tokens", "create", "test", "--user", username, "--days", "1")
    printed = troupe_here(*command, data_dir=served.data_dir).printed
    assert re.fullmatch(r"troupe_[\w-]{43}\n", printed)
    return printed.strip()


def expire(served: Serving, id: str) -> None:
    sql(served.data_dir, "UPDATE access_tokens SET expires_at = now() WHERE name = 'test'")


def revoke(served: Serving, id: str) -> None:
    sql(served.data_dir, "UPDATE access_tokens SET revoked_at = now() WHERE name = 'test'")


def deactivate(served: Serving, id: str) -> None:
    change = "mutation($id: ID!) { updateUser(input: {id: $id, isActive: false}) { user { id } } }"
    assert "errors" not in served.ask(change, id=id)


def delete(served: Serving, id: str) -> None:
    change = "mutation($id: ID!) { deleteUser(input: {id: $id}) { userErrors { code } } }"
    assert served.ask(change, id=id)["data"]["deleteUser"]["userErrors"] == []


@pytest.mark.parametrize("ends", [expire, revoke, deactivate, delete])
def test_a_token_opens_nothing_once_it_ended(served: Serving, ann: str, ends: Any) -> None:
    token = token_of(served, "ann")
    assert served.ask(ME, token) == {"data": {"me": {"username": "ann", "role": "USER"}}}
    ends(served, ann)
    # The promise is a second.
    until(lambda: "errors" in served.ask(ME, token), 1)
    for query in (ME, "{ __typename }"):
        answer = served.ask(query, token)
        assert code(answer) == "UNAUTHENTICATED"
        assert answer["errors"][0]["message"].startswith("This access token is unknown")
    assert served.ask(ME) == ADMIN


@pytest.mark.parametrize("token", ["troupe_", "x" * 5000, "Bearer", "' OR true --", "a b"])
def test_an_unknown_token_opens_nothing(served: Serving, token: str) -> None:
    answer = served.ask("{ __typename }", token)
    assert code(answer) == "UNAUTHENTICATED"
    assert answer["errors"][0]["message"].startswith("This access token is unknown")


@pytest.mark.parametrize("value", ["Basic {}", "Token {}", "{}", "Bearer", "Bearer{}"])
def test_another_way_to_log_in_is_nobody(served: Serving, value: str) -> None:
    headers = {"authorization": value.format(served.token)}
    assert served.ask_with(headers, "{ __typename }") == {"data": {"__typename": "Query"}}
    answer = served.ask_with(headers, ME)
    assert code(answer) == "UNAUTHENTICATED"
    assert answer["errors"][0]["message"].startswith("Send an access token")


def test_the_scheme_of_a_token_is_read_in_any_case(served: Serving) -> None:
    for scheme in ("bearer", "BEARER", "Bearer  "):
        assert served.ask_with({"authorization": f"{scheme} {served.token}"}, ME) == ADMIN
