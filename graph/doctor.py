"""`troupe doctor`: checks what a server needs, and says what to do about what it finds."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from typing import Any

import orjson
from packaging.requirements import Requirement

from db import Database, migrate
from db.connections import DRIVER_ERRORS, reason, shown
from db.embedded import EmbeddedError, Server, has_database
from db.poolers import SharedSession
from db.replicas import REPLAYED, WRITTEN
from db.settings import SettingsError
from graph.settings import Mode, Settings, mistyped
from graph.tracing import activation

# How far the clock of the database may be off, in seconds.
CLOCK_WARNING, CLOCK_FAILURE = 1.0, 30.0

# How much of the disk should be free, in bytes.
SPACE_WARNING, SPACE_FAILURE = 2 * 2**30, 2**28

# How long a notification may take, in seconds.
NOTIFY_SECONDS = 5.0

# How long a replica may take to show what was written before, in seconds.
LAG_SECONDS = 5.0

# How long a transaction may be open, in seconds.
OPEN_SECONDS = 300.0

# The connections of a process besides its pools: those that number events, follow them, and cancel.
OTHER_CONNECTIONS = 4

ENCODING = """
    SELECT pg_encoding_to_char(encoding), datcollversion,
      pg_database_collation_actual_version(oid), quote_ident(datname)
    FROM pg_database WHERE datname = current_database()
"""

COLLATIONS = """
    SELECT oid::regcollation::text FROM pg_collation
    WHERE collversion IS NOT NULL AND collnamespace <> 'pg_catalog'::regnamespace
      AND collversion <> pg_collation_actual_version(oid)
"""

CONNECTIONS = """
    SELECT current_setting('max_connections')::int
      - current_setting('superuser_reserved_connections')::int
      - coalesce(current_setting('reserved_connections', true)::int, 0),
      (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
      (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
      (SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())
"""

# Transactions that keep old versions of rows, because they have a snapshot or have written: those
# of the sessions that the role may see, and prepared ones.
TRANSACTIONS = """
    SELECT extract(epoch FROM clock_timestamp() - begun_at)::float8, name, end_it
    FROM (
      SELECT xact_start,
        format('process %s%s', pid, nullif(format(', %s', application_name), ', ')),
        format('SELECT pg_terminate_backend(%s)', pid)
      FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND backend_type = 'client backend' AND coalesce(backend_xid, backend_xmin) IS NOT NULL
      UNION ALL
      SELECT prepared, format('prepared, %L', gid), format('ROLLBACK PREPARED %L', gid)
      FROM pg_prepared_xacts WHERE database = current_database()
    ) AS found (begun_at, name, end_it)
    ORDER BY begun_at LIMIT 1
"""

# The tables that the role of the server may not read or write.
REFUSED = """
    SELECT c.relname FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
      AND NOT (
        has_table_privilege(c.oid, 'SELECT') AND (
          c.relname = 'alembic_version'
          OR has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE')
          AND has_table_privilege(c.oid, 'DELETE')
        )
      )
    ORDER BY c.relname
"""


# Which database this is: a replica has the same identifier, and another server another one.
IDENTITY = "SELECT system_identifier, current_database() FROM pg_control_system()"

REPLICATION = """
    SELECT pg_is_in_recovery(), EXISTS (SELECT FROM pg_stat_wal_receiver),
      CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END
"""


class Status(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    """A server runs, and something should be done."""
    FAILED = "failed"
    """A server does not run, or loses something."""


@dataclass(frozen=True)
class Finding:
    """What a check has found."""

    check: str
    status: Status
    message: str
    advice: str = ""
    """What to do, unless it is ok."""


def _ok(check: str, message: str) -> Finding:
    return Finding(check, Status.OK, message)


def _warning(check: str, message: str, advice: str) -> Finding:
    return Finding(check, Status.WARNING, message, advice)


def _failed(check: str, message: str, advice: str) -> Finding:
    return Finding(check, Status.FAILED, message, advice)


# This machine


def check_versions() -> Iterator[Finding]:
    """The versions of Python and of the packages."""
    python = ".".join(map(str, sys.version_info[:3]))
    wrong = []
    for text in metadata.requires("troupe") or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue  # for an extra, or another system
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} none (needed: {wanted.specifier})")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} {found} (needed: {wanted.specifier})")
    if wrong:
        advice = "Install the versions of requirements.txt."
        yield _failed("versions", f"Packages do not fit: {', '.join(wrong)}.", advice)
    else:
        version = metadata.version("troupe")
        yield _ok("versions", f"Troupe {version}, Python {python}; all packages fit.")


def check_settings(settings: Settings) -> Iterator[Finding]:
    """The variables of the environment, once they are known to be valid."""
    # In production, a server does not start with them.
    report = _failed if settings.mode is Mode.PRODUCTION else _warning
    names = mistyped(os.environ)
    for message in names:
        yield report("settings", message, "Correct the name of the variable, or unset it.")
    try:
        traced = activation.is_wanted()
    except SettingsError as error:
        yield _failed("settings", str(error), "Correct the variable.")
        return
    if not names:
        yield _ok("settings", f"All are valid. Traces are {'' if traced else 'not '}sent.")


def check_space(server: Server | None, size: int) -> Iterator[Finding]:
    """The free space of the disk of the database, if it is on this machine."""
    if server is None:
        text = f"The database has {_size(size)}; the disk of its server cannot be seen from here."
        yield _ok("space", text)
        return
    free = shutil.disk_usage(server.data_dir).free
    message = f"{_size(free)} are free in {server.data_dir}; the database has {_size(size)}."
    advice = "Free some space: PostgreSQL stops if it cannot write."
    if free < SPACE_FAILURE:
        yield _failed("space", message, advice)
    elif free < SPACE_WARNING:
        yield _warning("space", message, advice)
    else:
        yield _ok("space", message)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


# The database


async def check_server(connection: Any, setting: str) -> AsyncIterator[Finding]:
    """The version of PostgreSQL, and whether it takes writes. `setting` has its URL."""
    version = await connection.fetchval("SHOW server_version")
    text = f"PostgreSQL {version.split()[0]}"
    if connection.get_server_version().major < migrate.OLDEST_SERVER:
        advice = f"Use PostgreSQL {migrate.OLDEST_SERVER} or later."
        yield _failed("database", f"It is {text}.", advice)
    elif await connection.fetchval("SHOW transaction_read_only") == "on":
        advice = f"Name the primary in {setting}, or end its read-only mode."
        yield _failed("database", f"{text} takes no writes.", advice)
    else:
        yield _ok("database", f"{text} takes writes.")


async def check_migrations(connection: Any, settings: Settings) -> AsyncIterator[Finding]:
    """Whether the database is at the migration of this version."""
    found, head = await _revision(connection), migrate.head()
    if found == head:
        yield _ok("migrations", f"The database is at the migration {head}.")
        return
    if not migrate.is_known(found):
        message = f"The database is at the migration {found}, which a newer version has made."
        yield _failed("migrations", message, "Use that version, or another database.")
        return
    message = f"The database is at the migration {found or 'none'}, and this version needs {head}."
    if settings.migrates:
        yield _warning("migrations", message, "`troupe serve` applies the migrations.")
    else:
        yield _failed("migrations", message, "Back it up, then run `troupe migrate`.")


async def _revision(connection: Any) -> str | None:
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    return revision


async def check_rights(connection: Any) -> AsyncIterator[Finding]:
    """Whether the role may read and write all tables."""
    refused = [row[0] for row in await connection.fetch(REFUSED)]
    user = await connection.fetchval("SELECT quote_ident(current_user)")
    if refused:
        names = ", ".join(refused[:5]) + (" …" if len(refused) > 5 else "")
        advice = (
            "As the owner of the tables: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN"
            f" SCHEMA public TO {user}."
        )
        yield _failed("rights", f"{user} may not read and write {names}.", advice)
    else:
        yield _ok("rights", f"{user} may read and write all tables.")


async def check_clock(connection: Any) -> AsyncIterator[Finding]:
    """How far the clocks of this machine and of the database differ."""
    differences = []
    for _ in range(3):
        before = time.time()
        found = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        differences.append(found - (before + time.time()) / 2)
    seconds = min(differences, key=abs)
    message = f"The clock of the database differs by {seconds:+.3f} s from that of this machine."
    advice = "Synchronize both clocks by NTP: leases and tokens end by the database's."
    if abs(seconds) > CLOCK_FAILURE:
        yield _failed("clock", message, advice)
    elif abs(seconds) > CLOCK_WARNING:
        yield _warning("clock", message, advice)
    else:
        yield _ok("clock", message)


async def check_collation(connection: Any) -> AsyncIterator[Finding]:
    """The encoding, and whether the collations are of the version that indexes were made with."""
    encoding, made, actual, name = await connection.fetchrow(ENCODING)
    if encoding != "UTF8":
        advice = "Make a database with ENCODING 'UTF8' TEMPLATE template0, and restore a backup."
        yield _failed("collation", f"The encoding is {encoding}.", advice)
        return
    statements = []
    if made != actual:
        statements.append(f"ALTER DATABASE {name} REFRESH COLLATION VERSION")
    for (collation,) in await connection.fetch(COLLATIONS):
        statements.append(f"ALTER COLLATION {collation} REFRESH VERSION")
    if statements:
        advice = f"In a maintenance window: REINDEX DATABASE {name}; {'; '.join(statements)}."
        message = (
            "The operating system sorts text in another way than when indexes were made, so that"
            " they may miss rows."
        )
        yield _failed("collation", message, advice)
    else:
        yield _ok("collation", "The encoding is UTF8, and the collations are as indexes need them.")


async def check_transactions(connection: Any) -> AsyncIterator[Finding]:
    """How long the oldest transaction has been open: it keeps old versions of all rows."""
    found = await connection.fetchrow(TRANSACTIONS)
    seconds, name, end_it = found or (0.0, "", "")
    if (seconds or 0.0) <= OPEN_SECONDS:
        yield _ok("transactions", "No transaction that this role can see has been open for long.")
        return
    advice = (
        f"If it is not needed, as a superuser or its own role: {end_it}. Until it ends, nothing"
        " that was replaced since can be removed, so tables grow and statements take longer."
        " Let long reports and backups read from a replica."
    )
    message = f"A transaction ({name}) has been open for {seconds / 60:.0f} minutes."
    yield _warning("transactions", message, advice)


async def check_pooler(connection: Any, database: Database, url: str) -> AsyncIterator[Finding]:
    """Whether the URL with a pooler leads to the same database as the one without."""
    try:
        (found,) = await database.fetch(IDENTITY, [])
        ((is_standby,),) = await database.fetch("SELECT pg_is_in_recovery()", [])
    except Exception as error:
        message = f"PostgreSQL cannot be reached at {shown(url)} ({reason(error)})."
        yield _failed("pooler", message, "Check TROUPE_DATABASE_URL, and that the pooler runs.")
        return
    if found != await connection.fetchrow(IDENTITY):
        message = "TROUPE_DATABASE_DIRECT_URL leads to another database than TROUPE_DATABASE_URL."
        yield _failed("pooler", message, "Correct one of them.")
    elif is_standby:
        message = "TROUPE_DATABASE_URL leads to a standby, which takes no writes."
        yield _failed("pooler", message, "Let the pooler lead to the primary.")
    else:
        message = "Both URLs lead to the same database; the direct one keeps its session."
        yield _ok("pooler", message)


async def check_replica(connection: Any, url: str) -> AsyncIterator[Finding]:
    """Whether a replica is one of this database, and how fast it shows what is written."""
    database = Database(url)
    try:
        replica = await database.open()
    except Exception as error:
        advice = "Check TROUPE_DATABASE_REPLICA_URL. Until then, queries are read from the primary."
        message = f"The replica cannot be reached at {shown(url)} ({reason(error)})."
        yield _warning("replica", message, advice)
        return
    try:
        yield await _replication(connection, replica)
    finally:
        replica.terminate()
        await database.dispose()


async def _replication(connection: Any, replica: Any) -> Finding:
    if await connection.fetchrow(IDENTITY) != await replica.fetchrow(IDENTITY):
        advice = "Name a replica of TROUPE_DATABASE_URL: queries may show other data."
        return _failed("replica", "It is a replica of another database.", advice)
    is_replica, streams, is_paused = await replica.fetchrow(REPLICATION)
    on_primary = "Until then, queries are read from the primary."
    if not is_replica:
        advice = f"Name a replica in TROUPE_DATABASE_REPLICA_URL. {on_primary}"
        return _warning("replica", "It takes writes itself, so it is no replica.", advice)
    if is_paused:
        advice = f"Run SELECT pg_wal_replay_resume() there. {on_primary}"
        return _warning("replica", "It replays nothing, because that is paused.", advice)
    began = time.monotonic()
    ((place,),) = await connection.fetch(WRITTEN)
    while (await replica.fetchval(REPLAYED) or 0) < place:
        if time.monotonic() - began > LAG_SECONDS:
            what = "It is more than" if streams else "It receives nothing, and is more than"
            advice = f"See its log, and pg_stat_replication on the primary. {on_primary}"
            return _warning("replica", f"{what} {LAG_SECONDS:.0f} s behind.", advice)
        await asyncio.sleep(0.01)
    took = 1000 * (time.monotonic() - began)
    text = f"It shows what is written after {took:.0f} ms."
    if not streams:
        advice = "Set primary_conninfo there, so that it need not wait for archived files."
        return _warning("replica", f"{text} It does not stream.", advice)
    return _ok("replica", text)


async def check_listening(database: Database) -> AsyncIterator[Finding]:
    """Whether a notification arrives, by which events are followed."""
    channel = f"doctor_{secrets.token_hex(8)}"
    arrived = asyncio.Event()
    listening = await database.open()
    began = time.monotonic()
    try:
        await listening.add_listener(channel, lambda *_: arrived.set())
        sending = await database.open()
        try:
            await sending.execute(f"NOTIFY {channel}")
        finally:
            await sending.close()
        async with asyncio.timeout(NOTIFY_SECONDS):
            await arrived.wait()
    except TimeoutError:
        advice = "Name PostgreSQL itself in TROUPE_DATABASE_DIRECT_URL, without a pooler."
        yield _failed("notifications", "A notification did not arrive.", advice)
    else:
        took = 1000 * (time.monotonic() - began)
        yield _ok("notifications", f"A notification arrived after {took:.0f} ms.")
    finally:
        listening.terminate()


async def check_connections(
    connection: Any, database: Database, *, is_direct: bool
) -> AsyncIterator[Finding]:
    """Whether the server allows as many connections as a process may open.

    If there is a direct URL, the pools may lead to a pooler, which has a limit of its own.
    """
    if is_direct and await _is_pooled(database):
        needed, which = OTHER_CONNECTIONS, " besides those to the pooler"
    else:
        needed = sum(use.size for use in database.pools().values()) + OTHER_CONNECTIONS
        which = ""
    of_server, of_role, of_database, used = await connection.fetchrow(CONNECTIONS)
    allowed = min(each for each in (of_server, of_role, of_database) if each >= 0)
    message = (
        f"A process may open {needed} connections{which}; the server allows {allowed}, and {used}"
        " are open now."
    )
    if allowed < needed:
        advice = (
            f"Set max_connections (ALTER SYSTEM) and the limits of the role and of the database to"
            f" {needed} or more for each process of Troupe."
        )
        yield _failed("connections", message, advice)
    elif allowed - used < needed:
        advice = f"Raise max_connections to {used + needed} or more before you start another one."
        yield _warning("connections", message, advice)
    else:
        yield _ok("connections", message)


async def _is_pooled(database: Database) -> bool:
    """Whether the pools of a process lead through a pooler, or to none that can be reached."""
    try:
        async with database.reader.connect() as connection:
            raw: Any = await connection.get_raw_connection()
            is_pooled: bool = raw.driver_connection.is_pooled
    except Exception:  # `check_pooler` says why.
        return True
    return is_pooled


# All of them


async def examine_database(
    url: str, server: Server | None, settings: Settings
) -> AsyncIterator[Finding]:
    """All findings about a database."""
    direct, replica = settings.database_direct_url, settings.database_replica_url
    setting = "TROUPE_DATABASE_URL" if direct is None else "TROUPE_DATABASE_DIRECT_URL"
    database = Database(url, direct_url=direct)
    try:
        try:
            connection = await database.open()
        except SharedSession as error:
            advice = "Without it, events get no positions, and nobody is told of changes."
            yield _failed("pooler", f"{error}.", advice)
            return
        except Exception as error:
            advice = f"Check {setting}, and that the server is running."
            where = shown(direct or url)
            message = f"PostgreSQL cannot be reached at {where} ({reason(error)})."
            yield _failed("database", message, advice)
            return
        try:
            for name, findings in (
                ("database", check_server(connection, setting)),
                ("migrations", check_migrations(connection, settings)),
                ("rights", check_rights(connection)),
                ("clock", check_clock(connection)),
                ("collation", check_collation(connection)),
                ("transactions", check_transactions(connection)),
                (
                    "connections",
                    check_connections(connection, database, is_direct=direct is not None),
                ),
                ("notifications", check_listening(database)),
                *([] if direct is None else [("pooler", check_pooler(connection, database, url))]),
                *([] if replica is None else [("replica", check_replica(connection, replica))]),
            ):
                try:
                    async for finding in findings:
                        yield finding
                except DRIVER_ERRORS as error:
                    advice = "Mend what the other findings say, and run it again."
                    yield _failed(name, f"It cannot be checked: {reason(error)}.", advice)
            size = await connection.fetchval("SELECT pg_database_size(current_database())")
        finally:
            await connection.close()
        for finding in check_space(server, size):
            yield finding
    finally:
        await database.dispose()


def examine(database_of: Callable[[Settings], Settings]) -> Iterator[Finding]:
    """All findings. `database_of` completes the settings by the database that is meant.

    It raises SettingsError if that is not clear.
    """
    yield from check_versions()
    try:
        settings = Settings.load()
    except SettingsError as error:
        for line in str(error).splitlines():
            yield _failed("settings", line, "`troupe settings` prints all settings.")
        return
    yield from check_settings(settings)

    async def all_of(url: str, server: Server | None) -> list[Finding]:
        return [finding async for finding in examine_database(url, server, settings)]

    try:
        settings = database_of(settings)
        if settings.database_url is None and not has_database(settings.data_dir):
            advice = "`troupe serve` makes it, if no server is to be used."
            yield _warning("database", "There is no database yet.", advice)
            return
        with settings.database(on_wait=lambda _: None) as (url, server):
            yield from asyncio.run(all_of(url, server))
    except SettingsError as error:
        advice = "Set TROUPE_DATABASE_URL or TROUPE_DATA_DIR."
        yield _failed("database", str(error), advice)
    except EmbeddedError as error:
        advice = "See postgres.log in the folder of the data."
        yield _failed("database", str(error), advice)


def run(database_of: Callable[[Settings], Settings], *, as_json: bool) -> int:
    """Print all findings, and return the exit status: 1 if a check has failed."""
    findings = list(examine(database_of))
    has_failed = any(finding.status is Status.FAILED for finding in findings)
    if as_json:
        report = {"ok": not has_failed, "checks": [asdict(finding) for finding in findings]}
        sys.stdout.write(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        for finding in findings:
            sys.stdout.write(f"{finding.status.upper():8} {finding.check}: {finding.message}\n")
            if finding.advice:
                sys.stdout.write(f"{'':9}{finding.advice}\n")
    return int(has_failed)
