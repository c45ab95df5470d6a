"""The database that a command works on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import db.migrate
from db import Database, Viewer, WriteSession, access, constraints
from graph.settings import Settings

Result = TypeVar("Result")

ADMINISTRATOR = Viewer(is_administrator=True)


def print_note(message: str) -> None:
    """Print a message on standard error."""
    print(f"troupe: {message}", file=sys.stderr)


@asynccontextmanager
async def prepared(url: str, *, upgrade: bool) -> AsyncIterator[Database]:
    """The database at the migration of this version, with its first administrator.

    In production, only `troupe migrate` upgrades it, so that it can be backed up first.
    """
    await db.migrate.refuse_unsuitable(url)
    if upgrade:
        await db.migrate.upgrade(url)
    else:
        await db.migrate.refuse_unless_at_head(url)
    database = Database(url)
    try:
        async with database.write(ADMINISTRATOR) as session:
            await access.administrator(session)
        yield database
    finally:
        await database.dispose()


def with_database(
    work: Callable[[Database], Awaitable[Result]], *, upgrade: bool | None = None
) -> Result:
    """Run `work` on the database of the settings."""
    settings = Settings.load()

    async def run(url: str) -> Result:
        async with prepared(url, upgrade=upgrade or settings.migrates) as database:
            return await work(database)

    with settings.database(on_wait=print_note) as (url, _):
        return asyncio.run(run(url))


def in_transaction(work: Callable[[WriteSession], Awaitable[Result]]) -> Result:
    """Run `work` in one transaction, as an administrator."""

    async def run(database: Database) -> Result:
        with constraints.reported():
            async with database.write(ADMINISTRATOR) as session:
                return await work(session)

    return with_database(run)
