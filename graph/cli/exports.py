"""`troupe export`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from graph.cli.database import with_database

if TYPE_CHECKING:
    from db import Database

app = typer.Typer()


@app.command("export")
def export(
    project: str = typer.Argument(metavar="PROJECT", help="The id or the name of the project."),
    file: Path = typer.Argument(metavar="FILE", help="The file to write."),
) -> None:
    """Write a project to a file, which `troupe import` reads.

    The file has its plan, conversations, usage and history.
    """

    async def work(database: Database) -> Counter[str]:
        from db.exports import export_project

        return await export_project(database, project, file)

    counts = with_database(work)
    named = {"tasks": "tasks", "conversations": "conversations", "messages": "messages"}
    named |= {"usage_records": "records of usage", "events": "events"}
    words = ", ".join(f"{counts[table]:,} {word}" for table, word in named.items())
    print(f"Exported {words}.")
