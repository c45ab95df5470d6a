"""PostgreSQL's own programs on the database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import typer

from graph.cli.database import running_database
from graph.cli.errors import CommandError

app = typer.Typer()


def run_program(context: typer.Context) -> None:
    """Run the program of PostgreSQL that has the command's name, and exit with its status."""
    from sqlalchemy import make_url

    name, arguments = context.command.name or "", context.args
    if name == "pg_restore":
        # Without --dbname, it would print the backup. PGDATABASE names the database.
        arguments = ["--dbname=", *arguments]
    with running_database(creates=name == "pg_restore") as (database_url, server, _):
        url = make_url(database_url)
        program = name if server is None else str(server.bin_dir / name)
        parts = {key: url.query.get(key) for key in ("host", "port", "sslmode")}
        parts |= url.translate_connect_args(username="user")
        variables = {f"PG{key.upper()}": str(value) for key, value in parts.items() if value}
        if name == "psql":  # in which Ctrl-C cancels a query
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            status = subprocess.run([program, *arguments], env=os.environ | variables).returncode
        except FileNotFoundError:
            raise CommandError(
                f"{name} is not installed (Debian and Ubuntu: apt-get install postgresql-client)"
            ) from None
    sys.exit(status)


for name, purpose in (
    ("psql", "Run psql on the database."),
    ("pg_dump", "Back up the database with pg_dump."),
    ("pg_restore", "Restore a backup into an empty database."),
):
    app.command(
        name,
        help=f"{purpose} Further arguments are those of {name}.",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(run_program)
