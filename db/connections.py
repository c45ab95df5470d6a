"""Connections to PostgreSQL: its URL, how one is opened, and when one has to be replaced."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import Any

import asyncpg
from sqlalchemy import URL, make_url

from db.poolers import Connection

log = logging.getLogger("troupe")

# Rules and answers depend on these settings. Each connection sets them, because the server, the
# database and the role may have other defaults (ALTER SYSTEM, ALTER DATABASE, ALTER ROLE).
SETTINGS = {
    # After waiting for a lock, a statement has to see what the other transaction has committed.
    "default_transaction_isolation": "read committed",
    "standard_conforming_strings": "on",
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    # A search returns all rows that it finds, not a random subset.
    "gin_fuzzy_search_limit": "0",
    # Compiling takes longer than it saves for statements of a few milliseconds.
    "jit": "off",
    # The pool keeps idle connections.
    "idle_session_timeout": "0",
}

# Settings that exist only from this major version on.
NEWER_SETTINGS = {17: {"transaction_timeout": "0"}}

# How long it may take to find out whether a connection keeps its session, in seconds.
COMPARED_WITHIN = 10

# PostgreSQL's code for a full disk.
DISK_FULL = "53100"

# The bases of all exceptions of asyncpg.
DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

OUTCOME_UNKNOWN = (
    "The connection to the database was lost during the commit, so it is not known whether the"
    " change was stored. Check before you try again."
)

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


class Behind(RuntimeError):
    """A replica does not yet show what a read has to see."""


class OutcomeUnknown(RuntimeError):
    """PostgreSQL did not confirm a commit: the transaction may be committed or not."""


def database_url(url: URL | str) -> URL:
    """The URL for asyncpg, whichever driver it names. libpq's `sslmode` becomes `ssl`.

    Raises ValueError for parameters that are not supported.
    """
    url = make_url(url).set(drivername="postgresql+asyncpg")
    query = {"ssl" if name == "sslmode" else name: value for name, value in url.query.items()}
    if query.get("ssl", SSL_MODES[0]) not in SSL_MODES:
        raise ValueError(f"sslmode is one of {', '.join(SSL_MODES)}")
    unknown = query.keys() - {"host", "port", "ssl"}
    if unknown:
        raise ValueError(f"the parameter {min(unknown)} is not understood; leave it out")
    return url.set(query=query)


def shown(url: URL | str) -> str:
    """The URL without its password, for messages. No parameter has one: see `database_url`."""
    return make_url(url).render_as_string(hide_password=True)


async def connect(settings: dict[str, str], **options: Any) -> Any:
    """A connection with these settings, in addition to those above. The options are the driver's.

    They are set by a statement, because poolers such as PgBouncer refuse or ignore most settings
    of the startup packet.
    """
    connection: Any = await asyncpg.connect(**{"connection_class": Connection, **options})
    pinned = SETTINGS | settings
    for version, newer in NEWER_SETTINGS.items():
        if connection.get_server_version().major >= version:
            pinned = newer | pinned
    try:
        async with asyncio.timeout(options.get("timeout")):
            await connection.pin(pinned)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def connect_alone(settings: dict[str, str], **options: Any) -> Any:
    """The same for a connection that has to keep its session. Raises SharedSession."""
    connection = await connect(settings, **options)
    if connection.is_pooled:
        try:
            another = await connect(settings, **options)
            try:
                async with asyncio.timeout(COMPARED_WITHIN):
                    await connection.keep_session(another)
            finally:
                another.terminate()
        except BaseException:
            connection.terminate()
            raise
    return connection


def driver_error(error: BaseException | None) -> BaseException | None:
    """The driver's error among an error and its causes; SQLAlchemy wraps it twice."""
    while error is not None and not isinstance(error, DRIVER_ERRORS):
        error = error.__cause__
    return error


def is_refusal(error: BaseException | None) -> bool:
    """Whether PostgreSQL has refused a statement, and the connection is in order.

    A pooler reports the end of its own connection to PostgreSQL as an error of the connection.
    """
    found = driver_error(error)
    return isinstance(found, asyncpg.PostgresError) and not isinstance(
        found, asyncpg.PostgresConnectionError
    )


def is_outdated(error: BaseException | None) -> bool:
    """Whether a prepared statement is outdated, because its tables were changed since."""
    return isinstance(
        driver_error(error), asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError
    )


def is_read_only(error: BaseException | None) -> bool:
    """Whether a connection takes no writes: its server is a standby or set to read-only."""
    return isinstance(driver_error(error), asyncpg.ReadOnlySQLTransactionError)


def is_disk_full(error: BaseException) -> bool:
    """Whether PostgreSQL could not write because its disk is full."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) == DISK_FULL


def reason(error: BaseException) -> str:
    """Why the database cannot be used, in one line for those who run the server."""
    lines = str(getattr(error, "orig", None) or error).splitlines()
    return lines[0].rstrip(".") if lines else "it does not answer"


class Generations:
    """Counts how often all connections were replaced: those of older generations are closed."""

    def __init__(self) -> None:
        self.current = 0
        self._replaced_at = -math.inf

    def replace(self, generation: int, why: str, *, seconds: float = 0) -> bool:
        """Start a new generation because a connection of `generation` has to be replaced.

        Does nothing if there is a newer generation already, or if the last one was started less
        than `seconds` ago. Returns whether the next connection is of a newer generation.
        """
        now = time.monotonic()
        if generation == self.current and now - self._replaced_at >= seconds:
            self.current += 1
            self._replaced_at = now
            log.warning("all connections to the database are replaced: %s", why)
        return generation != self.current
