"""The command `troupe`. Each command works whether or not a server is running.

Each noun has a module, which imports the database, the schema and the server only when a command of
it runs: they take long to import, and the help needs none of them.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from importlib import metadata

import typer

from graph.cli import (
    answers,
    doctor,
    events,
    exports,
    imports,
    inbox,
    programs,
    projects,
    schema,
    serving,
    settings,
    tasks,
    tokens,
    usage,
    users,
)
from graph.cli.errors import error_message

app = typer.Typer(
    help="The shared state of a team of AI agents: serve it, manage it, and answer what waits.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for commands in (serving, schema, settings, doctor, programs, inbox, answers, usage, exports):
    app.add_typer(commands.app)
for name, commands in (
    ("import", imports),
    ("users", users),
    ("tokens", tokens),
    ("projects", projects),
    ("tasks", tasks),
    ("events", events),
):
    app.add_typer(commands.app, name=name)


def main() -> None:
    """Run the command line. An error is a message on standard error, and exit status 1."""
    if sys.getfilesystemencoding() != "utf-8":
        # Arguments, files and output are UTF-8 in every locale. Python can enable its UTF-8 mode
        # only when it starts.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    # Loading the code makes many objects, of which few are freed: collections only take time, also
    # that at the end of the process.
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        print(f"troupe: {error_message(error)}", file=sys.stderr)
        sys.exit(1)


def _version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"troupe {metadata.version('troupe')}")
        raise typer.Exit


@app.callback()
def troupe(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """The options of `troupe` itself."""
    settings.report_mistyped(context.invoked_subcommand)
