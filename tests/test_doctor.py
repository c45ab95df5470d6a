"""`troupe doctor`: every check finds what is wrong, and says what to do."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL

import db
from db import embedded, migrate
from graph import doctor
from graph.cli.servers import RunningServer, registered
from graph.doctor import Finding, Status
from graph.settings import Mode, Settings
from tests.conftest import _on_server
from tests.processes import Serving, copied, place, troupe_here

CHECKS = [
    "versions",
    "settings",
    "database",
    "migrations",
    "rights",
    "clock",
    "collation",
    "transactions",
    "connections",
    "notifications",
    "space",
]
PRODUCTION = Settings().model_copy(update={"mode": Mode.PRODUCTION})


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


async def findings(url: URL, settings: Settings = PRODUCTION) -> dict[str, Finding]:
    """What is found about a database, by the checks."""
    found = doctor.examine_database(_text(url), None, settings)
    return {finding.check: finding async for finding in found}


def test_a_server_that_is_well_has_no_findings_while_it_runs_and_when_it_does_not(
    made: tuple[Path, str],
) -> None:
    with place() as folder:
        data_dir = copied(made[0], folder / "data")
        alone = troupe_here("doctor", data_dir=data_dir).printed
        with Serving(folder, data_dir=data_dir) as server:
            server.ready()
            beside = troupe_here("doctor", "--json", data_dir=data_dir).printed
            assert server.stop().clean
    lines = alone.splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == CHECKS
    assert {line.split()[0] for line in lines} == {"OK"}
    report = json.loads(beside)
    assert report["ok"] is True
    assert [each["check"] for each in report["checks"]] == CHECKS
    assert {each["status"] for each in report["checks"]} == {"ok"}


def test_it_makes_no_database() -> None:
    with place() as folder:
        said = troupe_here("doctor", data_dir=folder / "data")
        assert said.status == 0
        assert "WARNING  database: There is no database yet.\n" in said.out
        assert not (folder / "data").exists()


def test_it_examines_the_database_of_the_server_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with place() as folder:
        monkeypatch.setattr(embedded, "default_data_dir", lambda: folder / "default")
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        found: dict[str, Any] = {"state": folder / "state", "data_dir": ""}
        with ExitStack() as stack:
            stack.enter_context(registered(_server(1, "postgresql://127.0.0.1:1/one")))
            ended = troupe_here("doctor", **found)
            assert "PostgreSQL cannot be reached at postgresql://127.0.0.1:1/one" in ended.out
            assert "Using the database of `troupe serve`, process 1" in ended.err
            stack.enter_context(registered(_server(2, "postgresql://127.0.0.1:1/two")))
            ended = troupe_here("doctor", **found)
            assert (ended.status, ended.err) == (1, "")
            assert "FAILED   database: Several servers run; set one of these" in ended.out


def _server(pid: int, url: str) -> RunningServer:
    return RunningServer(pid, "serve", "http://127.0.0.1:1", "/", data_dir=None, database_url=url)


def test_each_wrong_setting_is_named_and_the_status_is_1() -> None:
    ended = troupe_here("doctor", "--json", port="x", max_depth="0")
    assert (ended.status, ended.err) == (1, "")
    report = json.loads(ended.out)
    assert report["ok"] is False
    _, *wrong = report["checks"]
    assert [each["status"] for each in wrong] == ["failed", "failed"]
    assert "TROUPE_PORT=x cannot be used" in wrong[0]["message"]
    assert "TROUPE_MAX_DEPTH=0 cannot be used" in wrong[1]["message"]


@pytest.mark.parametrize(
    ("settings", "status"), [(Settings(), Status.WARNING), (PRODUCTION, Status.FAILED)]
)
def test_a_variable_that_resembles_a_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, status: Status
) -> None:
    # The second is of Kubernetes, and the third of a worker.
    names = ["TROUPE_MAX_DEPHT", "TROUPE_SERVICE_HOST", "TROUPE_TOKEN", "TROUPE_MAX_DEPTH"]
    monkeypatch.setattr(os, "environ", dict.fromkeys(names, "3"))
    (found,) = doctor.check_settings(settings)
    assert (found.status, found.message) == (
        status,
        "TROUPE_MAX_DEPHT is not a setting; did you mean TROUPE_MAX_DEPTH?",
    )
    # Then the traces are looked at, too.
    monkeypatch.setitem(os.environ, "OTEL_TRACES_EXPORTER", "zipkin")
    assert len(list(doctor.check_settings(settings))) == 2


def test_the_doctor_itself_reports_what_is_mistyped() -> None:
    ended = troupe_here("doctor", "--json", mode="production", max_depht=3)
    assert (ended.status, ended.err) == (1, "")
    assert [each["check"] for each in json.loads(ended.out)["checks"]][:2] == CHECKS[:2]


def test_traces_that_cannot_be_sent_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OTEL_TRACES_EXPORTER": "zipkin"})
    (found,) = doctor.check_settings(Settings())
    assert found.status is Status.FAILED
    assert "OTEL_TRACES_EXPORTER=zipkin" in found.message


def test_packages_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        "orjson>=99",
        "pydantic[email]!=2.0,>=2,<3",
        "nothing>=1",
        'mypy>=99; extra == "dev"',
        'rich>=99; sys_platform == "win32"',
        'typer>=99; sys_platform != "win32"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    (found,) = doctor.check_versions()
    assert found.status is Status.FAILED
    for part in ("orjson 3", "(needed: >=99)", "nothing none (needed: >=1)", "typer 0"):
        assert part in found.message
    for name in ("pydantic", "mypy", "rich"):
        assert name not in found.message


@pytest.mark.parametrize("version", ["2.14rc1", "3.0.dev1", "2.13.9"])
def test_an_earlier_version_does_not_fit(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: ["pydantic>=2.14,<3.0.dev0"])
    monkeypatch.setattr(metadata, "version", lambda _: version)
    (found,) = doctor.check_versions()
    assert found.status is Status.FAILED


def test_a_server_that_is_away_is_named_without_its_password() -> None:
    ended = troupe_here("doctor", database_url="postgresql://x:hidden@127.0.0.1:1/z")
    assert ended.status == 1
    assert "FAILED   database: PostgreSQL cannot be reached at postgresql://x:***@" in ended.out
    assert "Check TROUPE_DATABASE_URL" in ended.out
    assert "hidden" not in ended.out


async def test_a_database_that_is_not_migrated_is_for_the_administrator_in_production(
    database_url: URL,
) -> None:
    assert (await findings(database_url))["migrations"].status is Status.OK
    await migrate.downgrade(database_url, "base")
    found = (await findings(database_url))["migrations"]
    assert (found.status, found.advice) == (
        Status.FAILED,
        "Back it up, then run `troupe migrate`.",
    )
    assert "at the migration none" in found.message
    assert (await findings(database_url, Settings()))["migrations"].status is Status.WARNING


async def test_a_database_that_newer_code_has_migrated_is_found(database_url: URL) -> None:
    await _on_server(database_url, "UPDATE alembic_version SET version_num = '9999'")
    for settings in (PRODUCTION, Settings()):
        found = (await findings(database_url, settings))["migrations"]
        assert (found.status, found.message, found.advice) == (
            Status.FAILED,
            "The database is at the migration 9999, which a newer version has made.",
            "Use that version, or another database.",
        )


async def test_a_role_without_rights_and_with_few_connections_is_found(
    server: URL, database_url: URL
) -> None:
    name = database_url.database
    await _on_server(
        server,
        f"CREATE ROLE {name}_role LOGIN PASSWORD 'p' CONNECTION LIMIT 9",
        f"GRANT CONNECT ON DATABASE {name} TO {name}_role",
    )
    try:
        found = await findings(database_url.set(username=f"{name}_role", password="p"))
    finally:
        await _on_server(server, f"DROP OWNED BY {name}_role", f"DROP ROLE {name}_role")
    assert found["rights"].status is Status.FAILED
    assert found["migrations"].status is Status.FAILED
    assert "permission denied for table alembic_version" in found["migrations"].message
    assert f"{name}_role may not read and write access_tokens" in found["rights"].message
    assert f"TO {name}_role." in found["rights"].advice
    assert found["connections"].status is Status.FAILED
    assert "the server allows 9" in found["connections"].message


async def test_a_database_that_takes_no_writes_is_found(server: URL, database_url: URL) -> None:
    await _on_server(
        server, f"ALTER DATABASE {database_url.database} SET default_transaction_read_only = on"
    )
    found = (await findings(database_url))["database"]
    assert (found.status, "takes no writes" in found.message) == (Status.FAILED, True)


async def test_a_collation_of_another_version_is_found(database_url: URL) -> None:
    assert (await findings(database_url))["collation"].status is Status.OK
    name = database_url.database
    await _on_server(
        database_url,
        f"UPDATE pg_database SET datcollversion = '0' WHERE datname = '{name}'",
        "UPDATE pg_collation SET collversion = '0' WHERE collname = 'unicode_case'",
    )
    found = (await findings(database_url))["collation"]
    assert found.status is Status.FAILED
    assert found.advice == (
        f"In a maintenance window: REINDEX DATABASE {name}; ALTER DATABASE {name} REFRESH COLLATION"
        " VERSION; ALTER COLLATION unicode_case REFRESH VERSION."
    )


async def test_a_clock_that_is_wrong_is_found(
    database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    for seconds, status in ((5.0, Status.WARNING), (-60.0, Status.FAILED)):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: now() + seconds)
        assert (await findings(database_url))["clock"].status is status


async def test_a_transaction_that_is_open_for_long_is_found(
    database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = _text(database_url.set(drivername="postgresql"))
    connection = await asyncpg.connect(url)
    try:
        assert (await findings(database_url))["transactions"].status is Status.OK
        monkeypatch.setattr(doctor, "OPEN_SECONDS", 0.5)
        # One that has no snapshot at this moment keeps nothing.
        async with connection.transaction():
            await connection.execute("SELECT 1")
            await asyncio.sleep(1)
            assert (await findings(database_url))["transactions"].status is Status.OK
        await connection.execute("SET application_name = 'report'")
        async with connection.transaction(isolation="repeatable_read"):
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await asyncio.sleep(1)
            found = (await findings(database_url))["transactions"]
    finally:
        await connection.close()
    assert found.status is Status.WARNING
    assert found.message == f"A transaction (process {pid}, report) has been open for 0 minutes."
    assert f"as a superuser or its own role: SELECT pg_terminate_backend({pid}). " in found.advice


async def test_a_notification_that_is_lost_is_found(
    database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "NOTIFY_SECONDS", 0.2)
    opened = db.Database.open

    async def open(database: db.Database, **options: Any) -> Any:
        return _Deaf(await opened(database, **options))

    monkeypatch.setattr(db.Database, "open", open)
    found = (await findings(database_url))["notifications"]
    assert (found.status, "TROUPE_DATABASE_DIRECT_URL" in found.advice) == (Status.FAILED, True)


class _Deaf:
    """A connection that hears nothing, as through a pooler."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def add_listener(self, *_: Any) -> None:
        """Listen to nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.mark.parametrize(
    ("free", "status"),
    [(2**28 - 1, Status.FAILED), (2**31 - 1, Status.WARNING), (2**31, Status.OK)],
)
def test_a_disk_that_is_nearly_full_is_found(
    free: int, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with place() as folder:
        server = embedded.Server(folder, folder, folder, owned=False, _pid=lambda: None)
        (found,) = doctor.check_space(server, 5_000_000)
    assert found.status is status
    assert "the database has 5 MB" in found.message
