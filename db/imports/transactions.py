"""The transactions of imports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from sqlalchemy import text

from db.engine import Database
from db.scopes import SYSTEM
from db.sessions import WriteSession

Begin = Callable[[], AbstractAsyncContextManager[WriteSession]]
"""Begins a transaction of an import."""


class _RolledBack(Exception):
    """Ends the transaction of a dry run."""


@asynccontextmanager
async def writing(database: Database, *, is_preview: bool) -> AsyncIterator[WriteSession]:
    """A transaction for an import, which is rolled back if it is a dry run."""
    try:
        async with database.write(SYSTEM) as session:
            # A large part may take longer than a request may, and imports wait for each other.
            await session.execute(text("SET LOCAL statement_timeout = 0"))
            await session.execute(text("SET LOCAL lock_timeout = '10min'"))
            yield session
            if is_preview:
                raise _RolledBack
    except _RolledBack:
        pass


@asynccontextmanager
async def transactions(database: Database, *, is_preview: bool) -> AsyncIterator[Begin]:
    """The transactions of an import that has several.

    In a dry run they are one, so that each part finds what those before it would have added.
    """
    if not is_preview:
        yield lambda: writing(database, is_preview=False)
        return
    async with writing(database, is_preview=True) as session:
        # The file is read meanwhile.
        await session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '10min'"))
        yield lambda: nullcontext(session)
