"""Migrations: they bring a database to the schema of the code, in one process at a time."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, pool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from db.connections import connect, connect_alone, database_url, reason, shown
from db.embedded import EmbeddedError
from db.events import autogenerate
from db.settings import DatabaseSettings, SettingsError

# The key of the advisory lock, which no other application is likely to use ("troupe", as bytes).
ADVISORY_LOCK = int.from_bytes(b"troupe")


COMPARISON: dict[str, Any] = {
    "compare_server_default": True,
    "include_name": autogenerate.include_name,
}
"""The options with which Alembic compares a database with the models."""

OLDEST_SERVER = 15
"""The oldest major version of PostgreSQL that Troupe supports."""


class NotMigratable(Exception):
    """The database cannot be migrated; the message says why and what to do."""


NO_COLLATION = (
    "PostgreSQL has no collation here that knows the case of letters beyond ASCII. Use PostgreSQL"
    " 17 or later, or one that is built with ICU."
)


RENUMBER = (
    "Give one of the two the next number, in the name of its file and as its `revision`, and name"
    " the other one as its `down_revision`."
)


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, for a connection.

    `alembic.ini` is only for `alembic …` typed by hand: an installed wheel does not have it.
    """
    configuration = Config(attributes={"connection": connection})
    folder = str(files("migrations"))
    # Alembic reads the option through configparser, to which a percent sign is a reference.
    configuration.set_main_option("script_location", folder.replace("%", "%%"))
    return configuration


def _scripts() -> ScriptDirectory:
    """The migrations of the code. Raises NotMigratable if they do not form one line."""
    scripts = ScriptDirectory.from_config(config())
    try:
        with warnings.catch_warnings():
            # Alembic only warns of two migrations with one number, and then runs one of them.
            warnings.simplefilter("error", UserWarning)
            heads = scripts.get_heads()
    except UserWarning as error:
        raise NotMigratable(f"{error} in {scripts.versions}. {RENUMBER}") from None
    if len(heads) > 1:
        raise NotMigratable(
            f"No migration follows {' and none follows '.join(sorted(heads))}, so it is not known"
            f" which of them is the newest. {RENUMBER}"
        )
    return scripts


def head() -> str | None:
    """The newest migration of the code. Raises NotMigratable if there are several."""
    return _scripts().get_current_head()


def current(connection: Connection) -> str | None:
    """The migration that the database is at; None if it is empty."""
    return MigrationContext.configure(connection).get_current_revision()


@asynccontextmanager
async def _connection(
    url: URL | str, how: Callable[..., Awaitable[Any]] = connect
) -> AsyncIterator[AsyncConnection]:
    """A connection without the timeouts of the server, because a migration may take long."""
    timeouts = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    opened = partial(how, dict.fromkeys(timeouts, "0"))
    # A pooler may run each transaction in another session, so none can keep statements.
    arguments = {"async_creator_fn": opened, "prepared_statement_cache_size": 0}
    engine = create_async_engine(database_url(url), poolclass=pool.NullPool, connect_args=arguments)
    # Without a pool, the connection is closed at the end of the block.
    async with engine.connect() as connection:
        yield connection


async def locked(url: URL | str, work: Callable[[Connection], Any]) -> Any:
    """Run work that changes the schema, while no other process does.

    A statement that waits longer than ten seconds for a table fails, because the queries of a busy
    server wait behind it. Raises SharedSession behind a pooler that shares sessions.
    """
    async with _connection(url, connect_alone) as connection:
        # The lock is released with the session. The wait has no limit, because the process that
        # holds the lock is migrating and will end.
        await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
        await connection.execute(text("SET lock_timeout = '10s'"))
        await connection.commit()
        return await connection.run_sync(work)


async def _on(url: URL | str, work: Callable[[Connection], Any]) -> Any:
    async with _connection(url) as connection:
        return await connection.run_sync(work)


async def refuse_unsuitable(url: URL | str) -> None:
    """Raise NotMigratable if the server cannot be reached, or is too old."""

    def work(connection: Connection) -> int:
        return int(connection.scalar(text("SHOW server_version_num"))) // 10_000

    try:
        version = await _on(url, work)
    except (OSError, DBAPIError) as error:
        raise NotMigratable(
            f"PostgreSQL cannot be reached at {shown(url)} ({reason(error)})."
            " Check TROUPE_DATABASE_URL and that the server is running."
        ) from error
    if version < OLDEST_SERVER:
        raise NotMigratable(
            f"The server at {shown(url)} is PostgreSQL {version};"
            f" Troupe needs {OLDEST_SERVER} or later."
        )


def is_known(revision: str | None) -> bool:
    """Whether this version has the migration that a database is at; not if newer code made it."""
    known = {each.revision for each in _scripts().walk_revisions()}
    return revision is None or revision in known


def _refuse_newer(revision: str | None) -> None:
    if not is_known(revision):
        raise NotMigratable(
            f"The database is at the migration {revision}, which this version of Troupe does not"
            " know: a newer version was used on it. Use that version, or another database."
        )


async def refuse_unless_at_head(url: URL | str) -> None:
    """Raise NotMigratable if the database is not at the newest migration."""
    revision = await _on(url, current)
    _refuse_newer(revision)
    if revision != head():
        raise NotMigratable(
            f"The database is at the migration {revision or 'none'}, and this version of Troupe"
            f" needs {head()}: back it up, then run `troupe migrate`."
        )


async def upgrade(url: URL | str, revision: str = "head") -> bool:
    """Bring the database to a migration. Returns whether any was run.

    Raises NotMigratable for a database that newer code has migrated.
    """

    def work(connection: Connection) -> bool:
        before = current(connection)
        _refuse_newer(before)
        connection.rollback()
        command.upgrade(config(connection), revision)
        return current(connection) != before

    return bool(await locked(url, work))


async def downgrade(url: URL | str, revision: str) -> None:
    """Take the database back to an older migration; `base` removes all tables."""
    await locked(url, lambda connection: command.downgrade(config(connection), revision))


def run_for_alembic(work: Callable[[Connection], Any]) -> None:
    """Run work for the command `alembic …`, on the database that `troupe` uses.

    Errors become Alembic's CommandError, which it prints as a sentence.
    """

    async def run(url: str) -> None:
        await refuse_unsuitable(url)
        await locked(url, work)

    try:
        with DatabaseSettings.load().database() as (url, _):
            asyncio.run(run(url))
    except (EmbeddedError, NotMigratable, SettingsError) as error:
        raise CommandError(str(error)) from error
    except (OSError, DBAPIError) as error:
        raise CommandError(f"The database refused or went away: {reason(error)}.") from error
