"""The schema: of the database, and of the API."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from graph.cli.database import with_database

if TYPE_CHECKING:
    from db import Database

app = typer.Typer()


@app.command()
def migrate() -> None:
    """Apply all migrations to the database."""

    async def revision(database: Database) -> str | None:
        return (await database.readiness())[0]

    print(
        f"The database is at the migration {with_database(revision, upgrade=True, creates=True)}."
    )


@app.command()
def schema() -> None:
    """Print the schema of the API."""
    from graph.schema import printed

    sys.stdout.write(printed())


@app.command("diagram")
def print_diagram() -> None:
    """Print a diagram of the entities, in the language of Mermaid."""
    from db import diagram

    sys.stdout.write(diagram.diagram())
