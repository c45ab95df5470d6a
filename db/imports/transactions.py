"""The transactions of imports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from db.engine import Database
from db.scopes import Viewer
from db.sessions import WriteSession


class _RolledBack(Exception):
    """Ends the transaction of a dry run."""


@asynccontextmanager
async def writing(database: Database, *, is_preview: bool) -> AsyncIterator[WriteSession]:
    """A transaction for an import, which is rolled back if it is a dry run."""
    try:
        async with database.write(Viewer(is_administrator=True)) as session:
            # A large part may take longer than a request may, and imports wait for each other.
            await session.execute(text("SET LOCAL statement_timeout = 0"))
            await session.execute(text("SET LOCAL lock_timeout = '10min'"))
            yield session
            if is_preview:
                raise _RolledBack
    except _RolledBack:
        pass
