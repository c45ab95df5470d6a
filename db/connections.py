"""Connections to PostgreSQL: how one is opened, and by which errors one is no longer good."""

from __future__ import annotations

from typing import Any

import asyncpg

# What rules and answers depend on. Each connection sets it, because the server, the database and
# the role may have other defaults (ALTER SYSTEM, ALTER DATABASE, ALTER ROLE).
SETTINGS = {
    # After waiting for a lock, a statement has to see what the one before it has committed.
    "default_transaction_isolation": "read committed",
    "standard_conforming_strings": "on",
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    # A search returns all that it finds, not about as many as that.
    "gin_fuzzy_search_limit": "0",
    # For statements that take a few milliseconds, it takes longer than it saves.
    "jit": "off",
    # The pool keeps connections that nobody uses.
    "idle_session_timeout": "0",
}

# What is known only from this major version on.
NEWER_SETTINGS = {17: {"transaction_timeout": "0"}}


async def connect(settings: dict[str, str], **options: Any) -> Any:
    """A connection with these settings, in addition to those above. The options are the driver's.

    They are set by a statement: a pooler such as PgBouncer refuses, or is told to ignore, most of
    what is in the startup packet.
    """
    connection = await asyncpg.connect(**options)
    pinned = SETTINGS | settings
    for version, newer in NEWER_SETTINGS.items():
        if connection.get_server_version().major >= version:
            pinned = newer | pinned
    statement = "; ".join(f"SET {name} = '{value}'" for name, value in pinned.items())
    try:
        await connection.execute(statement, timeout=options.get("timeout"))
    except BaseException:
        connection.terminate()
        raise
    return connection


def driver_error(error: BaseException | None) -> BaseException | None:
    """The driver's error among an error and its causes; SQLAlchemy wraps it twice."""
    while error is not None and not type(error).__module__.startswith("asyncpg."):
        error = error.__cause__
    return error


def is_outdated(error: BaseException | None) -> bool:
    """Whether a connection has prepared a statement for tables that were changed since then."""
    return isinstance(
        driver_error(error), asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError
    )


def is_read_only(error: BaseException | None) -> bool:
    """Whether a connection takes no writes: its server is a standby, or is told to only read."""
    return isinstance(driver_error(error), asyncpg.ReadOnlySQLTransactionError)
