"""`troupe doctor`."""

from __future__ import annotations

import typer

from graph.cli.lists import AsJSON

app = typer.Typer()


@app.command()
def doctor(as_json: AsJSON = False) -> None:
    """Check the settings, the versions and the database, and say what to do; 1 if a check fails."""
    from graph import doctor

    raise typer.Exit(doctor.run(as_json=as_json))
