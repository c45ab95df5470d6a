"""`troupe settings`, and the names of settings that are mistyped."""

from __future__ import annotations

import os
import textwrap

import typer

from graph.cli.errors import CommandError
from graph.cli.lists import AsJSON
from graph.cli.output import print_json, print_note, print_table

app = typer.Typer()


@app.command("settings")
def show_settings(
    names: list[str] | None = typer.Argument(
        None, metavar="NAME", help="Only these settings, with their meanings."
    ),
    as_json: AsJSON = False,
) -> None:
    """Print the settings, their values, and where each comes from."""
    from graph.settings import Settings, present

    shown = {each["name"]: each for each in present(Settings.load())}
    if names:
        wanted = [_full_name(name) for name in names]
        for name in wanted:
            if name not in shown:
                raise CommandError(f"{name} is not a setting; `troupe settings` prints them all")
        shown = {name: shown[name] for name in wanted}
    if as_json:
        print_json(list(shown.values()))
        return
    if names:
        for each in shown.values():
            print(f"{each['name']}={_text(each['value'])} ({each['source']})")
            print(textwrap.indent(textwrap.fill(each["meaning"], 98), "  "))
        return
    rows = [[each["name"], _text(each["value"]), each["source"]] for each in shown.values()]
    print_table(("SETTING", "VALUE", "FROM"), rows)


def _full_name(name: str) -> str:
    name = name.upper().replace("-", "_")
    return name if name.startswith("TROUPE_") else f"TROUPE_{name}"


def _text(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else str(value)


def report_mistyped(command: str | None) -> None:
    """Name the variables of the environment that look like settings, but are none.

    Raises CommandError in production, where a default would take the place of what was meant,
    unless the command explains the settings itself.
    """
    if command == "doctor":  # which reports them with all that it finds
        return
    if not any(name.upper().startswith("TROUPE_") for name in os.environ):
        return
    from graph.settings import Mode, mistyped

    messages = mistyped(os.environ)
    is_needed = command != "settings"
    if messages and is_needed and os.environ.get("TROUPE_MODE") == Mode.PRODUCTION:
        raise CommandError("\n".join(messages))
    for message in messages:
        print_note(message)
