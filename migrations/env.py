"""How Alembic reaches the database: over the connection that `db.migrate` hands it."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from db import Base, migrate
from db.base import Name, Timestamp


def render_item(kind: str, item: Any, autogenerate: AutogenContext) -> str | Literal[False]:
    """A migration must not change when the code does: it names SQLAlchemy's own types only."""
    if kind == "type" and isinstance(item, Timestamp):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Name):
        return f"sa.String(length={item.length})"
    return False


def run(connection: Connection) -> None:
    """Run the migrations, each in a transaction of its own."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transaction_per_migration=True,
        compare_server_default=True,
        render_item=render_item,
    )
    with context.begin_transaction():
        context.run_migrations()


connection = context.config.attributes.get("connection")
if connection is not None:
    run(connection)
else:  # called as `alembic …`, by someone who writes a migration
    asyncio.run(migrate.locked(os.environ["TROUPE_DATABASE_URL"], run))
