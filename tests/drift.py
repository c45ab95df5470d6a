"""What is generated must agree with the code: `python -m tests.drift`, part of `make check`.

`schema.graphql` is the printed schema; what the documentation prints from the code is as the code
prints it; the migrations, run on an empty database, leave nothing that autogenerate would add.
"""

from __future__ import annotations

import asyncio
import difflib
import sys
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

import db
from db import migrate
from graph.schema import printed
from tests import pages
from tests.conftest import cluster

ROOT = Path(__file__).parents[1]


def schema_drift() -> list[str]:
    """How `schema.graphql` differs from the schema of the code."""
    return _differences("schema.graphql", printed())


def pages_drift() -> list[str]:
    """How the documentation differs from what the code prints into it."""
    return [line for page, text in pages.renewed().items() for line in _differences(page, text)]


def _differences(name: str, text: str) -> list[str]:
    kept, new = (ROOT / name).read_text(encoding="utf-8").splitlines(), text.splitlines()
    return list(difflib.unified_diff(kept, new, name, "code", lineterm="", n=1))


def migration_drift() -> list[str]:
    """What a database at the head of the migrations lacks, or has too much of."""

    def compare(connection: Connection) -> list[str]:
        context = MigrationContext.configure(connection, opts=migrate.COMPARISON)
        return [str(change) for change in compare_metadata(context, db.Base.metadata)]

    async def run(url: str) -> list[str]:
        await migrate.upgrade(url)
        found: list[str] = await migrate.locked(url, compare)
        return found

    with cluster() as url:
        return asyncio.run(run(str(url)))


def main() -> int:
    """Report every drift with what to do about it."""
    status = 0
    for found, remedy in (
        (schema_drift(), "Run `make schema` and review the change."),
        (pages_drift(), "Run `make docs`."),
        (migration_drift(), "Write a migration; CONTRIBUTING.md says how."),
    ):
        if found:
            status = 1
            sys.stdout.write("\n".join([*found[:40], remedy, ""]))
    return status


if __name__ == "__main__":
    sys.exit(main())
