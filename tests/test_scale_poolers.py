"""Through PgBouncer in transaction mode, which may give each transaction another session."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import AsyncMock

import asyncpg
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

import db
from db import migrate
from db.connections import connect, is_refusal
from db.poolers import SharedSession
from db.scopes import Viewer
from db.sessions import commit
from graph.doctor import Finding, Status, examine_database
from graph.settings import Settings
from tests import factories, poolers, processes
from tests.patience import becomes
from tests.poolers import Bouncer, options_of_the_page
from tests.processes import Elsewhere, Load, Serving, troupe_here

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="Linux has many loopback addresses"),
    pytest.mark.usefixtures("pgbouncer"),
]

pgbouncer = poolers.pgbouncer

# What a session has: settings that Troupe changes, and statements that are prepared.
LEFT = """
    SELECT current_setting('enable_seqscan'), current_setting('statement_timeout'),
      current_setting('jit'), (SELECT count(*)::int FROM pg_prepared_statements)
"""


# A table whose transactions wait in COMMIT.
SLOW = """
    CREATE TABLE slow (n int);
    GRANT ALL ON slow TO ann;
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
      AS 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW EXECUTE FUNCTION wait();
"""

INSERT = "INSERT INTO slow VALUES (1)"

SLEEPING = "SELECT max(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


class Pooled(NamedTuple):
    """A PostgreSQL behind PgBouncer."""

    data_dir: Path
    direct: str
    transaction: str
    """Through PgBouncer in transaction mode."""
    session: str
    """Through PgBouncer in session mode."""
    token: str
    """The token of an administrator."""


@pytest.fixture(scope="module")
def pooled(made: tuple[Path, str]) -> Iterator[Pooled]:
    with processes.place() as folder:
        elsewhere = Elsewhere(processes.copied(made[0], folder / "data"), database="troupe")
        with elsewhere.running():
            processes.sql(
                elsewhere.data_dir, f"CREATE ROLE ann LOGIN PASSWORD '{Elsewhere.PASSWORD}'"
            )
            processes.sql(elsewhere.data_dir, "GRANT ALL ON ALL TABLES IN SCHEMA public TO ann")
            # Others share these sessions, and their settings are not those of Troupe.
            processes.sql(elsewhere.data_dir, "ALTER ROLE ann SET jit = on")
            isolation = "default_transaction_isolation = 'serializable'"
            processes.sql(elsewhere.data_dir, f"ALTER ROLE ann SET {isolation}")
            urls: list[str] = []
            bouncers: list[Bouncer] = []
            for options in (
                # Few sessions, so that each client gets those of others.
                options_of_the_page() + "default_pool_size = 3\n",
                "pool_mode = session\n",
            ):
                place = folder / str(len(urls))
                place.mkdir()
                bouncer = Bouncer(place, elsewhere.host, "ann", Elsewhere.PASSWORD, options)
                bouncers.append(bouncer)
                urls.append(elsewhere.url(host="127.0.0.1", port=bouncer.port))
            yield Pooled(elsewhere.data_dir, elsewhere.url(), urls[0], urls[1], made[1])
            for bouncer in bouncers:
                bouncer.kill()


@pytest.fixture
async def database(pooled: Pooled) -> AsyncIterator[db.Database]:
    database = db.Database(pooled.transaction, direct_url=pooled.direct)
    yield database
    await database.dispose()


async def left(pooled: Pooled) -> set[Any]:
    """What Troupe has left in the sessions of PgBouncer."""
    plain = pooled.transaction.replace("+asyncpg", "")
    connections = [await asyncpg.connect(plain, statement_cache_size=0) for _ in range(3)]
    transactions = [connection.transaction() for connection in connections]
    for transaction in transactions:
        await transaction.start()  # so that each one has a session of its own
    found = {tuple(*await connection.fetch(LEFT)) for connection in connections}
    for connection in connections:
        await connection.close()
    return found


READ_SETTINGS = (
    "SELECT (ARRAY[$1::text, current_setting('transaction_isolation'), current_setting('jit'),"
    " current_setting('enable_seqscan')])"
)


async def test_statements_of_many_clients_keep_their_settings_and_leave_nothing(
    pooled: Pooled, database: db.Database
) -> None:
    async def compiled(number: int, *, by_key: bool) -> None:
        rows = await database.fetch(READ_SETTINGS, [str(number)], by_key=by_key)
        seqscan = "off" if by_key else "on"
        assert rows[0][0] == [str(number), "read committed", "off", seqscan]

    async def resolved(number: int) -> None:
        async with database.read() as session:
            for added in range(3):
                # Each text is another statement, and some are repeated.
                query = text(f"SELECT {number % 7} + :added, current_setting('jit')")
                found = (await session.execute(query, {"added": added})).one()
                assert tuple(found) == (number % 7 + added, "off")

    async def written(number: int) -> None:
        async with database.write(Viewer(is_administrator=True)) as session:
            project = await factories.make_project(session, None, name=f"Pooled {number}")
            name = await session.scalar(select(db.Project.name).where(db.Project.id == project.id))
            assert name == f"Pooled {number}"
            level = await session.scalar(text("SHOW transaction_isolation"))
            assert level == "read committed"

    work = []
    for number in range(100):
        work += [
            compiled(number, by_key=False),
            compiled(number, by_key=True),
            resolved(number),
            written(number),
        ]
    await asyncio.gather(*work)
    assert await left(pooled) == {("on", "0", "on", 0)}


async def test_a_write_is_cancelled_or_refused_and_its_connection_serves_on(
    database: db.Database,
) -> None:
    pool = database._by_key
    with pytest.raises(asyncpg.QueryCanceledError):
        await pool.write("SELECT pg_sleep(20)::text", (), 0.2)
    # The time limit was that of one statement only.
    assert await pool.rows("SELECT current_setting('statement_timeout')", ()) == [("30s",)]
    with pytest.raises(asyncpg.DivisionByZeroError):
        await pool.write("SELECT 1 / 0", (), 5)
    assert await pool.write("SELECT 1", (), 5) == [(1,)]
    assert (pool.in_use, len(pool._idle)) == (0, 1)


async def alone(database: db.Database) -> None:
    """Write by a statement that is a transaction of its own."""
    await database._by_key.write(INSERT, (), 30)


async def in_session(database: db.Database) -> None:
    """Write in a transaction of several statements."""
    async with database.write(Viewer(is_administrator=True)) as session:
        await session.execute(text(INSERT))


@pytest.mark.parametrize("write", [alone, in_session])
async def test_a_commit_that_pgbouncer_cannot_confirm_has_an_unknown_outcome(
    pooled: Pooled, database: db.Database, write: Callable[[db.Database], Coroutine[Any, Any, None]]
) -> None:
    processes.sql(
        pooled.data_dir, f"DROP TABLE IF EXISTS slow; DROP FUNCTION IF EXISTS wait; {SLOW}"
    )
    writing = asyncio.create_task(write(database))
    pid = await becomes(lambda: processes.sql(pooled.data_dir, SLEEPING))
    # PgBouncer itself goes on, and says that the server is gone.
    os.kill(int(pid), signal.SIGKILL)
    with pytest.raises(db.OutcomeUnknown):
        await writing
    await becomes(lambda: answers(database))


async def answers(database: db.Database) -> bool:
    """Whether the database can be read again."""
    try:
        return await database.fetch("SELECT 1", []) == [(1,)]
    except Exception:
        return False


async def test_what_belongs_to_a_session_needs_postgresql_itself(
    pooled: Pooled, database: db.Database
) -> None:
    connection = await database.open()
    assert not connection.is_pooled
    await connection.close()
    without = db.Database(pooled.transaction)
    with pytest.raises(SharedSession, match="TROUPE_DATABASE_DIRECT_URL"):
        await without.open()
    await without.dispose()
    with pytest.raises(SharedSession):
        await migrate.upgrade(pooled.transaction)
    # What only looks is possible.
    await migrate.refuse_unsuitable(pooled.transaction)
    await migrate.refuse_unless_at_head(pooled.transaction)


async def test_a_pooler_that_keeps_sessions_can_be_used_for_all(pooled: Pooled) -> None:
    database = db.Database(pooled.session)
    connection = await database.open()
    assert not connection.is_pooled
    arrived = asyncio.Event()
    await connection.add_listener("pooled", lambda *_: arrived.set())
    await database.fetch("SELECT pg_notify('pooled', '')", [])
    async with asyncio.timeout(5):
        await arrived.wait()
    assert await connection.fetchval("SHOW statement_timeout") == "30s"
    await connection.close()
    await database.dispose()


async def test_without_a_pooler_settings_are_those_of_the_session(pooled: Pooled) -> None:
    connection = await connect({}, dsn=pooled.direct.replace("+asyncpg", ""))
    assert not connection.is_pooled
    assert await connection.fetchval("SHOW default_transaction_isolation") == "read committed"
    assert not connection.is_in_transaction()
    await connection.close()


def test_a_server_in_transaction_mode(pooled: Pooled, tmp_path: Path) -> None:
    urls = {"database_url": pooled.transaction, "database_direct_url": pooled.direct}
    with Serving(tmp_path, mode="production", **urls) as server:
        server.ready()
        with Load(server, token=pooled.token, reads=True) as load:
            load.more()
            load.more()
        assert load.refused == {}
        assert load.broken == []
        ended = server.stop()
        assert "Traceback" not in ended.err + ended.out


def test_a_server_in_development_migrates_past_the_pooler(pooled: Pooled, tmp_path: Path) -> None:
    urls = {"database_url": pooled.transaction, "database_direct_url": pooled.direct}
    with Serving(tmp_path, mode="development", **urls) as server:
        server.ready()


def test_commands_use_postgresql_itself(pooled: Pooled) -> None:
    urls: dict[str, Any] = {
        "database_url": pooled.transaction,
        "database_direct_url": pooled.direct,
    }
    done = troupe_here("migrate", **urls)
    assert (done.status, done.err) == (0, "")
    alone = troupe_here("migrate", database_url=pooled.transaction)
    assert "TROUPE_DATABASE_DIRECT_URL" in alone.refusal


def test_it_does_not_start_without_postgresql_itself(pooled: Pooled, tmp_path: Path) -> None:
    server = Serving(tmp_path, mode="production", database_url=pooled.transaction)
    assert "TROUPE_DATABASE_DIRECT_URL" in server.refusal()


async def findings(settings: Settings, url: str) -> dict[str, Finding]:
    """What `troupe doctor` finds about a database, by the checks."""
    found = examine_database(url, None, settings)
    return {finding.check: finding async for finding in found}


async def test_the_doctor_looks_past_the_pooler(pooled: Pooled) -> None:
    direct = Settings(database_direct_url=pooled.direct)
    found = await findings(direct, pooled.transaction)
    wrong = [each for each in found.values() if each.status is Status.FAILED]
    assert wrong == []
    assert {"pooler", "notifications", "migrations"} <= set(found)
    (only,) = (await findings(Settings(), pooled.transaction)).values()
    assert (only.check, only.status) == ("pooler", Status.FAILED)
    assert "TROUPE_DATABASE_DIRECT_URL" in only.message
    assert (await findings(Settings(), pooled.session))["notifications"].status is Status.OK
    elsewhere = Settings(database_direct_url=pooled.direct.replace("/troupe", "/postgres"))
    found = await findings(elsewhere, pooled.transaction)
    assert found["pooler"].status is Status.FAILED
    assert "another database" in found["pooler"].message
    away = pooled.direct.replace("5432", "1")
    assert (await findings(direct, away))["pooler"].status is Status.FAILED


async def test_the_doctor_counts_no_connections_to_the_pooler(pooled: Pooled) -> None:
    direct = Settings(database_direct_url=pooled.direct)
    # Less than the pools have.
    processes.sql(pooled.data_dir, "ALTER ROLE ann CONNECTION LIMIT 30")
    try:
        through = (await findings(direct, pooled.transaction))["connections"]
        around = (await findings(direct, pooled.direct))["connections"]
    finally:
        processes.sql(pooled.data_dir, "ALTER ROLE ann CONNECTION LIMIT -1")
    assert through.status is Status.OK
    assert through.message.startswith(
        "A process may open 4 connections besides those to the pooler; the server allows 30,"
    )
    assert around.status is Status.FAILED
    assert around.message.startswith("A process may open 44 connections; the server allows 30,")


@pytest.mark.parametrize(
    ("cause", "raised"),
    [
        (asyncpg.UniqueViolationError("taken"), DBAPIError),
        # As PgBouncer says that it has lost PostgreSQL.
        (asyncpg.ProtocolViolationError("server conn crashed?"), db.OutcomeUnknown),
    ],
)
async def test_only_what_postgresql_refuses_is_not_committed(
    cause: Exception, raised: type[Exception]
) -> None:
    error = DBAPIError("COMMIT", (), cause)
    error.__cause__ = cause
    session = AsyncMock()
    session.commit.side_effect = error
    with pytest.raises(raised):
        await commit(session)
    assert is_refusal(cause) is (raised is DBAPIError)
