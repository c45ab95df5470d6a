"""`troupe doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from graph.cli.errors import CommandError
from graph.cli.lists import AsJSON

if TYPE_CHECKING:
    from graph.settings import Settings

app = typer.Typer()


@app.command()
def doctor(as_json: AsJSON = False) -> None:
    """Check the settings, the versions and the database.

    Each check that fails says what to do; the exit status is then 1.
    """
    from graph import doctor

    raise typer.Exit(doctor.run(_with_database, as_json=as_json))


def _with_database(settings: Settings) -> Settings:
    """The settings with the database that other commands would use. Raises SettingsError."""
    from db.settings import SettingsError
    from graph.cli.servers import with_database_of_running

    try:
        return with_database_of_running(settings)[0]
    except CommandError as error:
        raise SettingsError(str(error)) from None
