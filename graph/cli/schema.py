"""The schema: of the database, and of the API."""

from __future__ import annotations

import sys

import typer

import db.diagram
from db import Database
from graph.cli.database import with_database
from graph.settings import table

app = typer.Typer()


@app.command()
def migrate() -> None:
    """Apply all migrations to the database."""

    async def revision(database: Database) -> str | None:
        return (await database.readiness())[0]

    print(f"The database is at the migration {with_database(revision, upgrade=True)}.")


@app.command()
def schema() -> None:
    """Print the schema of the API."""
    from graph.schema import printed

    sys.stdout.write(printed())


@app.command()
def settings() -> None:
    """Print all settings with their defaults and meanings."""
    sys.stdout.write(table())


@app.command()
def diagram() -> None:
    """Print the entities and their relationships as a Mermaid diagram."""
    sys.stdout.write(db.diagram.diagram())
