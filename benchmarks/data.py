"""The data of all contenders: generated in PostgreSQL by `data.sql`, the same each time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
from sqlalchemy import URL, make_url

from db import access, migrate

SQL = Path(__file__).with_name("data.sql")

# The numbers of the kinds of objects, from which data.sql makes ids.
USER, PROJECT, TASK, CONVERSATION = 1, 2, 4, 5


@dataclass(frozen=True)
class Size:
    """The number of rows of each kind."""

    projects: int
    agents: int
    tasks: int
    messages: int


SMALL = Size(projects=1_000, agents=10_000, tasks=50_000, messages=50_000)
LARGE = Size(projects=1_000, agents=10_000, tasks=1_000_000, messages=1_000_000)


def row_id(kind: int, number: int) -> UUID:
    """The id of a row, as data.sql makes it."""
    return UUID(f"{1767225600000 + number:012x}7{kind:03x}8{number:015x}")


def moment(number: int) -> datetime:
    """The creation time of a row, as in data.sql."""
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)


MEMBER = row_id(USER, 1)
"""The viewer: a member of every tenth project."""
TOKEN = "troupe_of-a-member-of-every-tenth-project"
EVERYWHERE = row_id(USER, 2)
"""A member of all projects, for queries that need more rows than the other may see."""
EVERYWHERE_TOKEN = "troupe_of-a-member-of-all-projects"


def dsn(url: URL | str) -> str:
    """The URL of a database in the form of PostgreSQL's programs and drivers."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@asynccontextmanager
async def connected(
    url: URL | str, settings: dict[str, str] | None = None
) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database, with these settings of PostgreSQL."""
    connection = await asyncpg.connect(dsn(url), server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


async def load(url: URL | str, size: Size) -> None:
    """Migrate an empty database to the head, and insert the data."""
    await migrate.upgrade(url)
    async with connected(url) as connection:
        for name, number in vars(size).items():
            await connection.execute(f"SET benchmark.{name} = {number:d}")
        await connection.execute(SQL.read_text(encoding="utf-8"))
        for user, token in ((MEMBER, TOKEN), (EVERYWHERE, EVERYWHERE_TOKEN)):
            await connection.execute(
                "INSERT INTO access_tokens (name, prefix, token_hash, user_id)"
                " VALUES ('benchmark', left($1, 12), $2, $3)",
                token,
                access.hash_token(token),
                user,
            )
        await connection.execute("VACUUM ANALYZE")


DELETED = (
    # Without triggers, which would do more, and log what they do.
    "SET LOCAL session_replication_role = replica",
    # The data has none of these, and its last times are in January.
    "DELETE FROM idempotency_keys",
    "DELETE FROM task_dependencies",
    "DELETE FROM usage_records",
    "DELETE FROM usage_totals",
    "DELETE FROM tasks WHERE created_at > '2026-02-01'",
    "DELETE FROM messages WHERE created_at > '2026-02-01'",
)


async def clean(connection: asyncpg.Connection) -> None:
    """Delete the rows that writes have made, so that the next turn has as many as this one."""
    async with connection.transaction():
        for statement in DELETED:
            await connection.execute(statement)
    # Not in parallel: processes that end would add their processor time to that of a turn.
    await connection.execute(
        "VACUUM (PARALLEL 0) task_dependencies, usage_records, usage_totals, tasks, messages,"
        " conversations, idempotency_keys"
    )


async def disable_triggers(url: URL | str) -> None:
    """Disable Troupe's triggers, for others than Troupe; the foreign keys stay."""
    async with connected(url) as connection:
        tables = await connection.fetch(
            "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"
        )
        for (table,) in tables:
            await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
