"""The command `troupe`. Each command works whether or not a server is running."""

from __future__ import annotations

import os
import sys
from importlib import metadata

import typer
from sqlalchemy.exc import DataError, DBAPIError

import db.migrate
from db.connections import is_disk_full, reason
from db.embedded import EmbeddedError
from db.errors import DomainError, Rejected
from db.imports import NotImportable
from db.settings import SettingsError
from graph.cli import events, imports, programs, schema, serving, tokens, users
from graph.cli.errors import CommandError

# The server and the schema take long to import, so only the commands that need them import them.

app = typer.Typer(
    help="A GraphQL server over PostgreSQL, for the shared data of a team of AI agents.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for commands in (serving, schema, programs):
    app.add_typer(commands.app)
for name, commands in (
    ("import", imports),
    ("users", users),
    ("tokens", tokens),
    ("events", events),
):
    app.add_typer(commands.app, name=name)

EXPECTED_ERRORS = (
    CommandError,
    DomainError,
    EmbeddedError,
    NotImportable,
    db.migrate.NotMigratable,
    db.OutcomeUnknown,
    SettingsError,
)


def main() -> None:
    """Run the command line. An error is a message on standard error, and exit status 1."""
    if sys.getfilesystemencoding() != "utf-8":
        # Arguments, files and output are UTF-8 in every locale. Python can enable its UTF-8 mode
        # only when it starts.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        print(f"troupe: {error_message(error)}", file=sys.stderr)
        sys.exit(1)


def error_message(error: Exception) -> str:
    """The message for an error: sentences for the user, without a traceback."""
    if isinstance(error, Rejected):
        return " ".join(each.message for each in error.errors)
    if isinstance(error, EXPECTED_ERRORS):
        return str(error).rstrip(".") + "."
    if is_disk_full(error):
        return "The disk of the database is full; nothing was stored. Free some space and retry."
    if isinstance(error, DataError):
        return "The database rejected a value: it is too long or has the wrong type."
    if isinstance(error, DBAPIError | OSError):
        return (
            f"The database cannot be used ({reason(error)})."
            " Check TROUPE_DATABASE_URL and that the server is running."
        )
    return (
        f"Unexpected error: {type(error).__name__}: {error}. Please report it with the traceback,"
        " which `python -X dev -m graph …` prints."
    )


def _version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"troupe {metadata.version('troupe')}")
        raise typer.Exit


@app.callback()
def troupe(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """The options of `troupe` itself."""
