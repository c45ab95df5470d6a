"""Alembic's environment: it uses the connection of `db.migrate`.

The command `alembic …` uses the database that `troupe` uses.
"""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrationScript
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from db import Base, migrate
from db.base import Composed, Name, Timestamp


def render_item(kind: str, item: Any, autogenerate: AutogenContext) -> str | Literal[False]:
    """Render a type in a draft. Migrations use only SQLAlchemy's types, which do not change."""
    if kind == "type" and isinstance(item, Timestamp):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Name | Composed):
        return f"sa.String(length={item.length})"
    return False


def number(_: MigrationContext, head: Any, drafted: list[MigrationScript]) -> None:
    """Number a draft, unless `--rev-id` names it."""
    if not getattr(context.config.cmd_opts, "rev_id", None):
        drafted[0].rev_id = f"{int(migrate.head() or 0) + 1:04d}"


def run(connection: Connection) -> None:
    """Run the migrations, each in a transaction of its own."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transaction_per_migration=True,
        render_item=render_item,
        process_revision_directives=number,
        **migrate.COMPARISON,
    )
    with context.begin_transaction():
        context.run_migrations()


connection = context.config.attributes.get("connection")
if connection is not None:
    run(connection)
else:  # called as `alembic …`
    migrate.run_for_alembic(run)
