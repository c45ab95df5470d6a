"""Expiry: rows whose time is over get another status, batch by batch."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Executable, select, update

from db.scopes import SYSTEM
from db.statements import Statement

if TYPE_CHECKING:
    from db.engine import Database

MOST_EXPIRED = 500
"""The largest number of rows that one statement expires."""


def expiring(model: Any, status: StrEnum, *due: ColumnElement[bool]) -> Executable:
    """Give a batch of the rows that meet these conditions a status. Returns their ids.

    Several processes may do this at once. A CTE, unlike a subquery with a limit, is certain to be
    run only once.
    """
    found = select(model.id).where(*due).limit(MOST_EXPIRED)
    free = found.with_for_update(key_share=True, skip_locked=True).cte("free")
    return update(model).where(model.id == free.c.id).values(status=status).returning(model.id)


async def expire_all(database: Database, statement: Statement) -> int:
    """Run a statement of `expiring` until no more rows are due; return how many it has changed.

    Each batch is a transaction of its own.
    """
    count, found = 0, MOST_EXPIRED
    while found == MOST_EXPIRED:
        async with database.write(SYSTEM) as session:
            found = len(await session.run(statement))
        count += found
    return count
